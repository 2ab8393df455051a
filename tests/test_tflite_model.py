"""The .tflite files: ours come back identical, other people's are read or refused with every reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite

from edge_lstm.emit.tflite_lstm import CELL_STATE, HIDDEN_STATE
from edge_lstm.emit.tflite_model import emit_tflite
from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.graph import Channel, Stream
from edge_lstm.importers import metadata
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.qgraph import (
    QDense,
    QGraph,
    QLstm,
    Quantization,
)
from random_models import random_qgraph

X, H, Y = Quantization(0.0234375, -9), Quantization(0.0078125, 4), Quantization(0.03125, 17)


def small_qgraph(**changes: Any) -> QGraph:
    """Two channels, three units, one dense layer with a scale a row; worked by hand below."""
    rng = np.random.default_rng(5)
    lstm = QLstm(
        "lstm_a", rng.integers(-127, 128, (4, 3, 2)), rng.integers(-127, 128, (4, 3, 3)),
        rng.integers(-999, 999, (4, 3)), np.array([1, 2, 3, 4]) / 256, np.array([4, 3, 2, 1]) / 256, X, H,
        -12, 2.5,
    )  # fmt: skip
    dense = QDense("head", rng.integers(-127, 128, (2, 3)), [5, -6], [0.125, 0.25], H, Y)
    graph = QGraph("pump", (lstm, dense), Stream((Channel("flow", "l/min", 12.5, 3.0), Channel("µ", "°C"))))
    return dataclasses.replace(graph, **changes)


def assert_same(found: Any, expected: Any, place: str = "qgraph") -> None:
    """Every field of two data classes, arrays with their types."""
    if dataclasses.is_dataclass(expected):
        assert type(found) is type(expected), place
        for field in dataclasses.fields(expected):
            a, b = getattr(found, field.name), getattr(expected, field.name)
            assert_same(a, b, f"{place}.{field.name}")
    elif isinstance(expected, tuple):
        assert len(found) == len(expected), place
        for index, pair in enumerate(zip(found, expected, strict=True)):
            assert_same(*pair, f"{place}[{index}]")
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype, place
        assert np.array_equal(found, expected), place
    else:
        assert found == expected, place


# --- our own files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_a_file_is_read_back_into_the_identical_network(seed: int) -> None:
    qgraph = random_qgraph(seed, dense=seed % 4 != 0, detector=seed % 4 != 0, saturating=seed % 3 == 0)
    changes: dict[str, Any] = [{}, {"timesteps": 7}, {"timesteps": 5, "last_only": True}, {"lanes": 6},
                               {"lanes": 2, "timesteps": 3, "last_only": True}][seed % 5]  # fmt: skip
    qgraph = dataclasses.replace(qgraph, profile=["tflm", "litert"][seed % 2], **changes)
    assert_same(read_tflite(emit_tflite(qgraph)), qgraph)


def test_the_sensor_stream_and_how_it_was_made_travel_in_the_file(tmp_path: Path) -> None:
    stream = Stream((Channel("flow", "l/min", 0.1, 1 / 3), Channel('µ "x"\n', "°C", -1e-300, 1e300)), 0.25)
    made = {"seed": 7, "loss": 0.1, "layers": [1, 2], "note": "ünï", "none": None, "deep": {"ok": True}}
    qgraph = small_qgraph(stream=stream, made=made)
    path = tmp_path / "another name.tflite"
    path.write_bytes(emit_tflite(qgraph))
    found = read_tflite(path)
    assert_same(found, qgraph)
    assert found.name == "pump"


def test_the_same_network_gives_the_same_bytes_whatever_the_order_of_its_description() -> None:
    one, other = small_qgraph(made={"a": 1, "b": 2}), small_qgraph(made={"b": 2, "a": 1})
    assert emit_tflite(one) == emit_tflite(other) == emit_tflite(small_qgraph(made={"a": 1, "b": 2}))


def test_a_dense_layer_may_come_before_the_lstm() -> None:
    mix = QDense("mix", [[1, 2], [3, -4]], [0, 0], [0.5], X, X)
    qgraph = small_qgraph(layers=(mix, *small_qgraph().layers), sources=())
    assert_same(read_tflite(emit_tflite(qgraph)), qgraph)


def operators_of(content: bytes) -> list[tuple[str, Any, Any]]:
    """(kind, operator, subgraph) of a file, read with the schema's own classes."""
    model = tflite.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    return [
        (tflite.opcode2name(model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()), operator, graph)
        for operator in map(graph.Operators, range(graph.OperatorsLength()))
    ]


