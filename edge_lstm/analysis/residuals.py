"""What a forecast leaves: distribution and memory of its errors.  Every figure is SciPy's or statsmodels'.

Reads errors of one channel; writes plain figures and the points of its pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_lstm.analysis.memory import LEAST_ROWS, LEVEL, ljung_box
from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.optional import require

LAGS = 40
POINTS = 160  # of a quantile plot: the outermost ones all, of the others every so many
EDGE_POINTS = 20  # at each end
REMEMBERED = 0.2  # a smaller autocorrelation may be significant but is of little use


@dataclass(frozen=True)
class Residuals:
    """Errors (measured minus forecast) of one channel in network units; None where they do not say.

    stretch: the most rows without a break; acf, lags 0 to LAGS, and ljung_box_p are of it.
    ljung_box_p: p of "the errors are independent".  normal_p: p of "they are normal" (D'Agostino, Pearson).
    excess_kurtosis: 0 for the normal distribution.
    normal_quantiles, quantiles: the points of a quantile plot.
    """

    name: str
    ahead: int
    rows: int
    stretch: int
    mean: float
    spread: float
    skewness: float | None
    excess_kurtosis: float | None
    normal_p: float | None
    ljung_box_p: float | None
    acf: tuple[float, ...]
    normal_quantiles: tuple[float, ...]
    quantiles: tuple[float, ...]

    @property
    def memory(self) -> tuple[int, float]:
        """The lag of the largest autocorrelation, and its value; 0, 0 where nothing is left.

        Errors of a forecast ``ahead`` rows ahead overlap: only lags from there on count.
        """
        first = max(self.ahead, 1)
        if len(self.acf) <= first or self.ljung_box_p is None or self.ljung_box_p > LEVEL:
            return 0, 0.0
        lag = first + int(np.argmax(np.abs(self.acf[first:])))
        return (lag, self.acf[lag]) if abs(self.acf[lag]) >= REMEMBERED else (0, 0.0)

    @property
    def remembered(self) -> float:
        """How much of the error its memory explains, at most, in network units: what is worth learning."""
        return abs(self.memory[1]) * self.spread


def read_residuals(
    error: FloatArray, counted: BoolArray, names: Sequence[str], ahead: int = 1
) -> list[Residuals]:
    """Of errors (rows, channels); counted: same shape, which of them are forecast errors of normal rows.

    ahead: rows from the last one read to the one that is forecast.
    """
    return [
        _channel(name, error[:, place], counted[:, place], ahead)
        for place, name in enumerate(names)
        if counted[:, place].any()
    ]


def _channel(name: str, error: FloatArray, counted: BoolArray, ahead: int) -> Residuals:
    stats = require("scipy.stats", "data")
    known, run = error[counted], _longest(error, counted)
    varies = len(known) >= LEAST_ROWS and float(np.ptp(known)) > 0
    normal, ordered = _quantile_points(stats, known) if varies else ((), ())
    acf: Any = ()
    if len(run) >= LEAST_ROWS and np.ptp(run) > 0:
        tools = require("statsmodels.tsa.stattools", "data")
        acf = tuple(tools.acf(run, nlags=min(LAGS, len(run) // 2 - 1), fft=True).tolist())
    return Residuals(
        name=name,
        ahead=ahead,
        rows=len(known),
        stretch=len(run),
        mean=float(known.mean()),
        spread=float(known.std()),
        skewness=float(stats.skew(known)) if varies else None,
        excess_kurtosis=float(stats.kurtosis(known)) if varies else None,
        normal_p=float(stats.normaltest(known).pvalue) if varies else None,
        ljung_box_p=ljung_box(run),
        acf=acf,
        normal_quantiles=normal,
        quantiles=ordered,
    )


def _longest(error: FloatArray, counted: BoolArray) -> FloatArray:
    """The errors of the longest run of counted rows."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], counted.astype(np.int8), [0]]))).reshape(-1, 2)
    start, stop = edges[np.argmax(edges[:, 1] - edges[:, 0])]
    return error[start:stop]


def _quantile_points(stats: Any, known: FloatArray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Normal quantiles and the errors in order, thinned in the middle."""
    normal, ordered = stats.probplot(known, dist="norm", fit=False)
    ends = min(EDGE_POINTS, len(normal) // 2)
    middle = np.linspace(ends, len(normal) - 1 - ends, POINTS - 2 * ends).round().astype(np.int64)
    kept = np.unique(np.concatenate([np.arange(ends), middle, np.arange(len(normal) - ends, len(normal))]))
    return tuple(normal[kept].tolist()), tuple(ordered[kept].tolist())
