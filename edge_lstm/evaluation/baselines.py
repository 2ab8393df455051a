"""The simple methods that an LSTM must beat, scored by the same detector rules.

Reads a scaled stream and the rows to learn from; writes each method's residuals, scores and alarms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.detection import floating
from edge_lstm.detection.fit import FLOOR, DetectorConfig, fit_residuals
from edge_lstm.detection.floating import BoolArray, FloatDetection
from edge_lstm.errors import DataError, raise_all
from edge_lstm.optional import require

RIDGE = 1e-3  # sum of squared weights against squared errors in network units: only for singular streams
ROWS_A_WEIGHT = 2  # learning rows for each weight of one channel; fewer lags where there are not as many
PCA_VARIANCE = 0.9  # share that the components keep
PCA_WINDOW = 32  # rows of a window where the stream has one channel


@dataclass(frozen=True, eq=False)
class Rows:
    """A stream without its empty rows, missing values held as on the device (0 before the first).

    x: float64 (rows, channels) in network units.  present: bool, same shape.  gap, normal: bool (rows,).
    """

    x: FloatArray
    present: BoolArray
    gap: BoolArray
    normal: BoolArray


class Baseline(ABC):
    """One causal method: learn from normal rows, then give each row's residual.

    forecasts: its residuals are errors of a forecast, one column a channel.  raw: scored without smoothing.
    """

    name: str
    forecasts = True
    raw = False

    @abstractmethod
    def fit(self, rows: Rows) -> None:
        """Learn from the rows that are ``normal``; DataError where they are too few."""

    @abstractmethod
    def residuals(self, rows: Rows) -> tuple[FloatArray, BoolArray]:
        """Residuals (rows, components) of rows up to each row, and where there are any."""


class Mean(Baseline):
    """Deviation from the training mean: the z-score, or smoothed the EWMA chart."""

    def __init__(self, name: str, raw: bool) -> None:
        self.name, self.raw = name, raw

    def fit(self, rows: Rows) -> None:
        counted = rows.present & rows.normal[:, None]
        self._mean = np.where(counted, rows.x, 0.0).sum(axis=0) / np.maximum(counted.sum(axis=0), 1)

    def residuals(self, rows: Rows) -> tuple[FloatArray, BoolArray]:
        return rows.x - self._mean, rows.present


class Persistence(Baseline):
    """The next row is expected to equal this one."""

    name = "persistence"

    def fit(self, rows: Rows) -> None:
        """Nothing to learn."""

    def residuals(self, rows: Rows) -> tuple[FloatArray, BoolArray]:
        return np.diff(rows.x, axis=0, prepend=rows.x[:1]), _after(rows.present, 1)


class Linear(Baseline):
    """Linear regression of each channel on the last ``lags`` rows of all channels: AR or VAR.

    Least squares with a negligible ridge, so that constant and duplicate channels do no harm.
    """

    def __init__(self, lags: int) -> None:
        self.lags = lags
        self.name = f"lag {lags}"

    def fit(self, rows: Rows) -> None:
        channels = rows.x.shape[1]
        affordable = (int(rows.normal.sum()) // ROWS_A_WEIGHT - 1) // channels
        self.lags = max(1, min(self.lags, affordable))
        self.name = f"{'AR' if channels == 1 else 'VAR'}({self.lags})"
        lagged = _lagged(rows.x, self.lags)
        # a row teaches when itself and all its lags are normal, in one piece of time
        clean = _all_of_last(rows.normal, self.lags + 1) & _all_of_last(~rows.gap, self.lags)
        self._models: list[tuple[BoolArray, Any]] = []
        ridge = require("sklearn.linear_model", "data").Ridge
        for together in np.unique(rows.present, axis=1).T:  # channels that miss the same rows
            members = (rows.present == together[:, None]).all(axis=0)
            learnt = clean & together
            if learnt.sum() <= self.lags * channels:
                raise DataError(
                    f"baseline {self.name}: {learnt.sum()} clean normal rows for {self.lags * channels + 1} "
                    "weights; give more normal training rows without gaps"
                )
            model = ridge(alpha=RIDGE, solver="svd").fit(lagged[learnt], rows.x[learnt][:, members])
            self._models.append((members, model))

    def residuals(self, rows: Rows) -> tuple[FloatArray, BoolArray]:
        lagged = _lagged(rows.x, self.lags)
        residual = np.empty_like(rows.x)
        for members, model in self._models:
            expected = model.predict(lagged).reshape(len(lagged), -1)
            residual[:, members] = rows.x[:, members] - expected
        return residual, _after(rows.present, self.lags)


class Pca(Baseline):
    """What principal components of normal rows cannot rebuild; its energy in windows of one channel."""

    name = "PCA"
    forecasts = False

    def fit(self, rows: Rows) -> None:
        self._window = PCA_WINDOW if rows.x.shape[1] == 1 else 1
        counted = _all_of_last(rows.normal, self._window) & _after(rows.present, self._window - 1).any(axis=1)
        parts = self._parts(rows)[counted]
        if len(parts) <= parts.shape[1]:
            raise DataError(
                f"baseline PCA: {len(parts)} normal rows for {parts.shape[1]} columns; "
                "give more normal training rows"
            )
        pca = require("sklearn.decomposition", "data").PCA(svd_solver="full").fit(parts)
        variance = np.cumsum(pca.explained_variance_)
        kept = int(np.searchsorted(variance, PCA_VARIANCE * variance[-1])) + 1
        self._mean, self._axes = pca.mean_, pca.components_[: min(kept, parts.shape[1] - 1)]

    def residuals(self, rows: Rows) -> tuple[FloatArray, BoolArray]:
        centred = self._parts(rows) - self._mean
        left = centred - centred @ self._axes.T @ self._axes
        if self._window > 1:  # the signs of a moving shape cancel in the EWMA, its energy does not
            left = np.linalg.norm(left, axis=1, keepdims=True)
        return left, _after(rows.present, self._window - 1)

    def _parts(self, rows: Rows) -> FloatArray:
        return rows.x if self._window == 1 else np.hstack([rows.x, _lagged(rows.x, self._window - 1)])


def _lagged(x: FloatArray, lags: int) -> FloatArray:
    """The last ``lags`` rows before each row side by side, newest first; row 0 stands for those before it."""
    rows = np.arange(len(x))[:, None] - np.arange(1, lags + 1)
    lagged: FloatArray = x[np.maximum(rows, 0)].reshape(len(x), lags * x.shape[1])
    return lagged


def _after(present: BoolArray, rows: int) -> BoolArray:
    """``present`` without the first ``rows`` rows."""
    later = np.array(present)
    later[:rows] = False
    return later


def _all_of_last(flag: BoolArray, count: int) -> BoolArray:
    """Whether a row and the ``count - 1`` before it are all true."""
    sums = np.concatenate([np.zeros(count, dtype=np.int64), np.cumsum(flag)])
    whole: BoolArray = sums[count:] - sums[:-count] == count
    return whole


def default_baselines(channels: int) -> list[Baseline]:
    """z-score, EWMA chart, persistence, AR(16) or VAR(5), PCA."""
    linear = Linear(16 if channels == 1 else 5)
    return [Mean("z-score", raw=True), Mean("EWMA chart", raw=False), Persistence(), linear, Pca()]


@dataclass(frozen=True, eq=False)
class BaselineResult:
    """A baseline on a stream, from reset.  expected: (steps, channels), its forecast OF each row, NaN where
    it has none; None where the method does not forecast."""

    name: str
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
    normal: bool (steps,), the rows to learn from, so no test row; the method sees all but the last
    ``holdout`` of them.  Spread, threshold and alarms follow ``config`` as for the LSTM; only a ``raw``
    baseline has alpha 1, and PCA no Mahalanobis weighting (its residuals lie in a plane).
    """
    steps = np.flatnonzero(_checked(x, present, gap, normal).any(axis=1))
    rows = Rows(_hold(x, present)[steps], present[steps], _gaps(gap, steps), normal[steps])
    baseline.fit(replace(rows, normal=_before_holdout(rows.normal, config.holdout)))
    residual, counted = baseline.residuals(rows)
    weighting = config.weighting if baseline.forecasts else "spread"
    config = replace(config, weighting=weighting, alpha=1.0 if baseline.raw else config.alpha)
    detector = fit_residuals(residual, counted, rows.normal, config, floor)
    whole, where = _spread(residual, counted, steps, len(x))
    expected = None
    if baseline.forecasts:
        expected = np.where(where, np.asarray(x) - whole, np.nan)
    return BaselineResult(baseline.name, floating.scan(detector, whole, where), expected)


