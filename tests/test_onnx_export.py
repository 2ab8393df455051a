"""Float ONNX: ONNX Runtime computes what the float reference computes, window by window and row by row."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from edge_lstm.arrays import FloatArray
from edge_lstm.emit.onnx_layers import gru_gates, lstm_gates
from edge_lstm.emit.onnx_model import emit_onnx, states
from edge_lstm.errors import MissingTool, ModelError, UnsupportedModel
from edge_lstm.graph import Channel, Graph, Layer, Stream
from edge_lstm.layer_types import FUNCTIONS, TANH, Activation, Conv1d, Dense, Function, Gru, Lstm, Rnn
from edge_lstm.reference import floating
from random_graphs import KINDS, Sketch, random_graph, random_input

TOLERANCE = 1e-5  # float32 against float64, values near 1, at most 50 rows
REFUSED = ("cell_clip", "projection", "normalized")
EXPORTED = [kind for kind in KINDS if kind not in REFUSED]
SEEDS = range(5)

Feed = dict[str, FloatArray]


def session_of(content: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def after_reset(graph: Graph) -> Feed:
    return {f"{state.name}_in": np.array(state.initial) for state in states(graph)}


def run_rows(session: Any, graph: Graph, x: FloatArray, sizes: Sequence[int]) -> FloatArray:
    """Outputs (1, rows, outputs) of a stream that arrives in pieces of ``sizes`` rows."""
    feed, rows, outputs = after_reset(graph), 0, []
    names = [output.name for output in session.get_outputs()]
    for size in sizes:
        values = session.run(None, {"x": x[:, rows : rows + size], **feed})
        rows += size
        outputs.append(values[0])
        feed = {
            name.removesuffix("_out") + "_in": value
            for name, value in zip(names[1:], values[1:], strict=True)
        }
    return np.concatenate(outputs, axis=1)


def assert_near(found: FloatArray, wanted: FloatArray, where: str) -> None:
    assert found.shape == wanted.shape, f"{where}: shape {found.shape}, want {wanted.shape}"
    error = np.abs(found - wanted)
    at = np.unravel_index(error.argmax(), error.shape)
    assert error[at] <= TOLERANCE, f"{where}, row {at[1]}, output {at[2]}: got {found[at]}, want {wanted[at]}"


def assert_exported(graph: Graph, x: FloatArray) -> None:
    content = emit_onnx(graph)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    wanted, _ = floating.run(graph, x)
    assert_near(run_rows(session_of(content), graph, x, [x.shape[1]]), wanted, graph.name)


def single(layer: Layer, features: int) -> Graph:
    return Graph("single", (layer,), Stream.unnamed(features))


@pytest.mark.parametrize("kind", EXPORTED)
def test_onnx_runtime_computes_the_float_reference(kind: str) -> None:
    for seed in SEEDS:
        graph = random_graph(seed, kind)
        assert_exported(graph, random_input(seed, graph))


@pytest.mark.parametrize("kind", ["lstm", "peephole", "coupled", "gru_after", "gru_before", "rnn", "softmax"])
def test_saturated_gates_and_a_single_row_are_exported_too(kind: str) -> None:
    for seed in SEEDS:
        graph = random_graph(seed, kind, gain=6.0)
        assert_exported(graph, random_input(seed, graph, steps=1, reach=20.0))
        assert_exported(graph, random_input(seed, graph, steps=4, reach=20.0))


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_every_activation_is_exported_at_every_place(kind: str) -> None:
    sketch = Sketch(np.random.default_rng(len(kind)), 3, 5, 0.5)
    function, other = sketch.function(kind), sketch.function("leaky_relu")
    lstm, x = sketch.lstm(), sketch.rng.normal(0, 1, (1, 5, 3)).astype(np.float32)
    layers: list[Layer] = [
        replace(lstm, recurrent_activation=function, activation=other),
        replace(lstm, activation=function, gate_clip=0.5),
        replace(lstm, cell_activation=function, recurrent_activation=Function("affine", 0.3, 0.4)),
        replace(sketch.gru(True), recurrent_activation=function, activation=other),
        replace(sketch.gru(False), activation=function),
        replace(sketch.rnn(), activation=function),
        Activation("activation", function),
    ]
    for layer in layers:
        assert_exported(single(layer, 3), x)


@pytest.mark.parametrize("kind", [kind for kind in EXPORTED if not random_graph(0, kind).window])
def test_a_stream_row_by_row_equals_one_run_over_all_rows(kind: str) -> None:
    for seed in SEEDS:
        graph = random_graph(seed, kind)
        x = random_input(seed, graph, steps=12)
        session = session_of(emit_onnx(graph))
        whole = run_rows(session, graph, x, [12])
        assert_near(run_rows(session, graph, x, [1] * 12), whole, f"{graph.name}, row by row")
        assert_near(run_rows(session, graph, x, [5, 1, 4, 2]), whole, f"{graph.name}, in pieces")
        assert_near(whole, floating.run(graph, x)[0], graph.name)


def test_the_last_states_are_those_of_the_reference() -> None:
    for kind in ("stacked", "conv", "initial"):
        graph = random_graph(1, kind)
        x = random_input(1, graph)
        found = session_of(emit_onnx(graph)).run(None, {"x": x, **after_reset(graph)})[1:]
        wanted = [part for layer in floating.run(graph, x)[1] for part in layer]
        for state, value, part in zip(states(graph), found, wanted, strict=True):
            assert np.abs(value.ravel() - part.ravel()).max() <= TOLERANCE, state.name


def test_states_after_reset_are_those_of_the_reference_and_stand_in_the_metadata() -> None:
    for kind in ("initial", "tcn", "conv", "stacked"):
        graph = random_graph(2, kind)
        model = onnx.load_from_string(emit_onnx(graph))
        described = json.loads({prop.key: prop.value for prop in model.metadata_props}["edge_lstm_states"])
        wanted = [part for layer in floating.reset(graph) for part in layer if part.size]
        assert list(described) == sorted(state.name for state in states(graph))
        for state, part in zip(states(graph), wanted, strict=True):
            assert (state.initial.ravel() == part.ravel()).all()
            assert described[state.name]["shape"] == list(state.shape) == list(state.initial.shape)
            written = np.broadcast_to(described[state.name]["initial"], part.size)
            assert (written == part.ravel()).all()
            assert f"{state.name}_in {state.shape}: " in model.doc_string


def test_a_causal_network_with_a_window_keeps_no_state() -> None:
    for kind in ("lstm", "initial", "tcn"):
        graph = random_graph(3, kind, window=7)
        assert states(graph) == []
        session = session_of(emit_onnx(graph))
        assert [(value.name, value.shape) for value in session.get_inputs()] == [
            ("x", [1, 7, graph.features])
        ]
        assert [(value.name, value.shape) for value in session.get_outputs()] == [
            ("y", [1, 7, graph.outputs])
        ]
        assert_exported(graph, random_input(3, graph))


def test_the_file_names_its_tensors_its_versions_and_its_sensor_stream() -> None:
    stream = Stream((Channel("flow", "l/min", 2.5, 0.25), Channel("µ", "", 0.0, 1.0)), period_s=0.5)
    lstm = replace(Sketch(np.random.default_rng(0), 2, 3, 1.0).lstm(), name="lstm_1")
    model = onnx.load_from_string(emit_onnx(Graph("pump", (lstm,), stream, {"b": [1, None], "a": "é"})))
    assert (model.ir_version, model.opset_import[0].version, model.graph.name) == (8, 17, "pump")
    assert [value.name for value in model.graph.input] == ["x", "lstm_1_hidden_in", "lstm_1_cell_in"]
    assert [value.name for value in model.graph.output] == ["y", "lstm_1_hidden_out", "lstm_1_cell_out"]
    assert model.graph.input[0].type.tensor_type.shape.dim[1].dim_param == "steps"
    assert {prop.key: prop.value for prop in model.metadata_props}["edge_lstm"] == (
        '{"format":1,"made":{"a":"\\u00e9","b":[1,null]},"name":"pump","stream":{"channels":['
        '{"center":2.5,"name":"flow","scale":0.25,"unit":"l/min"},'
        '{"center":0.0,"name":"\\u00b5","scale":1.0,"unit":""}],"period_s":0.5}}'
    )


def test_the_guide_tells_what_to_feed() -> None:
    def guide(kind: str) -> str:
        return str(onnx.load_from_string(emit_onnx(random_graph(0, kind, features=2, units=3))).doc_string)

    assert "lstm_0_hidden_in (1, 1, 3): all 0." in guide("lstm")
    assert "_hidden_in (1, 1, 3): the values of metadata 'edge_lstm_states'." in guide("initial")
    assert "Nothing is kept between two windows." in guide("autoencoder")
    dense = Dense("dense", np.ones((2, 3)), np.ones(3))
    assert "It keeps no state." in onnx.load_from_string(emit_onnx(single(dense, 2))).doc_string


@pytest.mark.parametrize("kind", EXPORTED)
def test_the_same_network_gives_the_same_bytes(kind: str) -> None:
    assert emit_onnx(random_graph(4, kind)) == emit_onnx(random_graph(4, kind))


def test_layers_with_the_names_of_tensors_do_not_collide() -> None:
    sketch = Sketch(np.random.default_rng(0), 3, 3, 1.0)
    names = ["x", "y", "x/rows", "y_hidden_in", "y/Y", ""]
    layers = tuple(replace(sketch.lstm(3), name=name) for name in names)
    graph = Graph("collisions", layers, Stream.unnamed(3))
    assert_exported(graph, random_input(0, graph))


def test_gates_are_written_in_the_order_of_onnx() -> None:
    assert lstm_gates(np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]])).tolist() == [[[1, 5], [4, 8], [2, 6], [3, 7]]]
    assert gru_gates(np.array([[1.0, 2, 3], [4, 5, 6]])).tolist() == [[[1, 4], [2, 5], [3, 6]]]


def test_what_onnx_lacks_is_refused_with_every_reason() -> None:
    sketch = Sketch(np.random.default_rng(0), 3, 2, 1.0)
    odd = replace(
        sketch.lstm(3),
        name="odd",
        projection=np.ones((2, 2)),
        normalization=np.ones((4, 2)),
        cell_clip=0.5,
        projection_clip=2.0,
        coupled=True,
        recurrent_activation=TANH,
    )
    wide = replace(
        sketch.gru(True, 2), name="wide", gate_clip=1e300, activation=Function("elu", alpha=1e-300)
    )
    graph = Graph("m", (odd, wide), Stream.unnamed(3))
    with pytest.raises(UnsupportedModel) as caught:
        emit_onnx(graph)
    message = str(caught.value)
    assert message.startswith("model 'm' as ONNX: 7 problems")
    for words in (
        "a projection;", "layer normalization;", "a clip of the cell (0.5);", "a clip of the projection (2);",
        "coupled gates with 'tanh', where 1 - f(z) is not f(-z);", "export it as .tflite or as C instead",
        "gru 'wide': gate_clip 1e+300 does not fit a float32", "activation's alpha 1e-300 does not fit",
    ):  # fmt: skip
        assert words in message, message


@pytest.mark.parametrize("kind", REFUSED)
def test_each_refused_kind_is_refused_by_name(kind: str) -> None:
    with pytest.raises(UnsupportedModel, match=r"lstm 'lstm_0': ONNX's LSTM has no place for"):
        emit_onnx(random_graph(0, kind))


def test_coupled_hard_sigmoid_is_exported_only_where_it_mirrors() -> None:
    sketch = Sketch(np.random.default_rng(0), 3, 4, 1.0)
    for coupled in (
        replace(sketch.lstm(), coupled=True),
        replace(sketch.lstm(), coupled=True, gate_clip=0.4),
    ):
        even = replace(coupled, recurrent_activation=Function("hard_sigmoid", 0.3, 0.5))
        peephole = replace(even, peephole=sketch.weights(3, 4))
        for layer in (even, peephole):
            assert_exported(single(layer, 3), random_input(0, single(layer, 3)))
    with pytest.raises(UnsupportedModel, match="coupled gates with 'hard_sigmoid', where 1 - f"):
        emit_onnx(single(replace(even, recurrent_activation=Function("hard_sigmoid", 0.3, 0.4)), 3))


def test_names_and_descriptions_that_no_file_can_hold_are_refused() -> None:
    dense = Dense("half \ud800", np.ones((2, 2)), np.ones(2))
    with pytest.raises(
        ModelError, match=r"the name of a layer, 'half \\ud800', is no text that UTF-8 can hold"
    ):
        emit_onnx(single(dense, 2))
    mades: list[Any] = [{"a": object()}, {"a": float("nan")}, {"a": 1, 2: 3}]
    for made in mades:
        graph = Graph("m", (replace(dense, name="d"),), Stream.unnamed(2), made)
        with pytest.raises(ModelError, match="model 'm': its description is not plain JSON .* put only text"):
            emit_onnx(graph)


def test_without_the_package_onnx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx.helper", None)
    with pytest.raises(MissingTool, match=r"pip install 'edge-lstm\[onnx\]'"):
        emit_onnx(random_graph(0, "lstm"))


def test_random_graphs_are_deterministic_and_bounded() -> None:
    for kind in KINDS:
        graph, again = random_graph(5, kind), random_graph(5, kind)
        x = random_input(5, graph)
        outputs = floating.run(graph, x)[0]
        assert (outputs == floating.run(again, random_input(5, again))[0]).all()
        assert np.abs(outputs).max() < 50 and outputs.any()
        biased = [layer for layer in graph.layers if isinstance(layer, (Lstm, Gru, Rnn, Dense, Conv1d))]
        assert all(layer.bias.all() for layer in biased)
