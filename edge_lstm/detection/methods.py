"""The simple methods that a device can run: each a line beside a network that adds nothing.

Reads streams in network units; writes LinearPredictors and the detector options that belong to them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.detection.linear import Rows, clean, cross_validated, fit_predictor, lagged
from edge_lstm.errors import DataError
from edge_lstm.optional import require
from edge_lstm.predictor import LinearPredictor

# by the name that LinearPredictor.method and ``edge-lstm train --method`` have
METHODS = {
    "linear": "linear part alone",  # the LSTM's detector without its network
    "var": "AR or VAR",
    "persistence": "persistence",
    "ewma": "EWMA chart",
    "zscore": "z-score",
    "pca": "PCA",
}
PCA_VARIANCE = 0.9  # share that the components keep
WINDOW = 32  # rows of a window where the stream has one channel
REBUILT = 8  # rows ago, the one of such a window that a device rebuilds: both of its sides are known


def method_config(method: str, config: DetectorConfig, channels: int) -> DetectorConfig:
    """``config`` as a method scores: the EWMA of its residuals alone, no level and no Mahalanobis weighting;
    of their squares where a window of one channel is rebuilt; unsmoothed for the z-score.

    "linear" and "none" leave the options as they are; "" stands for any method that no device runs.
    """
    if method in ("linear", "none"):
        return config
    smoothing = "square" if method == "pca" and channels == 1 else "residual"
    alpha = 1.0 if method == "zscore" else config.alpha
    return replace(config, weighting="spread", smoothing=smoothing, level=0.0, alpha=alpha)


def fit_method(
    method: str, rows: Rows, lags: int | None = None, ahead: int = 1, scored: BoolArray | None = None
) -> tuple[LinearPredictor, FloatArray]:
    """The predictor of a method, spread 0, and cross-validated expectations (rows, channels).

    lags, ahead, scored: of "linear" and "var", see ``fit_predictor``; by default as many lags as the rows
    afford, the next row, all channels.  Raises DataError where rows are too few.
    """
    if method in ("linear", "var"):
        predictor, expected = fit_predictor(rows, lags, ahead, scored)
        return replace(predictor, spread=np.zeros(predictor.channels), method=method), expected
    fit = {"persistence": _persistence, "ewma": _mean, "zscore": _mean, "pca": _components}[method]
    predictor = replace(fit(rows), method=method)
    return predictor, cross_validated(
        lambda learn: expectations(fit(replace(rows, normal=learn)), rows), rows.normal
    )


def expectations(predictor: LinearPredictor, rows: Rows) -> FloatArray:
    """What the predictor expects of each row (rows, channels), reset at gaps."""
    return np.vstack([predictor.forecast(rows.x[part]) for part in rows.segments])


def window_rows(channels: int) -> int:
    """Rows of a window: one where several channels describe a state, more where there is one."""
    return WINDOW if channels == 1 else 1


def windows(rows: Rows) -> FloatArray:
    """The last rows up to each row side by side (rows, columns), newest first."""
    return np.hstack([rows.x, lagged(rows, window_rows(rows.x.shape[1]) - 1)])


def learnt_windows(rows: Rows, name: str) -> FloatArray:
    """Windows of normal rows alone; DataError where they are fewer than their columns."""
    parts = windows(rows)[clean(rows, window_rows(rows.x.shape[1]) - 1)]
    if len(parts) <= parts.shape[1]:
        raise DataError(
            f"baseline {name}: {len(parts)} normal rows for {parts.shape[1]} columns; "
            "give more normal training rows"
        )
    return parts


def _persistence(rows: Rows) -> LinearPredictor:
    """The next row is expected to equal this one."""
    channels = rows.x.shape[1]
    return LinearPredictor(np.eye(channels)[None], np.zeros(channels), np.zeros(channels))


def _mean(rows: Rows) -> LinearPredictor:
    """Every row is expected to be the mean of the normal ones."""
    x, counted = rows.x[rows.normal], rows.present[rows.normal]
    mean = np.where(counted, x, 0.0).sum(axis=0) / np.maximum(counted.sum(axis=0), 1)
    return LinearPredictor(np.zeros((0, mean.size, mean.size)), mean, np.zeros(mean.size))


def _components(rows: Rows) -> LinearPredictor:
    """The row is rebuilt from principal components of normal ones; of one channel a row amid a window.

    The error of that earlier row is then the error of what is expected of the present one.
    """
    channels, (mean, axes) = rows.x.shape[1], principal_axes(learnt_windows(rows, METHODS["pca"]))
    row = REBUILT if channels == 1 else 0
    place = slice(row * channels, (row + 1) * channels)
    onto = (axes.T @ axes)[:, place].reshape(-1, channels, channels)  # [row of the window][from][to]
    bias = mean[place] - np.einsum("rf,rfc->c", mean.reshape(-1, channels), onto)
    onto[row] -= np.eye(channels)
    onto[0] += np.eye(channels)
    return LinearPredictor(onto[1:], bias, np.zeros(channels), contemporaneous=onto[0])


def principal_axes(parts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean (columns,) and orthonormal axes (kept, columns) with PCA_VARIANCE of parts (rows, columns)."""
    pca = require("sklearn.decomposition", "data").PCA(svd_solver="full").fit(parts)
    variance = np.cumsum(pca.explained_variance_)
    kept = int(np.searchsorted(variance, PCA_VARIANCE * variance[-1])) + 1
    return pca.mean_, pca.components_[: max(1, min(kept, parts.shape[1] - 1))]
