"""VUS-PR and AUC-PR worked by hand, and what must hold for every score."""

from __future__ import annotations

import numpy as np
import pytest

from edge_lstm.errors import DataError
from edge_lstm.evaluation.metrics_volume import auc_pr, vus_pr

ROUNDING = 1e-12  # of sums of some hundred products


def events(rows, *ranges):
    label = np.zeros(rows, dtype=np.uint8)
    for start, stop in ranges:
        label[start:stop] = 1
    return label


def test_a_buffer_row_that_leads_counts_by_its_weight():
    # rows by score: the buffer row before the event, the event, far normal rows
    score, label = np.array([0.9, 0.8, 0.2, 0.1, 0.0]), events(5, (1, 2))
    near = np.sqrt(1 - 1 / 2)  # one row away in a window of 2
    reached = near / (1 + near / 2)  # recall of the first threshold, its precision is the weight
    window_2 = reached * near + (1 - reached) * (1 + near) / 2
    assert vus_pr(score, label, 0) == pytest.approx(1 / 2, abs=ROUNDING)
    assert vus_pr(score, label, 2) == pytest.approx((1 / 2 + 1 / 2 + window_2) / 3, abs=ROUNDING)


def test_recall_is_scaled_by_the_share_of_events_found():
    # two events far apart: the first threshold finds half of the rows and half of the events
    score, label = np.array([3.0, 0, 0, 0, 0, 2, 0, 0]), events(8, (0, 1), (5, 6))
    assert vus_pr(score, label, 0) == pytest.approx(1.0, abs=ROUNDING)
    # the missed event comes after all others: its share of recall, 3/4, has the precision of the whole
    score[5] = -1.0
    assert vus_pr(score, label, 0) == pytest.approx(1 / 4 + 3 / 4 * 2 / 8, abs=ROUNDING)


def test_events_whose_buffers_share_a_row_are_found_together():
    # row 2 is beside both events, which from a window of 2 on are one of rows 0 to 4; row 3 comes last
    score, label = np.array([0, 3.0, 0, -1, 0, 0, 0, 0, 0, 0]), events(10, (1, 2), (3, 4))
    apart = 1 / 4 + 3 / 4 * 2 / 10  # half of the rows and half of the events, then all
    buffer = 2 * np.sqrt(1 / 2) + 1  # rows 0 and 4, and row 2, which counts at most once
    together = 1 / 2 + 1 / 2 * (1 + buffer) / 9  # recall of the second threshold is capped at 1
    assert vus_pr(score, label, 2) == pytest.approx((2 * apart + together) / 3, abs=ROUNDING)


def test_events_whose_buffers_only_touch_stay_two():
    score, label = np.array([0, 3.0, 0, 0, -1, 0, 0, 0, 0, 0]), events(10, (1, 2), (4, 5))
    apart = 1 / 4 + 3 / 4 * 2 / 10
    buffer = 4 * np.sqrt(1 / 2)  # rows 0, 2, 3 and 5; row 3 finds the second event
    touching = 1 / 4 + 3 / 4 * (1 + buffer) / 9
    assert vus_pr(score, label, 2) == pytest.approx((2 * apart + touching) / 3, abs=ROUNDING)


def random_stream(seed, rows=20_000):
    """Labels in long events, 1 row of 5, and scores that know nothing of them."""
    rng = np.random.default_rng(seed)
    return rng.random(rows), events(rows, (2000, 4000), (9000, 10_000), (15_000, 16_000))


@pytest.mark.parametrize("window", [0, 1, 25, 125])
def test_a_perfect_score_has_figures_of_one(window):
    label = random_stream(0)[1]
    assert vus_pr(label.astype(float), label, window) == pytest.approx(1.0, abs=ROUNDING)
    assert auc_pr(label.astype(float), label) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_a_random_score_reaches_the_share_of_anomalous_rows(seed):
    score, label = random_stream(seed)
    assert vus_pr(score, label, 100) == pytest.approx(0.2, abs=0.02)
    assert auc_pr(score, label) == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_only_the_order_of_scores_counts(seed):
    score, label = random_stream(seed, 20_000)
    score = np.round(100 * score + 20 * label)  # with ties
    for same in (score / 7 - 3, np.exp(score / 20), score**3):
        assert vus_pr(same, label, 60) == vus_pr(score, label, 60)
        assert auc_pr(same, label) == auc_pr(score, label)
    assert vus_pr(-score, label, 60) < 0.2 < vus_pr(score, label, 60)


def test_reversing_time_changes_nothing():
    score, label = random_stream(4)
    assert vus_pr(score[::-1], label[::-1], 60) == pytest.approx(vus_pr(score, label, 60), abs=ROUNDING)


def test_alarms_just_beside_an_event_are_better_than_far_away():
    label = events(1000, (400, 420))
    beside, far = events(1000, (421, 430)).astype(float), events(1000, (800, 809)).astype(float)
    assert vus_pr(beside, label, 60) > vus_pr(far, label, 60) + 0.1
    assert vus_pr(beside, label, 0) == vus_pr(far, label, 0)


@pytest.mark.parametrize("label", [np.zeros(50), np.ones(50)])
def test_figures_are_none_where_nothing_or_all_is_labelled(label):
    assert vus_pr(np.arange(50.0), label, 10) is None
    assert auc_pr(np.arange(50.0), label) is None


def test_a_constant_score_is_worth_the_share_of_anomalous_rows():
    assert vus_pr(np.zeros(40), events(40, (10, 20)), 0) == pytest.approx(1 / 4, abs=ROUNDING)


def test_a_negative_window_is_refused():
    with pytest.raises(DataError, match="VUS-PR: window is -1 rows, expected 0 or more; give the period"):
        vus_pr(np.zeros(4), events(4, (1, 2)), -1)
