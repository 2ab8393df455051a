"""Metrics against hand-worked cases and scikit-learn, baselines against statsmodels, and the verdict."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, mean_absolute_error, r2_score

from edge_lstm.errors import DataError
from edge_lstm.evaluation.forecast import forecast_metrics
from edge_lstm.evaluation.metrics import auc_pr, evaluate_stream, merged, runs, verdict


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
    assert verdict(judged(*lstm), baselines).sentence.startswith(sentence)


def test_without_baselines_there_is_no_verdict():
    assert verdict(judged(0.9, 0.9), {}).sentence == "Cannot tell: no baseline was run."


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


def test_forecasts_that_do_not_match_are_refused():
    with pytest.raises(
        DataError, match=r"actual \(5, 2\), expected \(5, 2\), counted \(5, 2\) and 1 names do not"
    ):
        forecast_metrics(np.zeros((5, 2)), np.zeros((5, 2)), np.ones((5, 2), dtype=bool), ["a"])
    with pytest.raises(DataError, match="a counted sample is NaN or infinite; leave missing samples out"):
        forecast_metrics(np.full((5, 1), np.nan), np.zeros((5, 1)), np.ones((5, 1), dtype=bool), ["a"])
