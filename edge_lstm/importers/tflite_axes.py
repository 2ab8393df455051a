"""What the axes of an int8 file's tensors mean: lanes, time steps, features, however they are arranged.

Nothing here computes: a value keeps its rows, the file's reshapes and transposes only say where they lie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

LANE, TIME, FEATURE = "lane", "time", "feature"
Dims = tuple[tuple[str, ...], ...]  # for every axis of a tensor what runs along it, the slowest first


@dataclass(frozen=True)
class Layout:
    """How rows lie in a sequence: [lanes, timesteps, ...], or time-major [timesteps, lanes, ...]."""

    timesteps: int
    lanes: int
    time_major: bool

    @property
    def rows(self) -> tuple[int, int]:
        return (self.timesteps, self.lanes) if self.time_major else (self.lanes, self.timesteps)

    @property
    def dims(self) -> Dims:
        """Of a sequence."""
        return ((TIME,), (LANE,), (FEATURE,)) if self.time_major else ((LANE,), (TIME,), (FEATURE,))


@dataclass(frozen=True)
class Value:
    """What a layer writes (layer -1: the network's input), in the arrangement of one tensor.

    sequence: one row a time step.  What has size 1 may lie along any axis.
    """

    layer: int
    width: int
    sequence: bool
    dims: Dims
    layout: Layout

    def size(self, axis: str) -> int:
        times = self.layout.timesteps if self.sequence else 1
        return {LANE: self.layout.lanes, TIME: times, FEATURE: self.width}[axis]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(math.prod(self.size(axis) for axis in dim) for dim in self.dims)

    def along(self, place: int) -> tuple[str, ...]:
        """What runs along the axis ``place``, without what has size 1."""
        return tuple(axis for axis in self.dims[place] if self.size(axis) > 1)

    @property
    def order(self) -> tuple[str, ...]:
        """What the tensor's codes run along, the slowest first."""
        return tuple(axis for place in range(len(self.dims)) for axis in self.along(place))

    def has_rows(self) -> bool:
        """Whether each row lies together: the last axis holds all features and nothing else."""
        return bool(self.dims) and self.along(-1) == ((FEATURE,) if self.width > 1 else ())

    def has_order(self, dims: Dims) -> bool:
        """Whether its codes lie as those of a tensor with these axes."""
        return self.order == replace(self, dims=dims).order

    def reshaped(self, shape: Sequence[int]) -> Value | None:
        """The same codes under another shape; None where that would cut an axis."""
        rest = [axis for dim in self.dims for axis in dim]
        dims: list[tuple[str, ...]] = []
        for size in shape:
            taken: list[str] = []
            while rest and (not taken or math.prod(map(self.size, taken)) < size):
                if math.prod(map(self.size, [*taken, rest[0]])) > size:
                    break
                taken.append(rest.pop(0))
            if math.prod(map(self.size, taken)) != size:
                return None
            dims.append(tuple(taken))
        if any(self.size(axis) > 1 for axis in rest):
            return None
        return replace(self, dims=tuple(dims))

    def moved(self, dims: Dims, **changes: Any) -> Value:
        """With other axes, and whatever else has changed."""
        return replace(self, dims=dims, **changes)

    def computed(self, layer: int, width: int, place: int = -1, **changes: Any) -> Value:
        """What ``layer`` makes of every row: ``width`` features along the axis ``place`` alone."""
        dims = [tuple(axis for axis in dim if axis != FEATURE) for dim in self.dims]
        dims[place] = (*dims[place], FEATURE)
        return replace(self, dims=tuple(dims), layer=layer, width=width, **changes)


def kept_ranges(
    shape: Sequence[int], vectors: Sequence[Sequence[int]], masks: dict[str, int]
) -> list[range] | None:
    """The indices that a STRIDED_SLICE keeps along each axis; None where it adds axes or skips indices.

    vectors: begin, end and strides.
    """
    begin, end, strides = vectors
    if masks["EllipsisMask"] or masks["NewAxisMask"] or masks["Offset"]:
        return None
    if any(stride not in (1, -1) for stride in strides):
        return None
    kept = []
    for axis, size in enumerate(shape):
        bit = 1 << axis
        start = None if masks["BeginMask"] & bit else begin[axis]
        stop = None if masks["EndMask"] & bit else end[axis]
        found = range(size)[start : stop : strides[axis]]
        if masks["ShrinkAxisMask"] & bit:
            found = range(found.start, found.start + 1)
        kept.append(found)
    return kept
