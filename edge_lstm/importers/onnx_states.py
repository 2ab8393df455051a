"""Inputs of an ONNX graph beside the sequence: initial states, and rows that a convolution saw.

Reads an OnnxFile; writes StateInputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.graph import INPUT
from edge_lstm.importers.onnx_axes import MOVERS, Value
from edge_lstm.importers.onnx_file import Info, OnnxFile
from edge_lstm.importers.onnx_flow import BATCH, CELL, FEATURE, PART, TIME, Axis, Flow, Network, Part
from edge_lstm.importers.onnx_node import Array, Node, Refused

PROJECTION_HINT = (
    "PyTorch's newer exporter writes such files for proj_size, which ONNX does not have: give the weights as "
    ".safetensors"
)
INITIAL_INPUTS = (5, 6)  # of LSTM, GRU and RNN: initial_h and initial_c


@dataclass(frozen=True)
class StateInput:
    """An input that is not the sequence.  axes: what its axes mean, () if it is no initial state."""

    info: Info
    axes: tuple[str, ...] = ()

    def flow(self, net: Network) -> Flow | Refused:
        """Its entries, each a vector; or its rows, which stand in front of those of the sequence."""
        name, shape = self.info.name, self.info.shape
        axes = self.axes or (BATCH, TIME, FEATURE)
        sizes = dict(zip(axes, shape or (), strict=False))
        count, rows, width = sizes.get(PART, 1), sizes.get(TIME, 0), sizes.get(FEATURE, 0)
        if (
            shape is None or len(shape) != len(axes)
            or not isinstance(count, int) or not isinstance(rows, int) or not isinstance(width, int)
            or width < 1 or count < 1 or rows < 0
        ):  # fmt: skip
            return Refused(
                f"input '{name}' is {shape}, expected the initial state (layers, batch, units) of a "
                "recurrent layer with fixed numbers of layers and units; a network has one input, others are "
                "given as constants"
            )
        named: list[Axis] = [(axis,) for axis in axes]
        try:
            if TIME in axes:
                return net.flow([Part(INPUT, width, 0, name)], named, net.rows - rows, 0, name)
            return net.flow([Part(INPUT, width, entry, name) for entry in range(min(count, 1000))], named)
        except UnsupportedModel as error:
            return Refused(f"input '{name}': {error}")


def state_inputs(file: OnnxFile) -> dict[str, StateInput]:
    """The inputs that nothing but initial states of recurrent layers read, by name."""
    readers: dict[str, list[tuple[Node, int]]] = {}
    for node in file.nodes:
        for place, name in enumerate(node.inputs):
            readers.setdefault(name, []).append((node, place))
    found = {}
    for info in file.inputs:
        layouts = _layouts(info.name, readers)
        rank = len(info.shape or ())
        if len(layouts) == 1:
            stacked = (BATCH, PART, FEATURE) if layouts.pop() else (PART, BATCH, FEATURE)
            found[info.name] = StateInput(info, stacked if rank == 3 else (BATCH, FEATURE))
    return found


def _layouts(name: str, readers: dict[str, list[tuple[Node, int]]]) -> set[int]:
    """Layouts of the recurrent layers that take ``name`` as a state; empty if anything else reads it."""
    layouts: set[int] = set()
    waiting, seen = [name], {name}
    while waiting:
        for node, place in readers.get(waiting.pop(), []):
            if node.op in ("LSTM", "GRU", "RNN") and place in INITIAL_INPUTS:
                layouts.add(int(node.attributes.get("layout") == 1))
            elif place == 0 and (node.op in MOVERS or node.op in ("Identity", "Cast")):
                new = [output for output in node.outputs if output not in seen]
                waiting += new
                seen.update(new)
            elif node.op != "Shape":
                return set()
    return layouts


def with_states(
    net: Network, node: Node, inputs: Sequence[Value | None], layer: Any, place: int, batchwise: bool
) -> tuple[Any, dict[tuple[str, int], str]]:
    """``layer`` with its initial states, and the entries of state inputs that it takes them from."""
    fed: dict[tuple[str, int], str] = {}
    for number, state in ((5, "hidden"), (6, "cell"))[: 2 if node.op == "LSTM" else 1]:
        value = inputs[number] if number < len(inputs) else None
        if value is None:
            continue
        if isinstance(value, Flow):
            vector = _fed(net, value, place, layer, state, fed)
        else:
            vector = _initial(value, place, batchwise, layer.units, state)
        if vector is not None and vector.any():
            layer = replace(layer, **{f"initial_{state}": vector})
    return layer, fed


def _fed(
    net: Network, flow: Flow, place: int, layer: Any, state: str, fed: dict[tuple[str, int], str]
) -> Array | None:
    """The values after reset of a state that is an input of the network."""
    part = flow.parts[place] if place < len(flow.parts) else None
    if part is None or part.state in ("", CELL) or part.width != layer.units:
        raise UnsupportedModel(
            f"its initial {state} state is computed from the network's input or has another width, expected "
            "a constant or an input of its own"
        )
    if layer.backwards:
        raise UnsupportedModel(
            f"its initial {state} state is the input '{part.state}', but it reads the window backwards, "
            "which starts anew with every window; leave that input out, or give its values as constants"
        )
    entry = (part.state, part.row or 0)
    fed[entry] = state
    found = net.initial.get(part.state)
    return None if found is None else np.asarray(found).reshape(-1, layer.units)[entry[1]]


def _initial(value: Array, place: int, batchwise: bool, units: int, state: str) -> Array:
    found = np.moveaxis(value, 0, 1) if batchwise else value
    if found.ndim != 3 or place >= found.shape[0] or found.shape[2] != units or not found.shape[1]:
        raise ModelError(
            f"its initial {state} state is {value.shape}, expected (directions, batch, {units}); "
            f"{PROJECTION_HINT}"
        )
    if (found[place] != found[place, :1]).any():
        raise UnsupportedModel(f"its initial {state} state differs from stream to stream; use one for all")
    vector: Array = found[place, 0]
    return vector
