"""Integer ONNX: ONNX Runtime stays within steps of the integer reference, under the QGraph's own codes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edge_lstm.arrays import FloatArray
from edge_lstm.emit import onnx_model
from edge_lstm.emit.onnx_integers import emit_qdq, states
from edge_lstm.errors import MissingTool, ModelError, UnsupportedModel
from edge_lstm.executors.streams import mixed_stream
from edge_lstm.graph import Channel, Stream
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.lstm_operators import Variant
from edge_lstm.operators import QScan
from edge_lstm.qgraph import (
    QGraph,
    QLstm,
)
from edge_lstm.quantizer import QuantizeConfig, quantize
from qdq_runs import (
    IN8,
    OUT8,
    STATE8,
    codes_by_onnx,
    codes_by_reference,
    dense,
    int8,
    narrow,
    run_rows,
    session_of,
    single,
    stream_of,
)
from random_graphs import KINDS, random_graph, random_input

# kinds whose functions are drawn, and seeds that draw some with an integer form
DRAWN = {"lstm_functions": (4, 6), "gru_functions": (3, 4), "rnn_functions": (2, 8)}
# which the quantizer or ONNX refuses
REFUSED = ("gate_clip", "cell_clip", "projection", "normalized", "initial", "activations")
VARIANTS = ("peephole", "coupled")  # profile litert alone computes them
CARRIED = [kind for kind in KINDS if kind not in REFUSED]
SCHEMES = (("int8", "tflm"), ("int16x8", "tflm"), ("int8", "native"))
SEEDS = (0, 1)

# How far real arithmetic may be from the integers, in steps of the output: half of the outputs, every output;
# and the least ratio of signal to difference in dB.  Measured over 386 networks: 0, 4 and 39.6 for 8 bits,
# 4, 15 and 65.2 for 16 bits.
LIMITS = {8: (0.0, 6.0, 36.0), 16: (6.0, 24.0, 60.0)}
# Where gates saturate: TFLite cuts both terms of a sum at 8, ONNX their sum; measured 27 dB.
SATURATED_DB = 22.0


@cache
def network(kind: str, seed: int, scheme: str, profile: str, gain: float = 1.0, window: int = -1) -> QGraph:
    graph = random_graph(seed, kind, gain=gain, window=None if window < 0 else window)
    calibration = random_input(seed + 1000, graph, steps=100, streams=10 if graph.window else 1)
    config = QuantizeConfig(scheme=scheme, profile=profile)
    return quantize(graph, calibration.reshape(-1, graph.features), config)


def networks(kind: str) -> list[QGraph]:
    schemes = (("int8", "litert"),) if kind in VARIANTS else SCHEMES
    return [network(kind, seed, *scheme) for seed in DRAWN.get(kind, SEEDS) for scheme in schemes]


def ratio_db(qgraph: QGraph, found: FloatArray, wanted: FloatArray) -> float:
    power = np.mean((wanted - qgraph.output.zero_point) ** 2)
    return float(10 * np.log10(power / max(np.mean((found - wanted) ** 2), 1e-12 * power)))


def assert_near(qgraph: QGraph, x: FloatArray, limits: tuple[float, float, float]) -> None:
    found, wanted = codes_by_onnx(qgraph, x), codes_by_reference(qgraph, x)
    assert found.shape == wanted.shape
    steps, where = np.abs(found - wanted), f"{qgraph.name}, {qgraph.output.bits} bits, {qgraph.profile}"
    row, output = np.unravel_index(steps.argmax(), steps.shape)
    half, every, least_db = limits
    assert np.median(steps) <= half, f"{where}: half of the outputs are {np.median(steps)} steps off"
    assert steps.max() <= every, (
        f"{where}, row {row}, output {output}: got {found[row, output]}, want {wanted[row, output]}"
    )
    assert ratio_db(qgraph, found, wanted) >= least_db, f"{where}: {ratio_db(qgraph, found, wanted):.1f} dB"


@pytest.mark.parametrize("kind", CARRIED)
def test_onnx_runtime_stays_within_steps_of_the_integer_reference(kind: str) -> None:
    for qgraph in networks(kind):
        assert_near(qgraph, stream_of(qgraph), LIMITS[qgraph.output.bits])


def test_more_than_a_hundred_networks_are_compared() -> None:
    assert sum(len(networks(kind)) for kind in CARRIED) > 100


@pytest.mark.parametrize("kind", ["lstm", "gru_before", "rnn", "softmax"])
def test_saturated_gates_keep_the_signal(kind: str) -> None:
    for seed in (0, 2):
        qgraph = network(kind, seed, "int8", "tflm", gain=4.0)
        assert_near(qgraph, stream_of(qgraph, reach=5.0), (1.0, np.inf, SATURATED_DB))


def real_lstm(layer: QLstm, x: FloatArray) -> FloatArray:
    """Codes (steps, units) by float64: sums cut at 8, the hidden state rounded, the cell kept in range."""
    steps = layer.kernel_scales.astype(np.float64)[:, None]
    kernel, bias = layer.kernel * steps[:, :, None], layer.bias * steps * layer.input.scale
    recurrent = layer.recurrent_kernel * layer.recurrent_scales.astype(np.float64)[:, None, None]
    peephole = np.zeros((4, layer.units))
    variant = layer.variant
    if variant is not None and variant.peephole is not None and variant.peephole_scales is not None:
        peephole[[0, 1, 3]] = variant.peephole * variant.peephole_scales.astype(np.float64)[:, None]
    h: FloatArray = np.zeros(layer.units)
    c, rows = h, []
    top, step = 32767 / 4096, 2.0**layer.cell_power
    for row in layer.input.decode(layer.input.encode(x)):
        z = kernel @ row + bias + recurrent @ h
        i, f = 1 / (1 + np.exp(-np.clip(z + peephole * c, -top, top)[:2]))
        i = 1 - f if variant is not None and variant.coupled else i
        c = np.clip(f * c + i * np.tanh(np.clip(z[2], -top, top)), -32768 * step, 32767 * step)
        codes = layer.hidden.encode(np.tanh(c) / (1 + np.exp(-np.clip(z + peephole * c, -top, top)[3])))
        h = layer.hidden.decode(codes)
        rows.append(codes)
    return np.array(rows, dtype=np.float64)


@pytest.mark.parametrize("kind", ["lstm", "peephole", "coupled"])
def test_the_lstm_is_that_of_the_codes_also_where_it_saturates(kind: str) -> None:
    profile = "litert" if kind in VARIANTS else "tflm"
    for seed in (0, 2, 5):
        whole = network(kind, seed, "int8", profile, gain=4.0)
        layer = whole.layers[0]
        assert isinstance(layer, QLstm)
        qgraph = QGraph("alone", (layer,), whole.stream, profile)
        x = stream_of(qgraph, reach=5.0)
        assert np.abs(codes_by_onnx(qgraph, x) - real_lstm(layer, x)).max() <= 1


def test_a_causal_network_with_a_window_keeps_no_state() -> None:
    for kind in ("lstm", "gru_after", "tcn"):
        qgraph = network(kind, 3, "int8", "tflm", window=7)
        assert states(qgraph) == []
        assert_near(qgraph, stream_of(qgraph), LIMITS[8])


@pytest.mark.parametrize("kind", [kind for kind in CARRIED if not random_graph(0, kind).window])
def test_a_stream_row_by_row_equals_one_run_over_all_rows(kind: str) -> None:
    for qgraph in networks(kind)[:3]:
        x, session = stream_of(qgraph)[:12], session_of(emit_qdq(qgraph))
        whole = run_rows(session, qgraph, x, [12])
        for sizes in ([1] * 12, [5, 1, 4, 2]):
            steps = np.abs(run_rows(session, qgraph, x, sizes) - whole) / qgraph.output.scale
            assert np.rint(steps.max()) <= (1 if qgraph.output.bits == 16 else 0), f"{qgraph.name}, {sizes}"


@pytest.mark.parametrize("kind", [kind for kind in CARRIED if not random_graph(0, kind).window])
def test_states_have_the_names_and_shapes_of_the_float_file(kind: str) -> None:
    for seed in DRAWN.get(kind, SEEDS):
        scheme = ("int8", "litert") if kind in VARIANTS else ("int8", "tflm")
        found, wanted = states(network(kind, seed, *scheme)), onnx_model.states(random_graph(seed, kind))
        assert [(state.name, state.shape) for state in found] == [(s.name, s.shape) for s in wanted]
        assert not any(state.initial.any() for state in found)


def constants(content: bytes) -> dict[str, Any]:
    model = onnx.load_from_string(content)
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def lstm(**changes: Any) -> QLstm:
    """An LSTM of 3 units on 4 features with zero points, whose gates stay below 8."""
    bias = np.random.default_rng(1).integers(-400, 400, (4, 3))
    scales = np.array([3e-3, 4e-3, 5e-3, 6e-3], np.float32)
    operator = QLstm(
        "lstm", int8(4, 3, 4), int8(4, 3, 3), bias, scales, scales[::-1], IN8, STATE8, -12
    )  # fmt: skip
    return replace(operator, **changes)


def test_weights_are_the_codes_of_the_qgraph_with_a_scale_for_every_row() -> None:
    operator = lstm()
    found = constants(emit_qdq(single(operator, IN8)))
    i, f, g, o = operator.kernel
    assert found["lstm/W"].dtype == np.int8 and (found["lstm/W"][0] == np.concatenate([i, o, f, g])).all()
    assert found["lstm/R"].dtype == np.int8 and found["lstm/R"].shape == (1, 12, 3)
    assert (found["lstm/W/scale"] == np.repeat(operator.kernel_scales[[0, 3, 1, 2]], 3)).all()
    assert (found["lstm/R/scale"] == np.repeat(operator.recurrent_scales[[0, 3, 1, 2]], 3)).all()
    assert found["lstm/B"].dtype == np.int32
    assert (found["lstm/B"][0, :12] == operator.bias[[0, 3, 1, 2]].ravel()).all()
    assert not found["lstm/W/zero_point"].any() and not found["lstm/B"][0, 12:].any()
    head = dense(IN8, OUT8, 3, False)
    found = constants(emit_qdq(single(head, IN8)))
    assert (found["dense/kernel"] == head.kernel).all() and found["dense/bias"].dtype == np.int32
    assert (found["dense/kernel/scale"] == head.kernel_scales).all()


def test_coupled_gates_negate_every_code_even_the_lowest() -> None:
    kernel, recurrent, bias = int8(4, 3, 4), int8(4, 3, 3), np.array(lstm().bias)
    kernel[1, 0] = recurrent[1, 0] = -128
    kernel[0] = recurrent[0] = bias[0] = 0
    changes = {
        "kernel": kernel,
        "recurrent_kernel": recurrent,
        "bias": bias,
        "variant": Variant(coupled=True),
    }
    scales = {
        "kernel_scales": np.array([1, 2e-3, 2e-3, 2e-3]),
        "recurrent_scales": np.array([1, 2e-3, 2e-3, 2e-3]),
    }
    qgraph = replace(single(lstm(), IN8), layers=(lstm(**changes, **scales),), profile="litert")
    found = constants(emit_qdq(qgraph))
    for part in ("W", "R"):
        whole = found[f"lstm/{part}"][0].astype(int) - found[f"lstm/{part}/zero_point"][:, None]
        rows = whole * found[f"lstm/{part}/scale"][:, None]
        assert (rows[:3] == -rows[6:9]).all() and rows[6].any()
    assert_near(qgraph, stream_of(qgraph), LIMITS[8])


def test_8_bits_need_opset_13_and_16_bits_opset_21() -> None:
    for scheme, kind, versions, types in (
        ("int8", "stacked", (13, 7), {onnx.TensorProto.INT8}),
        ("int8", "gru_after", (21, 10), {onnx.TensorProto.INT8, onnx.TensorProto.INT16}),
        ("int16x8", "stacked", (21, 10), {onnx.TensorProto.INT16}),
    ):
        model = onnx.load_from_string(emit_qdq(network(kind, 0, scheme, "tflm")))
        assert (model.opset_import[0].version, model.ir_version) == versions
        points = [tensor for tensor in model.graph.initializer if tensor.name.startswith("zero_point")]
        assert {tensor.data_type for tensor in points} == types


def test_what_an_lstm_writes_is_read_under_the_scales_of_its_readers() -> None:
    """As files of TFLite's converter have it: three quantizations of the same codes."""
    operator = lstm(inner=narrow(1 / 100, 4), written=narrow(1 / 120, 2))
    qgraph = replace(single(lstm(), IN8), layers=(operator,))
    for profile in ("tflm", "litert"):
        assert_near(qgraph.with_profile(profile), stream_of(qgraph), LIMITS[8])
    x = stream_of(qgraph)
    assert (codes_by_onnx(qgraph, x) != codes_by_onnx(qgraph.with_profile("litert"), x)).any()


