"""How good a forecast is: MSE, RMSE, MAE, R2 a channel and over channels.

Reads the stream and its forecast; writes plain figures, None where a figure is undefined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.errors import DataError, raise_all
from edge_lstm.optional import require

MIN_VARIANCE = 1e-12  # of a channel in network units: below, it is constant and R2 means nothing


@dataclass(frozen=True)
class ChannelFigures:
    """Errors of one channel's forecast; r2 is None where the channel is constant, all where it is missing."""

    rows: int
    mse: float | None
    rmse: float | None
    mae: float | None
    r2: float | None


@dataclass(frozen=True)
class ForecastMetrics:
    """Errors of a forecast: of each channel by name, and plain means over the channels that have them.

    rmse is the root of the mean mse.  r2_weighted: weighted by each channel's variance.
    """

    channels: dict[str, ChannelFigures]
    mse: float | None
    rmse: float | None
    mae: float | None
    r2: float | None
    r2_weighted: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def forecast_metrics(
    actual: FloatArray, expected: FloatArray, counted: BoolArray, names: Sequence[str]
) -> ForecastMetrics:
    """Errors of ``expected[t]``, the forecast OF row t, each (steps, channels).

    counted: bool (steps, channels), the samples that are present, forecast and to be judged.
    """
    problems = []
    if not (np.shape(actual) == np.shape(expected) == np.shape(counted) == (len(actual), len(names))):
        problems.append(
            f"actual {np.shape(actual)}, expected {np.shape(expected)}, counted {np.shape(counted)} and "
            f"{len(names)} names do not match"
        )
    elif not (np.isfinite(actual[counted]).all() and np.isfinite(expected[counted]).all()):
        problems.append("a counted sample is NaN or infinite; leave missing samples out of counted")
    raise_all(DataError, "forecast metrics", problems)
    figures = [
        _channel(actual[rows, channel], expected[rows, channel])
        for channel, rows in enumerate(np.asarray(counted).T)
    ]
    variances = [float(np.var(actual[rows, c])) if rows.any() else 0.0 for c, rows in enumerate(counted.T)]
    known = [(f.r2, variance) for f, variance in zip(figures, variances, strict=True) if f.r2 is not None]
    total = sum(variance for _, variance in known)
    mse = _mean([figure.mse for figure in figures])
    return ForecastMetrics(
        channels=dict(zip(names, figures, strict=True)),
        mse=mse,
        rmse=None if mse is None else float(np.sqrt(mse)),
        mae=_mean([figure.mae for figure in figures]),
        r2=_mean([r2 for r2, _ in known]),
        r2_weighted=sum(r2 * variance for r2, variance in known) / total if known else None,
    )


def _channel(actual: FloatArray, expected: FloatArray) -> ChannelFigures:
    if len(actual) == 0:
        return ChannelFigures(0, None, None, None, None)
    metrics = require("sklearn.metrics", "data")
    mse = float(metrics.mean_squared_error(actual, expected))
    varies = len(actual) > 1 and float(np.var(actual)) > MIN_VARIANCE
    return ChannelFigures(
        rows=len(actual),
        mse=mse,
        rmse=float(np.sqrt(mse)),
        mae=float(metrics.mean_absolute_error(actual, expected)),
        r2=float(metrics.r2_score(actual, expected)) if varies else None,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
