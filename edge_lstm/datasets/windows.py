"""Training windows for truncated backpropagation through time: inputs, targets and weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray, hold_since_gap
from edge_lstm.errors import ConfigError, DataError, raise_all

BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Windows:
    """inputs, targets, weights: float32 (windows, timesteps, channels).  A weight is 0 or 1."""

    inputs: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]

    @property
    def count(self) -> int:
        return int(self.inputs.shape[0])


def make_windows(
    x: FloatArray,
    present: BoolArray,
    gap: BoolArray,
    usable: BoolArray,
    timesteps: int,
    stride: int,
    burn_in: int = 0,
    ahead: int = 1,
) -> Windows:
    """Cut network inputs ``x`` (rows, channels) into windows whose target at step t is row t + ``ahead``.

    present: bool (rows, channels).  gap, usable: bool (rows,).  A window starts every ``stride`` rows of
    a segment between gaps, and the last one ends at the segment's end.
    As on the device, a row without any channel is skipped and a missing value is held: the last one of
    its segment, 0 before there is one.  A step weighs 0 in its first ``burn_in`` steps, where its input
    or its target row is not usable, and in channels that the target misses; a window of zeros is dropped.
    Raises ConfigError on sizes out of range, DataError where no window fits or none has a weight.
    """
    _check_sizes(timesteps, stride, burn_in, ahead)
    seen = np.flatnonzero(present.any(axis=1))
    segment: IndexArray = np.cumsum(gap, dtype=np.int64)[
        seen
    ]  # a gap before a skipped row stays a gap before the next one
    starts = _window_starts(segment, timesteps, stride, ahead)
    x, present, usable = x[seen], present[seen], usable[seen]
    held = hold_since_gap(x, present, np.diff(segment, prepend=segment[:1]) > 0).astype(np.float32)
    steps = starts[:, None] + np.arange(timesteps)
    weights = present[steps + ahead] & (usable[steps] & usable[steps + ahead])[:, :, None]
    weights[:, :burn_in] = False
    kept = weights.any(axis=(1, 2))
    if not kept.any():
        raise DataError(
            f"windows: all {len(starts)} windows of {timesteps} steps hold only steps of the burn-in "
            f"({burn_in}), missing or anomalous rows; lower burn_in, or train on more normal rows"
        )
    steps = steps[kept]
    return Windows(held[steps], held[steps + ahead], weights[kept].astype(np.float32))


def _check_sizes(timesteps: Any, stride: Any, burn_in: Any, ahead: Any) -> None:
    problems = [
        f"{name} is {value}, expected a whole number of {low} or more"
        for name, value, low in (
            ("timesteps", timesteps, 1),
            ("stride", stride, 1),
            ("burn_in", burn_in, 0),
            ("ahead", ahead, 0),
        )
        if not (isinstance(value, (int, np.integer)) and value >= low)
    ]
    if not problems and burn_in >= timesteps:
        problems.append(f"burn_in is {burn_in}, expected below timesteps ({timesteps}), or nothing is learnt")
    raise_all(ConfigError, "windows", problems)


def _window_starts(segment: IndexArray, timesteps: int, stride: int, ahead: int) -> IndexArray:
    """First row of every window; segment: number of the segment of each row, ascending."""
    _, first, rows = np.unique(segment, return_index=True, return_counts=True)
    fits = rows >= timesteps + ahead  # the rows that the last step targets
    if not fits.any():
        raise DataError(
            f"windows: the longest of {len(rows)} segments between gaps has {rows.max(initial=0)} rows, "
            f"a window needs {timesteps + ahead} (timesteps {timesteps} and {ahead} target rows); "
            "lower timesteps, or choose another policy for gaps"
        )
    first = first[fits]
    last = (rows - timesteps - ahead)[fits]  # start of the window at the segment's end
    count = -(-last // stride) + 1
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    starts: IndexArray = np.repeat(first, count) + np.minimum(number * stride, np.repeat(last, count))
    return starts
