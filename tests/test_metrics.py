"""The figures of a stream together, channel contributions, and the means over a suite."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest

from edge_lstm.datasets.suite import FaultyChannels
from edge_lstm.errors import DataError
from edge_lstm.evaluation.metrics import Metrics, evaluate_stream
from edge_lstm.evaluation.metrics_affiliation import affiliation
from edge_lstm.evaluation.metrics_alarms import nab_score, point_adjusted_f1_inflated, range_based
from edge_lstm.evaluation.metrics_channels import HitRates, hit_rates
from edge_lstm.evaluation.metrics_summary import Result, summarize
from edge_lstm.evaluation.metrics_volume import auc_pr, vus_pr

COUNTS = {"rows", "anomaly_rows", "events", "alarms", "found", "false_alarms"}
OF_NORMAL_ROWS = {"false_alarms_per_1000", "false_alarms_per_day"}
PRECISIONS = {"precision", "event_precision", "range_precision", "affiliation_precision"}


def flags(rows, *ranges):
    flag = np.zeros(rows, dtype=np.uint8)
    for start, stop in ranges:
        flag[start:stop] = 1
    return flag


def undefined(metrics):
    return {field.name for field in fields(Metrics) if getattr(metrics, field.name) is None}


# --- one stream ------------------------------------------------------------------------------------


def test_metrics_hold_each_figure_of_its_own_function():
    rng = np.random.default_rng(0)
    score, label = rng.random(2000), flags(2000, (300, 330), (900, 1000))
    alarm = score > 0.98
    metrics = evaluate_stream(score, alarm, label, window=40, period_s=60.0)
    assert undefined(metrics) == set()
    assert (metrics.vus_pr, metrics.auc_pr) == (vus_pr(score, label, 40), auc_pr(score, label))
    ranges = (metrics.range_precision, metrics.range_recall, metrics.range_f1)
    near = (metrics.affiliation_precision, metrics.affiliation_recall, metrics.affiliation_f1)
    assert (ranges, near) == (range_based(alarm, label), affiliation(alarm, label))
    assert metrics.nab_score == nab_score(alarm, label)
    assert metrics.point_adjusted_f1_inflated == point_adjusted_f1_inflated(alarm, label)
    assert json.loads(json.dumps(metrics.to_dict(), allow_nan=False)) == metrics.to_dict()


def test_delays_and_false_alarms_in_time():
    label = flags(1000, (300, 340), (600, 640))
    alarm = flags(1000, (100, 110), (312, 330), (600, 605), (900, 901))
    metrics = evaluate_stream(np.zeros(1000), alarm, label, period_s=60.0)
    assert (metrics.delay_rows, metrics.delay_s) == (6.0, 360.0)  # median of 12 and 0
    assert metrics.false_alarms_per_day == pytest.approx(2 * 86_400 / (920 * 60))
    unknown = evaluate_stream(np.zeros(1000), alarm, label)
    assert undefined(unknown) == {"delay_s", "false_alarms_per_day"}


def test_of_several_alarms_in_an_event_the_first_gives_the_delay():
    label = flags(300, (100, 200))
    metrics = evaluate_stream(np.zeros(300), flags(300, (110, 112), (150, 152), (190, 192)), label)
    assert (metrics.alarms, metrics.found, metrics.delay_rows) == (3, 1, 10.0)


def test_without_events_only_counts_precision_and_false_alarms_are_defined():
    metrics = evaluate_stream(np.arange(50.0), flags(50, (3, 5)), np.zeros(50), period_s=1.0)
    every = {field.name for field in fields(Metrics)}
    assert undefined(metrics) == every - COUNTS - OF_NORMAL_ROWS - (PRECISIONS - {"affiliation_precision"})
    assert (metrics.precision, metrics.event_precision, metrics.range_precision) == (0.0, 0.0, 0.0)


def test_without_alarms_precisions_and_delays_are_none():
    metrics = evaluate_stream(np.arange(50.0), np.zeros(50), flags(50, (3, 5)), period_s=1.0)
    assert undefined(metrics) == PRECISIONS | {"delay_rows", "delay_s"}
    assert metrics.nab_score == metrics.point_adjusted_f1_inflated == metrics.affiliation_f1 == 0.0


def test_of_a_stream_that_is_all_anomalous_neither_score_nor_false_alarm_rate_is_defined():
    metrics = evaluate_stream(np.arange(50.0), flags(50, (3, 5)), np.ones(50), period_s=1.0)
    assert undefined(metrics) == {"vus_pr", "auc_pr"} | OF_NORMAL_ROWS
    assert (metrics.events, metrics.found, metrics.delay_rows) == (1, 1, 3.0)


def test_a_period_that_is_no_time_is_refused():
    with pytest.raises(DataError, match="evaluation: period_s is nan, expected seconds of 0 or more"):
        evaluate_stream(np.zeros(4), np.zeros(4), np.zeros(4), period_s=float("nan"))


# --- contributions ---------------------------------------------------------------------------------


def test_hit_rates_by_hand():
    contributions = np.zeros((20, 6))
    contributions[5:10] = [5, 4, 3, 2, 1, 0]
    contributions[12:14] = [[0, 0, 9, 0, 0, 1], [0, 0, 9, 0, 2, 0]]
    # channels 0 and 2 are among the four largest; among six is every channel
    first = FaultyChannels(5, 10, (0, 2, 4, 5))
    assert hit_rates(contributions, [first]) == HitRates(1, 2 / 4, 4 / 4)
    # means 9, 1 and 0.5 of channels 2, 4 and 5: one is among two, both are among three
    second = FaultyChannels(12, 14, (2, 5))
    assert hit_rates(contributions, [second]) == HitRates(1, 1 / 2, 1.0)
    assert hit_rates(contributions, [first, second]) == HitRates(2, 1 / 2, 1.0)


def test_half_a_channel_is_rounded_down():
    contributions = np.array([[4.0, 3, 2, 1]])
    assert hit_rates(contributions, [FaultyChannels(0, 1, (3,))]) == HitRates(1, 0.0, 0.0)
    assert hit_rates(contributions, [FaultyChannels(0, 1, (0, 1, 3))]) == HitRates(1, 2 / 3, 1.0)


def test_equal_contributions_hit_as_often_as_chance():
    events = [FaultyChannels(0, 3, (0, 1)), FaultyChannels(4, 6, (6, 7))]
    assert hit_rates(np.ones((8, 8)), events) == HitRates(2, 2 / 8, 3 / 8)


def test_without_events_there_is_no_hit_rate():
    assert hit_rates(np.ones((8, 8)), []) == HitRates(0, None, None)


def test_events_outside_the_stream_are_refused_together():
    events = [FaultyChannels(5, 9, (0,)), FaultyChannels(1, 2, (3,)), FaultyChannels(1, 2, (1, 1))]
    with pytest.raises(DataError, match="channel contributions: 3 problems") as error:
        hit_rates(np.ones((8, 3)), events)
    assert "event of rows 5 to 9 with channels (0,): expected rows within 0 to 8" in str(error.value)
    assert "different channels of 0 to 2" in str(error.value)


# --- means over a suite ----------------------------------------------------------------------------


def test_every_data_set_counts_the_same_in_the_mean():
    results = [
        Result("skab", "a", 0, {"vus_pr": 0.8}),
        Result("skab", "b", 0, {"vus_pr": 0.6}),
        Result("skab", "a", 1, {"vus_pr": 0.9}),
        Result("skab", "b", 1, {"vus_pr": 0.7}),
        Result("smd", "m", 0, {"vus_pr": 0.2}),
        Result("smd", "m", 1, {"vus_pr": 0.4}),
    ]
    summary = summarize(results)
    assert summary.datasets["skab"]["vus_pr"] == pytest.approx(0.75)
    assert summary.datasets["smd"]["vus_pr"] == pytest.approx(0.3)
    assert summary.mean["vus_pr"] == pytest.approx(0.525)
    # means of the seeds: (0.7 + 0.2) / 2 and (0.8 + 0.4) / 2
    assert summary.spread["vus_pr"] == pytest.approx(0.15 / 2**0.5)


def test_undefined_figures_do_not_count_in_means():
    results = [
        Result("nab", "quiet", 0, {"vus_pr": None, "false_alarms": 3}),
        Result("nab", "loud", 0, {"vus_pr": 0.4, "false_alarms": 1}),
        Result("tep", "d00", 0, {"vus_pr": None, "false_alarms": 5}),
    ]
    summary = summarize(results)
    assert summary.datasets == {
        "nab": {"vus_pr": 0.4, "false_alarms": 2.0},
        "tep": {"vus_pr": None, "false_alarms": 5.0},
    }
    assert summary.mean == {"vus_pr": 0.4, "false_alarms": 3.5}
    assert summary.spread == {"vus_pr": None, "false_alarms": None}


def test_the_summary_of_nothing_is_empty():
    assert summarize([]).mean == {}
