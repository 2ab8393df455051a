"""Float .tflite files against LiteRT's interpreter: fused operators, and the layers around them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tflite
from ai_edge_litert.interpreter import Interpreter

from edge_lstm.emit.tflite_file import FLOAT32, FileSpec, TensorSpec, pack
from edge_lstm.errors import EdgeLstmError
from edge_lstm.graph import Conv1d, Graph, Lstm, Merge, Row
from edge_lstm.importers.tflite_float import read_float_tflite
from edge_lstm.reference import floating

TOLERANCE = 1e-5  # LiteRT computes in float32
FLOAT16, INT8 = tflite.TensorType.FLOAT16, tflite.TensorType.INT8
TANH, RELU = 4, 1
UNIDIRECTIONAL = (
    1,
    5,
    9,
    12,
    16,
    18,
    20,
)  # kernels, recurrent, peephole, bias, projection, states, normalization
FORWARD, BACKWARD = (1, 5, 9, 12, 16, 35, 0), (18, 22, 26, 29, 33, 37, 0)


def litert(content: bytes, windows: np.ndarray) -> np.ndarray:
    """LiteRT's output for each window (in the file's layout), from reset."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    first, last = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    found = []
    for window in windows:
        interpreter.reset_all_variables()
        interpreter.set_tensor(first, window)
        interpreter.invoke()
        found.append(interpreter.get_tensor(last).copy())
    return np.stack(found)


def difference(content: bytes, time_major: bool = False, scale: float = 1.5) -> tuple[Graph, float]:
    """The graph, and its largest difference from LiteRT over random windows, relative above 1."""
    graph = read_float_tflite(content)
    interpreter = Interpreter(model_content=content)
    shape = interpreter.get_input_details()[0]["shape"]
    windows = np.random.default_rng(3).normal(0, scale, (2, *shape)).astype(np.float32)
    expected = litert(content, windows)
    if time_major:
        windows = np.swapaxes(windows, 1, 2)
        expected = np.swapaxes(expected, 1, 2) if expected.ndim == 4 else expected
    steps = graph.made["timesteps"]
    rows = windows.reshape(-1, steps, shape[-1])
    found, _ = floating.run(graph, graph.stream.to_network(rows))
    expected = expected.reshape(len(rows), -1, graph.outputs)
    found = found[:, -1:] if graph.made.get("last_only") else found
    assert found.shape == expected.shape
    return graph, float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


# --- files ------------------------------------------------------------------------------------------


