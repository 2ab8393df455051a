"""What a tensor of an ONNX graph means here: which layers wrote it, and which of its axes is what.

Transposes and reshapes change only the meaning of axes; layers are added where numbers change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.graph import INPUT
from edge_lstm.importers.draft import Affine, Draft
from edge_lstm.importers.onnx_file import MAX_ELEMENTS
from edge_lstm.layer_types import Dense, Layer, Merge, Row

# What an axis runs over.  PART: values of several layers, stacked.
BATCH, TIME, PART, FEATURE = "batch", "time", "part", "feature"
WORDS = {BATCH: "streams", TIME: "rows", PART: "stacked values", FEATURE: "features"}
Axis = tuple[str, ...]  # () for an axis of size 1, several for an axis that runs over them together
ZEROS = "zeros"
CELL = "cell"
MAX_LAYERS = 1000
MAX_PARTS = 256


class WrongAxes(UnsupportedModel):
    """An axis is not what an operator takes it for: perhaps the input's axes mean something else."""


class Part(NamedTuple):
    """What one layer writes.

    row: of the window, None for what the layer writes as a whole.  state: CELL for the last cell of the
    layer, another name for entry ``row`` of that state input.
    """

    layer: int
    width: int
    row: int | None = None
    state: str = ""


@dataclass(frozen=True)
class Flow:
    """A tensor.  Without PART among its axes its parts are joined as features.

    first, extra: it runs from row ``first`` of the window to ``extra`` rows behind its last one.
    pad: what stands in the rows outside of the window: ZEROS, a state input, or "" for values.
    """

    parts: tuple[Part, ...]
    axes: tuple[Axis, ...]
    first: int = 0
    extra: int = 0
    pad: str = ""

    @property
    def atoms(self) -> tuple[str, ...]:
        return tuple(atom for axis in self.axes for atom in axis)

    @property
    def padded(self) -> bool:
        """Whether it holds rows outside of the window that no layer computed."""
        return bool(self.pad) and (self.first < 0 or self.extra > 0)

    @property
    def width(self) -> int:
        if PART in self.atoms:
            return self.parts[0].width
        return sum(part.width for part in self.parts)


@dataclass(frozen=True)
class InnerRow(Row):
    """A row between the first and the last; no Graph holds it: it must be gone when the file is read."""

    def __post_init__(self) -> None:
        """Any index will do."""


