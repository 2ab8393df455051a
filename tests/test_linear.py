"""The linear predictor: a known one is found again, and no row is forecast by a fit that has seen it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_lstm.detection import linear
from edge_lstm.detection.linear import Rows, clean, cross_validated, fit_predictor, folds, lagged, lags_for
from edge_lstm.errors import DataError, ModelError
from edge_lstm.predictor import LinearPredictor

KERNEL = np.array([[[0.5, 0.2], [-0.3, 0.4]], [[0.2, 0.0], [0.1, 0.3]]])  # lag, from, to
BIAS = np.array([1.0, -2.0])


def known(steps=4000, noise=0.1, seed=0):
    """A stream of KERNEL and BIAS with noise of a known size."""
    rng = np.random.default_rng(seed)
    x = np.zeros((steps, 2))
    for t in range(2, steps):
        x[t] = BIAS + x[t - 1] @ KERNEL[0] + x[t - 2] @ KERNEL[1] + noise * rng.normal(size=2)
    return x[100:]


def stream(x, normal=None, gap=None):
    """Rows of a complete stream."""
    steps = len(x)
    normal = np.ones(steps, dtype=bool) if normal is None else normal
    gap = np.zeros(steps, dtype=bool) if gap is None else gap
    return Rows(x, np.ones(x.shape, dtype=bool), gap, normal)


# --- the predictor -------------------------------------------------------------------------------


def test_a_forecast_worked_by_hand_starts_from_rows_of_zeros():
    predictor = LinearPredictor(KERNEL, BIAS, [1.0, 1.0])
    expected = predictor.forecast(np.array([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]))
    # row 1: 1 + 0.5 - 0.6, -2 + 0.2 + 0.8;  row 2: 1 + 1.5 - 1.2 + 0.2 + 0.2, -2 + 0.6 + 1.6 + 0.6
    np.testing.assert_allclose(expected, [BIAS, [0.9, -1.0], [1.7, 0.8]], atol=1e-12)


def test_without_a_line_the_output_is_the_forecast():
    none = LinearPredictor.none(3)
    assert (none.lags, none.channels, none.spread.tolist()) == (0, 3, [1, 1, 1])
    assert not none.forecast(np.ones((4, 3))).any()


def test_broken_constants_are_all_named():
    with pytest.raises(
        ModelError, match=r"(?s)kernel is \(1, 2, 3\), expected \(lags, 2, 2\).*spread finite"
    ):
        LinearPredictor(np.zeros((1, 2, 3)), np.zeros(2), [1.0, -1.0])
    with pytest.raises(ModelError, match=r"bias \(2,\) and spread \(3,\), expected one a channel"):
        LinearPredictor(np.zeros((0, 2, 2)), np.zeros(2), np.ones(3))
    with pytest.raises(ModelError, match="kernel holds NaN or infinity"):
        LinearPredictor(np.full((1, 1, 1), np.nan), [0.0], [1.0])


# --- the fit -------------------------------------------------------------------------------------


def test_a_known_vector_autoregression_is_found_again():
    x = known()
    predictor, forecasts = fit_predictor(stream(x), 2)
    # 3,900 rows of noise 0.1: weights are off by some 0.1 / (0.12 * sqrt(3900)), the ridge shrinks them
    np.testing.assert_allclose(predictor.kernel, KERNEL, atol=0.07)
    np.testing.assert_allclose(predictor.spread, 0.1, rtol=0.05)
    assert np.std((x - forecasts)[2:], axis=0) == pytest.approx(predictor.spread, rel=0.01)
    # its forecasts are those of the regression's own equation
    np.testing.assert_allclose(
        predictor.forecast(x)[2:],
        predictor.bias + x[1:-1] @ predictor.kernel[0] + x[:-2] @ predictor.kernel[1],
    )


def test_one_channel_and_one_lag_are_fitted():
    x = np.zeros((500, 1))
    rng = np.random.default_rng(2)
    for t in range(1, 500):
        x[t] = 0.8 * x[t - 1] + rng.normal()
    predictor = fit_predictor(stream(x), 1)[0]
    assert predictor.kernel.shape == (1, 1, 1)
    assert predictor.kernel[0, 0, 0] == pytest.approx(0.8, abs=0.06)


def test_a_silent_channel_has_the_smallest_spread():
    x = np.column_stack([known()[:, 0], np.full(3900, 0.3)])
    assert fit_predictor(stream(x), 2)[0].spread[1] == linear.FLOOR


@pytest.mark.parametrize(
    ("channels", "rows", "lags"),
    [(1, 10**5, 16), (2, 10**5, 16), (5, 10**5, 6), (8, 10**5, 4), (38, 10**5, 2), (38, 100, 1), (38, 75, 0),
     (1, 20, 10)],
)  # fmt: skip
def test_lags_follow_the_channels_and_the_rows_that_there_are(channels, rows, lags):
    assert lags_for(channels, rows) == lags


# --- what rows may teach -------------------------------------------------------------------------


def test_clean_rows_follow_normal_rows_without_a_reset_between():
    normal, gap = np.ones(12, dtype=bool), np.zeros(12, dtype=bool)
    normal[4], gap[9] = False, True
    rows = stream(np.zeros((12, 1)), normal, gap)
    assert np.flatnonzero(clean(rows, 2)).tolist() == [2, 3, 7, 8, 11]
    assert np.flatnonzero(clean(rows, 0)).tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]


def test_lagged_rows_are_newest_first_and_zero_before_a_reset():
    x, gap = np.arange(1.0, 6.0)[:, None] * [1, 10], np.arange(5) == 3
    assert lagged(stream(x, gap=gap), 2).tolist() == [
        [0, 0, 0, 0], [1, 10, 0, 0], [2, 20, 1, 10], [0, 0, 0, 0], [4, 40, 0, 0],
    ]  # fmt: skip


def test_folds_are_consecutive_pieces_of_the_normal_rows():
    normal = np.ones(12, dtype=bool)
    normal[3:5] = False
    pieces = [np.flatnonzero(fold).tolist() for fold in folds(normal)]
    assert pieces == [[0, 1], [2, 5], [6, 7], [8, 9], [10, 11]]


def test_cross_validated_values_of_a_piece_are_what_the_other_pieces_teach():
    seen = []

    def values(learn):
        seen.append(np.flatnonzero(learn).tolist())
        return np.full((6, 1), float(learn.sum()))

    normal = np.array([1, 1, 0, 1, 1, 1], dtype=bool)
    found = cross_validated(values, normal)
    assert found[:, 0].tolist() == [4, 4, 5, 4, 4, 4]
    assert seen == [[0, 1, 3, 4, 5], [1, 3, 4, 5], [0, 3, 4, 5], [0, 1, 4, 5], [0, 1, 3, 5], [0, 1, 3, 4]]


def test_a_normal_row_is_forecast_by_a_fit_without_its_fold():
    x = known(1100)
    changed = x.copy()
    changed[530] += 100.0  # in the third of the five folds of 998 rows: 401 .. 600
    before, after = (fit_predictor(stream(values), 2)[1] for values in (x, changed))
    inside = slice(402, 602)
    reached = np.isin(np.arange(len(x)), (531, 532))  # their lags hold the row
    np.testing.assert_array_equal(before[inside][~reached[inside]], after[inside][~reached[inside]])
    assert (np.abs(before[reached] - after[reached]) > 1).all(axis=1).all()
    outside = np.delete(np.arange(2, len(x)), slice(400, 600))
    assert (before[outside] != after[outside]).any(axis=1).all()  # all other fits have seen it


def test_rows_that_are_not_normal_teach_nothing_and_are_forecast_by_the_whole_fit():
    x = known(1100)
    normal = np.ones(len(x), dtype=bool)
    normal[500:520] = False
    spoilt = x.copy()
    spoilt[500:520] = 50.0
    (first, forecasts), (second, others) = (fit_predictor(stream(v, normal), 2) for v in (x, spoilt))
    for name in ("kernel", "bias", "spread"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    taught = clean(stream(x, normal), 2)
    np.testing.assert_array_equal(forecasts[taught], others[taught])
    np.testing.assert_allclose(others[500:522], second.forecast(spoilt)[500:522], rtol=1e-9)


def test_a_row_behind_a_gap_teaches_nothing():
    x = known(1100)
    gap = np.arange(len(x)) == 700
    spoilt = x.copy()
    spoilt[700:] -= 5.0
    whole = fit_predictor(stream(spoilt), 2)[0]
    cut = fit_predictor(stream(spoilt, gap=gap), 2)[0]
    assert (whole.kernel != cut.kernel).any()
    teaching = np.array([t for t in range(2, len(x)) if t not in (700, 701)])
    design = np.hstack([spoilt[teaching - 1], spoilt[teaching - 2]])
    centred = design - design.mean(axis=0)
    target = spoilt[teaching] - spoilt[teaching].mean(axis=0)
    gram = centred.T @ centred + linear.RIDGE * len(teaching) * np.eye(4)
    weights = np.linalg.solve(gram, centred.T @ target)
    np.testing.assert_allclose(cut.kernel.reshape(4, 2), weights, rtol=1e-6, atol=1e-9)


def test_missing_values_are_held_and_rows_without_any_are_left_out():
    x = np.array([[np.nan, 1], [2, np.nan], [np.nan, np.nan], [3, 4], [np.nan, 5]])
    gap = np.array([False, False, True, False, False])
    rows, steps = Rows.of(x, ~np.isnan(x), gap, np.array([True, True, True, False, True]))
    assert steps.tolist() == [0, 1, 3, 4]
    assert rows.x.tolist() == [[0, 1], [2, 1], [3, 4], [3, 5]]
    assert rows.gap.tolist() == [False, False, True, False]
    assert rows.normal.tolist() == [True, True, False, True]
    assert rows.segments == [slice(0, 2), slice(2, 4)]


def test_a_missing_value_counts_in_no_spread():
    x = known()
    rows = stream(x)
    present = rows.present.copy()
    present[::3, 0] = False
    held = Rows.of(np.where(present, x, np.nan), present, rows.gap, rows.normal)[0]
    predictor, forecasts = fit_predictor(held, 2)
    counted = present[:, 0] & (np.arange(len(x)) > 1)
    error = (held.x - forecasts)[counted, 0]
    assert predictor.spread[0] == pytest.approx(np.sqrt((error**2).mean()))


def test_too_few_rows_are_one_clear_error():
    with pytest.raises(
        DataError,
        match="^linear predictor: 9 normal rows that follow 2 normal rows, expected 10 or more; "
        "give more normal training rows without gaps$",
    ):
        fit_predictor(stream(known(111)), 2)
    with pytest.raises(
        DataError, match="60 normal rows that follow 0 normal rows, expected 76 or more; give more normal"
    ):
        fit_predictor(stream(np.random.default_rng(0).normal(size=(60, 38))))
    nothing = replace(stream(known()), normal=np.zeros(3900, dtype=bool))
    with pytest.raises(DataError, match="0 normal rows that follow"):
        fit_predictor(nothing)


def test_a_missing_value_behind_a_gap_is_not_held_from_before_it():
    x = np.array([[5.0], [0.0], [0.0], [7.0], [0.0]])
    present = np.array([[True], [False], [False], [True], [False]])
    both = np.hstack([present, np.ones_like(present)])
    gap = np.array([False, False, True, False, False])
    rows, _ = linear.Rows.of(np.hstack([x, x + 1]), both, gap, ~gap)
    assert rows.x[:, 0].tolist() == [5.0, 5.0, 0.0, 7.0, 7.0]