class File:
    """A file under construction; ``value`` is the tensor that the last operator wrote."""

    def __init__(self, shape: tuple[int, ...] = (1, 6, 3), seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.spec = FileSpec("test")
        self.input = self.value = self.spec.add(TensorSpec("x", shape, FLOAT32))
        self.spec.inputs = {"x": self.value}

    def weights(self, *shape: int, spread: float = 0.5, mean: float = 0.0) -> int:
        data = self.rng.normal(mean, spread, shape).astype(np.float32)
        return self.spec.add(TensorSpec("weights", shape, FLOAT32, data=data))

    def numbers(self, *values: float, kind: type = np.int32) -> int:
        data = np.array(values, kind)
        return self.spec.constant("numbers", data)

    def tensor(self, *shape: int) -> int:
        return self.spec.add(TensorSpec("value", shape, FLOAT32))

    def run(self, kind: str, shape: tuple[int, ...], *others: int, table: str = "", **options: Any) -> int:
        """An operator that reads ``value`` and then ``others``."""
        output = self.tensor(*shape)
        self.spec.operate(kind, 1, [self.value, *others], [output], table, **options)
        self.value = output
        return output

    def dense(self, inputs: int, outputs: int, shape: tuple[int, ...], **options: Any) -> int:
        kernel, bias = self.weights(outputs, inputs), self.weights(outputs)
        return self.run("FULLY_CONNECTED", shape, kernel, bias, table="FullyConnectedOptions", **options)

    def bytes(self) -> bytes:
        self.spec.outputs = {"y": self.value}
        return pack(self.spec)


def variant(rng: np.random.Generator, **fixed: Any) -> dict[str, Any]:
    """Random options of a fused LSTM."""
    return {
        "coupled": rng.random() < 0.3, "peephole": rng.random() < 0.4, "normalized": rng.random() < 0.35,
        "projection": [None, "bias", "plain"][rng.integers(3)], "streams": int(rng.choice([1, 1, 2, 3])),
        "time_major": bool(rng.random() < 0.4), "clip": float(rng.choice([0, 0, 0.5, 2.0])),
        "projection_clip": float(rng.choice([0, 0.3])), "activation": int(rng.choice([TANH, TANH, RELU])),
        "units": int(rng.integers(1, 10)), "outputs": int(rng.integers(1, 10)),
        "spread": float(rng.choice([0.4, 1.0])), "long": bool(rng.random() < 0.6), **fixed,
    }  # fmt: skip


def add_direction(
    file: File, inputs: list[int], places: tuple[int, ...], features: int, v: dict[str, Any]
) -> int:
    """The weights and states of one direction; returns the width of its output."""
    kernels, recurrent, peepholes, biases, projection, states, normalization = places
    units, outputs = v["units"], v["outputs"] if v["projection"] else v["units"]
    spread = v["spread"] * (0.5 if v["activation"] == RELU else 1.0)
    for gate in range(int(v["coupled"]), 4):
        inputs[kernels + gate] = file.weights(units, features, spread=spread / features**0.5)
        inputs[recurrent + gate] = file.weights(units, outputs, spread=spread / outputs**0.5)
        inputs[biases + gate] = file.weights(units, spread=0.5 * spread)
        if v["normalized"] and normalization:
            inputs[normalization + gate] = file.weights(units, spread=0.4, mean=1.0)
        if v["peephole"] and gate != 2:
            inputs[peepholes + min(gate, 2)] = file.weights(units, spread=0.7 * spread)
    if v["projection"]:
        inputs[projection] = file.weights(outputs, units, spread=spread / units**0.5)
        if v["projection"] == "bias":
            inputs[projection + 1] = file.weights(outputs, spread=0.3)
    for place, width in ((states, outputs), (states + 1, units)):
        state = TensorSpec("state", (v["streams"], width), FLOAT32, variable=True)
        inputs[place] = file.spec.add(state)
    return int(outputs)


def add_lstm(file: File, v: dict[str, Any], merged: bool | None = None) -> None:
    """One fused LSTM that reads ``value``; merged: a bidirectional one with or without one output."""
    shape = file.spec.tensors[file.value].shape
    bidirectional = merged is not None
    inputs = [-1] * (48 if bidirectional else 24 if v["long"] or v["normalized"] else 20)
    inputs[0] = file.value
    if bidirectional:
        widths = [add_direction(file, inputs, places, shape[-1], v) for places in (FORWARD, BACKWARD)]
    else:
        widths = [add_direction(file, inputs, UNIDIRECTIONAL, shape[-1], v)]
    widths = [sum(widths)] if merged else widths
    outputs = [file.tensor(*shape[:2], width) for width in widths]
    options = {
        "FusedActivationFunction": v["activation"], "CellClip": v["clip"],
        "ProjClip": v["projection_clip"], "TimeMajor": v["time_major"],
    }  # fmt: skip
    word = "Bidirectional" if bidirectional else "Unidirectional"
    if bidirectional:
        options["MergeOutputs"] = merged
    kind = f"{word.upper()}_SEQUENCE_LSTM"
    file.spec.operate(kind, 1, inputs, outputs, f"{word}SequenceLSTMOptions", **options)
    file.value = outputs[0]
    if bidirectional and not merged:
        joined = file.tensor(*shape[:2], sum(widths))
        file.spec.operate("CONCATENATION", 1, outputs, [joined], "ConcatenationOptions", Axis=2)
        file.value = joined


def lstm_file(v: dict[str, Any], seed: int, layers: int = 1, merged: bool | None = None) -> bytes:
    rng = np.random.default_rng(seed)
    steps, features = int(rng.choice([1, 2, 3, 7, 20, 50])), int(rng.integers(1, 9))
    rows = (steps, v["streams"]) if v["time_major"] else (v["streams"], steps)
    file = File((*rows, features), seed)
    for _ in range(layers):
        add_lstm(file, v, merged)
    return file.bytes()


PLAIN = variant(
    np.random.default_rng(0), coupled=False, peephole=False, normalized=False, projection=None, streams=1,
    time_major=False, clip=0.0, activation=TANH, units=4, spread=1.0, long=True,
)  # fmt: skip


def outcome(content: bytes) -> bool:
    """Whether it is read; anything but an error of ours, and more than 2 s, fails."""
    began = time.process_time()
    try:
        read_float_tflite(content)
        return True
    except EdgeLstmError:
        return False
    finally:
        assert time.process_time() - began < 2.0


# --- the fused operators ----------------------------------------------------------------------------


@pytest.mark.parametrize("group", range(6))
def test_a_random_fused_lstm_computes_what_litert_computes(group: int) -> None:
    rng = np.random.default_rng(group)
    for number in range(30):
        v = variant(rng)
        content = lstm_file(v, 100 * group + number, layers=1 + (number % 3 == 0))
        _, worst = difference(content, v["time_major"])
        assert worst < TOLERANCE, f"model {number} of group {group}: {worst} with {v}"


def test_a_random_bidirectional_lstm_computes_what_litert_computes() -> None:
    rng = np.random.default_rng(8)
    for number in range(40):
        merged = bool(number % 2)
        v = variant(rng, normalized=False)
        if merged and not v["time_major"]:
            v["streams"] = 1
        graph, worst = difference(lstm_file(v, number, merged=merged), v["time_major"])
        assert worst < TOLERANCE, f"model {number}: {worst} with {v}"
        assert [layer.backwards for layer in graph.layers if isinstance(layer, Lstm)] == [False, True]


def test_every_variant_arrives_as_itself() -> None:
    v = {**PLAIN, "coupled": True, "peephole": True, "normalized": True, "projection": "bias", "outputs": 3,
         "clip": 2.5, "projection_clip": 0.25, "activation": RELU}  # fmt: skip
    [layer] = read_float_tflite(lstm_file(v, 5)).layers
    assert isinstance(layer, Lstm)
    assert layer.coupled and layer.peephole is not None and layer.normalization is not None
    assert layer.projection is not None and layer.projection_bias is not None
    assert (layer.cell_clip, layer.projection_clip, layer.activation.kind) == (2.5, 0.25, "relu")
    assert (layer.outputs, layer.units) == (3, 4)


def test_layer_normalization_of_nearly_equal_gates_has_litert_epsilon() -> None:
    """Gates with a variance of about 1e-8: another epsilon, or a bias before it, would be seen at once."""
    v = {**PLAIN, "normalized": True, "spread": 1e-4, "units": 7}
    _, worst = difference(lstm_file(v, 11))
    assert worst < TOLERANCE


# --- layers around them -----------------------------------------------------------------------------


def last_row(file: File, shape: tuple[int, ...], index: int = -1, axis: int = 1) -> int:
    begin = [0, 0, 0]
    begin[axis] = index
    bounds = [file.numbers(*begin), file.numbers(*[index + 1 if a == axis else 0 for a in range(3)])]
    whole = 0b111 & ~(1 << axis)
    return file.run(
        "STRIDED_SLICE", shape, *bounds, file.numbers(1, 1, 1), table="StridedSliceOptions",
        BeginMask=whole, EndMask=whole, ShrinkAxisMask=1 << axis,
    )  # fmt: skip


def branches(file: File, kind: str, width: int, table: str, **options: Any) -> None:
    """Two LSTMs over the same input, joined."""
    source = file.value
    add_lstm(file, PLAIN)
    first, file.value = file.value, source
    file.run("REVERSE_V2", (1, 6, 3), file.numbers(1))
    add_lstm(file, PLAIN)
    second = file.run("REVERSE_V2", (1, 6, 4), file.numbers(1))
    file.value = first
    file.run(kind, (1, 6, width), second, table=table, **options)


def last_and_dense(file: File) -> None:
    add_lstm(file, PLAIN)
    last_row(file, (1, 4))
    file.dense(4, 2, (1, 2), FusedActivationFunction=RELU)
    file.run("SOFTMAX", (1, 2), table="SoftmaxOptions", Beta=1.0)


def rows_and_activations(file: File) -> None:
    add_lstm(file, PLAIN)
    for kind in ("LOGISTIC", "TANH", "ELU"):
        file.dense(4, 4, (1, 6, 4), KeepNumDims=True)
        file.run(kind, (1, 6, 4))
    file.run("LEAKY_RELU", (1, 6, 4), table="LeakyReluOptions", Alpha=0.3)
    file.dense(4, 4, (6, 4), FusedActivationFunction=3)
    file.run("MUL", (6, 4), file.numbers(0.5, kind=np.float32), table="MulOptions")
    file.dense(4, 2, (6, 2))


def moves(file: File) -> None:
    file.run("TRANSPOSE", (6, 1, 3), file.numbers(1, 0, 2))
    file.run("SQUEEZE", (6, 3), table="SqueezeOptions", SqueezeDims=None)
    file.run("EXPAND_DIMS", (1, 6, 3), file.numbers(0))
    add_lstm(file, PLAIN)
    file.run("RESHAPE", (6, 1, 4), file.numbers(-1, 1, 4))
    last_row(file, (1, 4), axis=0)


def flattened(file: File) -> None:
    add_lstm(file, PLAIN)
    file.run("RESHAPE", (1, 24), file.numbers(-1, 24))
    file.dense(24, 2, (1, 2))


def flattened_backwards(file: File) -> None:
    file.run("REVERSE_V2", (1, 6, 3), file.numbers(1))
    add_lstm(file, PLAIN)
    file.dense(24, 2, (1, 2))  # LiteRT flattens where the weights ask for it


def backwards_ends(file: File) -> None:
    """The last row of a layer that reads backwards belongs to the first row of the window."""
    file.run("REVERSE_V2", (1, 6, 3), file.numbers(1))
    add_lstm(file, PLAIN)
    rows = file.value
    first = last_row(file, (1, 4), index=0)
    file.value = rows
    last_row(file, (1, 4))
    file.run("CONCATENATION", (1, 8), first, table="ConcatenationOptions", Axis=-1)


def autoencoder(file: File) -> None:
    add_lstm(file, PLAIN)
    last_row(file, (1, 4))
    file.run("RESHAPE", (1, 1, 4), file.numbers(1, 1, 4))
    file.run("TILE", (1, 6, 4), file.numbers(1, 6, 1))
    add_lstm(file, PLAIN)


def normalized(file: File) -> None:
    """Scaling in front, between and after; a vector that is added to every row."""
    file.run("MUL", (1, 6, 3), file.weights(3, spread=0.1, mean=1.0), table="MulOptions")
    file.run("SUB", (1, 6, 3), file.weights(1, 1, 3), table="SubOptions")
    add_lstm(file, PLAIN)
    rows = file.value
    last_row(file, (1, 4))
    file.run("ADD", (1, 6, 4), rows, table="AddOptions")
    file.run("DIV", (1, 6, 4), file.weights(4, spread=0.1, mean=2.0), table="DivOptions")
    file.dense(4, 2, (1, 6, 2), KeepNumDims=True)


def averaged(file: File) -> None:
    branches(file, "ADD", 4, "AddOptions")
    file.run("MUL", (1, 6, 4), file.numbers(0.5, kind=np.float32), table="MulOptions")


LAYERS: list[Callable[[File], None]] = [
    last_and_dense, rows_and_activations, moves, flattened, flattened_backwards, backwards_ends, autoencoder,
    normalized, averaged,
    lambda file: branches(file, "CONCATENATION", 8, "ConcatenationOptions", Axis=2),
    lambda file: branches(file, "ADD", 4, "AddOptions", FusedActivationFunction=RELU),
    lambda file: branches(file, "MUL", 4, "MulOptions"),
]  # fmt: skip


@pytest.mark.parametrize("build", LAYERS)
def test_layers_around_an_lstm_compute_what_litert_computes(build: Callable[[File], None]) -> None:
    file = File()
    build(file)
    _, worst = difference(file.bytes())
    assert worst < TOLERANCE


def test_a_flattened_window_becomes_a_convolution_as_long_as_the_window() -> None:
    file = File()
    flattened(file)
    graph = read_float_tflite(file.bytes())
    assert [type(layer) for layer in graph.layers] == [Lstm, Conv1d]
    assert graph.window == 0 and graph.made["last_only"]


def test_two_directions_with_their_average_become_one_merge() -> None:
    file = File()
    averaged(file)
    graph = read_float_tflite(file.bytes())
    assert [layer.mode for layer in graph.layers if isinstance(layer, Merge)] == ["mean"]
    assert graph.window == 6 and not any(isinstance(layer, Row) for layer in graph.layers)
