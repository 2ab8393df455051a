"""Options of the detector: running thresholds, adaptation, stuck channels, heavy tails, hold, cool-down."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detector_oracles import FineCodes, columns, plain_detector, real_detection
from edge_lstm.detection import fixed, floating
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.detection.fit import fit_detector, quantize_detector
from edge_lstm.detection.floating import Detector
from edge_lstm.detection.normal_rows import huber_likelihood, still_limits, usual_deviation
from edge_lstm.detection.thresholds import (
    DEVIATIONS,
    Threshold,
    dynamic_threshold,
    pot_threshold,
    running_mean,
)
from edge_lstm.errors import ConfigError, DataError, ModelError
from edge_lstm.graph import Stream
from edge_lstm.predictor import LinearPredictor
from edge_lstm.qgraph import Quantization
from firmware_tools.host import HostExecutor
from random_models import random_qgraph
from test_detect import drawn_predictor, held, single
from test_detect_integers import worked

FINE = FineCodes(2.0**-8, 0)  # a spread of 1 is 256 fine codes
OPTIONS = [
    {"hold": 5, "cooldown": 4}, {"knee": [1.0, 0.7, 2.0, 0.5, 1.0, 3.0]},
    {"adapt": 4, "adapt_limit": 0.5, "usual": [0.8, 0.7, 0.9, 0.5, 0.4, 0.6]}, {"stuck": [2, 0, 3]},
    {"threshold": Threshold("dspot", 1.0, 2.0, 2.0, 4, 2.5, 5), "hold": 3},
    {"threshold": Threshold("dynamic", 0.0, 3.0, 1.0, 3, 2.5, 3), "stuck": [3, 3, 3], "cooldown": 9,
     "adapt": 2, "adapt_limit": 3.0, "usual": [0.8] * 6, "knee": [2.0] * 6},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
def test_the_float_detector_with_options_is_the_plain_one_sample_by_sample(options):
    rng = np.random.default_rng(6)
    channels, steps = 3, 300
    x, outputs = rng.normal(size=(2, steps, channels))
    x[100:120] += 4
    x[200:204] = x[200]
    present = rng.random((steps, channels)) >= 0.1
    present[90:95] = False
    x = held(x, present)
    predictor = drawn_predictor(rng, channels, 2)
    detector = Detector(
        rng.normal(0, 0.2, 6), rng.uniform(0.5, 2, 6), 1.5, None, 0.25, 0.75, 1.0,
        Threshold("pot", 4.0, 2.0, 1.0, 4), 0.6, 2, 7,
    )  # fmt: skip
    detector = replace(detector, **options)
    found = real_detection(detector, predictor, x, outputs, present)
    oracle = plain_detector(detector, predictor, x.tolist(), outputs.tolist(), present.tolist())
    np.testing.assert_allclose(columns(found), oracle, rtol=1e-9, atol=1e-10)
    assert 0 < found.alarm.sum() < steps


# --- alarms --------------------------------------------------------------------------------------


def alarms(detector, values):
    """Alarm of each value of one channel, behind a first row that is never scored; both twins."""
    x = np.concatenate([[0.0], values])[:, None]
    present = np.ones(x.shape, dtype=bool)
    real = floating.scan(detector, x, x, present)
    q = quantize_detector(detector, LinearPredictor.none(1), FINE, Quantization(1.0, 0))
    integer = fixed.detect(q, FINE.encode(x), np.zeros(x.shape, dtype=int), present)[0]
    assert integer.alarm.tolist() == real.alarm.tolist()
    return real.alarm[1:].tolist()


def test_an_alarm_lasts_for_hold_rows_and_none_starts_for_cooldown_rows_after_it():
    values = [3, 0, 0, 0, 0, 3, 3, 3, 0, 0]
    assert alarms(single(), values) == [1, 0, 0, 0, 0, 1, 1, 1, 0, 0]
    assert alarms(replace(single(), hold=3), values) == [1, 1, 1, 0, 0, 1, 1, 1, 0, 0]
    assert alarms(replace(single(), hold=1, cooldown=1), values) == [1, 0, 0, 0, 0, 1, 1, 1, 0, 0]
    # over at row 1: none in rows 1 to 6
    assert alarms(replace(single(), cooldown=6), values) == [1, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    # rows of hold and cool-down do not count for debounce
    assert alarms(replace(single(debounce=2), hold=4), [3, 3, 0, 0, 0, 0, 0, 0]) == [0, 1, 1, 1, 1, 1, 0, 0]


def test_the_running_mean_of_the_scores_carries_the_threshold_and_rests_during_an_alarm():
    rule = Threshold("dspot", 1.0, 0.0, 0.0, 0, 4.0, 1)
    detector = replace(single(), threshold=rule)
    x = np.sqrt([0.0, 4.0, 2.0, 4.0, 10.0, 1.0])[:, None]
    found = floating.scan(detector, x, x, np.ones(x.shape, dtype=bool))
    # mean 4 -> 4 -> 3 -> 3.5; 10 is above 4.5: alarm, which ends at 1
    assert found.threshold == pytest.approx([5, 5, 4, 4.5, 4.5, 4.5])
    assert found.alarm.tolist() == [0, 0, 0, 0, 1, 0]


def test_the_running_mean_in_integers_follows_steps_below_its_unit():
    q = worked(lags=0, forms=None, offset=[0], residual_weight=[1], level_limit=0, alpha=256, energy_gain=0,
               output_weight=[0], shift=0, base=4096, depth=12)  # fmt: skip
    fine = np.full((8001, 1), 512)  # a score of 1024
    found = fixed.detect(q, fine, fine, np.ones(fine.shape, dtype=bool))[0]
    rows = np.arange(8000)
    expected = 4096 + 1024 * (1 - (1 - 2.0**-12) ** (rows + 1))
    assert np.abs(found.threshold[1:] - expected).max() <= 1.5


# --- thresholds without labels -------------------------------------------------------------------


def test_the_dynamic_threshold_is_where_mean_and_deviation_fall_most_for_the_fewest_rows():
    rng = np.random.default_rng(0)
    score = rng.gamma(4.0, 0.25, 2000)
    score[1500:1504] = 12.0
    rule = dynamic_threshold(score, 8, 12)
    around = score - running_mean(score, 12) + score.mean()
    gains = []
    for z in DEVIATIONS:
        limit = around.mean() + z * around.std()
        above = np.flatnonzero(around > limit)
        runs = 1 + int((np.diff(above) > 1).sum())
        rest = around[around <= limit]
        fall = (1 - rest.mean() / around.mean()) + (1 - rest.std() / around.std())
        gains.append(fall / (len(above) + runs**2))
    best = DEVIATIONS[int(np.argmax(gains))]
    assert rule.value == pytest.approx(score.mean() + best * around.std(), rel=1e-3)
    assert 3 < rule.value < 12 and (rule.kind, rule.base, rule.depth, rule.rate) == ("dynamic", 0, 12, 8)
    calm = dynamic_threshold(np.tile([1.0, 2.0], 100), 8, 5)
    assert calm.value == pytest.approx(1.5 + 12 * 0.5, rel=0.1)
    with pytest.raises(
        DataError, match="all normal scores are equal; the stream hardly varies: use threshold"
    ):
        dynamic_threshold(np.ones(100), 8, 5)


def test_drifting_peaks_over_threshold_are_those_above_the_running_mean():
    rng = np.random.default_rng(1)
    score = np.linspace(2, 30, 20_000) + rng.gamma(4.0, 0.25, 20_000)
    plain, drifting = pot_threshold(score, 1e-4, 0.02, 8), pot_threshold(score, 1e-4, 0.02, 8, 8)
    assert plain.value > 30 and drifting.value - drifting.mean < 6
    mean = running_mean(score, 8)
    assert mean[0] == score.mean() and mean[1] == pytest.approx(mean[0] + (score[0] - mean[0]) / 256)
    assert drifting.base == pytest.approx(np.quantile(score - mean, 0.98))
    with pytest.raises(ModelError, match="mean is 3.0 with depth 0, expected 0; add it to base"):
        Threshold("pot", 1.0, mean=3.0)


# --- heavy tails ---------------------------------------------------------------------------------


def test_deviations_beyond_the_knee_count_by_their_size_and_not_by_its_square():
    detector = replace(single(gains=(0.0, 1.0)), knee=np.array([2.0]))
    x = np.array([0.0, 1.0, 2.0, -5.0, 10.0])[:, None]
    found = floating.scan(detector, x, x, np.ones(x.shape, dtype=bool))
    assert found.score.tolist() == [0, 1, 4, 2 * 2 * 5 - 4, 2 * 2 * 10 - 4]
    detector = replace(single(gains=(1.0, 0.0)), knee=np.array([2.0]))
    found = floating.scan(detector, x, x, np.ones(x.shape, dtype=bool))
    assert found.score.tolist() == [0, 1, 4, 4, 4]  # the slope of Huber's loss, squared


def test_spread_and_knee_are_those_of_the_likeliest_distribution():
    rng = np.random.default_rng(2)
    z = np.column_stack([rng.normal(0, 2, 20_000), rng.laplace(0, 1, 20_000), np.zeros(20_000)])
    # normal within 1.5, exponential beyond
    body, tail = rng.normal(size=60_000), 1.5 + rng.exponential(1 / 1.5, 20_000)
    inside = body[np.abs(body) < 1.5]
    weight = (np.sqrt(2 * np.pi) * 0.8664) / (np.sqrt(2 * np.pi) * 0.8664 + 2 / 1.5 * np.exp(-1.125))
    chosen = rng.random(20_000) < weight
    z[:, 2] = np.where(chosen, inside[:20_000], tail * rng.choice([-1, 1], 20_000))
    spread, knee = huber_likelihood(z, np.ones(z.shape, dtype=bool))
    assert spread[0] == pytest.approx(2, rel=0.05) and knee[0] > 2.5
    assert knee[1] == pytest.approx(0.5, abs=0.15)
    assert (spread[2], knee[2]) == (pytest.approx(1, rel=0.1), pytest.approx(1.5, rel=0.15))


# --- stuck channels ------------------------------------------------------------------------------


def test_a_channel_is_stuck_after_several_times_its_longest_normal_run():
    x = np.column_stack([np.arange(300) // 10, np.zeros(300), np.arange(300) % 7, np.arange(300) // 150])
    present = np.ones(x.shape, dtype=bool)
    assert still_limits(x, present, 4.0).tolist() == [40, 0, 32, 600]
    present[:, 0] = np.arange(300) % 2 == 0
    assert still_limits(x, present, 4.0)[0] == 32  # 5 rows with a value
    assert still_limits(x, present, 1000.0)[3] == 0


def test_a_stuck_channel_has_the_largest_part_of_the_score_until_it_moves():
    detector = replace(single(), stuck=np.array([3]))
    # the first row is still at the start
    assert alarms(detector, [0, 0, 0, 0, 0.5, 0.5, 0.5, 0.5, 0.25]) == [0, 1, 1, 1, 0, 0, 0, 1, 0]
    x = np.array([0.5, 0.5, 0.5, 0.5, 0.25])[:, None]
    found = floating.scan(detector, x, x, np.ones(x.shape, dtype=bool))
    assert found.contributions[:, 0].tolist() == [0, 0.25, 0.25, 2048, 0.0625]


def test_a_missing_value_neither_counts_as_still_nor_ends_it():
    detector = replace(single(), stuck=np.array([3]))
    x = np.full((7, 1), 0.5)
    present = np.array([True, True, False, False, True, True, True])[:, None]
    found = floating.scan(detector, x, x, present)
    assert found.alarm.tolist() == [0, 0, 0, 0, 0, 1, 1]


# --- adaptation ----------------------------------------------------------------------------------


def test_level_and_spread_follow_calm_rows_alone_and_end_at_their_limits():
    detector = replace(
        single(base=4.0), adapt=1, adapt_limit=1.0, usual=np.array([0.5])
    )  # calm: a score up to 2
    x = np.array([0.0, 1.0, 1.0, 3.0, 3.0])[:, None]
    found = floating.scan(detector, x, x, np.ones(x.shape, dtype=bool))
    # 1: mean 0.5, gain 0.75; (1 - 0.5) * 0.75 = 0.375: mean 0.6875, gain 0.8125; 2.3125 * 0.8125 = 1.879,
    # calm before it: mean 1 (limit), gain 0.5 (limit); then 3.53 was raised, so that nothing is learnt
    expected = [0, 1, 0.375**2, (2.3125 * 0.8125) ** 2, 1]
    assert found.score.tolist() == pytest.approx(expected)


def monitored(adapt):
    """A network without effect, with a detector of one channel of noise, and the C of it."""
    rng = np.random.default_rng(3)
    x = FINE.decode(FINE.encode(rng.normal(0, 1, (4000, 1))))
    config = DetectorConfig(warmup=1, adapt=adapt, adapt_limit=1.0, sigma=25.0)
    present = np.ones(x.shape, dtype=bool)
    detector = fit_detector(x, x, present, present[:, 0], config)
    assert detector.usual is None or detector.usual == pytest.approx([0.8], abs=0.05)
    qgraph = random_qgraph(2, layers=1, units=2, features=1, detector=True)
    fine = FineCodes(FINE.unit, 64 * qgraph.input.zero_point)
    q = quantize_detector(detector, LinearPredictor.none(1), fine, qgraph.output)
    step = qgraph.input.scale / 64  # a count is a fine code
    stream = Stream((replace(qgraph.stream.channels[0], center=0.0, scale=1.0, resolution=step, zero=0.0),))
    return HostExecutor(replace(qgraph, detector=replace(q, output_weight=[0]), stream=stream))


def alarmed(executor, x):
    executor.reset()
    return executor.detect(np.rint(x / FINE.unit).astype(np.int32)[:, None]).alarm.astype(bool)


@pytest.fixture(scope="module")
def machines():
    return monitored(0), monitored(1024)


def test_a_slow_drift_within_the_limit_is_followed_without_alarm(machines):
    fixed_one, following = machines
    noise, ramp = np.random.default_rng(4).normal(0, 1, 50_000), np.linspace(0, 1, 50_000)
    assert alarmed(fixed_one, noise + 0.95 * ramp).any()
    for drifting in (noise, noise + 0.95 * ramp, noise - 0.95 * ramp, noise * (1 + 0.9 * ramp)):
        assert not alarmed(following, drifting).any()


@pytest.mark.parametrize("rows", [1, 300, 5000, 100_000])
def test_a_lasting_fault_is_still_alarmed_however_slowly_it_grew(machines, rows):
    noise = np.random.default_rng(5).normal(0, 1, rows + 102_000)
    size = np.clip((np.arange(len(noise)) - 2000) / rows, 0, 1)
    found = alarmed(machines[1], noise + 5 * size)
    assert not found[:2000].any() and found[-2000:].all()
    assert found[2000 + rows + 300 :].mean() > 0.999


def test_usual_deviations_count_present_rows():
    z, present = np.array([[1.0, -9.0], [-3.0, 2.0]]), np.array([[True, False], [True, True]])
    assert usual_deviation(z, present).tolist() == [2, 2]


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapt": 1}, "adapt is 1, expected 0 or 2 rows and more"),
        ({"adapt_limit": 4.0, "hold": -1}, "adapt_limit is 4.0, expected 0 .. 3"),
        ({"stuck": -1.0, "depth": 0}, "depth is 0, expected 1 .. 20"),
        ({"weighting": "t"}, "weighting is 't', expected one of spread, mahalanobis, likelihood"),
    ],
)
def test_options_beyond_their_ranges_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        DetectorConfig(**options)


@pytest.mark.parametrize("options", [
    {"threshold": "dynamic", "depth": 8}, {"threshold": "dspot", "weighting": "likelihood", "level": 1.0},
    {"adapt": 300, "stuck": 4.0, "hold": 3, "cooldown": 2, "level": 1.0},
])  # fmt: skip
def test_integer_alarms_of_options_are_the_float_ones_but_for_rounding(options):
    rng = np.random.default_rng(7)
    x = rng.normal(0, 1, (3000, 2)).cumsum(axis=0) % 5
    x[2000:2100, 1] = x[2000, 1]
    x[2500:2560] += 9
    x = FINE.decode(FINE.encode(x))
    present = rng.random(x.shape) > 0.02
    x = held(x, present)
    normal = np.arange(3000) < 1800
    residual = x - x[:1800].mean(axis=0)
    detector = fit_detector(residual, x, present, normal, DetectorConfig(warmup=4, **options))
    detector = replace(
        detector, mean=np.concatenate([x[:1800].mean(axis=0) + detector.mean[:2], detector.mean[2:]])
    )
    real = floating.scan(detector, x, x, present)
    q = quantize_detector(detector, LinearPredictor.none(2), FINE, Quantization(1.0, 0))
    integer = floating.from_fixed(fixed.detect(q, FINE.encode(x), np.zeros(x.shape, dtype=int), present)[0])
    assert (integer.alarm != real.alarm).mean() < 0.003 and real.alarm[2500:2560].any()
    np.testing.assert_allclose(integer.score, real.score, rtol=0.03, atol=0.03)
    np.testing.assert_allclose(integer.threshold, real.threshold, rtol=0.03, atol=0.05)
    assert real.contributions[2099, 1] == (2048 if "stuck" in options else real.contributions[2099, 1])
