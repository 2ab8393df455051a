"""What lies along the axes of a float tensor: streams, rows of the window, features.

Reads shapes, permutations and slices; writes the axes of the result, or says why a tensor cannot be carried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_lstm.errors import UnsupportedModel

STREAMS, ROWS, FEATURES = "streams", "rows", "features"
FLAT = "rows x features"  # a whole window in one axis, row after row
ONE = ""  # an axis of size 1, whatever it stands for
Axes = tuple[str, ...]


@dataclass(frozen=True)
class Sizes:
    """streams: independent windows of one invocation.  window: rows of each."""

    streams: int
    window: int

    def of(self, label: str, width: int) -> int:
        return {
            STREAMS: self.streams, ROWS: self.window, FEATURES: width, FLAT: self.window * width, ONE: 1,
        }[label]  # fmt: skip

    def shape(self, axes: Axes, width: int) -> tuple[int, ...]:
        return tuple(self.of(label, width) for label in axes)

    def named(self, axes: Sequence[str], width: int) -> Axes:
        """``axes`` with every one of size 1 as ONE."""
        return tuple(label if self.of(label, width) > 1 else ONE for label in axes)


@dataclass(frozen=True)
class Rows:
    """A float tensor that layer ``index`` of the draft writes.

    sequence: a row of ``width`` for every row of the window, else one vector a window.
    backwards: its rows lie in reverse order.
    """

    index: int
    axes: Axes
    width: int
    sequence: bool
    backwards: bool = False


@dataclass(frozen=True)
class Form:
    """A float tensor with one vector of ``width`` a stream, as a sum of ``tflite_float_symbols``."""

    sum: int
    axes: Axes
    width: int


def resolved(target: Sequence[int], size: int) -> tuple[int, ...]:
    """The shape that RESHAPE makes of ``size`` numbers: at most one -1 is what is left."""
    known = math.prod(length for length in target if length != -1)
    if target.count(-1) > 1 or known < 1:
        raise UnsupportedModel(f"it reshapes to {list(target)}")
    return tuple(size // known if length == -1 else length for length in target)


def reshaped(sizes: Sizes, axes: Axes, width: int, target: Sequence[int]) -> Axes:
    """The axes of a tensor in another shape: axes of size 1 come and go, rows and features join or part."""
    old = [label for label in axes if label != ONE]
    found: list[str] = []
    for length in resolved(target, math.prod(sizes.shape(axes, width))):
        if length == 1:
            found.append(ONE)
        elif old[:1] and sizes.of(old[0], width) == length:
            found.append(old.pop(0))
        elif old[:2] == [ROWS, FEATURES] and length == sizes.window * width:
            found.append(FLAT)
            del old[:2]
        elif old[:1] == [FLAT] and length == sizes.window:
            found.append(ROWS)
            old[0] = FEATURES
        else:
            old.append("unmatched")
            break
    if old:
        raise UnsupportedModel(
            f"it reshapes {list(sizes.shape(axes, width))} to {list(target)}, which mixes streams, rows or "
            "features; only axes of size 1 may move, and a window may be flattened"
        )
    return tuple(found)


def place(axis: int, rank: int) -> int:
    """``axis`` counted from the front."""
    if not -rank <= axis < rank:
        raise UnsupportedModel(f"its axis is {axis}, but its input has {rank} axes")
    return axis % rank


def transposed(axes: Axes, permutation: Sequence[int]) -> Axes:
    if sorted(permutation) != list(range(len(axes))):
        raise UnsupportedModel(f"its permutation is {list(permutation)}, expected one of {len(axes)} axes")
    return tuple(axes[source] for source in permutation)


@dataclass(frozen=True)
class Slice:
    """The part of a tensor that STRIDED_SLICE keeps: start and stop of every axis; dropped: axes that go."""

    ranges: tuple[tuple[int, int], ...]
    dropped: frozenset[int]

    def kept(self, axes: Axes) -> Axes:
        return tuple(label for axis, label in enumerate(axes) if axis not in self.dropped)


def sliced(shape: Sequence[int], bounds: Sequence[Sequence[int]], options: Mapping[str, int]) -> Slice:
    """Read the masks of STRIDED_SLICE.  bounds: begin, end and strides, the strides 1."""
    begin, end, strides = bounds
    if {len(begin), len(end), len(strides)} != {len(shape)} or set(strides) != {1}:
        raise UnsupportedModel(f"it slices with strides {list(strides)}, expected 1 for each axis")
    if any(options.get(name) for name in ("EllipsisMask", "NewAxisMask", "Offset")):
        raise UnsupportedModel("it slices with an ellipsis, a new axis or offsets; convert the model again")
    ranges, dropped = [], set()
    for axis, size in enumerate(shape):
        bit = 1 << axis
        start = 0 if options.get("BeginMask", 0) & bit else begin[axis]
        start += size if start < 0 else 0
        if options.get("ShrinkAxisMask", 0) & bit:
            stop = start + 1
            dropped.add(axis)
        else:
            stop = size if options.get("EndMask", 0) & bit else end[axis]
            stop = min(size, stop + size if stop < 0 else stop)
        if not 0 <= start < stop <= size:
            raise UnsupportedModel(f"it slices {begin[axis]}:{end[axis]} of an axis of size {size}")
        ranges.append((start, stop))
    return Slice(tuple(ranges), frozenset(dropped))


def broadcast(first: Axes, second: Axes) -> Axes:
    """The axes of an element-wise operation, aligned at the last one."""
    rank = max(len(first), len(second))
    pairs = zip((ONE,) * (rank - len(first)) + first, (ONE,) * (rank - len(second)) + second, strict=True)
    found = []
    for a, b in pairs:
        if ONE not in (a, b) and a != b:
            raise UnsupportedModel(f"it combines {a} of one input with {b} of the other")
        found.append(a or b)
    named = [label for label in found if label != ONE]
    if len(named) != len(set(named)) or FLAT in named:
        raise UnsupportedModel("it combines inputs whose axes differ")
    return tuple(found)
