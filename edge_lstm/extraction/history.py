"""Features over the rows of a slow channel, in integers; mirrored in c_runtime/elstm_features.c.

Reads int32 values with the last rows before them; -2**31 stands for a missing value, in and out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_lstm.detection.fixed import INT32_MAX, MISSING
from edge_lstm.extraction.moments import square_root
from edge_lstm.fixedpoint import IntArray

DEVIATION_LIMIT = 1 << 24  # of which rolling_std squares more


def difference(values: IntArray, before: IntArray) -> IntArray:
    """``values - before``, saturated; missing where either is."""
    change = np.clip(values - before, -INT32_MAX, INT32_MAX)
    return np.where((values == MISSING) | (before == MISSING), MISSING, change)


def rolling_mean(rows: IntArray) -> IntArray:
    """Means of the present values of windows (rows, n), ties up; missing where none is."""
    present = rows != MISSING
    count = present.sum(axis=1)
    total = np.where(present, rows, 0).sum(axis=1)  # |total| <= 2**43
    some = np.maximum(count, 1)
    return np.where(count > 0, (total + (some >> 1)) // some, MISSING)


def rolling_std(rows: IntArray) -> IntArray:
    """Standard deviations of the present values of windows (rows, n), rounded down; missing where none is.

    A deviation from the rounded mean counts as 2**24 at most.
    """
    present = rows != MISSING
    count = present.sum(axis=1)
    some = np.maximum(count, 1)
    mean = rolling_mean(rows)
    away = np.where(present, rows - mean[:, None], 0)
    rest = away.sum(axis=1)  # |rest| <= count / 2: what the rounded mean lacks
    near = np.minimum(np.abs(away), DEVIATION_LIMIT)
    squares = (near * near).sum(axis=1)  # <= 2**60
    return np.where(count > 0, square_root((squares - rest * rest // some) // some), MISSING)


def last_present(values: npt.NDArray[np.int64]) -> IntArray:
    """The last present value along axis 1 of (rows, hop); missing where none is."""
    place = np.where(values != MISSING, np.arange(values.shape[1]), 0).max(axis=1)
    return np.take_along_axis(values, place[:, None], axis=1)[:, 0]


def windows(past: IntArray, values: IntArray, rows: int) -> IntArray:
    """The last ``rows`` values up to each of ``values`` (n,) -> (n, rows); past: those before the first."""
    if not len(values):
        return np.zeros((0, rows), dtype=np.int64)
    series = np.concatenate([past, values])[len(past) - rows + 1 :]
    view: IntArray = np.lib.stride_tricks.sliding_window_view(series, rows)
    return view
