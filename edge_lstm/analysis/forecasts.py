"""How far a recording can be forecast: the last value, a season, a line, and what is left for a network.

Reads channels in spreads; writes R2 on held-out pieces of time, and a test of what curvature adds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edge_lstm.analysis.excerpts import COARSE, IndexArray, pieces
from edge_lstm.analysis.memory import ljung_box
from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.detection.linear import FOLDS, Rows, clean, fit_predictor, folds, lagged, lags_for
from edge_lstm.evaluation.forecast import forecast_metrics
from edge_lstm.optional import require

PERSISTENCE, SEASONAL, LINE, CURVED = "last value", "one season ago", "line", "line and trees"
FOREST = {"n_estimators": 30, "min_samples_leaf": 10, "max_features": 0.3, "random_state": 0}
TAUGHT = 2_000  # rows that the trees learn from in each fold
LEAST_ROWS = 60


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of the next row on rows that each method has not learnt from.

    r2: by method and channel, None where the channel does not change there.
    lags: of the line.  rows: judged.  error: root mean square of the line's error by channel, in spreads.
    ljung_box_p: by channel, of "the line leaves nothing that its own past explains".
    removed: share of the line's squared error that trees on the same lags remove, a value a fold.
    removed_p: p of "they remove nothing" (one-sided t-test over the folds).
    """

    r2: dict[str, dict[str, float | None]]
    lags: int
    rows: int
    error: dict[str, float]
    ljung_box_p: dict[str, float | None]
    removed: tuple[float, ...]
    removed_p: float

    def mean(self, method: str) -> float | None:
        """R2 of a method, the plain mean over the channels."""
        known = [value for value in self.r2.get(method, {}).values() if value is not None]
        return float(np.mean(known)) if known else None

    @property
    def removed_mean(self) -> float:
        return float(np.mean(self.removed))


def read_forecasts(
    x: FloatArray, present: BoolArray, gap: BoolArray, names: list[str], seasons: list[int]
) -> Forecasts | None:
    """Of channels x (rows, channels); seasons: rows, 0 for none, of each.  None where rows are too few."""
    taken, cut = pieces(gap)
    rows, _ = Rows.of(x[taken], present[taken], cut, np.ones(len(taken), dtype=bool))
    lags = lags_for(x.shape[1], len(rows.x) * (FOLDS - 1) // FOLDS)
    judged = clean(rows, lags) if lags else np.zeros(len(rows.x), dtype=bool)
    if not lags or judged.sum() < LEAST_ROWS:
        return None
    line, curved = _line_and_trees(rows, judged, lags)
    expected = {PERSISTENCE: _earlier(rows.x, 1), LINE: line, CURVED: curved}
    if any(seasons):
        expected[SEASONAL] = _of_seasons(x, taken[present[taken].any(axis=1)], seasons)
    counted = judged[:, None] & rows.present
    r2 = {}
    for name, values in expected.items():
        known = counted & np.isfinite(values)
        found = forecast_metrics(rows.x, np.nan_to_num(values), known, names)
        r2[name] = {channel: figures.r2 for channel, figures in found.channels.items()}
    removed = _removed(rows.x, line, curved, counted, judged)
    return Forecasts(
        r2=r2, lags=lags, rows=int(judged.sum()),
        error={n: float(np.sqrt(((rows.x - line)[c, i] ** 2).mean())) if c.any() else 0.0
               for i, (n, c) in enumerate(zip(names, counted.T, strict=True))},
        ljung_box_p={n: ljung_box((rows.x - line)[judged][:COARSE, i])
                     for i, n in enumerate(names)},
        removed=removed,
        removed_p=_nothing(removed),
    )  # fmt: skip


def _earlier(x: FloatArray, rows: int) -> FloatArray:
    return np.vstack([np.full((rows, x.shape[1]), np.nan), x[:-rows]])


def _of_seasons(x: FloatArray, steps: IndexArray, seasons: list[int]) -> FloatArray:
    """The value a season before each of ``steps``, NaN before the first season and without one."""
    before = np.full((len(steps), x.shape[1]), np.nan)
    for channel, season in enumerate(seasons):
        known = steps >= season
        if season:
            before[known, channel] = x[steps[known] - season, channel]
    return before


def _line_and_trees(rows: Rows, judged: BoolArray, lags: int) -> tuple[FloatArray, FloatArray]:
    """Forecasts of each piece of the judged rows by what the others teach.

    The trees learn the line's cross-validated errors, as the network does beside the line.
    """
    table = lagged(rows, lags)
    forest = require("sklearn.ensemble", "data").ExtraTreesRegressor
    line, curved = np.full_like(rows.x, np.nan), np.full_like(rows.x, np.nan)
    for piece in folds(judged):
        rest = judged & ~piece
        forecast = fit_predictor(replace(rows, normal=rest), lags)[1]
        learnt = np.flatnonzero(rest)
        learnt = learnt[:: -(-len(learnt) // TAUGHT)]
        left = (rows.x - forecast)[learnt]
        trees = forest(**FOREST).fit(table[learnt], left if left.shape[1] > 1 else left[:, 0])
        line[piece] = forecast[piece]
        curved[piece] = forecast[piece] + trees.predict(table[piece]).reshape(-1, rows.x.shape[1])
    return line, curved


def _removed(
    x: FloatArray, line: FloatArray, curved: FloatArray, counted: BoolArray, judged: BoolArray
) -> tuple[float, ...]:
    """1 - squared error of the trees over that of the line, a value a fold, the mean over channels."""
    shares = []
    for piece in folds(judged):
        where = counted & piece[:, None]
        before = np.where(where, (x - line) ** 2, 0.0).sum(axis=0)
        after = np.where(where, (x - curved) ** 2, 0.0).sum(axis=0)
        known = before > 0
        if known.any():
            shares.append(float(np.mean(np.maximum(1 - after[known] / before[known], -1.0))))
    return tuple(shares)


def _nothing(removed: tuple[float, ...]) -> float:
    if len(removed) < 2 or np.ptp(removed) == 0:
        return 1.0
    stats = require("scipy.stats", "data")
    return float(stats.ttest_1samp(removed, 0.0, alternative="greater").pvalue)
