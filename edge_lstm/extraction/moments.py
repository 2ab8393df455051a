"""Moments of windows of int16 samples, exact; mirrored in c_runtime/elstm_features.c.

Reads samples (windows, hop); writes features in 1/16 of a raw unit and ratios in 1/256.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_lstm.fixedpoint import IntArray

SAMPLE_OFFSET = 1 << 15
WORD = (1 << 32) - 1


def square_root(x: npt.ArrayLike) -> IntArray:
    """``floor(sqrt(x))`` of int64 0 .. 2**62.

    >>> square_root([0, 3, 4, 2**62 - 1]).tolist()
    [0, 1, 2, 2147483647]
    """
    value = np.asarray(x, dtype=np.int64)
    root = np.sqrt(value.astype(np.float64)).astype(np.int64)  # at most 1 off
    root = root - (root * root > value)
    above: IntArray = root + ((root + 1) * (root + 1) <= value)
    return above


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over windows of ``hop`` samples; every array is int64 (windows,).

    mean: in 1/16, ties up.  squares: sum of x**2.  central: sum of (16 x - mean)**2, below 2**56.
    low, high: the extremes.
    """

    samples: npt.NDArray[np.int64]
    mean: IntArray
    squares: IntArray
    central: IntArray
    low: IntArray
    high: IntArray

    @property
    def hop(self) -> int:
        return int(self.samples.shape[1])


def moments_of(samples: npt.ArrayLike) -> Moments:
    """The moments of int16 ``samples`` (windows, hop), hop at most 65,535."""
    x = np.asarray(samples, dtype=np.int64)
    hop, total, squares = x.shape[1], x.sum(axis=1), (x * x).sum(axis=1)  # < 2**31, <= 2**46
    mean = (16 * (total + SAMPLE_OFFSET * hop) + hop // 2) // hop - 16 * SAMPLE_OFFSET
    central = 256 * squares - 32 * mean * total + hop * mean * mean
    return Moments(x, mean, squares, central, x.min(axis=1), x.max(axis=1))


def rms(moments: Moments) -> IntArray:
    """Root mean square with the mean, in 1/16, rounded down."""
    return square_root(256 * moments.squares // moments.hop)


def std(moments: Moments) -> IntArray:
    """Root mean square about the mean, in 1/16, rounded down."""
    return square_root(moments.central // moments.hop)


def peak(moments: Moments) -> IntArray:
    """Largest distance from the mean, in 1/16."""
    farthest: IntArray = np.maximum(16 * moments.high - moments.mean, moments.mean - 16 * moments.low)
    return farthest


def crest(moments: Moments) -> IntArray:
    """Peak over std in 1/256, rounded down; 0 where std is."""
    spread = std(moments)
    return np.where(spread > 0, 256 * peak(moments) // np.maximum(spread, 1), 0)


def kurtosis(moments: Moments) -> IntArray:
    """Fourth moment over the square of the second, about the mean, in 1/256; 0 of a constant.

    Error: at most 2**-28 of it, rounded down; the mean is within 1/32 of the exact one.
    """
    x, hop = moments.samples, moments.hop
    cubes = (x * x * x).sum(axis=1)  # <= 2**61
    fourths = (x * x) ** 2  # <= 2**60
    upper, lower = (fourths >> 32).sum(axis=1), (fourths & WORD).sum(axis=1)
    sums = (x.sum(axis=1), moments.squares, cubes, upper, lower)
    columns = (*sums, moments.mean, moments.central)
    return np.array(
        [_kurtosis(hop, *row) for row in zip(*(column.tolist() for column in columns), strict=True)],
        dtype=np.int64,
    )


def _kurtosis(
    hop: int, total: int, squares: int, cubes: int, upper: int, lower: int, mean: int, central: int
) -> int:
    """Of one window.  The sum of (16 x - mean)**4 is below 2**96 and at most ``central**2``.

    Both are shifted so that ``central`` has 31 bits; then the fourth moment has at most 62.
    """
    if central == 0:
        return 0
    fourth = (((hop * mean - 64 * total) * mean + 1536 * squares) * mean - 16384 * cubes) * mean
    fourth += 65536 * ((upper << 32) + lower)
    shift = central.bit_length() - 31
    if shift >= 0:
        second, fourth = central >> shift, fourth >> 2 * shift
    else:
        second, fourth = central << -shift, fourth << -2 * shift
    return fourth // (second * second // hop >> 8)