def test_the_file_of_a_last_row_gives_the_last_row() -> None:
    qgraph = network("stacked", 0, "int8", "tflm")
    x = stream_of(qgraph)[:6]
    whole = codes_by_onnx(qgraph, x)
    last = replace(qgraph, timesteps=6, last_only=True)
    assert (codes_by_onnx(last, x) == whole[-1:]).all()
    model = onnx.load_from_string(emit_qdq(last))
    assert [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim] == [
        1,
        1,
        qgraph.outputs,
    ]
    assert f"y (1, 1, {qgraph.outputs}): of the last row." in model.doc_string


def test_the_file_names_its_sensor_stream_and_its_profile() -> None:
    stream = Stream(tuple(Channel(f"s{i}", "bar", 2.5, 0.25) for i in range(4)), period_s=0.5)
    qgraph = replace(single(lstm(), IN8), stream=stream, made={"b": [1, None]})
    model = onnx.load_from_string(emit_qdq(qgraph))
    described = json.loads({prop.key: prop.value for prop in model.metadata_props}["edge_lstm"])
    assert described["profile"] == "tflm" and described["made"] == {"b": [1, None]}
    assert described["stream"]["channels"][3] == {"center": 2.5, "name": "s3", "scale": 0.25, "unit": "bar"}
    assert model.graph.input[0].type.tensor_type.shape.dim[1].dim_param == "steps"
    assert [value.name for value in model.graph.input] == ["x", "lstm_hidden_in", "lstm_cell_in"]
    assert [value.name for value in model.graph.output] == ["y", "lstm_hidden_out", "lstm_cell_out"]
    assert "lstm_cell_in (1, 1, 3): all 0." in model.doc_string


