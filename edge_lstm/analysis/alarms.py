"""How alarms depend on their threshold: confusion matrix, precision and recall.  By scikit-learn.

Reads scores, thresholds, alarms and labels of rows; writes plain figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.optional import require

POINTS = 300  # of a curve


@dataclass(frozen=True, eq=False)
class AlarmCurves:
    """Rows of a labelled stream.

    confusion: rows, ((normal silent, normal in alarm), (faulty silent, faulty in alarm)).
    ratio: thresholds as multiples of the one that is set, rising; precision, recall: of the rows whose score
    is at or above it, without debounce and hysteresis.  average_precision: of the ratio, the area.
    best_ratio: where F1 is highest: known only with labels, so no rule to set a threshold by.
    """

    confusion: tuple[tuple[int, int], tuple[int, int]]
    ratio: FloatArray
    precision: FloatArray
    recall: FloatArray
    average_precision: float
    best_ratio: float
    best_f1: float

    @property
    def alarm_precision(self) -> float | None:
        """Of the rows in alarm, as the detector raised it; None without alarms."""
        (_, false), (_, true) = self.confusion
        return true / (true + false) if true + false else None

    @property
    def alarm_recall(self) -> float:
        """Of the labelled rows, those in alarm."""
        missed, true = self.confusion[1]
        return true / (true + missed)


def read_alarms(
    score: FloatArray, threshold: FloatArray, alarm: BoolArray, label: BoolArray
) -> AlarmCurves | None:
    """Of rows (steps,); score, threshold: in squared spreads.  None where no or each row is labelled."""
    label = np.asarray(label) > 0
    if label.all() or not label.any():
        return None
    metrics = require("sklearn.metrics", "data")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sqrt(np.nan_to_num(np.maximum(score, 0.0) / threshold, nan=0.0, posinf=0.0))
    matrix = metrics.confusion_matrix(label, np.asarray(alarm) > 0, labels=[False, True])
    precision, recall, limits = metrics.precision_recall_curve(label, ratio, drop_intermediate=True)
    precision, recall = precision[:-1], recall[:-1]  # the last point stands for an infinite threshold
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.argmax(f1))
    kept = np.unique(np.linspace(0, len(limits) - 1, POINTS).round().astype(np.int64))
    (silent, false), (missed, true) = matrix.tolist()
    return AlarmCurves(
        confusion=((silent, false), (missed, true)),
        ratio=limits[kept],
        precision=precision[kept],
        recall=recall[kept],
        average_precision=float(metrics.average_precision_score(label, ratio)),
        best_ratio=float(limits[best]),
        best_f1=float(f1[best]),
    )
