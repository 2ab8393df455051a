"""Metrics against the figures that TSB-AD's own code gives for the same streams, and against statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import argrelextrema
from statsmodels.tsa.stattools import acf

from edge_lstm.evaluation.metrics_affiliation import affiliation
from edge_lstm.evaluation.metrics_alarms import range_based
from edge_lstm.evaluation.metrics_volume import vus_pr
from edge_lstm.evaluation.period import period

ROUNDING = 1e-12  # of sums of some hundred products

# TSB-AD at commit 8763009: generate_curve, range_recall_new (alpha 0.2 for recall, 0 for precision),
# affiliation.pr_from_events
TSB_AD = [
    (
        (1, 60, 2, 5, 0),
        7,
        0.7947548581286012,
        0.3888888888888889,
        0.45,
        0.7401515151515152,
        0.993476430976431,
    ),
    (
        (2, 300, 6, 20, 0),
        25,
        0.6833019172413229,
        0.5512820512820513,
        0.2894500561167228,
        0.7520462496988318,
        0.9636023380458835,
    ),
    (
        (3, 1000, 12, 30, 4),
        125,
        0.8024418072131649,
        0.4139344262295082,
        0.26123557996107016,
        0.7286191807547967,
        0.9352171522996469,
    ),
    (
        (4, 700, 25, 9, 1),
        48,
        0.8595852371891685,
        0.41333333333333333,
        0.514336507936508,
        0.7130260551372529,
        0.9334855258969416,
    ),
    (
        (6, 250, 3, 40, 0),
        0,
        0.6325373860715504,
        0.3939393939393939,
        0.2497402379755321,
        0.69974143226885,
        0.9913681159319244,
    ),
    (
        (7, 900, 3, 60, 0),
        300,
        0.7327101025081011,
        0.2621359223300971,
        0.2503663003663004,
        0.6353593318701862,
        0.9962071602898238,
    ),
]


def stream(seed, rows, events, longest, edge):
    """Scores and labels of a congruential generator: the same integers on every NumPy.

    Events of 1 to ``longest`` rows, and ``edge`` labelled rows at both ends.
    """
    state = seed

    def draw():
        nonlocal state
        state = (1664525 * state + 1013904223) % 2**32
        return state >> 8

    label = np.zeros(rows, dtype=np.int64)
    for _ in range(events):
        start = draw() % rows
        label[start : start + 1 + draw() % longest] = 1
    label[:edge] = 1
    label[rows - edge :] = 1
    return np.array([draw() % 1000 for _ in range(rows)]) + 300.0 * label, label


@pytest.mark.parametrize("case", TSB_AD, ids=lambda case: f"seed{case[0][0]}")
def test_figures_are_those_of_tsb_ad(case):
    arguments, window, vus, *others = case
    score, label = stream(*arguments)
    alarm = score >= 900
    ranges, near = range_based(alarm, label), affiliation(alarm, label)
    found = [ranges.precision, ranges.recall, near.precision, near.recall]
    assert vus_pr(score, label, window) == pytest.approx(vus, abs=ROUNDING)
    assert found == pytest.approx(others, abs=ROUNDING)


def find_length_rank(x):
    """TSB-AD's estimate, written with the functions that it calls."""
    correlation = acf(x[:20_000], nlags=400, fft=True)[3:]
    peaks = argrelextrema(correlation, np.greater)[0]
    if len(peaks) == 0:
        return 125
    highest = peaks[np.argmax(correlation[peaks])]
    return highest + 3 if 3 <= highest <= 300 else 125


@pytest.mark.parametrize("seed", range(40))
def test_the_period_is_that_of_tsb_ad(seed):
    rng = np.random.default_rng(seed)
    rows, length = int(rng.integers(5, 3000)), int(rng.integers(2, 400))
    x = np.sin(np.arange(rows) * 2 * np.pi / length) + rng.normal(size=rows) * rng.choice([0.01, 0.3, 2])
    if seed % 4 == 0:
        x = x.cumsum()
    assert period(x) == find_length_rank(x)


def test_the_period_is_that_of_the_first_channel_on_complete_rows():
    wave = np.sin(np.arange(1000) * 2 * np.pi / 50)
    other = np.sin(np.arange(1000) * 2 * np.pi / 20)
    assert period(np.column_stack([wave, other])) == 50
    holes = np.insert(np.column_stack([wave, other]), 100, [[9.0, np.nan]], axis=0)
    assert period(holes) == 50
    assert period(np.concatenate([wave, wave]) * 1e-9) == 50


@pytest.mark.parametrize(
    "x", [np.ones(100), np.arange(100.0), np.zeros(1), np.full(9, np.nan), np.arange(3.0)]
)
def test_what_repeats_nothing_has_the_default_period(x):
    assert period(x) == 125