@pytest.mark.parametrize("name", ["b1", "b4", "bidir", "rs", "stack2", "time_major"])
def test_networks_that_tflite_has_quantized_are_carried(name: str, shared_data: Path) -> None:
    """Their cells saturate within what calibration saw, and state and output have scales of their own."""
    qgraph = read_tflite(shared_data / "models" / f"keras2_{name}_int8.tflite")
    for profile in qgraph.profiles:
        under = qgraph.with_profile(profile)
        x = under.input.decode(mixed_stream(under.features, 8 * under.timesteps))
        size = under.timesteps if under.last_only else under.window or len(x)
        session, wanted = session_of(emit_qdq(under)), codes_by_reference(under, x)
        pieces = np.split(x, len(x) // size)
        if under.window:
            found = np.concatenate([run_rows(session, under, piece, [size]) for piece in pieces])
        else:
            found = run_rows(session, under, x, [size] * len(pieces))
        steps = np.abs(np.rint(found / under.output.scale) + under.output.zero_point - wanted)
        assert steps.shape == wanted.shape and np.median(steps) <= 3 and steps.max() <= 24


def test_the_same_network_gives_the_same_bytes() -> None:
    for kind in ("stacked", "attention_additive", "tcn"):
        assert emit_qdq(network(kind, 0, "int8", "tflm")) == emit_qdq(
            network.__wrapped__(kind, 0, "int8", "tflm")
        )


def test_every_reason_of_a_network_that_onnx_cannot_carry_is_named_at_once() -> None:
    ones = np.ones(4, np.float32)
    variant = Variant(
        normalization=np.ones((4, 3), np.int16), normalization_scales=ones, gate_scales=ones,
        projection=int8(3, 3), projection_scale=0.01,
    )  # fmt: skip
    inner = lstm(name="inner", input=STATE8, kernel=int8(4, 3, 3))
    nested = QScan("loop", STATE8, (inner,), ((-1,),), (), (), 0)
    layers = (lstm(cell_clip=0.5, variant=variant), nested)
    qgraph = replace(single(lstm(), IN8), layers=layers, sources=((-1,), (0,)), profile="litert")
    with pytest.raises(UnsupportedModel) as caught:
        emit_qdq(qgraph)
    for words in (
        "model 'single' as ONNX: 4 problems",
        "lstm 'lstm': ONNX's LSTM has no place for a projection; export it as .tflite or as C instead",
        "ONNX's LSTM has no place for layer normalization",
        "ONNX's LSTM has no place for a clip of the cell (0.5)",
        "'inner' keeps a state of its own within scan 'loop'; export it",
    ):
        assert words in str(caught.value)


def test_a_clip_beyond_the_range_of_the_cell_clips_nothing() -> None:
    """TFLite's converter writes 10 into every file."""
    assert emit_qdq(single(lstm(cell_clip=10.0), IN8)) == emit_qdq(single(lstm(), IN8))
    with pytest.raises(UnsupportedModel, match=r"no place for a clip of the cell \(7.5\)"):
        emit_qdq(single(lstm(cell_clip=7.5), IN8))


def test_names_and_descriptions_that_no_file_can_hold_are_refused() -> None:
    qgraph = single(lstm(), IN8)
    with pytest.raises(ModelError, match=r"the name of a layer, 'half \\ud800', is no text that UTF-8"):
        emit_qdq(replace(qgraph, layers=(lstm(name="half \ud800"),)))
    second = lstm(input=lstm().hidden, kernel=int8(4, 3, 3))
    with pytest.raises(ModelError, match="two layers keep a state 'lstm_cell'; rename one of them"):
        emit_qdq(replace(qgraph, layers=(lstm(), second), sources=((-1,), (0,))))
    with pytest.raises(ModelError, match="its description is not plain JSON .* put only text"):
        emit_qdq(replace(qgraph, made={"a": float("nan")}))


def test_a_network_whose_integers_overflow_is_refused() -> None:
    with pytest.raises(ModelError, match="dense 'dense', output 0: the accumulator can overflow"):
        emit_qdq(single(replace(dense(IN8, OUT8, 1, False), bias=np.full(3, 2**31 - 1)), IN8))


def test_without_the_package_onnx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx.helper", None)
    with pytest.raises(MissingTool, match=r"pip install 'edge-lstm\[onnx\]'"):
        emit_qdq(single(lstm(), IN8))
