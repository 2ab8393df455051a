"""The simple methods on a stream, scored by the same detector rules as the LSTM.

Reads a scaled stream and the rows to learn from; writes each method's scores, alarms and forecasts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.detection import floating
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.detection.fit import FLOOR, fit_detector
from edge_lstm.detection.floating import FloatDetection
from edge_lstm.detection.linear import Rows, cross_validated
from edge_lstm.detection.methods import method_config
from edge_lstm.evaluation.methods import (
    Arima,
    Autoencoder,
    Baseline,
    Forest,
    Line,
    Seasonal,
    WindowPca,
)
from edge_lstm.evaluation.period import period


def default_baselines(rows: Rows) -> list[Baseline]:
    """All of ``methods``, each with its usual size."""
    channels, learnt = rows.x.shape[1], rows.x[rows.normal]
    lines = [Line(method, channels, len(learnt)) for method in ("zscore", "ewma", "persistence", "var")]
    pca = WindowPca() if channels == 1 else Line("pca", channels, len(learnt))
    return [*lines, pca, Seasonal(period(learnt)), Arima(), Forest(), Autoencoder()]


@dataclass(frozen=True, eq=False)
class BaselineResult:
    """A baseline on a stream, from reset.  expected: (steps, channels), its forecast OF each row, NaN where
    it has none; None where the method does not forecast.  method: see Baseline."""

    name: str
    method: str
    detection: FloatDetection
    expected: FloatArray | None


def run_baseline(
    baseline: Baseline,
    x: FloatArray,
    present: BoolArray,
    gap: BoolArray,
    normal: BoolArray,
    config: DetectorConfig,
    floor: float = FLOOR,
) -> BaselineResult:
    """Learn from the ``normal`` rows and score the whole stream.

    x, present: (steps, channels), network units.  gap: bool (steps,), time was interrupted before the row.
    normal: bool (steps,), the rows to learn from, so no test row.  Spread, threshold and alarms follow
    ``config`` as for the LSTM, from residuals of rows that the method has not seen; a baseline scores
    as ``detection.methods.method_config`` says.
    """
    rows, steps = Rows.of(x, present, gap, normal)

    def residuals(learn: BoolArray) -> FloatArray:
        baseline.fit(replace(rows, normal=learn))
        return baseline.residuals(rows)[0]

    held_out = cross_validated(residuals, rows.normal)
    baseline.fit(rows)
    residual, counted = baseline.residuals(rows)
    config = replace(
        method_config(baseline.method, config, x.shape[1]), stuck=0.0
    )  # residuals tell nothing of it
    detector = fit_detector(held_out, held_out, counted, rows.normal, config, floor)
    whole, where = _spread(residual, counted, steps, len(x))
    expected = None
    if baseline.forecasts:
        expected = np.where(where, np.asarray(x) - whole, np.nan)
    detection = floating.scan(detector, whole, whole, where)
    return BaselineResult(baseline.name, baseline.method, detection, expected)


def _spread(
    residual: FloatArray, counted: BoolArray, steps: Any, length: int
) -> tuple[FloatArray, BoolArray]:
    """Residuals of the kept rows at their places in the whole stream."""
    whole, where = np.zeros((length, residual.shape[1])), np.zeros((length, residual.shape[1]), dtype=bool)
    whole[steps], where[steps] = residual, counted
    return whole, where
