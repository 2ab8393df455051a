"""Metrics against hand-worked cases and scikit-learn, baselines against statsmodels, and the verdict."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, mean_absolute_error, r2_score
from statsmodels.tsa.api import VAR, AutoReg

from edge_lstm.detection.fit import DetectorConfig
from edge_lstm.errors import DataError
from edge_lstm.evaluation.baselines import (
    Linear,
    Mean,
    Pca,
    Persistence,
    Rows,
    default_baselines,
    run_baseline,
    run_baselines,
)
from edge_lstm.evaluation.forecast import expected_rows, forecast_metrics
from edge_lstm.evaluation.metrics import auc_pr, evaluate_stream, merged, runs, verdict

CONFIG = DetectorConfig()
RIDGE_ERROR = 1e-4  # of residuals of size 1: what a ridge of 1e-3 changes in a fit on 3,000 rows


def flags(rows, *ranges):
    """0/1 (rows,), 1 in each ``(start, stop)``."""
    flag = np.zeros(rows, dtype=np.uint8)
    for start, stop in ranges:
        flag[start:stop] = 1
    return flag


# --- scores and alarms ---------------------------------------------------------------------------


def test_events_count_by_the_start_of_their_alarm():
    label = flags(1100, (100, 150), (300, 350), (500, 550))
    # starts inside; starts before and lasts into the event; two far apart inside one; one outside
    alarm = flags(1100, (110, 200), (290, 340), (500, 510), (530, 560), (900, 901))
    metrics = evaluate_stream(np.zeros(1100), alarm, label)
    assert (metrics.rows, metrics.anomaly_rows, metrics.events, metrics.alarms) == (1100, 150, 3, 5)
    assert (metrics.found, metrics.false_alarms) == (2, 2)
    assert metrics.event_precision == 3 / 5
    assert metrics.event_recall == 2 / 3
    assert metrics.event_f1 == pytest.approx(2 * 0.6 * (2 / 3) / (0.6 + 2 / 3))
    assert metrics.false_alarms_per_1000 == 1000 * 2 / 950
    assert metrics.delay_rows == 5.0  # median of 10 and 0


def test_alarms_up_to_ten_rows_apart_are_one():
    assert merged(runs(flags(100, (10, 20), (30, 40), (51, 60)))) == [(10, 40), (51, 60)]
    metrics = evaluate_stream(np.zeros(100), flags(100, (10, 20), (30, 40), (51, 60)), flags(100, (30, 60)))
    assert (metrics.alarms, metrics.false_alarms, metrics.found, metrics.delay_rows) == (2, 1, 1, 21.0)


def test_runs_touch_both_ends_of_the_stream():
    assert runs([1, 0, 1, 1]) == [(0, 1), (2, 4)]
    assert runs([]) == []


@pytest.mark.parametrize("seed", range(5))
def test_point_figures_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    label, score = rng.integers(0, 2, 300), np.round(rng.random(300), 1)
    alarm = (score > 0.7).astype(int)
    metrics = evaluate_stream(score, alarm, label)
    assert metrics.auc_pr == average_precision_score(label, score)
    assert metrics.f1 == pytest.approx(f1_score(label, alarm))
    assert metrics.precision == pytest.approx((label & alarm).sum() / alarm.sum())
    assert metrics.recall == pytest.approx((label & alarm).sum() / label.sum())


def test_average_precision_of_a_hand_worked_ranking():
    # ranked: hit (precision 1), miss, hit (2/3); each hit is half of the positives
    assert auc_pr(np.array([0.9, 0.8, 0.7, 0.1]), np.array([1, 0, 1, 0])) == pytest.approx(0.5 * (1 + 2 / 3))


def test_without_labelled_rows_figures_are_none_and_false_alarms_still_count():
    metrics = evaluate_stream(np.arange(50.0), flags(50, (3, 5), (40, 42)), np.zeros(50))
    assert (metrics.auc_pr, metrics.recall, metrics.f1, metrics.event_recall, metrics.event_f1) == (None,) * 5
    assert (metrics.delay_rows, metrics.false_alarms, metrics.false_alarms_per_1000) == (None, 2, 40.0)


def test_without_alarms_precision_is_none_and_f1_is_zero():
    metrics = evaluate_stream(np.arange(50.0), np.zeros(50), flags(50, (3, 5)))
    assert (metrics.precision, metrics.event_precision, metrics.delay_rows) == (None, None, None)
    assert (metrics.f1, metrics.event_f1, metrics.recall, metrics.event_recall) == (0.0, 0.0, 0.0, 0.0)


def test_a_stream_of_faults_alone_has_no_false_alarm_rate():
    assert evaluate_stream(np.ones(9), np.ones(9), np.ones(9)).false_alarms_per_1000 is None


def test_metrics_are_json_without_nan():
    metrics = evaluate_stream(np.arange(50.0), np.zeros(50), np.zeros(50))
    assert json.loads(json.dumps(metrics.to_dict(), allow_nan=False))["auc_pr"] is None


def test_streams_that_do_not_match_are_refused():
    with pytest.raises(
        DataError, match=r"score \(3,\), alarm \(4,\), label \(3,\): expected \(steps,\) each"
    ):
        evaluate_stream(np.zeros(3), np.zeros(4), np.zeros(3))
    with pytest.raises(DataError, match="the score holds NaN or infinity; a row without a score has score 0"):
        evaluate_stream(np.array([0.0, np.nan]), np.zeros(2), np.zeros(2))
    with pytest.raises(DataError, match=r"score \(0,\)"):
        evaluate_stream(np.zeros(0), np.zeros(0), np.zeros(0))


# --- the verdict ---------------------------------------------------------------------------------


def judged(auc, event_f1):
    some = evaluate_stream(np.arange(9.0), np.ones(9), flags(9, (2, 5)))
    return replace(some, auc_pr=auc, event_f1=event_f1)


AHEAD = "AUC-PR 0.90 against 0.81 of VAR(5), event F1 0.85 against 0.70 of PCA."
BEHIND = "AUC-PR 0.74 against 0.81 of VAR(5), event F1 0.69 against 0.70 of PCA."


@pytest.mark.parametrize(
    ("lstm", "sentence"),
    [
        ((0.90, 0.85), f"Yes, the LSTM earns its flash: {AHEAD}"),
        ((0.74, 0.69), f"No, ship VAR(5) instead: the LSTM has {BEHIND}"),
        ((0.80, 0.50), "No, ship PCA instead: the LSTM has AUC-PR 0.80"),
        ((0.82, 0.71), "No, the LSTM is only level with simpler methods, ship"),
        ((0.90, 0.50), "Undecided: the LSTM leads in one figure and trails in the other: AUC-PR 0.90"),
        ((None, None), "Cannot tell: the test rows hold no labelled fault."),
    ],
)
def test_the_verdict_is_a_plain_sentence(lstm, sentence):
    baselines = {"VAR(5)": judged(0.81, 0.60), "PCA": judged(0.40, 0.70)}
    assert verdict(judged(*lstm), baselines).startswith(sentence)


def test_without_baselines_there_is_no_verdict():
    assert verdict(judged(0.9, 0.9), {}) == "Cannot tell: no baseline was run."


# --- forecasts -----------------------------------------------------------------------------------


def test_forecast_figures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    actual = rng.normal(size=(200, 3)) * [1, 2, 5]
    expected = actual + rng.normal(size=(200, 3))
    metrics = forecast_metrics(actual, expected, np.ones((200, 3), dtype=bool), ["a", "b", "c"])
    assert metrics.r2 == pytest.approx(r2_score(actual, expected))
    assert metrics.r2_weighted == pytest.approx(r2_score(actual, expected, multioutput="variance_weighted"))
    assert metrics.mae == pytest.approx(mean_absolute_error(actual, expected))
    assert metrics.mse == pytest.approx(((actual - expected) ** 2).mean())
    assert metrics.rmse == pytest.approx(np.sqrt(metrics.mse))
    assert metrics.channels["b"].r2 == pytest.approx(r2_score(actual[:, 1], expected[:, 1]))
    assert metrics.channels["b"].rmse == pytest.approx(metrics.channels["b"].mse ** 0.5)


def test_samples_that_are_not_counted_change_no_figure():
    rng = np.random.default_rng(1)
    actual, expected = rng.normal(size=(2, 100, 2))
    counted = rng.random((100, 2)) > 0.5
    spoilt = np.where(counted, actual, np.nan)
    assert forecast_metrics(spoilt, expected, counted, "ab") == forecast_metrics(
        actual, expected, counted, "ab"
    )
    assert forecast_metrics(spoilt, expected, counted, "ab").channels["a"].rows == counted[:, 0].sum()


def test_constant_and_missing_channels_have_no_r2_and_leave_the_mean_alone():
    actual = np.column_stack([np.arange(10.0), np.full(10, 3.0), np.zeros(10)])
    expected = actual + 0.5
    counted = np.ones((10, 3), dtype=bool)
    counted[:, 2] = False
    metrics = forecast_metrics(actual, expected, counted, ["ramp", "flat", "gone"])
    assert metrics.channels["flat"].r2 is None
    assert (metrics.channels["flat"].mse, metrics.channels["gone"].mse) == (0.25, None)
    assert metrics.r2 == metrics.r2_weighted == metrics.channels["ramp"].r2 == pytest.approx(1 - 0.25 / 8.25)
    nothing = forecast_metrics(actual, expected, np.zeros((10, 3), dtype=bool), ["ramp", "flat", "gone"])
    assert (nothing.mse, nothing.rmse, nothing.mae, nothing.r2, nothing.r2_weighted) == (None,) * 5
    json.dumps(nothing.to_dict(), allow_nan=False)


def test_a_forecast_moves_to_the_next_row_that_has_a_value():
    forecast = np.array([[1.0], [2.0], [3.0], [4.0]])
    present = np.array([[True], [False], [True], [True]])
    expected, known = expected_rows(forecast, present)
    assert known[:, 0].tolist() == [False, False, True, True]
    assert expected[2:, 0].tolist() == [1.0, 3.0]
    assert np.isnan(expected[:2]).all()


def test_forecasts_that_do_not_match_are_refused():
    with pytest.raises(
        DataError, match=r"actual \(5, 2\), expected \(5, 2\), counted \(5, 2\) and 1 names do not"
    ):
        forecast_metrics(np.zeros((5, 2)), np.zeros((5, 2)), np.ones((5, 2), dtype=bool), ["a"])
    with pytest.raises(DataError, match="a counted sample is NaN or infinite; leave missing samples out"):
        forecast_metrics(np.full((5, 1), np.nan), np.zeros((5, 1)), np.ones((5, 1), dtype=bool), ["a"])


# --- baselines -----------------------------------------------------------------------------------


def machine(steps=3000, channels=3, seed=0):
    """An autoregressive stream of correlated channels whose first one jumps in two labelled faults."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(steps, channels)) @ (np.eye(channels) + 0.3)
    x = np.zeros((steps, channels))
    for t in range(2, steps):
        x[t] = 1.2 * x[t - 1] - 0.4 * x[t - 2] + 0.3 * noise[t]
    label = flags(steps, (steps * 7 // 10, steps * 7 // 10 + 50), (steps * 9 // 10, steps * 9 // 10 + 50))
    x[label == 1, 0] += 3.0
    return x, label


def stream(x, normal=None):
    """Rows of a complete stream."""
    steps = len(x)
    return Rows(
        x,
        np.ones(x.shape, dtype=bool),
        np.zeros(steps, dtype=bool),
        np.ones(steps, dtype=bool) if normal is None else normal,
    )


def run_all(x, present=None, gap=None, train=1800, config=CONFIG):
    steps = len(x)
    present = np.ones(x.shape, dtype=bool) if present is None else present
    gap = np.zeros(steps, dtype=bool) if gap is None else gap
    return run_baselines(x, present, gap, np.arange(steps) < train, config)


def test_a_var_forecasts_what_statsmodels_forecasts():
    x, _ = machine()
    linear = Linear(5)
    linear.fit(stream(x))
    residual, present = linear.residuals(stream(x))
    assert linear.name == "VAR(5)"
    assert present[:, 0].tolist() == [False] * 5 + [True] * (len(x) - 5)
    np.testing.assert_allclose(residual[5:], VAR(x).fit(5).resid, atol=RIDGE_ERROR)


def test_an_ar_forecasts_what_statsmodels_forecasts():
    x, _ = machine(channels=1)
    linear = Linear(16)
    linear.fit(stream(x))
    assert linear.name == "AR(16)"
    np.testing.assert_allclose(
        linear.residuals(stream(x))[0][16:, 0], AutoReg(x[:, 0], 16).fit().resid, atol=RIDGE_ERROR
    )


def test_a_var_learns_from_no_row_whose_lags_are_abnormal_or_across_a_gap():
    x, _ = machine()
    normal, gap = np.ones(len(x), dtype=bool), np.zeros(len(x), dtype=bool)
    normal[500:520] = False
    gap[1000] = True
    rows = replace(stream(x, normal), gap=gap)
    spoilt = x.copy()
    spoilt[500:520] = 50.0
    first, second = Linear(2), Linear(2)
    first.fit(rows)
    second.fit(replace(rows, x=spoilt))
    np.testing.assert_array_equal(first.residuals(stream(x))[0], second.residuals(stream(x))[0])
    # least squares over exactly the rows that may teach
    teaching = np.array([t for t in range(2, len(x)) if not (500 <= t <= 521 or t in (1000, 1001))])
    design = np.column_stack([np.ones(len(teaching)), x[teaching - 1], x[teaching - 2]])
    weights = np.linalg.lstsq(design, x[teaching], rcond=None)[0]
    np.testing.assert_allclose(
        first.residuals(stream(x))[0][teaching], x[teaching] - design @ weights, atol=RIDGE_ERROR
    )


def test_too_few_rows_shorten_the_lags_and_the_name_says_so():
    linear = Linear(5)
    linear.fit(stream(machine(steps=60, channels=6)[0]))
    assert linear.name == "VAR(4)"


def test_channels_that_miss_different_rows_are_learnt_apart():
    x, _ = machine()
    present = np.ones(x.shape, dtype=bool)
    present[10:1500, 2] = False
    linear = Linear(2)
    linear.fit(replace(stream(np.where(present, x, 0.0)), present=present))
    residual, counted = linear.residuals(replace(stream(np.where(present, x, 0.0)), present=present))
    assert not counted[10:1500, 2].any()
    assert 0.2 < residual[1510:2000, 2].std() < 0.5


def test_constant_and_duplicate_channels_do_no_harm():
    x, label = machine()
    x = np.column_stack([x, x[:, 0], np.full(len(x), 2.0)])
    for result in run_all(x):
        assert np.isfinite(result.detection.score).all()
        assert evaluate_stream(result.detection.score, result.detection.alarm, label).auc_pr > 0.05


def test_a_z_score_is_the_deviation_from_the_training_mean_in_training_spreads():
    x, _ = machine(channels=1)
    present, gap = np.ones(x.shape, dtype=bool), np.zeros(len(x), dtype=bool)
    normal = np.arange(len(x)) < 1000
    config = replace(CONFIG, holdout=0.0, weighting="spread", warmup=1)
    result = run_baseline(Mean("z-score", raw=True), x, present, gap, normal, config)
    residual = x[1:, 0] - x[:1000, 0].mean()
    z = (residual - residual[:999].mean()) / residual[:999].std()
    np.testing.assert_allclose(result.detection.score[1:], z**2, atol=1e-9)
    np.testing.assert_allclose(result.expected, x[:1000].mean(), atol=1e-12)


def test_persistence_expects_the_last_row():
    x, _ = machine(channels=2)
    residual, present = Persistence().residuals(stream(x))
    np.testing.assert_array_equal(residual[1:], np.diff(x, axis=0))
    assert present[:, 0].tolist() == [False] + [True] * (len(x) - 1)


def test_pca_keeps_nine_tenths_of_the_variance_and_leaves_what_is_orthogonal():
    rng = np.random.default_rng(3)
    plane = rng.normal(size=(1000, 2)) @ np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    x = plane + 0.01 * rng.normal(size=plane.shape)
    pca = Pca()
    pca.fit(stream(x))
    residual, _ = pca.residuals(stream(x))
    along = np.array([1.0, -1.0, 0.0]) / np.sqrt(2)
    # the fitted plane is tilted by about 0.01 / sqrt(1000)
    np.testing.assert_allclose(residual, np.outer((x - x.mean(axis=0)) @ along, along), atol=3e-3)


def test_pca_of_one_channel_sees_a_shape_in_its_window():
    t = np.arange(4000)
    x = (np.sin(2 * np.pi * t / 20) + 0.05 * np.random.default_rng(4).normal(size=4000))[:, None]
    x[3000:3020, 0] = np.sin(2 * np.pi * t[3000:3020] / 20 + np.pi)  # half a period off: same values
    everywhere, gap = np.ones(x.shape, dtype=bool), np.zeros(4000, dtype=bool)
    result = run_baseline(Pca(), x, everywhere, gap, t < 2400, CONFIG)
    label = flags(4000, (3000, 3052))
    assert result.expected is None
    assert auc_pr(result.detection.score[2400:], label[2400:]) > 0.9


def test_every_baseline_is_causal():
    x, _ = machine()
    changed = x.copy()
    changed[2500:] += 5.0
    for before, after in zip(run_all(x), run_all(changed), strict=True):
        np.testing.assert_array_equal(before.detection.score[:2500], after.detection.score[:2500])
        assert (before.detection.score[2500:] != after.detection.score[2500:]).any()


def test_baselines_pass_over_empty_rows_and_mask_missing_channels():
    x, _ = machine()
    rng = np.random.default_rng(5)
    present = rng.random(x.shape) > 0.05
    present[700:720] = False
    full = np.repeat(present[:, :1] | True, 3, axis=1)
    full[700:720] = False
    kept = full.any(axis=1)
    for masked, whole, dense in zip(
        run_all(np.where(present, x, np.nan), present),
        run_all(np.where(full, x, np.nan), full),
        run_all(x[kept], train=1780),
        strict=True,
    ):
        assert np.isfinite(masked.detection.score).all()
        np.testing.assert_allclose(whole.detection.score[kept], dense.detection.score, rtol=1e-9, atol=1e-12)
        assert len(set(whole.detection.score[699:720])) == 1
        if masked.expected is not None:
            assert np.isnan(masked.expected[~present]).all()


def test_each_forecasting_baseline_gives_the_forecast_of_each_row():
    x, _ = machine()
    results = {result.name: result for result in run_all(x)}
    assert list(results) == ["z-score", "EWMA chart", "persistence", "VAR(5)", "PCA"]
    np.testing.assert_allclose(results["persistence"].expected[1:], x[:-1], atol=1e-12)
    known = np.isfinite(results["VAR(5)"].expected)
    r2 = forecast_metrics(x, results["VAR(5)"].expected, known, "abc").r2
    assert r2 > 0.7
    assert results["PCA"].expected is None
    assert default_baselines(1)[3].lags == 16


def test_a_var_finds_the_faults_of_an_autoregressive_machine():
    x, label = machine()
    result = run_all(x)[3]
    metrics = evaluate_stream(result.detection.score[1800:], result.detection.alarm[1800:], label[1800:])
    assert (metrics.found, metrics.events) == (2, 2)
    assert metrics.false_alarms <= 2


def test_the_threshold_rows_are_held_out_from_what_the_method_learns():
    x, _ = machine()
    changed = x.copy()
    changed[1500:1800] *= 1.5  # within the last fifth of 1800
    one, other = run_all(x)[3], run_all(changed)[3]
    np.testing.assert_array_equal(one.detection.score[40:1400], other.detection.score[40:1400])
    assert one.detection.threshold[0] != other.detection.threshold[0]


def test_unusable_streams_are_refused_with_figures():
    x, _ = machine(steps=200)
    present, gap = np.ones(x.shape, dtype=bool), np.zeros(200, dtype=bool)
    with pytest.raises(
        DataError, match=r"x \(200, 3\), present \(200, 3\), gap \(3,\), normal \(200,\): expected"
    ):
        run_baselines(x, present, gap[:3], ~gap, CONFIG)
    with pytest.raises(DataError, match="x holds NaN or infinity where it is present"):
        run_baselines(np.where(x > 1, np.nan, x), present, gap, ~gap, CONFIG)
    with pytest.raises(
        DataError, match=r"baseline VAR\(1\): 2 clean normal rows for 4 weights; give more normal"
    ):
        Linear(5).fit(stream(x, np.arange(200) < 3))
    with pytest.raises(DataError, match="baseline PCA: 3 normal rows for 3 columns; give more normal"):
        Pca().fit(stream(x, np.arange(200) < 3))
    for nothing in (np.zeros_like(present), present):
        with pytest.raises(DataError, match="expected 50 or more|clean normal rows"):
            run_baselines(x, nothing, gap, gap, CONFIG)
        with pytest.raises(DataError, match="clean normal rows"):
            run_baseline(Linear(5), x, nothing, gap, gap, CONFIG)
        with pytest.raises(DataError, match="baseline PCA: 0 normal rows"):
            run_baseline(Pca(), x, nothing, gap, gap, CONFIG)