def test_the_fused_operator_has_what_the_kernels_demand() -> None:
    kind, operator, graph = operators_of(emit_tflite(small_qgraph()))[0]
    assert kind == "UNIDIRECTIONAL_SEQUENCE_LSTM"
    inputs = operator.InputsAsNumpy().tolist()
    assert len(inputs) == 24
    assert [place for place, index in enumerate(inputs) if index == -1] == [9, 10, 11, 16, 17, 20, 21, 22, 23]
    assert operator.IntermediatesLength() == 5
    hidden, cell = graph.Tensors(inputs[HIDDEN_STATE]), graph.Tensors(inputs[CELL_STATE])
    for state in (hidden, cell):
        assert state.IsVariable()
        assert state.ShapeAsNumpy().tolist() == [1, 3]
        assert state.Buffer() == 0
    assert cell.Quantization().Scale(0) == 2.0**-12
    last = graph.Tensors(operator.Intermediates(4)).Quantization()
    output = graph.Tensors(operator.Outputs(0)).Quantization()
    for quantization in (last, output, hidden.Quantization()):
        assert (quantization.Scale(0), quantization.ZeroPoint(0)) == (H.scale, H.zero_point)


def test_the_first_gate_of_the_hand_made_network_lies_where_tflite_reads_it() -> None:
    qgraph = small_qgraph()
    content = emit_tflite(qgraph)
    _, operator, graph = operators_of(content)[0]
    model = tflite.Model.GetRootAs(content, 0)
    for place, expected in ((1, qgraph.layers[0].kernel[0]), (8, qgraph.layers[0].recurrent_kernel[3])):
        tensor = graph.Tensors(operator.Inputs(place))
        data = model.Buffers(tensor.Buffer()).DataAsNumpy().view(np.int8)
        assert data.tolist() == expected.ravel().tolist()
        assert tensor.ShapeAsNumpy().tolist() == list(expected.shape)
    bias = graph.Tensors(operator.Inputs(14))
    assert bias.Quantization().Scale(0) == 3 / 256 * X.scale


def test_every_buffer_is_aligned_for_the_kernels() -> None:
    content = emit_tflite(small_qgraph(made={"odd": "x" * 7}))
    model = tflite.Model.GetRootAs(content, 0)
    for buffer in map(model.Buffers, range(model.BuffersLength())):
        if buffer.DataLength():
            data = buffer.DataAsNumpy()
            offset = data.__array_interface__["data"][0] - np.frombuffer(content, np.uint8).ctypes.data
            assert offset % 16 == 0


def test_the_streaming_signature_has_one_row_and_a_window_file_keeps_the_converters_slice() -> None:
    streaming = operators_of(emit_tflite(small_qgraph()))
    graph = streaming[0][2]
    assert graph.Tensors(graph.Inputs(0)).ShapeAsNumpy().tolist() == [1, 1, 2]
    assert graph.Tensors(graph.Outputs(0)).ShapeAsNumpy().tolist() == [1, 1, 2]
    window = operators_of(emit_tflite(small_qgraph(timesteps=6, last_only=True)))
    assert [kind for kind, *_ in window] == [
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "STRIDED_SLICE",
        "FULLY_CONNECTED",
    ]
    graph = window[0][2]
    assert graph.Tensors(graph.Inputs(0)).ShapeAsNumpy().tolist() == [1, 6, 2]
    assert graph.Tensors(graph.Outputs(0)).ShapeAsNumpy().tolist() == [1, 2]


def test_several_lanes_make_a_time_major_file() -> None:
    _, _, graph = operators_of(emit_tflite(small_qgraph(timesteps=4, lanes=6)))[0]
    assert graph.Tensors(graph.Inputs(0)).ShapeAsNumpy().tolist() == [4, 6, 2]


