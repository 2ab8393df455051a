"""What an ONNX graph is written in: nodes, constants, the states of a streaming network, and what is refused.

Reads layers; writes onnx nodes and tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.layer_types import Conv1d, Function, Gru, Layer, Lstm, Rnn
from edge_lstm.optional import require


class State(NamedTuple):
    """What a streaming layer keeps: the tensors ``NAME_in`` and ``NAME_out`` and the values after reset."""

    name: str
    shape: tuple[int, ...]
    initial: FloatArray


class Body:
    """Nodes and constants while a graph is written; no two tensors get one name.

    reserved: the graph's inputs and outputs, which a node reads or writes under exactly these names.
    """

    def __init__(self, reserved: Sequence[str]) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._reserved, self._names = frozenset(reserved), set(reserved)
        self._helper = require("onnx.helper", "onnx")
        self._numpy_helper = require("onnx.numpy_helper", "onnx")

    def _unused(self, name: str) -> str:
        found, number = name, 1
        while found in self._names:
            found, number = f"{name}_{number}", number + 1
        self._names.add(found)
        return found

    def nested(self) -> Body:
        """For a graph within this one: it has nodes of its own, and shares names and constants."""
        inner = copy(self)
        inner.nodes = []
        return inner

    def name(self, wanted: str) -> str:
        """A name of a tensor that no other has; ``wanted`` where it is free."""
        return self._unused(wanted)

    def constant(self, name: str, values: Any) -> str:
        """Add a constant, float32 for real numbers; returns its tensor's name."""
        array = np.asarray(values)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        name = self._unused(name)
        self.constants.append(self._numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, operator: str, inputs: Sequence[str], output: str, *others: str, **attributes: Any) -> str:
        """Add a node; returns the name of its first output.  others: its further outputs, all reserved."""
        first = output if output in self._reserved else self._unused(output)
        self.nodes.append(
            self._helper.make_node(operator, list(inputs), [first, *others], name=first, **attributes)
        )
        return first


def states_of(layer: Layer) -> list[State]:
    """What ``layer`` keeps between two runs of a streaming network."""

    def vector(part: str, values: FloatArray | None, width: int) -> State:
        shape = (1, 1, width)
        initial = np.zeros(shape, np.float32) if values is None else values.reshape(shape)
        return State(f"{layer.name}_{part}", shape, initial)

    if isinstance(layer, Lstm):
        return [
            vector("hidden", layer.initial_hidden, layer.outputs),
            vector("cell", layer.initial_cell, layer.units),
        ]
    if isinstance(layer, (Gru, Rnn)):
        return [vector("hidden", layer.initial_hidden, layer.units)]
    if isinstance(layer, Conv1d) and layer.size > 1:
        shape = (1, (layer.size - 1) * layer.dilation, layer.features)
        return [State(f"{layer.name}_rows", shape, np.broadcast_to(np.float32(0), shape))]
    return []


def refusals(layer: Layer) -> list[str]:
    """Why ONNX's operators cannot carry ``layer``."""
    where = f"{type(layer).__name__.lower()} '{layer.name}'"
    found = [f"{where}: {words} does not fit a float32" for words in _too_wide(layer)]
    if isinstance(layer, Lstm):
        lacking = [
            ("a projection", layer.projection is not None),
            ("layer normalization", layer.normalization is not None),
            (f"a clip of the cell ({layer.cell_clip:g})", bool(layer.cell_clip)),
            (f"a clip of the projection ({layer.projection_clip:g})", bool(layer.projection_clip)),
            (
                f"coupled gates with '{layer.recurrent_activation.kind}', where 1 - f(z) is not f(-z)",
                layer.coupled and not _mirrored(layer.recurrent_activation),
            ),
        ]
        found += [f"{where}: ONNX's LSTM has no place for {words}" for words, present in lacking if present]
    return found


def _mirrored(function: Function) -> bool:
    """Whether ``1 - function(z)`` is ``function(-z)``."""
    return function.kind == "sigmoid" or (function.kind == "hard_sigmoid" and function.beta == 0.5)


def _too_wide(layer: Layer) -> list[str]:
    """The attributes that ONNX's 32-bit floats would turn into infinity or 0, in words."""
    values = {"gate_clip": getattr(layer, "gate_clip", None)}
    for attribute in ("function", "activation", "recurrent_activation", "cell_activation"):
        function = getattr(layer, attribute, None)
        if function is not None:
            values |= {f"{attribute}'s alpha": function.alpha, f"{attribute}'s beta": function.beta}
    with np.errstate(over="ignore", under="ignore"):
        return [
            f"{name} {value}"
            for name, value in values.items()
            if value and (not np.isfinite(np.float32(value)) or np.float32(value) == 0)
        ]
