"""Fit the linear predictor on normal rows, and say honestly how well it forecasts rows that it has not seen.

Reads streams in network units; writes a LinearPredictor and cross-validated forecasts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from edge_lstm.arrays import BoolArray, FloatArray, hold_since_gap
from edge_lstm.errors import DataError, raise_all
from edge_lstm.optional import require
from edge_lstm.predictor import LinearPredictor

FOLDS = 5  # pieces of time, each forecast by what the others teach
RIDGE = 1e-3  # penalty of the squared weights against the mean squared error, in network units
WEIGHTS = 32  # of one channel, about: lags * channels
LAGS = (2, 16)  # fewest and most
ROWS_A_WEIGHT = 2  # learning rows for each weight of a channel; fewer lags where there are not as many
FLOOR = 0.01  # of a spread, network units


@dataclass(frozen=True, eq=False)
class Rows:
    """A stream without its empty rows, missing values held as on the device (0 before the first).

    x: float64 (rows, channels) in network units.  present: bool, same shape.
    gap: bool (rows,), the stream was reset before the row.  normal: bool (rows,), to learn from.
    """

    x: FloatArray
    present: BoolArray
    gap: BoolArray
    normal: BoolArray

    @staticmethod
    def of(x: FloatArray, present: BoolArray, gap: BoolArray, normal: BoolArray) -> tuple[Rows, Any]:
        """The rows with data of a stream (steps, channels), and where they stand in it."""
        steps = np.flatnonzero(_checked(x, present, gap, normal).any(axis=1))
        after = _gaps(gap, steps)
        return Rows(
            hold_since_gap(x[steps], present[steps], after), present[steps], after, normal[steps]
        ), steps

    @property
    def segments(self) -> list[slice]:
        """Pieces between resets."""
        edges = [0, *(row for row in np.flatnonzero(self.gap).tolist() if row), len(self.x)]
        return [slice(a, b) for a, b in pairwise(edges)]


def _checked(x: FloatArray, present: BoolArray, gap: BoolArray, normal: BoolArray) -> BoolArray:
    problems = []
    if not (np.ndim(x) == 2 and np.shape(x) == present.shape and gap.shape == normal.shape == (len(x),)):
        problems.append(
            f"x {np.shape(x)}, present {present.shape}, gap {gap.shape}, normal {normal.shape}: expected "
            "(steps, channels) twice and (steps,) twice"
        )
    elif not np.isfinite(x[present]).all():
        problems.append("x holds NaN or infinity where it is present")
    raise_all(DataError, "stream", problems)
    return present


def _gaps(gap: BoolArray, steps: Any) -> BoolArray:
    """Gaps of the kept rows; a gap before a row that is dropped is one before the next kept row."""
    number = np.cumsum(gap)[steps]
    after: BoolArray = np.diff(number, prepend=number[:1]) > 0
    return after


def lags_for(channels: int, rows: int) -> int:
    """Lags of a predictor of ``channels`` that learns from ``rows``; 0 where there are too few."""
    affordable = rows // (ROWS_A_WEIGHT * channels)
    return min(max(LAGS[0], min(LAGS[1], round(WEIGHTS / channels))), affordable)


def lagged(rows: Rows, lags: int) -> FloatArray:
    """The ``lags`` rows before each row side by side, newest first; 0 before a reset."""
    channels = rows.x.shape[1]
    table = np.zeros((len(rows.x), lags * channels))
    for part in rows.segments:
        for lag in range(1, lags + 1):
            table[part][lag:, (lag - 1) * channels : lag * channels] = rows.x[part][:-lag]
    return table


def clean(rows: Rows, lags: int) -> BoolArray:
    """Rows that are normal with all of the ``lags`` rows before them, which no reset cuts off."""
    broken = np.concatenate([np.ones(lags, dtype=np.int64), (~rows.normal).astype(np.int64)])
    sums = np.concatenate([[0], np.cumsum(broken)])
    whole: BoolArray = sums[lags + 1 :] == sums[: -lags - 1]
    for row in np.flatnonzero(rows.gap):
        whole[row : row + lags] = False
    return whole


def folds(normal: BoolArray, count: int = FOLDS) -> list[BoolArray]:
    """The normal rows in ``count`` consecutive pieces."""
    found = []
    for piece in np.array_split(np.flatnonzero(normal), count):
        flag = np.zeros(len(normal), dtype=bool)
        flag[piece] = True
        found.append(flag)
    return found


def cross_validated(values: Callable[[BoolArray], FloatArray], normal: BoolArray) -> FloatArray:
    """``values(normal)`` (rows, ...), but of each piece of the normal rows what the others teach.

    values: learns from the rows it is given, and returns what it makes of all rows.
    """
    found = np.array(values(normal))
    for piece in folds(normal):
        rest = normal & ~piece
        if piece.any() and rest.any():
            found[piece] = values(rest)[piece]
    return found


def fit_predictor(
    rows: Rows, lags: int | None = None, ahead: int = 1, scored: BoolArray | None = None
) -> tuple[LinearPredictor, FloatArray]:
    """Ridge regression of each row on those before it, and cross-validated forecasts (rows, channels).

    lags: rows that are read, the newest of them ``ahead`` rows old: the kernel of younger ones is 0.
    scored: bool (channels,), those that are forecast (None: all); the others are read.
    The spreads are those of the cross-validated errors.  Raises DataError where rows are too few.
    """
    channels = rows.x.shape[1]
    if lags is None:
        lags = lags_for(channels, int(rows.normal.sum()))
    lags = lags + ahead - 1 if lags else 0
    learnt = clean(rows, lags)
    if learnt.sum() < 2 * FOLDS or not lags:
        least = max(2 * FOLDS, 0 if lags else ROWS_A_WEIGHT * channels)
        raise DataError(
            f"linear predictor: {learnt.sum()} normal rows that follow {lags} normal rows, expected "
            f"{least} or more; give more normal training rows without gaps"
        )
    table = lagged(rows, lags)[:, (ahead - 1) * channels :]

    def fit(learn: BoolArray) -> Any:
        ridge = require("sklearn.linear_model", "data").Ridge(alpha=RIDGE * learn.sum(), solver="cholesky")
        return ridge.fit(table[learn], rows.x[learn])

    forecasts = cross_validated(lambda learn: fit(learn).predict(table).reshape(rows.x.shape), learnt)
    model = fit(learnt)
    spread = errors_spread((rows.x - forecasts)[learnt], rows.present[learnt])
    kernel = np.zeros((lags, channels, channels))
    kernel[ahead - 1 :] = np.asarray(model.coef_).reshape(channels, -1, channels).transpose(1, 2, 0)
    bias = np.atleast_1d(model.intercept_)
    if scored is not None:
        kernel, bias = np.where(scored, kernel, 0.0), np.where(scored, bias, 0.0)
        spread, forecasts = np.where(scored, spread, 1.0), np.where(scored, forecasts, 0.0)
    return LinearPredictor(kernel, bias, spread), forecasts


def errors_spread(error: FloatArray, counted: BoolArray) -> FloatArray:
    """Root mean square (channels,) of the counted errors, FLOOR or more."""
    squares = np.where(counted, error**2, 0.0).sum(axis=0) / np.maximum(counted.sum(axis=0), 1)
    spread: FloatArray = np.maximum(np.sqrt(squares), FLOOR)
    return spread