def test_the_signature_names_input_and_forecast() -> None:
    model = tflite.Model.GetRootAs(emit_tflite(small_qgraph()), 0)
    signature = model.SignatureDefs(0)
    assert signature.SignatureKey() == b"serving_default"
    assert (signature.Inputs(0).Name(), signature.Outputs(0).Name()) == (b"x", b"forecast")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"loss": float("nan")}, "its description is not plain JSON"),
        ({"when": object()}, "put only text, finite numbers, lists and dictionaries in it"),
        ({"log": "x" * metadata.MAX_BYTES}, "put less in 'made'"),
    ],
)
def test_a_description_that_json_cannot_carry_is_refused(made: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        emit_tflite(small_qgraph(made=made))


# --- other people's files ---------------------------------------------------------------------------

READ = {  # timesteps, lanes, last_only, units
    "keras2_b1_int8": (6, 1, True, [5]),
    "keras2_rs_int8": (6, 1, False, [5]),
    "keras2_stack2_int8": (6, 1, True, [7, 5]),
    "keras2_time_major_int8": (1, 6, True, [5]),
}
REFUSED = {
    "keras2_b1_float": ["it has FLOAT32 activations, expected INT8", "quantize it with this toolkit"],
    "keras2_b1_hybrid": ["it has FLOAT32 activations, expected INT8"],
    "keras2_unrolled_int8": ["it has no UNIDIRECTIONAL_SEQUENCE_LSTM, only ", "again with unroll=False"],
    "keras3_b1_float_while": ["3 subgraphs", "as Keras 3 does", "FLOAT32 activations"],
    "mnist_lstm_float": ["it has FLOAT32 activations, expected INT8"],
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_int8_files_of_tensorflows_converter_are_read(shared_data: Path, name: str) -> None:
    qgraph = read_tflite(shared_data / "models" / f"{name}.tflite")
    units = [layer.units for layer in qgraph.layers if isinstance(layer, QLstm)]
    assert (qgraph.timesteps, qgraph.lanes, qgraph.last_only, units) == READ[name]
    assert (qgraph.name, qgraph.profile, qgraph.stream) == (name, "tflm", Stream.unnamed(3))
    assert qgraph.input == Quantization(float(np.float32(0.022789521)), -9)
    assert (qgraph.features, qgraph.outputs) == (3, 2)
    again = read_tflite(emit_tflite(qgraph))
    assert_same(again, qgraph)


def test_the_numbers_of_a_foreign_file_are_those_that_tensorflow_wrote(shared_data: Path) -> None:
    lstm, dense = read_tflite(shared_data / "models" / "keras2_b1_int8.tflite").layers
    assert isinstance(lstm, QLstm)
    assert isinstance(dense, QDense)
    assert (lstm.cell_power, lstm.cell_clip, lstm.hidden.zero_point) == (-15, 10.0, -2)
    assert lstm.kernel_scales == pytest.approx([0.00389358, 0.00391722, 0.00400461, 0.00355496], abs=5e-9)
    assert np.abs(lstm.kernel.astype(int)).max(axis=(1, 2)).tolist() == [127] * 4
    assert np.all(lstm.bias[1] != 0)  # Keras starts the forget gate at 1
    assert not lstm.bias[[0, 2, 3]].any()
    assert dense.kernel_scales.shape == (2,)
    assert not dense.bias.any()  # the file has none


@pytest.mark.parametrize(
    ("name", "window", "lanes"),
    [("keras2_b4_int8", 0, 4), ("keras2_bidir_int8", 6, 1), ("mnist_lstm_int8", 28, 1)],
)
def test_batches_and_windows_of_another_converter_survive_being_written(
    shared_data: Path, name: str, window: int, lanes: int
) -> None:
    qgraph = read_tflite(shared_data / "models" / f"{name}.tflite")
    assert (qgraph.window, qgraph.lanes, qgraph.rows, qgraph.name) == (window, lanes, 1, name)
    assert_same(read_tflite(emit_tflite(qgraph)), qgraph)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_carried_is_refused_with_every_reason(shared_data: Path, name: str) -> None:
    path = shared_data / "models" / f"{name}.tflite"
    with pytest.raises(UnsupportedModel) as caught:
        read_tflite(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    for reason in REFUSED[name]:
        assert reason in message
