"""Range-based, affiliation, NAB and point-adjusted figures worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edge_lstm.evaluation.metrics_affiliation import affiliation
from edge_lstm.evaluation.metrics_alarms import nab_score, point_adjusted_f1_inflated, range_based

ROUNDING = 1e-12  # of sums of some hundred products


def flags(rows, *ranges):
    flag = np.zeros(rows, dtype=np.uint8)
    for start, stop in ranges:
        flag[start:stop] = 1
    return flag


def near(value):
    return pytest.approx(value, abs=ROUNDING)


# --- range-based -----------------------------------------------------------------------------------


def test_an_event_in_pieces_is_worth_less_than_in_one():
    label = flags(100, (20, 40), (60, 70))
    # 10 of 20 rows in one alarm, existence 1: 0.2 + 0.8 / 2; the second event is missed
    one = range_based(flags(100, (20, 30)), label)
    assert (one.precision, one.recall) == (1.0, near((0.2 + 0.8 / 2) / 2))
    # the same rows in two alarms: the share is divided by 2
    two = range_based(flags(100, (20, 25), (30, 35)), label)
    assert (two.precision, two.recall) == (1.0, near((0.2 + 0.8 / 4) / 2))


def test_precision_is_a_mean_over_alarms_not_over_rows():
    # all of the first alarm is wrong, half of the second; the third covers both events and 15 of 40 rows
    alarm, label = flags(200, (0, 50), (100, 110), (150, 190)), flags(200, (105, 120), (155, 165), (180, 185))
    found = range_based(alarm, label)
    assert found.precision == near((0 + 1 / 2 + 15 / 40 / 2) / 3)
    assert found.recall == near(((0.2 + 0.8 * 5 / 15) + 1 + 1) / 3)
    assert found.f1 == near(2 * found.precision * found.recall / (found.precision + found.recall))


# --- affiliation -----------------------------------------------------------------------------------


def test_affiliation_of_one_alarm_before_one_event():
    # rows 0 to 10, event 4 to 6, alarm 0 to 1: distance 3 to 4 of at most 4 on either side
    found = affiliation(flags(10, (0, 1)), flags(10, (4, 6)))
    assert found.precision == near(1 - (2 + 2 * 3.5) / 10)
    # of an event row at y: y - 1 to the alarm, so y - 1 before it and min(y - 1, 10 - y) after it are nearer
    nearer = 8 + (5.625 + 2.125)  # integrals from 4 to 6, the second one cut at 5.5
    assert found.recall == near(1 - nearer / 2 / 10)


def test_exact_alarms_have_affiliation_one_and_far_ones_less():
    label = flags(100, (20, 30), (70, 75))
    assert affiliation(label, label) == (1.0, 1.0, 1.0)
    for rows in (1, 5, 10):
        shifted, farther = np.roll(label, rows), np.roll(label, rows + 5)
        assert 1 > affiliation(shifted, label).f1 > affiliation(farther, label).f1


def test_a_missed_event_counts_in_affiliation_recall_alone():
    # zones end at 50; the second event has no alarm in its own
    found = affiliation(flags(100, (20, 30)), flags(100, (20, 30), (70, 75)))
    assert (found.precision, found.recall, found.f1) == (1.0, 0.5, near(2 / 3))


def test_alarms_at_random_have_affiliation_precision_of_a_half():
    alarm = np.random.default_rng(0).random(20_000) < 0.05
    assert affiliation(alarm, flags(20_000, (9_990, 10_010))).precision == pytest.approx(0.5, abs=0.02)


def test_affiliation_is_the_same_backwards():
    rng = np.random.default_rng(1)
    alarm, label = rng.random(500) < 0.05, flags(500, (40, 60), (200, 201), (480, 500))
    forwards, backwards = affiliation(alarm, label), affiliation(alarm[::-1], label[::-1])
    assert backwards == pytest.approx(forwards, abs=ROUNDING)


# --- NAB -------------------------------------------------------------------------------------------


def sigmoid(position):
    return 2 / (1 + np.exp(5 * position)) - 1


def test_nab_score_of_no_alarm_is_0_and_of_first_rows_100():
    label = flags(100, (20, 30), (60, 80))
    assert nab_score(np.zeros(100), label) == 0.0
    assert nab_score(flags(100, (20, 21), (60, 61)), label) == near(100.0)
    assert nab_score(label, label) == near(100.0)  # later rows of a window neither pay nor cost


def test_nab_windows_pay_less_the_later_they_are_found():
    label = flags(100, (20, 30))
    last = sigmoid(-0.1) / sigmoid(-1)  # a tenth of the window before its end
    assert nab_score(flags(100, (29, 30)), label) == near(100 * (last + 1) / 2)


def test_nab_false_rows_cost_by_their_distance_behind_a_window():
    label = flags(200, (20, 30))
    assert nab_score(flags(200, (5, 6)), label) == near(100 * -0.11 / 2)
    assert nab_score(flags(200, (150, 153)), label) == near(100 * -0.33 / 2)
    assert nab_score(flags(200, (32, 33)), label) == near(100 * 0.11 * sigmoid(3 / 9) / 2)
    assert nab_score(flags(200, (29, 33)), label) == near(
        100
        * (sigmoid(-0.1) / sigmoid(-1) + 0.11 * (sigmoid(1 / 9) + sigmoid(2 / 9) + sigmoid(3 / 9)) + 1)
        / 2
    )


def test_nab_windows_of_one_row_are_scored():
    assert nab_score(flags(50, (20, 21)), flags(50, (20, 21))) == near(100.0)
    assert nab_score(flags(50, (20, 22)), flags(50, (20, 21))) == near(100 * (2 + 0.11 * sigmoid(1)) / 2)


# --- point adjustment ------------------------------------------------------------------------------


def test_point_adjustment_makes_random_alarms_look_excellent():
    label = flags(20_000, (2_000, 6_000), (12_000, 16_000))
    alarm = np.random.default_rng(0).random(20_000) < 0.01
    honest = 2 * (alarm & (label > 0)).sum() / (alarm.sum() + label.sum())
    assert honest < 0.03
    assert point_adjusted_f1_inflated(alarm, label) > 0.98


def test_point_adjusted_f1_by_hand():
    # 10 + 1 alarm rows after adjustment of the first event, 15 labelled rows, 10 hits
    alarm, label = flags(100, (25, 26), (90, 91)), flags(100, (20, 30), (60, 65))
    assert point_adjusted_f1_inflated(alarm, label) == 20 / (11 + 15)


# --- undefined figures -----------------------------------------------------------------------------


def test_without_events_all_is_none_but_range_precision():
    alarm, label = flags(50, (3, 5)), np.zeros(50)
    assert range_based(alarm, label) == (0.0, None, None)
    assert affiliation(alarm, label) == (None, None, None)
    assert nab_score(alarm, label) is None
    assert point_adjusted_f1_inflated(alarm, label) is None


def test_without_alarms_precision_is_none():
    alarm, label = np.zeros(50), flags(50, (3, 5))
    assert range_based(alarm, label) == (None, 0.0, 0.0)
    assert affiliation(alarm, label) == (None, 0.0, 0.0)
    assert point_adjusted_f1_inflated(alarm, label) == 0.0


def test_without_either_nothing_is_defined():
    nothing = np.zeros(50)
    assert range_based(nothing, nothing) == (None, None, None)
    assert affiliation(nothing, nothing) == (None, None, None)


def test_a_stream_that_is_one_event_is_scored():
    alarm, label = flags(50, (0, 25)), np.ones(50)
    assert range_based(alarm, label) == (1.0, near(0.2 + 0.8 / 2), near(2 * 0.6 / 1.6))
    assert affiliation(label, label) == (1.0, 1.0, 1.0)
    assert nab_score(label, label) == near(100.0)