def run_baselines(
    x: FloatArray,
    present: BoolArray,
    gap: BoolArray,
    normal: BoolArray,
    config: DetectorConfig,
    baselines: Sequence[Baseline] | None = None,
) -> list[BaselineResult]:
    """Run each baseline, by default all of them; see ``run_baseline``."""
    chosen = default_baselines(np.shape(x)[1]) if baselines is None else baselines
    return [run_baseline(baseline, x, present, gap, normal, config) for baseline in chosen]


def _checked(x: FloatArray, present: BoolArray, gap: BoolArray, normal: BoolArray) -> BoolArray:
    problems = []
    if not (np.ndim(x) == 2 and np.shape(x) == present.shape and gap.shape == normal.shape == (len(x),)):
        problems.append(
            f"x {np.shape(x)}, present {present.shape}, gap {gap.shape}, normal {normal.shape}: expected "
            "(steps, channels) twice and (steps,) twice"
        )
    elif not np.isfinite(x[present]).all():
        problems.append("x holds NaN or infinity where it is present")
    raise_all(DataError, "baselines", problems)
    return present


def _hold(x: FloatArray, present: BoolArray) -> FloatArray:
    last = np.maximum.accumulate(np.where(present, np.arange(len(x))[:, None], -1), axis=0)
    held: FloatArray = np.where(last < 0, 0.0, np.take_along_axis(np.asarray(x), np.maximum(last, 0), axis=0))
    return held


def _gaps(gap: BoolArray, steps: Any) -> BoolArray:
    """Gaps of the kept rows; a gap before a row that is dropped is one before the next kept row."""
    number = np.cumsum(gap)[steps]
    after: BoolArray = np.diff(number, prepend=number[:1]) > 0
    return after


def _before_holdout(normal: BoolArray, holdout: float) -> BoolArray:
    """The normal rows that a method learns from: not the last share, which sets its threshold."""
    early: BoolArray = normal & (np.cumsum(normal) <= normal.sum() * (1 - holdout))
    return early


def _spread(
    residual: FloatArray, counted: BoolArray, steps: Any, length: int
) -> tuple[FloatArray, BoolArray]:
    """Residuals of the kept rows at their places in the whole stream."""
    whole, where = np.zeros((length, residual.shape[1])), np.zeros((length, residual.shape[1]), dtype=bool)
    whole[steps], where[steps] = residual, counted
    return whole, where
