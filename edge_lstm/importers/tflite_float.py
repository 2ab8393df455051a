"""Float .tflite files -> Graph: fused LSTM operators, the loops that Keras 3 writes, unrolled windows.

Reads a path or bytes, operator by operator; refuses what it cannot carry, with every reason at once.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import ModelError, UnsupportedModel, raise_all
from edge_lstm.graph import Graph
from edge_lstm.importers.flatbuffer import (
    MAX_FLOAT_BYTES,
    MAX_NODES,
    Operator,
    Subgraph,
    Tensor,
    read_subgraphs,
)
from edge_lstm.importers.tflite_float_axes import FEATURES, ONE, ROWS, STREAMS, Axes, Form, Rows, Sizes
from edge_lstm.importers.tflite_float_builder import Builder
from edge_lstm.importers.tflite_float_cells import layer_of
from edge_lstm.importers.tflite_float_constants import Constants, described
from edge_lstm.importers.tflite_float_forms import KINDS, Forms, check_shape
from edge_lstm.importers.tflite_float_layers import JOINS, READERS, packed, run
from edge_lstm.importers.tflite_float_loop import Loop, read_loop, window_axes
from edge_lstm.naming import identifier

MAX_VALUES = 1 << 24  # inputs of one invocation
MAX_LOOP_OPERATORS = 4 * MAX_NODES  # loops may share a body
SUPPORTED = {*KINDS, *READERS, *JOINS, "PACK", "WHILE", "DEQUANTIZE"}
ORIGINAL = "read the original model (.keras, .onnx) instead"
ADVICE = {
    "QUANTIZE": "it is a quantized network: give the float one and quantize it here",
    "SELECT_V2": f"masked time steps: {ORIGINAL}",
    "BATCH_MATMUL": f"attention: {ORIGINAL}",
    "CONV_2D": f"a convolution: {ORIGINAL}",
    "MEAN": "an average over the window: keep the last row, or train with attention",
    "VAR_HANDLE": f"a stateful layer: convert without stateful=True, or {ORIGINAL}",
    "LSTM": "the LSTM operator of old converters: convert again with TensorFlow 2",
}
ORDERS: dict[int, tuple[Axes, ...]] = {
    2: ((STREAMS, FEATURES), (ROWS, FEATURES)),
    3: ((STREAMS, ROWS, FEATURES), (ROWS, STREAMS, FEATURES)),
}
Value = Rows | Form | Tensor | str | None  # str: why a value cannot be read; None: its operator was refused


def read_float_tflite(source: Path | bytes) -> Graph:
    """Read a float .tflite file.

    The streams of a batch become independent streams.  ``made["timesteps"]`` is the file's window;
    ``made["note"]`` says that weights were float16 or int8 (dynamic range) and are read as float32.
    A fused LSTM keeps its state between two invocations of LiteRT; a Graph with a window starts each from
    reset.  Raises ModelError for a damaged or foreign file, UnsupportedModel with all reasons.
    """
    content, where, stem = _load(source)
    try:
        subgraphs = read_subgraphs(content)
        _check_kind(subgraphs[0])
        return _read(subgraphs, identifier(stem))
    except ModelError as error:
        raise type(error)(f"{where}: {error}") from error


def _load(source: Path | bytes) -> tuple[bytes, str, str]:
    """Content, what messages call it, and the stem of its name."""
    if isinstance(source, bytes):
        return source, "the .tflite content", "model"
    path = Path(source)
    try:
        with path.open("rb") as file:
            return file.read(MAX_FLOAT_BYTES + 1), str(path), path.stem
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}; give the path of a .tflite file") from error


def _check_kind(graph: Subgraph) -> None:
    """Raise for a file without float activations, with the way round."""
    kinds = Counter(operator.kind for operator in graph.operators)
    inputs = {tensor.kind for tensor in graph.inputs if tensor is not None}
    if not inputs or inputs == {"FLOAT32"}:
        return
    unrolled = not any("LSTM" in kind for kind in kinds) and kinds["LOGISTIC"] + kinds["TANH"] > 3
    if unrolled and "WHILE" not in kinds:
        raise UnsupportedModel(
            f"the LSTM was unrolled into {sum(kinds.values())} primitive operators with {inputs.pop()} "
            "rounding between each of them; convert the original model without unroll=True, or give the "
            "float model and quantize it here"
        )
    raise UnsupportedModel(
        f"its input is {' and '.join(sorted(inputs))}, expected FLOAT32: an integer network is read into a "
        "QGraph (read_tflite); to quantize it anew, give the float model"
    )


def _read(subgraphs: tuple[Subgraph, ...], name: str) -> Graph:
    """Try the orders that the axes of the input can have; the first one says what is wrong."""
    errors: list[ModelError] = []
    inputs = subgraphs[0].inputs
    tensor = inputs[0] if len(inputs) == 1 else None
    if tensor is None or len(tensor.shape) not in ORDERS or not 1 <= math.prod(tensor.shape) <= MAX_VALUES:
        raise UnsupportedModel(
            f"it has {len(inputs)} inputs, the first {described(inputs[0] if inputs else None)}, expected "
            f"one [batch, timesteps, features] of at most {MAX_VALUES} values"
        )
    for axes in ORDERS[len(tensor.shape)]:
        sizes = dict(zip(axes, tensor.shape, strict=True))
        try:
            reading = _Reading(subgraphs, Sizes(sizes.get(STREAMS, 1), sizes.get(ROWS, 1)))
            return reading.graph(tensor, axes, name)
        except ModelError as error:
            errors.append(error)
    raise errors[0]


def _start(constants: Constants, value: Value, place: int) -> FloatArray | None:
    """The state that a loop starts from, the same for every stream; None for zero."""
    if not isinstance(value, Tensor):
        raise UnsupportedModel(f"the loop starts from a state that other layers compute (value {place})")
    rows = constants.numbers(value).reshape(value.shape)
    if rows.ndim != 2 or (rows != rows[0]).any():
        raise UnsupportedModel(f"the loop starts each stream from another state (value {place})")
    return rows[0] if rows.any() else None


class _Reading:
    """One file, read with one order of its input's axes."""

    def __init__(self, subgraphs: tuple[Subgraph, ...], sizes: Sizes) -> None:
        self.subgraphs, self.sizes = subgraphs, sizes
        self.main = subgraphs[0]
        self.constants = Constants()
        self.builder = Builder(sizes, self.constants)
        self.forms = Forms(self.builder.symbols, sizes)
        self.values: dict[int, Value] = {}
        self.states: set[int] = set()
        self.loop_operators = 0
        self.problems: list[str] = []

    def graph(self, tensor: Tensor, axes: Axes, name: str) -> Graph:
        features = tensor.shape[-1]
        self.values[tensor.index] = Rows(-1, self.sizes.named(axes, features), features, True)
        self.check_operators()
        for number, operator in enumerate(self.main.operators):
            if operator.kind in SUPPORTED:
                self.run(number, operator)
            else:
                self.keep(operator, [None] * len(operator.outputs))
        if len(self.problems) == 1:
            raise UnsupportedModel(self.problems[0])
        raise_all(UnsupportedModel, "it cannot be carried", self.problems)
        output = self.output()
        draft = self.builder.draft
        del draft.layers[output.index + 1 :], draft.sources[output.index + 1 :]
        made: dict[str, Any] = {"importer": "tflite", "timesteps": self.sizes.window}
        if self.constants.note:
            made["note"] = self.constants.note
        return draft.graph(name, None, features, self.sizes.window, made)

    def check_operators(self) -> None:
        """Name the operators that are not read, each with what to do about it."""
        others = Counter(op.kind for op in self.main.operators if op.kind not in SUPPORTED)
        for kind, count in others.items():
            advice = ADVICE.get(kind, ORIGINAL)
            if kind.startswith("CUSTOM"):
                advice = "convert with a fixed batch of 1 and without SELECT_TF_OPS"
            self.problems.append(f"{count} operator(s) {kind} are not supported: {advice}")

    def output(self) -> Rows:
        """What the network returns."""
        tensor = self.main.outputs[0] if len(self.main.outputs) == 1 else None
        value = None if tensor is None else self.values.get(tensor.index)
        if isinstance(value, str):
            raise UnsupportedModel(f"its output is {value}")
        rows = self.rows(value) if isinstance(value, (Rows, Form)) else None
        if rows is None or rows.index < 0:
            raise UnsupportedModel(
                f"it has {len(self.main.outputs)} outputs, expected one that a layer writes"
            )
        if rows.sequence and rows.backwards and self.sizes.window > 1:
            raise UnsupportedModel("its output rows lie in reverse order; reverse them in the model")
        return rows

    def rows(self, value: Rows | Form) -> Rows:
        return self.builder.vector(value) if isinstance(value, Form) else value

    # --- operators

    def value(self, tensor: Tensor | None) -> Value:
        if tensor is None or tensor.data is not None:
            return tensor
        if tensor.variable:
            return "a variable tensor"
        if tensor.index not in self.values:
            raise ModelError(f"{described(tensor)} is read before it is computed; convert the model again")
        return self.values[tensor.index]

    def keep(self, operator: Operator, found: list[Any]) -> None:
        for tensor, value in zip(operator.outputs, found, strict=True):
            if tensor is not None and tensor.index in self.values:
                raise ModelError(f"{described(tensor)} is written twice; convert the model again")
            if tensor is not None:
                self.values[tensor.index] = value

    def run(self, number: int, operator: Operator) -> None:
        """Read one operator; what is wrong with it is added to the problems."""
        found: list[Any] = [None] * len(operator.outputs)
        values = [self.value(tensor) for tensor in operator.inputs]
        constants = [v if isinstance(v, Tensor) else t for t, v in zip(operator.inputs, values, strict=True)]
        operator = replace(operator, inputs=tuple(constants))
        absent = [t is not None and v is None for t, v in zip(operator.inputs, values, strict=True)]
        try:
            if not any(absent):
                found = list(self.outputs_of(operator, values))
            if len(found) != len(operator.outputs):
                raise ModelError(f"it has {len(operator.outputs)} outputs, expected {len(found)}")
            for tensor, value in zip(operator.outputs, found, strict=True):
                if isinstance(value, (Rows, Form)):
                    check_shape(tensor, self.sizes.shape(value.axes, value.width))
        except ModelError as error:
            problem = f"operator {number} {operator.kind}: {error}"
            if not isinstance(error, UnsupportedModel):
                raise ModelError(problem) from error
            self.problems.append(problem)
            found = [None] * len(operator.outputs)
        self.keep(operator, found)

    def outputs_of(self, operator: Operator, values: list[Value]) -> tuple[Value, ...]:
        """The values that an operator writes."""
        if operator.kind == "DEQUANTIZE" and isinstance(values[0] if values else None, Tensor):
            return (values[0],)
        if operator.kind == "WHILE":
            return self.loop(operator, values)
        if "LSTM" in operator.kind:
            self.check_states(operator)
            values = values[:1]
        for value in values:
            if isinstance(value, str):
                raise UnsupportedModel(f"it reads {value}")
        known = [value for value in values if not isinstance(value, str)]
        if operator.kind == "PACK":
            return packed(self.builder, operator, known)
        written = [value for value in known if isinstance(value, (Rows, Form))]
        if operator.kind in KINDS and written and all(isinstance(value, Form) for value in written):
            return self.forms.run(operator, [v for v in known if not isinstance(v, Rows)])
        if operator.kind not in READERS and operator.kind not in JOINS:
            raise UnsupportedModel(
                "it works on whole windows here, expected single rows of an unrolled window"
            )
        return run(self.builder, operator, [self.rows(v) if isinstance(v, Form) else v for v in known])

    def check_states(self, operator: Operator) -> None:
        states = {tensor.index for tensor in operator.inputs if tensor is not None and tensor.variable}
        if states & self.states:
            raise UnsupportedModel("it shares its state with another layer")
        self.states |= states

    def loop(self, operator: Operator, values: list[Value]) -> tuple[Value, ...]:
        """One recurrent layer; the rows and the last hidden vector are what may be read of it."""
        graphs = []
        for name in ("CondSubgraphIndex", "BodySubgraphIndex"):
            index = operator.options.get(name, 0)
            if not 0 < index < len(self.subgraphs):
                raise ModelError(f"its {name} is {index} of {len(self.subgraphs)}; convert the model again")
            graphs.append(self.subgraphs[index])
        self.loop_operators += sum(len(graph.operators) for graph in graphs)
        if self.loop_operators > MAX_LOOP_OPERATORS:
            raise UnsupportedModel(f"its loops have more than {MAX_LOOP_OPERATORS} operators")
        known = [None if isinstance(value, str) else value for value in values]
        known = [self.rows(value) if isinstance(value, Form) else value for value in known]
        found = read_loop(graphs[0], graphs[1], known, self.sizes, self.constants)
        window = known[found.window]
        assert isinstance(window, Rows)
        initial = tuple(_start(self.constants, known[place], place) for place in found.state)
        layer = layer_of(found.symbols, found.cell, initial, window.backwards)
        axes = window_axes(self.sizes, layer.outputs)
        rows = Rows(self.builder.add(layer, window.index), axes, layer.outputs, True, window.backwards)
        return tuple(self.after(found, place, rows, operator.outputs[place]) for place in range(len(values)))

    def after(self, loop: Loop, place: int, rows: Rows, tensor: Tensor | None) -> Value:
        """What value ``place`` of a loop is when it has ended."""
        if place in loop.stacks:
            return rows
        if place not in loop.last:
            return "a counter, a cell state or an input of a loop after its last round"
        form = self.builder.row(rows, self.sizes.window - 1)
        rank = 0 if tensor is None else len(tensor.shape)
        return Form(form.sum, (ONE,) * (rank - len(form.axes)) + form.axes, form.width)
