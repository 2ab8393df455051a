"""Array types that every room shares, and how missing values are held."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]


def frozen(array: npt.ArrayLike, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return a read-only copy of ``array`` with ``dtype``."""
    copy = np.array(array, dtype=dtype, order="C")
    copy.setflags(write=False)
    return copy


def hold_since_gap(x: FloatArray, present: BoolArray, gap: BoolArray) -> FloatArray:
    """Replace each missing value of x (rows, channels) by the last present one since a gap; 0 before any.

    present: (rows, channels).  gap: (rows,), the stream was interrupted before the row.
    """
    row = np.arange(len(x))[:, None]
    first = np.maximum.accumulate(np.where(gap[:, None], row, 0), axis=0)  # of the row's segment
    last = np.maximum.accumulate(np.where(present, row, -1), axis=0)
    taken = np.take_along_axis(np.asarray(x), np.maximum(last, 0), axis=0)
    held: FloatArray = np.where(last < first, 0.0, taken)
    return held
