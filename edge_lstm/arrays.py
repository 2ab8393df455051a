"""Array types that every room shares."""

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
