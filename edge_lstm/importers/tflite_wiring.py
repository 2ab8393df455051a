"""The layers of an integer .tflite file while they are read, and which tensor holds whose value."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from edge_lstm.importers.flatbuffer import Operator, Tensor
from edge_lstm.importers.tflite_axes import FEATURE, TIME, Layout, Value
from edge_lstm.importers.tflite_layers import Findings, read_dense, read_relu, read_softmax
from edge_lstm.importers.tflite_lstm import read_lstm
from edge_lstm.qgraph import QConcat, QLayer, QRow, Quantization

MAX_FLATTENED = 256  # time steps


class Wiring:
    """Layers in order, and the value of every tensor that was written so far.

    names: of the LSTM and dense layers, from our own description; empty for other people's files.
    problems: everything that is wrong so far.  What a layer with problems writes is not known.
    """

    def __init__(self, layout: Layout, names: Sequence[str]) -> None:
        self.layout = layout
        self.layers: list[QLayer] = []
        self.sources: list[tuple[int, ...]] = []
        self.problems: list[str] = []
        self.tensors: dict[int, Value] = {}
        self._names: Iterator[str] = iter(names)
        self._counts: Counter[str] = Counter()

    def name(self, word: str) -> str:
        """The name of the next layer of a kind."""
        if word in ("lstm", "dense"):
            given = next(self._names, None)
            if given is not None:
                return given
        self._counts[word] += 1
        return f"{word}_{self._counts[word]}"

    def value(self, tensor: Tensor | None) -> Value | None:
        """What an earlier operator, or the network's input, put into ``tensor``."""
        return None if tensor is None else self.tensors.get(tensor.index)

    def add(self, layer: QLayer, reads: Sequence[int]) -> int:
        """Append a layer; returns its index."""
        self.layers.append(layer)
        self.sources.append(tuple(reads))
        return len(self.layers) - 1

    def put(self, operator: Operator, where: str, value: Value) -> None:
        """Let the operator's output hold ``value``, whose shape must be the output's."""
        tensor = operator.outputs[0] if len(operator.outputs) == 1 else None
        if tensor is None:
            self.problems.append(f"{where}: it has {len(operator.outputs)} outputs, expected 1")
        elif tensor.index in self.tensors:
            self.problems.append(f"{where}: it writes a tensor that an operator wrote before")
        elif tensor.shape != value.shape:
            self.problems.append(f"{where}: its output is {list(tensor.shape)}, expected {list(value.shape)}")
        else:
            self.tensors[tensor.index] = value

    def rows_of(self, value: Value, quantization: Quantization, found: Findings) -> Value | None:
        """``value`` with a row's features along the last axis; rows that are flattened become one vector.

        None, with a problem, where the last axis holds anything else.
        """
        if value.has_rows():
            return value
        flat = (TIME, FEATURE) if value.width > 1 else (TIME,)
        steps = self.layout.timesteps
        if not value.dims or value.along(-1) != flat:
            found.add(f"the last axis of its input {list(value.shape)} does not hold the features of one row")
            return None
        if steps > MAX_FLATTENED:
            found.add(f"it reads {steps} time steps at once, at most {MAX_FLATTENED} are supported")
            return None
        name = self.name("flatten")
        rows = [
            self.add(QRow(f"{name}_row_{step}", quantization, step), [value.layer]) for step in range(steps)
        ]
        joined = self.add(QConcat(name, quantization), rows)
        return value.computed(joined, steps * value.width, sequence=False)


def wire_lstm(net: Wiring, operator: Operator, x: Value | None) -> None:
    """A fused LSTM.  x: what it reads, None where that is not known."""
    name = net.name("lstm")
    layout = replace(net.layout, time_major=bool(operator.options.get("TimeMajor")))
    layer, problems = read_lstm(operator, name, layout)
    found = Findings(f"lstm '{name}'")
    if x is not None and not x.sequence:
        found.add("it reads one row a window, expected the rows of all time steps")
    elif x is not None and layer is not None:
        major = "time-major" if layout.time_major else "batch-major"
        fits = len(x.dims) == 3 and x.has_rows() and x.has_order(layout.dims)
        if found.expect(fits, f"its input {list(x.shape)} is not {major}, as its options say"):
            index = net.add(layer, [x.layer])
            net.put(operator, found.where, x.moved(layout.dims, layer=index, width=layer.outputs))
    net.problems += problems + found.problems


def wire_dense(net: Wiring, operator: Operator, x: Value | None) -> None:
    """A dense layer; what it reads as one row may be all rows of a window end to end."""
    name = net.name("dense")
    layer, problems = read_dense(operator, name)
    net.problems += problems
    output = operator.outputs[0] if operator.outputs else None
    if x is None or layer is None or output is None:
        return
    found = Findings(f"dense '{name}'")
    if x.shape[-1:] != (layer.features,):
        x = x.reshaped((math.prod(x.shape) // layer.features, layer.features)) or x
    rows = net.rows_of(x, layer.input, found)
    if rows is not None and rows.width == layer.features:
        made = rows.computed(net.add(layer, [rows.layer]), layer.outputs)
        flat = made.reshaped((math.prod(made.shape[:-1]), layer.outputs))
        net.put(operator, found.where, flat if flat is not None and flat.shape == output.shape else made)
    else:
        found.add(f"its kernel is {layer.outputs} x {layer.features}, but its input {list(x.shape)}")
    net.problems += found.problems


def wire_rows(net: Wiring, operator: Operator, x: Value | None) -> None:
    """An activation of every row."""
    softmax = operator.kind == "SOFTMAX"
    name = net.name("softmax" if softmax else "relu")
    layer, problems = read_softmax(operator, name) if softmax else read_relu(operator, name)
    net.problems += problems
    if x is None or layer is None:
        return
    found = Findings(f"{operator.kind.lower()} '{name}'")
    rows = net.rows_of(x, layer.input, found) if softmax else x
    if rows is not None:
        net.put(operator, found.where, rows.moved(rows.dims, layer=net.add(layer, [rows.layer])))
    net.problems += found.problems


def end_problems(net: Wiring, output: Tensor | None) -> list[str]:
    """Every layer must lead to the output, whose rows must lie as the input's."""
    value = net.value(output)
    if value is None:
        return ["the model's output is not what one of its operators writes"]
    problems = []
    read = {source for reads in net.sources for source in reads} | {value.layer}
    unread = [layer.name for index, layer in enumerate(net.layers) if index not in read]
    if unread:
        problems.append(f"nothing reads what layer {', '.join(unread)} writes; remove it from the model")
    if not value.has_order(net.layout.dims):
        first = ", ".join(axis for dim in net.layout.dims for axis in dim)
        problems.append(
            f"its output {list(value.shape)} runs along {', '.join(value.order)}, its input along {first}; "
            "expected the same order"
        )
    return problems


def state_problems(lstms: Sequence[Operator]) -> list[str]:
    """Two LSTMs must not keep their state in one tensor."""
    states = [t.index for operator in lstms for t in operator.inputs if t is not None and t.variable]
    same = len(states) != len(set(states))
    return ["two of its layers share a state tensor, expected one each"] if same else []
