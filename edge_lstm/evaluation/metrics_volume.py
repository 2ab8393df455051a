"""Metrics of a score that need no threshold: AUC-PR and the volume under the range PR surface."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import DataError
from edge_lstm.evaluation.metrics_runs import BoolArray, Flags, as_flags, runs
from edge_lstm.optional import require

THRESHOLDS = 250  # quantiles of the score, as in TSB-AD

IntArray = npt.NDArray[np.int64]


def auc_pr(score: FloatArray, label: Flags) -> float | None:
    """Average precision of a score (steps,) against 0/1 labels; None where no row is labelled, or all are."""
    label = as_flags(label)
    if not label.any() or label.all():
        return None
    return float(require("sklearn.metrics", "data").average_precision_score(label, score))


def vus_pr(score: FloatArray, label: Flags, window: int) -> float | None:
    """VUS-PR of a score (steps,) against 0/1 labels; None where no row is labelled, or every row is.

    Paparrizos et al., VLDB 2022, with the precision, recall and 250 thresholds of TSB-AD's
    ``RangeAUC_volume_opt``: the mean of range AUC-PR over buffers of 0 to ``window`` rows around events.
    Raises DataError on a window below 0.
    """
    if window < 0:
        raise DataError(f"VUS-PR: window is {window} rows, expected 0 or more; give the period of the series")
    label = as_flags(label)
    if not label.any() or label.all():
        return None
    level = _levels(np.asarray(score, dtype=np.float64))
    predicted, hits = _up_to(level), _up_to(level[label])
    events = np.array(runs(label), dtype=np.int64)
    found = _Found(events, level, window // 2)
    buffers = _Buffers(events, level, label, window // 2)
    total = 0.0
    for width in range(window + 1):
        buffer = buffers.weight(width)
        recall = np.minimum((hits + buffer) / (label.sum() + buffer / 2), 1) * found.share(width // 2)
        total += float(np.diff(recall, prepend=0.0) @ ((hits + buffer) / predicted))
    return total / (window + 1)


def _levels(score: FloatArray) -> IntArray:
    """Int (steps,): number of the highest threshold that a row reaches; 0 is the highest of all."""
    places = np.linspace(0, len(score) - 1, THRESHOLDS).astype(np.int64)
    thresholds = np.sort(-score)[places]
    return np.searchsorted(thresholds, -score).astype(np.int64)


def _up_to(level: IntArray, weight: FloatArray | None = None) -> FloatArray:
    """Float (thresholds,): number or weight of the rows that reach each threshold."""
    return np.cumsum(np.bincount(level, weight, THRESHOLDS)).astype(np.float64)


class _Found:
    """Which events a threshold finds, for each number of rows that a buffer reaches to either side."""

    def __init__(self, events: IntArray, level: IntArray, reach: int) -> None:
        first, stop = events.T
        padded = np.concatenate([np.full(reach, THRESHOLDS), level, np.full(reach + 1, THRESHOLDS)])
        inside = np.minimum.reduceat(padded, (events + reach).ravel())[::2]
        distance = np.arange(1, reach + 1)
        beside = np.minimum(
            padded[first[:, None] + reach - distance], padded[stop[:, None] + reach - 1 + distance]
        )
        self._best = np.minimum.accumulate(np.hstack([inside[:, None], beside]), axis=1)
        self._apart = first[1:] - stop[:-1] + 1

    def share(self, reach: int) -> FloatArray:
        """Float (thresholds,): share of the events found, those whose buffers overlap being one."""
        starts = np.flatnonzero(np.concatenate([[True], self._apart > 2 * reach]))
        best = np.minimum.reduceat(self._best[:, reach], starts)
        return _up_to(best) / len(best)


class _Buffers:
    """The normal rows near events, each once for every event that it is near to."""

    def __init__(self, events: IntArray, level: IntArray, label: BoolArray, reach: int) -> None:
        first, stop = events.T
        distance = np.arange(1, reach + 1)[:, None]
        row = np.stack([first - distance, stop - 1 + distance], axis=2).ravel()
        distance = np.repeat(distance.ravel(), 2 * len(events))  # ascending
        kept = (row >= 0) & (row < len(label))
        kept[kept] = ~label[row[kept]]
        rows, self._place = np.unique(row[kept], return_inverse=True)
        self._distance, self._level = distance[kept], level[rows]

    def weight(self, width: int) -> FloatArray:
        """Float (thresholds,): weight of the buffer rows that reach each threshold, at most 1 a row."""
        near = int(np.searchsorted(self._distance, width // 2, side="right"))
        weight = np.sqrt(1 - self._distance[:near] / max(width, 1))
        summed = np.bincount(self._place[:near], weight, len(self._level))
        return _up_to(self._level, np.minimum(summed, 1.0))
