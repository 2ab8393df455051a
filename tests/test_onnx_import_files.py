"""ONNX files as a whole: damage, inputs and outputs, states, metadata, and files of this toolkit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_lstm.emit.onnx_model import emit_onnx
from edge_lstm.errors import EdgeLstmError, ModelError, UnsupportedModel
from edge_lstm.graph import Channel, Graph, Stream
from edge_lstm.importers.onnx_file import MAX_FILE_BYTES, is_onnx
from edge_lstm.importers.onnx_model import read_onnx
from edge_lstm.importers.onnx_node import Node
from edge_lstm.importers.onnx_run import label_of
from edge_lstm.layer_types import Attend, Conv1d, Dense, Function, Gru, Lstm, Merge, Repeat, Rnn, Row, Softmax
from edge_lstm.reference.floating import run
from onnx_import_models import (
    DENSE,
    FEATURES,
    ROWS,
    UNITS,
    Operator,
    W,
    X,
    assert_close,
    built,
    chain,
    session,
)

RECURRENT = {"w": W["gru_w"][:1], "r": W["gru_r"][:1]}
GRU: Operator = ("GRU", ["x", "w", "r"], ["Y", "h"], {"hidden_size": UNITS})
SQUEEZED: Operator = ("Squeeze", ["Y", "i1"], ["y"], {})


def proto(content: bytes) -> onnx.ModelProto:
    return onnx.load_model_from_string(content)


def refused(content: bytes, kind: type[EdgeLstmError] = UnsupportedModel, **given: Any) -> str:
    with pytest.raises(kind) as caught:
        read_onnx(content, **given)
    return str(caught.value)


def plain() -> onnx.ModelProto:
    return proto(built(chain(("MatMul", ["dense"], {}))))


NO_MODEL = {
    "nothing": (b"", "it holds no graph of operators, so it is no ONNX model"),
    "text": (b"timestamp,pressure\n0,1.5\n", "is it an ONNX model, and whole?"),
    "a zip file": (b"PK\x03\x04" + bytes(100), "is it an ONNX model, and whole?"),
    "no nodes": (b"\x3a\x02\x12\x00", "it holds no graph of operators"),
    "half a field": (b"\x3a\xff\x01\x0a", "beyond the end, before byte 258"),
    "endless integer": (b"\x08" + b"\xff" * 20, "an integer without end at byte 1"),
    "unknown kind": (b"\x0b\x01", "a field of kind 3"),
    "many fields": (b"\x08\x01" * 300_000, "more than 200000 fields, expected a small network"),
    "too large": (bytes(MAX_FILE_BYTES + 1), "larger than 64 MiB, expected a small network"),
}


@pytest.mark.parametrize("name", NO_MODEL)
def test_what_is_no_onnx_model_is_told_apart(name: str) -> None:
    content, words = NO_MODEL[name]
    assert words in refused(content, ModelError)


def test_onnx_models_are_known_by_their_content() -> None:
    assert is_onnx(built([DENSE], outputs=["d"])) and is_onnx(emit_onnx(OWN["streaming"]))
    others = [
        b"",
        b"PK\x03\x04",
        b"\x1c\0\0\0TFL3",
        b"\x89HDF\r\n\x1a\n",
        b"time,p\n0,1\n",
        b'H\x01\0\0\0\0\0\0{"w":',
    ]
    assert not any(is_onnx(content + bytes(range(256))) for content in others)


def test_paths_name_the_file_in_messages_and_the_network(tmp_path: Path) -> None:
    path = tmp_path / "pump-v2.onnx"
    with pytest.raises(ModelError, match=r"pump-v2.onnx: it cannot be read \(No such file"):
        read_onnx(path)
    path.write_bytes(b"\x08\x01")
    with pytest.raises(ModelError, match=r"pump-v2.onnx: it holds no graph"):
        read_onnx(path)
    path.write_bytes(plain().SerializeToString())
    graph = read_onnx(path)
    assert graph.name == "pump_v2" and graph.made["importer"] == "onnx" and graph.made["opset"] == 17


def test_weights_in_another_file_are_refused_and_that_file_is_not_opened() -> None:
    model = plain()
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    assert "weights of 'dense' lie in another file, which is not opened" in refused(model.SerializeToString())


CLAIMS = {
    "2 GB": ([1 << 29, 4], r"claims the shape \(536870912, 4\), expected a small network"),
    "negative": ([-3, -4], r"claims the shape \(-3, -4\)"),
    "other shape": ([5, 5], r"holds 12 numbers, its shape \(5, 5\) needs 25"),
    "many axes": ([1] * 9, "claims the shape"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_claims_of_a_constant_are_checked_before_they_are_believed(name: str) -> None:
    dims, words = CLAIMS[name]
    model = plain()
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    with pytest.raises(ModelError, match=words):
        read_onnx(model.SerializeToString())


def test_graphs_that_nothing_can_run_are_named() -> None:
    nodes: list[Operator] = [
        ("Relu", ["b"], ["a"], {}),
        ("Relu", ["a"], ["b"], {}),
        ("Add", ["x", "b"], ["y"], {}),
    ]
    assert "the nodes form a cycle" in refused(built(nodes), ModelError)
    assert "nothing writes tensor 'z', which is read" in refused(
        built([("Add", ["x", "z"], ["y"], {})]), ModelError
    )
    twice: list[Operator] = [("Relu", ["x"], ["y"], {}), ("Tanh", ["x"], ["y"], {})]
    assert "tensor 'y' is written twice" in refused(built(twice), ModelError)
    model = plain()
    del model.graph.output[:]
    assert "it has no outputs" in refused(model.SerializeToString(), ModelError)
    assert "more than 1000 layers" in refused(built(chain(*[("Relu", [], {})] * 1001)))
    many: list[Operator] = [("Relu", ["x"], [f"n{number}"], {}) for number in range(10_001)]
    assert "10001 nodes, at most 10000 are read" in refused(built(many), ModelError)


def test_nodes_may_stand_in_any_order() -> None:
    nodes: list[Operator] = [("Tanh", ["d"], ["y"], {}), DENSE]
    assert [type(layer).__name__ for layer in read_onnx(built(nodes)).layers] == ["Dense", "Activation"]


@pytest.mark.parametrize("opset", [6, 99])
def test_operators_of_unknown_versions_are_refused(opset: int) -> None:
    model = plain()
    model.opset_import[0].version = opset
    assert f"operators of version {opset}, expected 7 to 28; convert it with" in refused(
        model.SerializeToString()
    )


def test_sparse_and_textual_constants_are_refused() -> None:
    model = plain()
    model.graph.initializer[0].data_type = TensorProto.STRING
    assert "constant 'dense' has data type 8, expected floats or integers" in refused(
        model.SerializeToString()
    )
    model = plain()
    model.graph.sparse_initializer.add()
    assert "its constants are sparse tensors; save them dense" in refused(model.SerializeToString())


KINDS = [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16]


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_constants_of_every_float_type_are_read(kind: int, raw: bool) -> None:
    values = np.array([[0.5, -1.25], [3.0, 1 / 4096], [-8.0, 0.0]])
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    flat = values.astype(dtype)
    tensor = helper.make_tensor("dense", kind, values.shape, flat.tobytes() if raw else flat.ravel(), raw=raw)
    model = plain()
    model.graph.initializer[0].CopyFrom(tensor)
    layer = read_onnx(model.SerializeToString()).layers[0]
    assert isinstance(layer, Dense) and np.array_equal(layer.kernel, values)


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8, TensorProto.BOOL])
def test_integers_are_read_packed_and_raw(kind: int) -> None:
    for raw in (False, True):
        values = np.array([1], helper.tensor_dtype_to_np_dtype(kind))
        tensor = helper.make_tensor("at", kind, [1], values.tobytes() if raw else values, raw=raw)
        content = proto(
            built([DENSE, ("Slice", ["d", "i0", "at", "i2"], ["y"], {})], more={"at": np.array([9])})
        )
        for place, constant in enumerate(content.graph.initializer):
            if constant.name == "at":
                content.graph.initializer[place].CopyFrom(tensor)
        assert read_onnx(content.SerializeToString()).outputs == 1


def test_negative_integers_are_read_in_ten_bytes() -> None:
    content = proto(
        built([DENSE, ("Slice", ["d", "at", "end", "i2"], ["y"], {})], more={"at": np.array([-2])})
    )
    tensor = next(constant for constant in content.graph.initializer if constant.name == "at")
    tensor.CopyFrom(helper.make_tensor("at", TensorProto.INT64, [1], [-2]))
    assert len(tensor.SerializeToString()) > 12 and read_onnx(content.SerializeToString()).outputs == 2


INPUTS: dict[str, tuple[Any, str]] = {
    "features": (("b", 7, "f"), "input 'x' has an open number of features; fix it"),
    "axes": ((1, 2, 3, 4), r"input 'x' has 4 axes, expected \(batch, rows, features\) or \(rows, features\)"),
    "shape": (None, "input 'x' has unknown axes"),
    "size": ((1, 7, 1 << 40), "input 'x' claims the shape"),
    "negative": ((1, -7, 3), "input 'x' claims the shape"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_that_are_no_sequence_of_sensor_rows_are_refused(name: str) -> None:
    shape, words = INPUTS[name]
    with pytest.raises(ModelError, match=words):
        read_onnx(built(chain(("MatMul", ["dense"], {})), shape))


def test_inputs_of_integers_and_models_without_an_input_are_refused() -> None:
    model = plain()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT8
    assert "input 'x' holds no floats (data type 3); give the float model" in refused(
        model.SerializeToString()
    )
    assert "no node reads an input" in refused(built([("Add", ["dense", "dense"], ["y"], {})]))
    others = {f"in{number}": (1, 1, 3) for number in range(256)}
    many = built([("Sum", ["x", *others], ["y"], {})], inputs=others)
    assert "257 inputs, at most 256 are read" in refused(many)


def test_an_open_number_of_rows_is_a_streaming_network_or_refused() -> None:
    graph = read_onnx(built([GRU, SQUEEZED], ("rows", "batch", FEATURES), RECURRENT))
    assert graph.window == 0
    gathering: list[Operator] = [GRU, ("ReduceSum", ["Y", "i0"], ["y"], {})]
    message = refused(built(gathering, ("rows", 1, FEATURES), RECURRENT), ModelError)
    assert "gathers a window, but its length is unknown" in message
    average: list[Operator] = [GRU, ("ReduceMean", ["Y"], ["y"], {"axes": [0]})]
    message = refused(built(average, ("rows", 1, FEATURES), RECURRENT))
    assert "what it computes depends on how many rows or streams it gets" in message


def test_two_axes_are_rows_and_features_or_one_row_alone() -> None:
    unbatched: list[Operator] = [("Unsqueeze", ["x", "i1"], ["t"], {}), ("GRU", ["t", "w", "r"], ["y"], {})]
    assert read_onnx(built(unbatched, (ROWS, FEATURES), RECURRENT)).outputs == UNITS
    step: list[Operator] = [("Unsqueeze", ["x", "i0"], ["t"], {}), ("GRU", ["t", "w", "r"], ["y"], {})]
    assert read_onnx(built(step, ("batch", FEATURES), RECURRENT)).window == 0


def test_one_output_is_the_networks_and_others_are_states_or_inner_values() -> None:
    inner = read_onnx(built([DENSE, ("Tanh", ["d"], ["y"], {})], outputs=["y", "d"]))
    assert inner.made["inner_outputs"] == ["d"]
    state = read_onnx(built([GRU, SQUEEZED], (ROWS, 1, FEATURES), RECURRENT, outputs=["y", "h"]))
    assert state.made["states"] == ["h"] and state.window == 0
    heads = built([DENSE, ("Tanh", ["d"], ["y"], {}), ("Relu", ["d"], ["z"], {})], outputs=["y", "z"])
    assert "further outputs 'z'; a network has one" in refused(heads)
    assert "output 'c' is a constant; leave it out" in refused(
        built([DENSE, ("Identity", ["vector"], ["c"], {})], outputs=["d", "c"])
    )
    twice = read_onnx(built([DENSE, ("Tanh", ["d"], ["y"], {})], outputs=["y", "y"]))
    assert len(twice.layers) == 2
    assert "output 0" not in refused(built([("Dropout", ["x"], ["d", "y"], {})]))


STATED: Operator = ("GRU", ["x", "w", "r", "", "", "h0"], ["Y", "h"], {"hidden_size": UNITS})


def test_states_that_come_in_and_go_out_make_a_streaming_network() -> None:
    states = {"h0": (1, 1, UNITS)}
    graph = read_onnx(
        built([STATED, SQUEEZED], (1, 1, FEATURES), RECURRENT, inputs=states, outputs=["y", "h"])
    )
    assert graph.window == 0 and graph.made["states"] == ["h"]
    content = built([STATED, SQUEEZED], (1, 1, FEATURES), RECURRENT, inputs=states, outputs=["y", "h"])
    runner, state, rows = session(content), np.zeros((1, 1, UNITS), np.float32), []
    for row in X[0]:
        y, state = runner.run(None, {"x": row[None, None], "h0": state})
        rows.append(y[0])
    assert_close(run(graph, X)[0], np.stack(rows, axis=1))


def test_states_that_go_nowhere_or_into_windows_are_refused() -> None:
    states = {"h0": (1, 1, UNITS)}
    lost = built([STATED, SQUEEZED], (ROWS, 1, FEATURES), RECURRENT, inputs=states)
    assert "input 'h0' is the initial state of 'Y', but no output is that state afterwards" in refused(lost)
    zeros = {"h0": np.zeros((1, 1, UNITS), np.float32)}
    assert read_onnx(lost, zeros).window == 0
    backwards: Operator = (*STATED[:3], {"hidden_size": UNITS, "direction": "reverse"})
    content = built([backwards, SQUEEZED], (ROWS, 1, FEATURES), RECURRENT, inputs=states, outputs=["y", "h"])
    assert "is the input 'h0', but it reads the window backwards, which starts anew" in refused(content)
    summed: list[Operator] = [STATED, ("ReduceSum", ["Y", "i0"], ["y"], {})]
    content = built(summed, (ROWS, 1, FEATURES), RECURRENT, inputs=states, outputs=["y", "h"])
    assert "it keeps states between runs ('h0'), but it needs whole windows" in refused(content)
    wide = built(
        [STATED, SQUEEZED], (ROWS, 1, FEATURES), RECURRENT, inputs={"h0": (1, 1, 9)}, outputs=["y", "h"]
    )
    assert "its initial hidden state is computed from the network's input or has another width" in refused(
        wide
    )
    opened = built(
        [STATED, SQUEEZED], (ROWS, 1, FEATURES), RECURRENT, inputs={"h0": ("n", 1, 4)}, outputs=["y", "h"]
    )
    assert "with fixed numbers of layers and units; a network has one input" in refused(opened)


STREAM = Stream((Channel("pressure", "bar", 1.5, 2.0), Channel("flow"), Channel("", "°C", -1.0, 0.5)), 0.25)


def own_graphs() -> dict[str, Graph]:
    """One network of this toolkit for each kind of layer, with states that do not start at 0."""
    rng = np.random.default_rng(2)

    def f(*shape: int) -> np.ndarray:
        return rng.normal(size=shape) * 0.5

    streaming = (
        Conv1d("conv", f(3, 3, 4), f(4), 2),
        Lstm(
            "one",
            f(4, 20),
            f(5, 20),
            f(20),
            peephole=f(3, 5),
            initial_hidden=f(5),
            initial_cell=f(5),
            gate_clip=1.5,
        ),
        Lstm("two", f(5, 8), f(2, 8), f(8), coupled=True),
        Gru("three", f(2, 9), f(3, 9), f(9), f(9), initial_hidden=f(3), activation=Function("linear")),
        Rnn("four", f(3, 4), f(4, 4), f(4), Function("leaky_relu", 0.2)),
        Dense("out", f(4, 2), f(2)),
    )
    windowed = (
        Gru("forward", f(3, 12), f(4, 12), f(12), f(12), reset_after=False),
        Gru("back", f(3, 12), f(4, 12), f(12), f(12), backwards=True),
        Merge("both", "concat"), Dense("scores", f(8, 1), f(1)), Softmax("weights", "time"),
        Attend("context"), Repeat("repeat"), Lstm("decoder", f(8, 12), f(3, 12), f(12)), Row("last"),
        Dense("out", f(3, 2), f(2)),
    )  # fmt: skip
    reads = ((-1,), (-1,), (0, 1), (2,), (3,), (4, 2), (5,), (6,), (7,), (8,))
    return {
        "streaming": Graph("pump", streaming, STREAM, {"epochs": 3}),
        "windowed": Graph("bearing", windowed, STREAM, {}, reads, 6),
    }


OWN = own_graphs()


@pytest.mark.parametrize("name", OWN)
def test_a_file_of_this_toolkit_comes_back_as_it_was(name: str) -> None:
    graph = OWN[name]
    back = read_onnx(emit_onnx(graph))
    assert (back.name, back.stream, back.window) == (graph.name, graph.stream, graph.window)
    assert {key: value for key, value in back.made.items() if key != "last_only"} == dict(graph.made)
    x = np.random.default_rng(4).normal(size=(2, graph.window or 20, 3))
    assert np.abs(run(back, x)[0] - run(graph, x)[0]).max() < 1e-8  # float32 alpha of leaky_relu


def described(**changes: Any) -> bytes:
    """A file of this toolkit whose description is changed."""
    model = proto(emit_onnx(OWN["streaming"]))
    for entry in model.metadata_props:
        if entry.key == "edge_lstm":
            entry.value = json.dumps({**json.loads(entry.value), **changes})
    return model.SerializeToString()


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"name": 5}, "its description .metadata 'edge_lstm'. is damaged .TypeError: 5 is not text"),
    "stream": ({"stream": []}, "is damaged"),
    "channel": ({"stream": {"period_s": 1, "channels": [{"name": "a"}]}}, "is damaged"),
    "scale": (
        {"stream": {"period_s": 1, "channels": [{"name": "a", "unit": "", "center": 0, "scale": 0}]}},
        "expected finite numbers and a scale above 0",
    ),
    "period": ({"stream": {"period_s": -1, "channels": []}}, "period_s is -1.0"),
    "made": ({"made": 3}, "is damaged"),
    "channels": ({"stream": {"period_s": 1, "channels": []}}, "names 0 channels, its input has 3 features"),
    "format": ({"format": 2}, "its description has format 2, this version reads 1; update edge-lstm"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_description_is_an_error_and_never_ignored(name: str) -> None:
    changes, words = BROKEN[name]
    with pytest.raises(ModelError, match=words):
        read_onnx(described(**changes))


def with_states(text: str) -> bytes:
    model = proto(emit_onnx(OWN["streaming"]))
    for entry in model.metadata_props:
        entry.value = text if entry.key == "edge_lstm_states" else entry.value
    return model.SerializeToString()


def test_damaged_states_and_rows_that_do_not_start_at_0_are_refused() -> None:
    damaged = ("{", '{"one_hidden": 3}', '{"one_hidden": {"shape": [1, -1], "initial": [1, 2]}}', "[" * 9000)
    for text in damaged:
        assert "(metadata 'edge_lstm_states') is damaged" in refused(with_states(text), ModelError)
    assert "4194305 characters, at most 4194304 are read" in refused(with_states(" " * 4194305), ModelError)
    rows = '{"conv_rows": {"shape": [1, 1, 2], "initial": [1, 2]}}'
    assert "the rows of 'conv_rows_in' after reset are not 0" in refused(with_states(rows))


def test_constants_of_a_node_are_read_in_all_their_forms() -> None:
    forms = {
        "value": numpy_helper.from_array(np.array([2.0], np.float32)),
        "value_float": 2.0,
        "value_floats": [2.0],
    }
    for form, value in forms.items():
        content = built([("Constant", [], ["c"], {form: value}), DENSE, ("Mul", ["d", "c"], ["y"], {})])
        layer = read_onnx(content).layers[0]
        assert isinstance(layer, Dense)
        assert np.array_equal(layer.kernel, 2 * W["dense"].astype(np.float32))
    text = built([("Constant", [], ["c"], {"value_string": "two"}), DENSE, ("Mul", ["d", "c"], ["y"], {})])
    assert "Constant 'c' holds neither numbers nor a tensor" in refused(text)


def test_layers_are_named_after_the_modules_that_exporters_name() -> None:
    names = {
        "/head/fc/Gemm": "fc",
        "node_linear_3": "linear",
        "LSTM__33": "lstm",
        "a/b/Tensordot/MatMul": "b",
        "": "gemm",
    }
    for name, label in names.items():
        node = Node("LSTM" if "LSTM" in name else "Gemm", name, "", (), (), {})
        assert label_of(node) == label
