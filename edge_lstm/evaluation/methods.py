"""The simple methods that an LSTM must beat: how each learns, and what it makes of a row.

Reads streams in network units; writes residuals.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod

import numpy as np

from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.detection.linear import Rows, clean, lags_for
from edge_lstm.detection.methods import (
    METHODS,
    expectations,
    fit_method,
    learnt_windows,
    principal_axes,
    window_rows,
    windows,
)
from edge_lstm.errors import DataError
from edge_lstm.optional import require

ARIMA_ORDER = (2, 1, 1)
ARIMA_ROWS = 5000  # last ones, at most, that its four coefficients are estimated from
ARIMA_LEAST = 50
MA_MOST = 0.99  # of the moving average's coefficient: an error is forgotten
FOREST = {"n_estimators": 100, "random_state": 0}
AUTOENCODER = {"max_iter": 60, "random_state": 0, "early_stopping": True}
BOTTLENECK = 4  # inputs of the autoencoder for each unit of its middle layer


class Baseline(ABC):
    """One causal method: learn from normal rows, then give each row's residual.

    forecasts: its residuals are errors of a forecast, one column a channel.
    method: its name in ``detection.methods`` where a device can run it, else "".
    """

    name: str
    forecasts = True
    method = ""

    @abstractmethod
    def fit(self, rows: Rows) -> None:
        """Learn from the rows that are ``normal``; DataError where they are too few."""

    @abstractmethod
    def residuals(self, rows: Rows) -> tuple[FloatArray, BoolArray]:
        """Residuals (rows, components) of rows up to each row, and where there are any."""


class Line(Baseline):
    """A method of ``detection.methods``: what it expects of a row against the row."""

    def __init__(self, method: str, channels: int, rows: int) -> None:
        self.method = method
        self.name = METHODS[method]
        self.forecasts = method != "pca"
        self._lags = lags_for(channels, rows) if method == "var" else None
        if method == "var":
            self.name = f"{'AR' if channels == 1 else 'VAR'}({self._lags})"

    def fit(self, rows: Rows) -> None:
        self.predictor = fit_method(self.method, rows, self._lags)[0]

    def residuals(self, rows: Rows) -> tuple[FloatArray, BoolArray]:
        return rows.x - expectations(self.predictor, rows), _after(rows.present, self.predictor.lags)


class WindowPca(Baseline):
    """What principal components of normal windows of one channel cannot rebuild of a whole window."""

    name = METHODS["pca"]
    forecasts = False

    def fit(self, rows: Rows) -> None:
        self._mean, self._axes = principal_axes(learnt_windows(rows, self.name))

    def residuals(self, rows: Rows) -> tuple[FloatArray, BoolArray]:
        centred = windows(rows) - self._mean
        return _energy(rows, centred - centred @ self._axes.T @ self._axes)


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


class Arima(Baseline):
    """ARIMA of each channel alone: coefficients by Hannan and Rissanen, errors one row ahead."""

    name = f"ARIMA({','.join(str(order) for order in ARIMA_ORDER)})"

    def fit(self, rows: Rows) -> None:
        steps = np.diff(rows.x, axis=0, prepend=rows.x[:1])[clean(rows, 1)][-ARIMA_ROWS:]
        if len(steps) < ARIMA_LEAST:
            raise DataError(
                f"baseline {self.name}: {len(steps)} normal rows that follow a normal row, expected "
                f"{ARIMA_LEAST} or more; give more normal training rows"
            )
        self._filters = [_arma(column) for column in (steps - steps.mean(axis=0)).T]

    def residuals(self, rows: Rows) -> tuple[FloatArray, BoolArray]:
        lfilter = require("scipy.signal", "data").lfilter
        left = np.zeros_like(rows.x)
        for part in rows.segments:
            for channel, (ar, ma) in enumerate(self._filters):
                x = rows.x[part, channel]
                left[part, channel] = lfilter(np.convolve([1.0, -1.0], ar), ma, x - x[:1])
        return left, _after(rows.present, sum(ARIMA_ORDER))


def _arma(steps: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Polynomials of both parts; a moving average that cannot be inverted gives way to its mirror image."""
    ar, _, ma = ARIMA_ORDER
    if not steps.any():
        return np.ones(1), np.ones(1)
    estimate = require("statsmodels.tsa.arima.estimators.hannan_rissanen", "data").hannan_rissanen
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*singular|.*rank-deficient")  # a line, a square wave
        found, _ = estimate(steps, ar_order=ar, ma_order=ma, demean=False)
    share = float(found.ma_params[0])
    share = 1.0 / share if abs(share) > 1.0 else share
    return found.ar_poly.coef, np.array([1.0, np.clip(share, -MA_MOST, MA_MOST)])


class Autoencoder(Baseline):
    """What a dense network with a narrow middle cannot rebuild of a row, or of a window of one channel."""

    name = "dense autoencoder"
    forecasts = False

    def fit(self, rows: Rows) -> None:
        parts = learnt_windows(rows, self.name)
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
        self._forest = forest.fit(learnt_windows(rows, self.name))

    def residuals(self, rows: Rows) -> tuple[FloatArray, BoolArray]:
        score = -self._forest.score_samples(windows(rows))
        return score[:, None], np.logical_or.reduce(rows.present, axis=1, keepdims=True)


def _energy(rows: Rows, left: FloatArray) -> tuple[FloatArray, BoolArray]:
    """The signs of a moving shape would cancel in an average, its energy does not."""
    before = window_rows(rows.x.shape[1]) - 1
    if before:
        left = np.linalg.norm(left, axis=1, keepdims=True)
    return left, _after(rows.present, before)


def _after(present: BoolArray, rows: int) -> BoolArray:
    """``present`` without the first ``rows`` rows."""
    later = np.array(present)
    later[:rows] = False
    return later
