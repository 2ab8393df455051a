"""What normal rows tell of each channel: the tails of its deviations, and how long its values stay equal.

Reads standardized residuals and inputs; writes entries of a Detector.
"""

from __future__ import annotations

import numpy as np

from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.fixedpoint import IntArray
from edge_lstm.optional import require

KNEES = (0.5, 31.0)  # spreads; 0.5 is nearly Laplace's distribution, 31 the normal one
TAIL_ROWS = 5000  # that are enough for two figures
MIN_STILL = 32  # rows
MOST_STILL = 65535


def huber_likelihood(z: FloatArray, present: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Spread and knee of each column by maximum likelihood of Huber's least favourable distribution.

    z, present: (rows, R).  The density is ``exp(-min(u**2, 2 k |u| - k**2) / 2)`` of u = z / spread, up to
    a factor: normal in the middle, exponential beyond the knee k (Huber, "Robust estimation of a location
    parameter", Annals of Mathematical Statistics 35, 1964).
    """
    empty = 1.0, KNEES[1]  # context
    found = [_huber(z[present[:, row], row]) if present[:, row].any() else empty for row in range(z.shape[1])]
    spread, knee = np.array(found).T
    return spread, knee


def _huber(z: FloatArray) -> tuple[float, float]:
    size = np.abs(z[:: max(1, len(z) // TAIL_ROWS)])
    normal, minimize = require("scipy.stats", "data").norm, require("scipy.optimize", "data").minimize

    def loss(point: FloatArray) -> float:
        spread, knee = np.exp(point)
        u = size / spread
        near = np.minimum(u, knee)
        whole = np.sqrt(2 * np.pi) * (2 * normal.cdf(knee) - 1) + 2 / knee * np.exp(-knee * knee / 2)
        return float(point[0] + np.log(whole) + np.mean(near * (2 * u - near)) / 2)

    typical = max(float(np.mean(size)), 1e-3)
    bounds = [(np.log(1e-4 * typical), np.log(1e2 * typical)), np.log(KNEES)]
    starts = np.log([[1.25 * typical, 3.0], [0.6 * typical, 0.7]])  # nearly normal, nearly Laplace's
    found = [minimize(loss, start, method="Nelder-Mead", bounds=bounds) for start in starts]
    spread, knee = np.exp(min(found, key=lambda result: float(result.fun)).x)
    return float(spread), float(knee)


def usual_deviation(z: FloatArray, present: BoolArray) -> FloatArray:
    """Mean size of each column of z (rows, R)."""
    counted: FloatArray = np.where(present, np.abs(z), 0.0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
    return counted


def still_limits(x: FloatArray, present: BoolArray, times: float) -> IntArray:
    """Equal rows after which a channel of x (rows, channels) is stuck: ``times`` its longest run, 32 or more.

    0, for never, where that is above 65535, and where the channel has one value only.
    """
    limits = []
    for channel in range(x.shape[1]):
        values = x[present[:, channel], channel]
        edges = np.flatnonzero(np.diff(values, prepend=np.nan, append=np.nan))
        limit = max(MIN_STILL, round(times * int(np.diff(edges).max(initial=0))))
        limits.append(limit if len(edges) > 2 and limit <= MOST_STILL else 0)
    return np.array(limits, dtype=np.int64)
