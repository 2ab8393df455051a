"""The simple methods that an LSTM must beat: how each learns, and what it makes of a row.

Reads streams in network units; writes residuals.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod

import numpy as np

from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.detection.linear import Rows, clean, fit_predictor, lagged, lags_for
from edge_lstm.errors import DataError
from edge_lstm.optional import require

PCA_VARIANCE = 0.9  # share that the components keep
WINDOW = 32  # rows of a window where the stream has one channel
FEW_ROWS = 400  # below, a period cannot be told
FOREST = {"n_estimators": 100, "random_state": 0}
AUTOENCODER = {"max_iter": 60, "random_state": 0, "early_stopping": True}
BOTTLENECK = 4  # inputs of the autoencoder for each unit of its middle layer


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
        x, counted = rows.x[rows.normal], rows.present[rows.normal]
        self._mean = np.where(counted, x, 0.0).sum(axis=0) / np.maximum(counted.sum(axis=0), 1)

    def residuals(self, rows: Rows) -> tuple[FloatArray, BoolArray]:
        return rows.x - self._mean, rows.present


class Persistence(Baseline):
    """The next row is expected to equal this one."""

    name = "persistence"

    def fit(self, rows: Rows) -> None:
        """Nothing to learn."""

    def residuals(self, rows: Rows) -> tuple[FloatArray, BoolArray]:
        return np.diff(rows.x, axis=0, prepend=rows.x[:1]), _after(rows.present, 1)


class Seasonal(Baseline):
    """A row is expected to equal the one a period before it; the period is that of the first normal rows."""

    def __init__(self, period: int) -> None:
        self.period = period
        self.name = f"seasonal naive ({period} rows)"

    def fit(self, rows: Rows) -> None:
        """Nothing to learn but the period."""

    def residuals(self, rows: Rows) -> tuple[FloatArray, BoolArray]:
        before = np.vstack([rows.x[: self.period], rows.x[: -self.period]])[: len(rows.x)]
        return rows.x - before, _after(rows.present, self.period)


class Linear(Baseline):
    """Linear regression of each channel on the last rows of all channels: AR or VAR."""

    def __init__(self, channels: int, rows: int) -> None:
        self.lags = lags_for(channels, rows)
        self.name = f"{'AR' if channels == 1 else 'VAR'}({self.lags})"

    def fit(self, rows: Rows) -> None:
        self._predictor = fit_predictor(rows, self.lags)[0]

    def residuals(self, rows: Rows) -> tuple[FloatArray, BoolArray]:
        expected = np.vstack([self._predictor.forecast(rows.x[part]) for part in rows.segments])
        return rows.x - expected, _after(rows.present, self.lags)


class Pca(Baseline):
    """What principal components of normal rows cannot rebuild; its energy in windows of one channel."""

    name = "PCA"
    forecasts = False

    def fit(self, rows: Rows) -> None:
        parts = _learnt_windows(rows, self.name)
        pca = require("sklearn.decomposition", "data").PCA(svd_solver="full").fit(parts)
        variance = np.cumsum(pca.explained_variance_)
        kept = int(np.searchsorted(variance, PCA_VARIANCE * variance[-1])) + 1
        self._mean, self._axes = pca.mean_, pca.components_[: max(1, min(kept, parts.shape[1] - 1))]

    def residuals(self, rows: Rows) -> tuple[FloatArray, BoolArray]:
        centred = windows(rows) - self._mean
        return _energy(rows, centred - centred @ self._axes.T @ self._axes)


class Autoencoder(Baseline):
    """What a dense network with a narrow middle cannot rebuild of a row, or of a window of one channel."""

    name = "dense autoencoder"
    forecasts = False

    def fit(self, rows: Rows) -> None:
        parts = _learnt_windows(rows, self.name)
        units = max(1, parts.shape[1] // BOTTLENECK)
        network = require("sklearn.neural_network", "data").MLPRegressor(
            hidden_layer_sizes=(2 * units, units, 2 * units), **AUTOENCODER
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Stochastic Optimizer")  # that it used all of max_iter
            self._network = network.fit(parts, parts if parts.shape[1] > 1 else parts[:, 0])

    def residuals(self, rows: Rows) -> tuple[FloatArray, BoolArray]:
        parts = windows(rows)
        return _energy(rows, parts - self._network.predict(parts).reshape(parts.shape))


class Forest(Baseline):
    """How easily random cuts isolate a row, or a window of one channel: the isolation forest."""

    name = "isolation forest"
    forecasts = False

    def fit(self, rows: Rows) -> None:
        forest = require("sklearn.ensemble", "data").IsolationForest(**FOREST)
        self._forest = forest.fit(_learnt_windows(rows, self.name))

    def residuals(self, rows: Rows) -> tuple[FloatArray, BoolArray]:
        score = -self._forest.score_samples(windows(rows))
        return score[:, None], np.logical_or.reduce(rows.present, axis=1, keepdims=True)


def window_rows(rows: Rows) -> int:
    """Rows of a window: one where several channels describe a state, more where there is one."""
    return WINDOW if rows.x.shape[1] == 1 else 1


def windows(rows: Rows) -> FloatArray:
    """The last rows up to each row side by side (rows, columns), newest first."""
    return np.hstack([rows.x, lagged(rows, window_rows(rows) - 1)])


def _learnt_windows(rows: Rows, name: str) -> FloatArray:
    parts = windows(rows)[clean(rows, window_rows(rows) - 1)]
    if len(parts) <= parts.shape[1]:
        raise DataError(
            f"baseline {name}: {len(parts)} normal rows for {parts.shape[1]} columns; "
            "give more normal training rows"
        )
    return parts


def _energy(rows: Rows, left: FloatArray) -> tuple[FloatArray, BoolArray]:
    """The signs of a moving shape would cancel in an average, its energy does not."""
    if window_rows(rows) > 1:
        left = np.linalg.norm(left, axis=1, keepdims=True)
    return left, _after(rows.present, window_rows(rows) - 1)


def _after(present: BoolArray, rows: int) -> BoolArray:
    """``present`` without the first ``rows`` rows."""
    later = np.array(present)
    later[:rows] = False
    return later