class Network:
    """The layers so far.  batch, rows: sizes of the input's axes.  opset: version of the operators."""

    def __init__(self, batch: int, rows: int, opset: int) -> None:
        self.draft = Draft()
        self.batch, self.rows, self.opset = batch, rows, opset
        self.label = "layer"  # of the layers of the node that is being converted
        self.left = MAX_ELEMENTS
        self.fed: dict[tuple[str, int], tuple[int, str]] = {}  # entry of a state input -> layer, its state
        self.comparisons = 0  # of layers that an exporter may have unrolled
        self.products: dict[int, tuple[int, int]] = {}  # product -> its (weights, values), one weight a row
        self.initial: dict[str, Any] = {}  # values of state inputs after reset
        self._made: dict[Any, int] = {}

    def add(self, layer: Layer | Affine, *sources: int) -> int:
        """Add a layer; UnsupportedModel above the bounds of a small network."""
        self.left -= sum(np.size(getattr(layer, entry.name)) for entry in fields(layer))
        if self.left < 0 or len(self.draft.layers) >= MAX_LAYERS:
            raise UnsupportedModel(
                f"more than {MAX_LAYERS} layers or {MAX_ELEMENTS} weights, expected a small network"
            )
        return self.draft.add(layer, *sources)

    def once(self, key: Any, make: Callable[[], int]) -> int:
        """The layer that was made for ``key`` before, or a new one."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def flow(
        self, parts: Sequence[Part], axes: Sequence[Axis], first: int = 0, extra: int = 0, pad: str = ""
    ) -> Flow:
        """A Flow whose axes name nothing of size 1, and no stack that lies beside its features."""
        if len(parts) > MAX_PARTS:
            raise UnsupportedModel(f"{len(parts)} values in one tensor, at most {MAX_PARTS} are read")
        joined = [_joined(axis) for axis in axes]
        raw = Flow(tuple(parts), tuple(joined), first, extra, pad)
        kept = [tuple(atom for atom in axis if self.size(raw, atom) != 1) for axis in joined]
        return replace(raw, axes=tuple(kept))

    def size(self, flow: Flow, atom: str) -> int:
        sizes = {
            BATCH: self.batch,
            TIME: self.rows - flow.first + flow.extra,
            PART: len(flow.parts),
            FEATURE: flow.width,
        }
        return sizes[atom]

    def sizes(self, flow: Flow) -> tuple[int, ...]:
        """The shape of the tensor."""
        return tuple(math.prod(self.size(flow, atom) for atom in axis) for axis in flow.axes)

    def is_window(self, flow: Flow) -> bool:
        """Whether it has the rows of a window; a window of one row is not told from a vector."""
        return self.rows == 1 or TIME in flow.atoms

    def aligned(self, flow: Flow) -> Flow:
        """``flow``, if its rows are those of the window.  Raises UnsupportedModel."""
        if flow.first or flow.extra:
            raise UnsupportedModel(f"it reads rows that are not those of the window: {shifted_words(flow)}")
        return flow

    def layer_of(self, part: Part) -> int:
        """The layer that writes ``part``.  Raises UnsupportedModel for states."""
        if part.state == CELL:
            name = self.draft.layers[part.layer].name
            raise UnsupportedModel(
                f"it reads the cell state (Y_c) of '{name}', which only the layer itself may read; "
                "use its output Y or Y_h"
            )
        if part.state:
            raise UnsupportedModel(
                f"it reads the input '{part.state}' as data; inputs beside the sequence may only be initial "
                "states, or give their values as constants"
            )
        if part.row is None:
            return part.layer
        index = {0: 0, self.rows - 1: -1}.get(part.row, part.row)
        kind, word = (Row, {0: "first", -1: "last"}[index]) if index in (0, -1) else (InnerRow, str(index))
        base = "input" if part.layer == INPUT else self.draft.layers[part.layer].name
        return self.once((part.layer, index), lambda: self.add(kind(f"{base}_{word}", index), part.layer))

    def one(self, flow: Flow) -> int:
        """The layer that writes all parts of ``flow``, joined as features."""
        rows = {part.row for part in flow.parts}
        if len(flow.parts) == 1:
            return self.layer_of(flow.parts[0])
        common = rows.pop() if len(rows) == 1 and not any(part.state for part in flow.parts) else None
        sources = tuple(part.layer if common is not None else self.layer_of(part) for part in flow.parts)
        merged = self.once(
            ("concat", sources), lambda: self.add(Merge(f"{self.label}_concat", "concat"), *sources)
        )
        return self.layer_of(Part(merged, flow.width, common))

    def applied(self, flow: Flow, add: Callable[[int, int], int], width: int | None = None) -> Flow:
        """``flow`` after a layer that works on each row alone; stacked parts each get one.

        add: adds the layer that reads a given layer of a given width.  width: features that it writes, None
        for as many as it reads.
        """
        if flow.padded:
            raise UnsupportedModel(f"only a convolution may read padded rows; {shifted_words(flow)}")
        stacked = PART in flow.atoms
        sources = [self.layer_of(part) for part in flow.parts] if stacked else [self.one(flow)]
        outputs = flow.width if width is None else width
        parts = [Part(add(source, flow.width), outputs) for source in sources]
        return self.flow(parts, flow.axes, flow.first, flow.extra)

    def mapped(self, flow: Flow, layer: Layer | Affine, width: int | None = None) -> Flow:
        """``applied`` of a layer that is the same for all parts."""
        return self.applied(flow, lambda source, _: self.add(layer, source), width)

    def as_features(self, flow: Flow, axis: int) -> Flow:
        """``flow`` with its features named on ``axis``, also where there is only one.

        Raises UnsupportedModel where that axis is another one.
        """
        found = flow.axes[axis]
        if found == (PART,) and flow.width == 1:  # one feature each: stacked is joined
            axes = list(flow.axes)
            axes[axis] = found = (FEATURE,)
            flow = replace(flow, axes=tuple(axes))
        if found != (FEATURE,) and (found or flow.width > 1):
            raise WrongAxes(
                f"it takes axis {axis % len(flow.axes)} as the features, but this is {axis_words(flow, axis)}"
            )
        return flow

    def with_features(self, flow: Flow, axis: int, parts: Sequence[Part]) -> Flow:
        """``flow`` with other ``parts``, whose features run over ``axis``."""
        axes = [tuple(atom for atom in found if atom != FEATURE) for found in flow.axes]
        axes[axis] = (FEATURE,)
        return self.flow(parts, axes, flow.first, flow.extra, flow.pad)

    def dense(self, flow: Flow, axis: int, kernel: Any, bias: Any = None) -> Flow:
        """``flow`` after a dense layer over its ``axis``.  kernel: (features, outputs)."""
        flow = self.as_features(flow, axis)
        if kernel.shape[0] != flow.width:
            raise ModelError(f"its matrix is {kernel.shape}, but what it reads has {flow.width} features")
        outputs = int(kernel.shape[1])
        zeros = np.zeros(outputs) if bias is None else bias
        mapped = self.mapped(flow, Dense(self.label, kernel, zeros), outputs)
        return self.with_features(replace(mapped, axes=flow.axes), axis, mapped.parts)

    def row(self, flow: Flow, place: int) -> Flow:
        """Row ``place`` of ``flow``, which runs over rows, as a vector."""
        index = flow.first + place
        if not 0 <= index < self.rows:
            raise UnsupportedModel(f"it reads one row outside of the window; {shifted_words(flow)}")
        axes = [tuple(atom for atom in axis if atom != TIME) for axis in flow.axes]
        row = index if self.rows > 1 else None
        return self.flow([part._replace(row=row) for part in flow.parts], axes)


def _joined(axis: Axis) -> Axis:
    """An axis that runs over stacked values and then their features runs over joined features."""
    for place in range(len(axis) - 1):
        if axis[place : place + 2] == (PART, FEATURE):
            return (*axis[:place], FEATURE, *axis[place + 2 :])
    return axis


def shifted_words(flow: Flow) -> str:
    """Which rows a tensor holds, in words."""
    words = []
    if flow.first:
        words.append(
            f"{-flow.first} rows before the first one" if flow.first < 0 else f"not its first {flow.first}"
        )
    if flow.extra:
        words.append(
            f"{flow.extra} rows behind the last one" if flow.extra > 0 else f"not its last {-flow.extra}"
        )
    return (
        f"it holds {' and '.join(words)}; pad a convolution on the left by (kernel - 1) * dilation, or chop "
        "its end"
    )


def axis_words(flow: Flow, axis: int) -> str:
    """What an axis runs over, in words."""
    atoms = flow.axes[axis]
    if TIME in atoms and FEATURE in atoms:
        return (
            "a flattened window, rows and features mixed; a device sees one row at a time: use the last row, "
            "or apply the layer to each row"
        )
    return " and ".join(WORDS[atom] for atom in atoms) or "one entry"
