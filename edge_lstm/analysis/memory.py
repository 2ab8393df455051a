"""What a channel remembers: stationarity, autocorrelation, seasons.  Every test is statsmodels' or SciPy's.

Reads columns in spreads without missing values; writes plain figures.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_lstm.analysis.excerpts import COARSE, STRETCH, coarse
from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.optional import require

LEVEL = 0.05  # of the partial autocorrelations, all lags together
STEADY = 0.01  # of the tests of stationarity; the least p in the table of KPSS
LAGS = 48  # drawn and tested
UNIT_LAGS = 8  # lagged differences of the unit-root test
LEAST_PARTIAL = 0.1  # a smaller partial correlation may be significant but is of no use
SILENT = 4  # lags in a row without one that matters end the partial autocorrelation
LEAST_ROWS = 40
PEAK = 0.1  # height and prominence of a season in the autocorrelation
CYCLES, FEWEST_CYCLES = 10, 5  # of a season that are taken apart, and that must be there
STRENGTH = 0.4  # of a season, from which on it is named
FINEST_SEASON = 4  # rows
TAKEN_APART = 2_000  # rows, about: a longer season is thinned, of a shorter one more cycles are taken


@dataclass(frozen=True)
class Memory:
    """Figures of one channel; None where it does not change or has too few rows.

    adf_p: p of "there is a unit root".  kpss_p: p of "the level is stationary" (0.01 to 0.10 at most).
    ljung_box_p: p of "rows are independent".  order: where the partial autocorrelation cuts off, its last lag
    that is both significant and 0.1 or more.  season: rows, 0 for none; strength: 0 to 1, of it.
    acf, pacf: lags 0 to LAGS.
    """

    adf_p: float | None
    kpss_p: float | None
    ljung_box_p: float | None
    order: int
    season: int
    strength: float
    acf: tuple[float, ...]
    pacf: tuple[float, ...]
    rows: int

    @property
    def verdict(self) -> str:
        """What both stationarity tests say together."""
        if self.adf_p is None or self.kpss_p is None:
            return "does not change"
        steady = self.kpss_p > STEADY
        if self.adf_p < STEADY:
            return "stationary" if steady else "level moves"
        return "undecided" if steady else "unit root"


def read_memory(x: FloatArray) -> Memory:
    """Figures of one stretch x (rows,) without gaps."""
    near = x[:STRETCH]
    rough = coarse(x[:, None])[:, 0]
    if len(near) < LEAST_ROWS or np.ptp(near) == 0 or np.ptp(rough) == 0:
        return Memory(None, None, None, 0, 0, 0.0, (), (), len(near))
    tools = require("statsmodels.tsa.stattools", "data")
    lags = min(LAGS, len(near) // 2 - 1)
    level = LEVEL / lags  # as many lags are looked at
    pacf, limits = tools.pacf(near, nlags=lags, method="burg", alpha=level)
    apart = (np.abs(pacf) > limits[:, 1] - pacf) & (np.abs(pacf) >= LEAST_PARTIAL)
    season, strength = find_season(x)
    return Memory(
        adf_p=_unit_root(tools, rough),
        kpss_p=_level(tools, rough),
        ljung_box_p=ljung_box(near[:COARSE]),
        order=_cut_off(apart),
        season=season,
        strength=strength,
        acf=tuple(tools.acf(near, nlags=lags, fft=True).tolist()),
        pacf=tuple(pacf.tolist()),
        rows=len(near),
    )


def _cut_off(apart: BoolArray) -> int:
    """Last lag that stands apart before SILENT lags in a row do not; apart: bool (lags + 1,)."""
    last = 0
    for lag in np.flatnonzero(apart[1:]) + 1:
        if lag - last > SILENT:
            break
        last = int(lag)
    return last


def _unit_root(tools: Any, x: FloatArray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a later release returns an object
        return float(tools.adfuller(x, maxlag=min(UNIT_LAGS, len(x) // 4), autolag=None)[1])


def _level(tools: Any, x: FloatArray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that p lies beyond its table
        return float(tools.kpss(x, regression="c", nlags="auto")[1])


def ljung_box(x: FloatArray) -> float | None:
    """p of "the rows of x are independent", over 20 lags; None where x does not change."""
    if len(x) < LEAST_ROWS or np.ptp(x) == 0:
        return None
    table = require("statsmodels.stats.diagnostic", "data").acorr_ljungbox(x, lags=[20])
    return float(table["lb_pvalue"].iloc[0])


def find_season(x: FloatArray) -> tuple[int, float]:
    """Rows and strength of the season of x (rows,); 0, 0 where it has none.

    The highest peak of the autocorrelation that comes back at twice its lag, and of which STL finds that it
    explains STRENGTH or more of what is not trend.
    """
    signal = require("scipy.signal", "data")
    straight = signal.detrend(x)
    if np.ptp(straight) <= 1e-9 * np.ptp(x):
        return 0, 0.0
    tools = require("statsmodels.tsa.stattools", "data")
    longest = len(x) // FEWEST_CYCLES
    acf = tools.acf(straight, nlags=2 * longest + longest // 20 + 1, fft=True)
    once = acf[: longest + 1]
    peaks = signal.find_peaks(once, height=PEAK, prominence=PEAK)[0]
    peaks = peaks[peaks >= FINEST_SEASON]
    peaks = np.array([lag for lag in peaks if _again(acf, int(lag))], dtype=np.int64)
    if len(peaks) == 0:
        return 0, 0.0
    good = peaks[once[peaks] >= 0.9 * once[peaks].max()]  # multiples of a season are nearly as high
    season = int(good[0])
    strength = _strength(straight, season)
    return (season, strength) if strength >= STRENGTH else (0, 0.0)


def _again(acf: FloatArray, lag: int) -> bool:
    """Whether the autocorrelation has at twice the lag half of what it has at the lag."""
    near = max(1, lag // 20)
    return bool(acf[2 * lag - near : 2 * lag + near + 1].max() >= acf[lag] / 2)


def _strength(x: FloatArray, season: int) -> float:
    """Share of what is not trend that the season explains (Wang, Smith and Hyndman, 2006)."""
    thin = max(1, CYCLES * season // TAKEN_APART)
    cycle = round(season / thin)
    part = x[: max(CYCLES * season, TAKEN_APART) : thin]
    stl = require("statsmodels.tsa.seasonal", "data").STL
    jump = max(1, cycle // 10)
    window = 2 * (len(part) // cycle) + 1  # all cycles: one shape for all of them, nearly
    found = stl(part, period=cycle, seasonal=window, trend_jump=jump, low_pass_jump=jump).fit()
    both = np.var(found.seasonal + found.resid)
    return max(0.0, 1 - float(np.var(found.resid)) / float(both)) if both > 0 else 0.0
