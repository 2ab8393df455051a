"""Our own .tflite files of any network: they come back identical, and no changed one is believed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import tflite

from edge_lstm.emit import tflite_file
from edge_lstm.emit.tflite_file import INT32, pack
from edge_lstm.emit.tflite_model import emit_tflite, file_spec
from edge_lstm.errors import EdgeLstmError, ModelError
from edge_lstm.graph import Stream
from edge_lstm.importers import metadata
from edge_lstm.importers.tflite_equal import same_content
from edge_lstm.importers.tflite_own import read_own
from edge_lstm.lstm_operators import Variant
from edge_lstm.operators import QState, wide
from edge_lstm.qgraph import QConcat, QDelay, QDense, QGraph, QRecode, QRepeat, QRow, QScan
from edge_lstm.quantizer import QuantizeConfig, quantize
from random_graphs import KINDS, random_graph, random_input
from random_operators import KINDS as OPERATOR_KINDS
from random_operators import random_operator_graph
from test_tflite_model import H, assert_same, small_qgraph


def described(content: bytes) -> dict[str, Any]:
    model = tflite.Model.GetRootAs(content, 0)
    found: dict[str, Any] = json.loads(model.Buffers(model.Metadata(0).Buffer()).DataAsNumpy().tobytes())
    return found


@pytest.mark.parametrize("config", [{}, {"scheme": "int16x8"}, {"profile": "native"}])
@pytest.mark.parametrize("kind", KINDS)
def test_any_network_is_read_back_from_its_description(kind: str, config: dict[str, str]) -> None:
    for seed in range(2):
        graph = random_graph(seed, kind, units=3)
        graph = dataclasses.replace(graph, window=min(graph.window, 5))
        try:
            qgraph = quantize(graph, random_input(seed, graph, 30, 6)[0], QuantizeConfig(**config))
        except EdgeLstmError:
            continue
        content = emit_tflite(qgraph)
        if described(content)["format"] == 2:
            assert_same(read_own(content), qgraph)


@pytest.mark.parametrize("kind", OPERATOR_KINDS)
def test_any_operators_are_read_back_from_their_description(kind: str) -> None:
    for seed in range(6):
        qgraph = random_operator_graph(seed, kind)
        assert_same(read_own(emit_tflite(qgraph)), qgraph)


def test_a_chain_of_plain_layers_is_told_by_its_operators() -> None:
    content = emit_tflite(small_qgraph())
    assert read_own(content) is None
    assert described(content)["format"] == 1
    relu = dataclasses.replace(small_qgraph().layers[1], relu=True)
    for changes in ({"window": 4}, {"batch_major": True}, {"layers": (small_qgraph().layers[0], relu)}):
        other = small_qgraph(**changes)
        assert described(emit_tflite(other))["format"] == 2
        assert_same(read_own(emit_tflite(other)), other)


def test_a_variant_with_gates_that_the_file_does_not_hold_comes_back() -> None:
    lstm, dense = small_qgraph().layers
    arrays = {name: getattr(lstm, name).copy() for name in ("kernel", "recurrent_kernel", "bias")}
    for array in arrays.values():
        array[0] = 0
    scales = {name: [1, *getattr(lstm, name)[1:]] for name in ("kernel_scales", "recurrent_scales")}
    lstm = dataclasses.replace(lstm, **arrays, **scales, variant=Variant(coupled=True))
    qgraph = small_qgraph(layers=(lstm, dense), profile="litert")
    assert_same(read_own(emit_tflite(qgraph)), qgraph)


def weights_told_as_numbers(entry: Any) -> list[str]:
    """Types of the arrays that a description holds itself."""
    if isinstance(entry, dict) and "numbers" in entry:
        return [entry["type"]]
    values = entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ()
    return [found for value in values for found in weights_told_as_numbers(value)]


def test_a_description_refers_to_the_weights_of_the_operators() -> None:
    graph = random_graph(1, "gru_after", units=7)
    for profile in ("tflm", "native"):
        qgraph = quantize(graph, random_input(1, graph, 30)[0], QuantizeConfig(profile=profile))
        assert set(weights_told_as_numbers(described(emit_tflite(qgraph)))) == {"float32"}


# --- descriptions that are not those of the file ----------------------------------------------------


def whole_qgraph() -> QGraph:
    """A window that an LSTM reads backwards, whose first row a scan reads again and again."""
    lstm, wide_h = dataclasses.replace(small_qgraph().layers[0], backwards=True), wide(-10)
    body = (QConcat("both", wide_h), QDense("mix", np.ones((3, 9)), [1, 2, 3], [0.125], wide_h, wide_h))
    layers = (
        lstm, QRow("first", H, 0), QRepeat("again", H), QRecode("wide", H, wide_h), QDelay("rows", wide_h, 2),
        QScan("scan", wide_h, body, ((-1, -2), (0,)), (QState("h", 3, wide_h),), (1,), 1),
    )  # fmt: skip
    return QGraph("net", layers, Stream.unnamed(2), window=4)


def changed(*path: Any, to: Any) -> bytes:
    """A file in whose description, but not in whose operators, the value at ``path`` is another."""
    spec = file_spec(whole_qgraph())
    values = json.loads(spec.metadata[metadata.NAME])
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    spec.metadata[metadata.NAME] = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    return pack(spec)


def nested(depth: int) -> dict[str, Any]:
    scan = json.loads(file_spec(whole_qgraph()).metadata[metadata.NAME])["layers"][5]
    return scan if depth == 0 else {**scan, "body": [nested(depth - 1)]}


KERNEL = ("layers", 0, "kernel")
NOT_THOSE = "its operators are not those that its description tells: it was changed after it was written"
CHANGES = [
    (("layers", 0, "cell_power"), -11, NOT_THOSE),
    (("layers", 5, "result"), 0, NOT_THOSE),
    (("structure", "window"), 5, NOT_THOSE),
    (("name",), "other", NOT_THOSE),
    (("made",), {"who": "nobody"}, "^$"),
    (("format",), 3, "has format 3, this version reads 2 and older; update edge-lstm, or write the file ag"),
    (("layers", 1, "kind"), "QNothing", "is damaged .KeyError: 'QNothing'.; write the file again"),
    (("layers", 1, "kind"), "QGraph", "is damaged .KeyError"),
    (("layers", 0, "cell_power"), "x", "TypeError: 'x' is not int"),
    (("layers", 0, "cell_power"), True, "TypeError: 'True' is not int"),
    (("layers", 0, "backwards"), 1, "TypeError: '1' is not bool"),
    (("layers", 0, "input"), {"scale": 1.0, "zero_point": 0.5}, "TypeError: '0.5' is not int"),
    (("layers", 0, "input"), {"scale": float("nan")}, "scale nan is not a positive float32"),
    (("layers", 0, "cell_clip"), float("nan"), "cell_clip is nan"),
    (("layers", 0, "speed"), 1, "TypeError: QLstm has no speed"),
    (("layers", 1), {"kind": "QRow", "name": "a"}, "TypeError: .* missing 1 required positional argument"),
    (("layers", 1), 7, "is damaged .TypeError"),
    (("layers",), [], "it has no layers"),
    (("layers",), {"name": 1}, "is damaged .TypeError"),
    (("structure", "speed"), 1, "unknown entries .'speed'."),
    (("structure", "sources"), [[9]] * 6, "reads .9., expected earlier layers"),
    (("structure", "sources"), [["a"]] * 6, "TypeError: 'a' is not int"),
    (("structure", "window"), 1 << 40, "ValueError: more than 16777216 inputs"),
    (("structure", "window"), 1 << 20, "it unrolls to more than 8000 operators"),
    (("structure", "lanes"), 1 << 20, "its constants have more than 12582912 bytes"),
    (("structure",), None, "is damaged .TypeError"),
    ((*KERNEL, "tensors"), [999] * 4, "IndexError: tensor 999 of "),
    ((*KERNEL, "tensors"), [0] * 4, "is damaged .ValueError"),
    ((*KERNEL, "tensors"), [1.5] * 4, "TypeError: '1.5' is not int"),
    ((*KERNEL, "shape"), [1 << 40, 1, 1], "ValueError: its arrays have more bytes than the file"),
    ((*KERNEL, "shape"), [-4, 3, -2], "ValueError: an array of shape"),
    ((*KERNEL, "shape"), [4, 3, 3], "is damaged .ValueError"),
    ((*KERNEL, "type"), "float64", "TypeError: an array of float64"),
    ((*KERNEL, "type"), "object", "TypeError: an array of object"),
    (KERNEL, {"type": "int8", "shape": [1], "numbers": ["7"]}, "TypeError: '7' is not float"),
    (KERNEL, {"type": "int8", "shape": [2], "numbers": [1, 300]}, "kernel is .2,., expected .4, units"),
    (("layers", 4, "dilation"), 1 << 50, "its constants have more than 12582912 bytes"),
    (("layers", 4, "size"), 1 << 50, "'mix' takes 9 features"),
    (("layers", 5, "next"), [77], "is damaged .IndexError"),
    (("layers", 5, "states", 0, "width"), 10**30, "'mix' takes 9 features"),
    (("layers", 5), nested(5), "operators inside of operators, 4 deep"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "to", "message"), CHANGES)
def test_a_description_that_is_not_that_of_the_file_is_refused(path: Any, to: Any, message: str) -> None:
    if message == "^$":  # nothing of the operators: it is believed, as the name of a plain file is
        assert read_own(changed(*path, to=to)).made == to
        return
    with pytest.raises(ModelError, match=message):
        read_own(changed(*path, to=to))


@pytest.mark.parametrize("place", range(6))
def test_one_changed_part_of_an_operator_is_seen(place: int) -> None:
    spec = file_spec(whole_qgraph())
    tensors, operators = spec.tensors, spec.operators
    [first] = [index for index, tensor in enumerate(tensors) if tensor.name == "mix/bias"]
    [conv, *_] = [index for index, operator in enumerate(operators) if operator.kind == "CONV_2D"]
    if place < 3:
        fields = [{"zero_point": 1}, {"scales": 1.0}, {"kind": INT32}][place]
        tensors[first] = dataclasses.replace(tensors[first], **fields)
    else:
        other = {**operators[conv].options, "StrideW": 2}
        fields = [{"options": other}, {"inputs": operators[conv].inputs[:2]}, {"version": 6}][place - 3]
        operators[conv] = dataclasses.replace(operators[conv], **fields)
    with pytest.raises(ModelError, match=NOT_THOSE):
        read_own(pack(spec))


def test_other_places_of_the_same_tables_are_the_same_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite_file, "BUFFER_ALIGNMENT", 64)
    content = emit_tflite(whole_qgraph())
    monkeypatch.undo()
    assert content != emit_tflite(whole_qgraph())
    assert_same(read_own(content), whole_qgraph())


def test_a_damaged_file_is_none_of_ours_or_is_refused_or_says_what_it_computes() -> None:
    content, refused = emit_tflite(whole_qgraph()), 0
    rng = np.random.default_rng(0)
    hostile = [content[:-1], content + b"\0"]
    for place in [*rng.integers(0, len(content), 50).tolist(), *range(8, 20)]:
        damaged = bytearray(content)
        damaged[place] ^= int(rng.integers(1, 256))
        hostile += [bytes(damaged), content[:place]]
    for given in hostile:
        with contextlib.suppress(ModelError):
            refused += 1
            found = read_own(given)
            refused -= 1
            assert found is None or same_content(given, emit_tflite(found))
    assert refused > 25
