"""What the tensors of a Keras model are in the network: a layer's values, and which axis is which.

A Keras tensor has any axes; a value of the network has rows and features.  Here each axis keeps its meaning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edge_lstm.importers.draft import Affine, Draft
from edge_lstm.importers.keras_config import MAX_RANK, LayerConfig
from edge_lstm.importers.keras_weights import Weights
from edge_lstm.layer_types import Layer, Merge, Repeat

TIME = None  # the axis of the rows of a window; every other axis is a part of the features
Axes = tuple[int | None, ...]
MAX_WIDTH = 1 << 14  # features of a value
STREAM_HINT = "keep (timesteps, features): a device sees one row at a time"


class Refused(Exception):
    """Why a layer cannot be carried: a sentence, without the name of the layer."""


@dataclass(frozen=True)
class Value:
    """A tensor, without its batch axis.

    index: the layer of the Draft that writes it.  axes: the sizes, TIME for the rows; the others, multiplied,
    are the features in row-major order.  rows: it has a row for each time step (without TIME in axes: there
    is one time step, or the layer sees each row by itself).  flipped: the rows come last to first.
    padded: rows of zeros before the first.  flat: Keras sees rows and features as one axis.
    trouble: why nothing may read it.
    """

    index: int
    axes: Axes
    rows: bool
    flipped: bool = False
    padded: int = 0
    flat: bool = False
    trouble: str = ""

    @property
    def width(self) -> int:
        return features(self.axes)

    def __str__(self) -> str:
        return shown(self.axes)


def features(axes: Axes) -> int:
    return math.prod(size for size in axes if size is not TIME)


def shown(axes: Axes) -> str:
    return f"({', '.join('timesteps' if size is TIME else str(size) for size in axes)})"


def position(axis: Any, rank: int) -> int:
    """The place in ``axes`` of a Keras axis, which counts the batch; Refused where it is none."""
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if not isinstance(axis, int) or isinstance(axis, bool):
        raise Refused(f"it works along axis {axis!r}, expected one axis")
    place = axis - 1 if axis > 0 else rank + axis
    if axis == 0 or not 0 <= place < rank:
        raise Refused(f"it works along axis {axis}, expected one of the {rank} axes after the batch")
    return place


@dataclass
class Network:
    """The network while the layers of a model are read.

    window: rows of the model's input, 0 where it is open.  legacy: the file is of Keras 2.  inside: how many
    TimeDistributed the layer stands in.  expanded: layers that became wider ones, in words.
    """

    draft: Draft
    weights: Weights
    window: int
    legacy: bool
    inside: int = 0
    expanded: list[str] = field(default_factory=list)
    values: dict[int, Value] = field(default_factory=dict)

    def put(self, made: Layer | Affine, axes: Axes, *sources: Value, **changes: Any) -> Value:
        """Add a layer; its value has ``axes`` and the rows of its sources."""
        if features(axes) > MAX_WIDTH:
            raise Refused(f"it writes {features(axes)} features, expected at most {MAX_WIDTH}")
        index = self.draft.add(made, *(source.index for source in sources))
        rows = [source for source in sources if source.rows]
        flipped = bool(rows) and rows[0].flipped
        return self.known(index, replace(Value(index, axes, bool(rows), flipped), **changes))

    def known(self, index: int, value: Value) -> Value:
        """Remember what a layer of the Draft writes."""
        self.values[index] = value
        return value

    def weighted_rows(self, x: Value) -> tuple[Value, Value] | None:
        """The weights and the values whose product ``x`` is, where it is one of rows and one weight a row."""
        made = self.draft.layers[x.index] if x.index >= 0 else None
        if not isinstance(made, Merge) or made.mode != "mul" or len(self.draft.sources[x.index]) != 2:
            return None
        one, two = (self.values.get(source) for source in self.draft.sources[x.index])
        if one is None or two is None or not (one.rows and two.rows):
            return None
        if one.width == 1 and two.width == x.width:
            return one, two
        return (two, one) if two.width == 1 and one.width == x.width else None

    def sequence(self, layer: LayerConfig, x: Value, rank: int = 2) -> Value:
        """``x`` where it is rows with ``rank`` - 1 axes of features; Refused otherwise."""
        if len(x.axes) == rank and x.axes[0] == 1 and not x.rows and self.window == 1:
            return self.put(Repeat(f"{layer.name}_rows"), (TIME, *x.axes[1:]), x, rows=True)
        if len(x.axes) != rank or x.axes[0] is not TIME:
            wanted = "(timesteps, features)" if rank == 2 else "(timesteps, length, channels)"
            raise Refused(
                f"it reads {x}, expected {wanted}; give it every row (return_sequences=True), or a "
                "RepeatVector of as many rows as the input"
            )
        return x

    def together(self, values: Sequence[Value]) -> None:
        """Refused where rows in their order would meet rows in reverse."""
        if self.window != 1 and len({value.flipped for value in values if value.rows}) > 1:
            raise Refused(
                "it joins rows in their order with rows in reverse (go_backwards); use Bidirectional, "
                "which turns them back"
            )


def readable(value: Value) -> Value:
    """``value``; Refused where nothing but one kind of layer may read it."""
    if value.trouble:
        raise Refused(value.trouble)
    if value.padded:
        raise Refused(
            "it reads rows behind a ZeroPadding1D; only a Conv1D with padding='valid' that reaches as far "
            "may: use padding='causal' there"
        )
    if value.flat:
        raise Refused(
            f"it reads a whole window {value} as one vector (Flatten), which only a Dense layer may; keep "
            "the last row (return_sequences=False), a GlobalAveragePooling1D or attention instead"
        )
    return value


def broadcast(values: Sequence[Value]) -> Axes:
    """The axes of values that are joined element by element; Refused where they do not fit."""
    text = " and ".join(map(str, values))
    axes: list[int | None] = []
    for sizes in zip(*(value.axes for value in values), strict=True):
        found = [size for size in dict.fromkeys(sizes) if size != 1]
        if len(found) > 1:
            raise Refused(f"it joins {text}, expected one shape")
        axes.append(found[0] if found else 1)
    whole = [size for size in axes if size is not TIME]
    for value in values:
        own = [1 if size is TIME else size for size in value.axes]
        if value.width != 1 and [a for a, b in zip(own, axes, strict=True) if b is not TIME] != whole:
            raise Refused(f"it joins {text} into {shown(tuple(axes))}; give each the whole shape")
    return tuple(axes)


def joined(net: Network, name: str, mode: str, values: Sequence[Value]) -> Value:
    """sum, mean or mul of values of one rank."""
    net.together(values)
    return net.put(Merge(name, mode), broadcast(values), *values)


def reshaped(net: Network, x: Value, target: Sequence[Any]) -> Value:
    """``x`` with other axes; rows must stay rows.  target: sizes without the batch, -1 for what is left."""
    sizes = [size if isinstance(size, int) and not isinstance(size, bool) else 0 for size in target]
    if len(sizes) > MAX_RANK or any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
        raise Refused(f"its shape is {str(target)[:60]}, expected sizes above 0 and at most one -1")
    timed = TIME in x.axes
    total = x.width * (net.window if timed else 1)
    rest = math.prod(size for size in sizes if size != -1)
    if total and (total % rest or (-1 not in sizes and total != rest)):
        raise Refused(f"it makes {sizes} of {x}, which is another number of values")
    if total:
        sizes = [total // rest if size == -1 else size for size in sizes]
    if not timed:
        if x.rows and not net.inside and len(sizes) > 1 and sizes[0] == 1:
            return replace(x, axes=(TIME, *sizes[1:]))
        return replace(x, axes=tuple(sizes))
    place = x.axes.index(TIME)
    before, after = features(x.axes[:place]), features(x.axes[place + 1 :])
    for index, size in enumerate(sizes):
        around = math.prod(sizes[:index]), math.prod(sizes[index + 1 :])
        if size == (net.window or -1) and around == (before, after):
            return replace(x, axes=(*sizes[:index], TIME, *sizes[index + 1 :]))
    if net.window == 1:
        return replace(x, axes=tuple(sizes))
    if len(sizes) == 1 and before == 1:
        return replace(x, axes=(TIME, *x.axes[place + 1 :]), flat=True)
    raise Refused(f"it makes {sizes} of {x}, which mixes time steps and features; {STREAM_HINT}")


def permuted(x: Value, order: Sequence[Any]) -> Value:
    """``x`` with its axes in another order; Refused where that moves features among themselves."""
    if sorted(map(str, order)) != sorted(map(str, range(len(x.axes)))):
        raise Refused(f"it orders the axes as {list(order)}, expected each of the {len(x.axes)} axes once")
    axes = tuple(x.axes[place] for place in order)
    kept = [place for place in order if x.axes[place] is not TIME and x.axes[place] != 1]
    if kept != sorted(kept):
        raise Refused(
            f"it turns {x} into {shown(axes)}, which moves features among themselves; {STREAM_HINT}"
        )
    return replace(x, axes=axes)


def tiled(x: Value, values: Any) -> Any:
    """One number a feature of the last axis (or one for all) as one number a feature of ``x``."""
    last = x.axes[-1] if x.axes else 1
    array = np.asarray(values, dtype=np.float64)
    if array.shape == ():
        return np.full(x.width, array)
    if last is TIME or array.shape not in ((1,), (last,)):
        raise Refused(f"it has numbers of shape {array.shape} for {x}, expected one a feature")
    return np.tile(np.broadcast_to(array, (last,)), x.width // last)
