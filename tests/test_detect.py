"""The detector's real twin against plain Python and the integer twin, its fit, thresholds and events."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import genpareto

from edge_lstm.detection import fixed, floating
from edge_lstm.detection.events import EventStream, events, in_spreads
from edge_lstm.detection.fit import (
    DetectorConfig,
    fit_detector,
    fit_residuals,
    fit_threshold,
    quantize_detector,
)
from edge_lstm.detection.floating import Detector, FloatDetection
from edge_lstm.detection.thresholds import (
    Threshold,
    pareto_shape,
    pot_gain,
    pot_threshold,
    quantile_threshold,
    sigma_threshold,
)
from edge_lstm.errors import ConfigError, DataError, ModelError
from edge_lstm.qgraph import Quantization

QUICK = DetectorConfig(warmup=1, holdout=0.0, threshold="quantile")
INPUT = Quantization(float(np.float32(0.035)), -7)
OUTPUT = Quantization(float(np.float32(0.031)), 11)


def single(alpha=1.0, base=4.0, clear=0.5, debounce=1, warmup=1, **rule):
    """One channel of mean 0 and spread 1."""
    threshold = Threshold("pot" if rule else "sigma", base, **rule)
    return Detector(np.zeros(1), np.ones(1), None, alpha, threshold, clear, debounce, warmup)


def scan_column(detector, values):
    """Scan one channel of residuals behind a first row, which is never scored; returns rows 1 on."""
    residual = np.concatenate([[0.0], values])[:, None]
    result = floating.scan(detector, residual, np.ones(residual.shape, dtype=bool))
    return FloatDetection(result.score[1:], result.alarm[1:], result.threshold[1:], result.smoothed[1:])


def plain_detector(detector, x, forecast, present):
    """The detector written again in plain Python, sample by sample, from NUMERICS.md section 7."""
    channels = range(detector.channels)
    state = [0.0] * detector.channels
    rule = detector.threshold
    excess, score, seen, run, alarm, before = rule.excess, 0.0, 0, 0, 0, None
    rows = []
    for t in range(len(x)):
        if any(present[t]):
            seen += 1
            if seen > detector.warmup:
                z = [0.0] * detector.channels
                for c in channels:
                    if present[t][c]:
                        z[c] = (x[t][c] - before[c] - detector.mean[c]) / detector.spread[c]
                        z[c] = min(max(z[c], -32.0), 32767 / 1024)
                if detector.whitening is not None:
                    z = [sum(detector.whitening[c][k] * z[k] for k in channels) for c in channels]
                    z = [min(max(value, -32.0), 32767 / 1024) for value in z]
                score = 0.0
                for c in channels:
                    if present[t][c]:
                        state[c] += detector.alpha * (z[c] - state[c])
                        score += state[c] ** 2
                high = rule.base + rule.gain * excess
                crossed = score < high * detector.clear if alarm else score > high
                run = run + 1 if crossed else 0
                if rule.gain > 0 and not alarm and rule.base < score <= high:
                    excess += (score - rule.base - excess) / 2**rule.rate
                if run >= detector.debounce:
                    run, alarm = 0, 1 - alarm
            before = forecast[t]
        rows.append((score, alarm, rule.base + rule.gain * excess, *state))
    return np.array(rows)


def machine(steps, channels, seed):
    """A correlated stream, what a fair forecaster says of it, and two faults of which it knows nothing."""
    rng = np.random.default_rng(seed)
    x = np.zeros((steps, channels))
    mixing = 0.6 * np.eye(channels) + 0.4 / channels
    noise = rng.normal(size=(steps, channels)) @ mixing * 0.5
    for t in range(1, steps):
        x[t] = 0.9 * x[t - 1] + noise[t]
    forecast = 0.9 * x + 0.02 * rng.normal(size=x.shape) + 0.05
    label = np.zeros(steps, dtype=bool)
    for start in (steps * 7 // 10, steps * 8 // 10):
        label[start : start + 60] = True
        x[start : start + 60, start % channels] += 2.0
    return x, forecast, label


# --- the real twin -------------------------------------------------------------------------------


@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("gain", [0.0, 2.0])
def test_the_float_detector_is_the_plain_one_sample_by_sample(whitened, missing, gain):
    rng = np.random.default_rng(5)
    channels, steps = 3, 600
    x, forecast = rng.normal(size=(2, steps, channels))
    x[200:240] += 4
    x[300, 1] = 1e9  # saturates
    present = rng.random((steps, channels)) >= missing
    present[90:95] = False
    x[~present] = np.nan
    whitening = rng.normal(size=(channels, channels)) if whitened else None
    detector = Detector(
        np.array([0.1, -0.2, 0.0]), np.array([1.0, 2.0, 0.5]), whitening, 0.25,
        Threshold("pot", 2.0, gain, 1.0, 4), 0.6, 2, 7,
    )  # fmt: skip
    result = floating.detect(detector, x, forecast, present)
    oracle = plain_detector(detector, x.tolist(), forecast.tolist(), present.tolist())
    np.testing.assert_allclose(result.score, oracle[:, 0], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(result.threshold, oracle[:, 2], rtol=1e-11)
    np.testing.assert_allclose(result.smoothed, oracle[:, 3:], rtol=1e-11, atol=1e-12)
    assert result.alarm.tolist() == oracle[:, 1].tolist()
    assert 0 < result.alarm.sum() < steps


def test_an_alarm_needs_debounce_rows_to_start_and_to_end_and_clears_below_the_lower_level():
    detector = single(base=4.0, clear=0.5, debounce=2)
    # scores 9 1: too short | 9 9: alarm | 2.25 2.25: above 4 * 0.5, stays | 1 9 1 1: ends at the second 1
    result = scan_column(detector, [3, 1, 3, 3, 1.5, 1.5, 1, 3, 1, 1, 0])
    assert result.alarm.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0]


def test_a_score_equal_to_the_threshold_raises_no_alarm():
    assert scan_column(single(base=4.0), [2, 2, -2]).alarm.tolist() == [0, 0, 0]


def test_signed_residuals_that_alternate_cancel_and_a_shift_does_not():
    wobble = scan_column(single(alpha=0.1), np.tile([3.0, -3.0], 50))
    shift = scan_column(single(alpha=0.1), np.full(100, 3.0))
    assert wobble.score.max() < 0.1
    assert shift.score[-1] == pytest.approx(9.0, rel=1e-3)


def test_rows_of_the_warm_up_have_no_score_and_empty_rows_do_not_count_as_warm_up():
    present = np.ones((8, 1), dtype=bool)
    present[1] = False
    result = floating.scan(single(warmup=3), np.full((8, 1), 5.0), present)
    assert result.score.tolist() == [0, 0, 0, 0, 25, 25, 25, 25]
    assert result.alarm.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_an_empty_row_changes_nothing_and_its_forecast_is_not_read():
    x = np.array([[0.0], [1.0], [np.nan], [5.0]])
    forecast = np.array([[0.5], [2.0], [np.nan], [0.0]])
    result = floating.detect(single(base=99), x, forecast, ~np.isnan(x))
    assert result.score.tolist() == [0, 0.25, 0.25, 9]  # (1 - 0.5)**2, held, (5 - 2)**2


def test_a_missing_channel_leaves_the_score_and_keeps_its_memory():
    detector = Detector(np.zeros(2), np.ones(2), None, 0.5, Threshold("sigma", 99.0), 0.5, 1, 1)
    residual = np.array([[0, 0], [2, 4], [2, 4], [2, 4]], dtype=float)
    present = np.array([[1, 1], [1, 1], [1, 0], [1, 1]], dtype=bool)
    result = floating.scan(detector, residual, present)
    assert result.smoothed.tolist() == [[0, 0], [1, 2], [1.5, 2], [1.75, 3]]
    assert result.score.tolist() == [0, 5, 2.25, 1.75**2 + 9]


def test_the_mean_excess_follows_peaks_below_the_threshold_and_rests_during_an_alarm():
    detector = single(base=1.0, gain=3.0, excess=1.0, rate=1)
    result = scan_column(detector, [1, np.sqrt(3), np.sqrt(2), 9, np.sqrt(3)])
    # threshold 4; score 1 is no peak; 3: excess 1 -> 1.5; 2: 1.5 -> 1.25; 81: alarm, rests; 3: still alarm
    assert result.threshold == pytest.approx([4, 5.5, 4.75, 4.75, 4.75])
    assert result.alarm.tolist() == [0, 0, 0, 1, 1]


def test_a_stream_without_any_value_has_no_score():
    result = floating.detect(
        single(), np.full((5, 1), np.nan), np.zeros((5, 1)), np.zeros((5, 1), dtype=bool)
    )
    assert result.score.tolist() == [0] * 5
    assert result.threshold.tolist() == [4.0] * 5
    assert len(floating.scan(single(), np.zeros((0, 1)), np.zeros((0, 1), dtype=bool)).score) == 0


def test_a_detector_with_broken_constants_names_all_of_them():
    with pytest.raises(ModelError, match=r"(?s)spread.*alpha is 0.*clear is 2.*debounce is 0.*warmup is 0"):
        Detector(np.zeros(2), np.array([1.0, 0.0]), None, 0.0, Threshold("sigma", 1.0), 2.0, 0, 0)
    with pytest.raises(ModelError, match=r"whitening is \(1, 2\), expected \(2, 2\), all finite"):
        Detector(np.zeros(2), np.ones(2), np.ones((1, 2)), 1.0, Threshold("sigma", 1.0), 0.5, 1, 1)
    with pytest.raises(ModelError, match=r"mean is \(2,\) and spread \(3,\), expected one entry a channel"):
        Detector(np.zeros(2), np.ones(3), None, 1.0, Threshold("sigma", 1.0), 0.5, 1, 1)


# --- both twins ----------------------------------------------------------------------------------


def twin_bound(detector, q, real):
    """Largest score difference that the integer twin's roundings allow, a row.

    A residual is off by half a code of 2**-10 and by the roundings of its weights; the EWMA by half a
    code of 2**-16 a sample; the squared value by half a code of 2**-10; each square is cut to 2**-14.
    """
    weights = 0.5 * (255 + 255 + 1) / 2 ** (10 + q.shift)
    error = np.full(detector.channels, 2.0**-11 + weights)
    if detector.whitening is not None:
        rows = np.abs(detector.whitening).sum(axis=1)
        error = rows * error + 2.0**-11 + 0.5 / 2**q.whitening_shift * 33 * detector.channels
    error = error + 2.0**-17 / detector.alpha + 2.0**-11
    return (2 * np.abs(real.smoothed) * error + error**2 + 2.0**-14).sum(axis=1)


@pytest.mark.parametrize("weighting", ["spread", "mahalanobis"])
@pytest.mark.parametrize("threshold", ["quantile", "sigma", "pot"])
@pytest.mark.parametrize("seed", [0, 1])
def test_integer_scores_stay_within_their_rounding_bound_of_the_float_scores(weighting, threshold, seed):
    steps, channels = 3000, 4
    x, forecast, label = machine(steps, channels, seed)
    present = np.random.default_rng(seed).random(x.shape) > 0.02
    codes, forecast_codes = INPUT.encode(x), OUTPUT.encode(forecast)
    reals, forecast_reals = INPUT.decode(codes), OUTPUT.decode(forecast_codes)
    config = DetectorConfig(weighting=weighting, threshold=threshold)
    normal = ~label & (np.arange(steps) < 2000)
    detector = fit_detector(reals, forecast_reals, present, normal, config, floor=INPUT.scale / 2)
    q = quantize_detector(detector, INPUT, OUTPUT)
    real = floating.detect(detector, reals, forecast_reals, present)
    integer = floating.from_fixed(
        fixed.detect(q, codes.astype(np.int64), forecast_codes.astype(np.int64), present)[0]
    )
    difference = np.abs(integer.score - real.score)
    assert (difference <= twin_bound(detector, q, real)).all()
    assert difference.max() < 0.01 * max(1.0, real.score.max())
    # the integer mean excess moves in steps of 2**-14 * 2**rate of a difference
    step = detector.threshold.gain * 2 ** (detector.threshold.rate - 14)
    np.testing.assert_allclose(integer.threshold, real.threshold, rtol=1e-3, atol=step)
    assert (integer.alarm != real.alarm).mean() < 0.002
    assert real.alarm[label].mean() > 0.5
    np.testing.assert_allclose(integer.smoothed, real.smoothed, atol=0.02)


def test_both_twins_saturate_at_the_same_residual():
    detector = Detector(np.zeros(1), np.full(1, 0.02), None, 1.0, Threshold("sigma", 9.0), 0.5, 1, 1)
    codes = np.array([[0], [127], [-128], [0]])
    zero = np.zeros_like(codes)
    q = quantize_detector(detector, Quantization(1.0, 0), Quantization(1.0, 0))
    integer = floating.from_fixed(fixed.detect(q, codes, zero, np.ones((4, 1), dtype=bool))[0])
    real = floating.detect(detector, codes, zero, np.ones((4, 1), dtype=bool))
    assert integer.smoothed[:, 0].tolist() == real.smoothed[:, 0].tolist() == [0, 32767 / 1024, -32, 0]


# --- rounding to integers ------------------------------------------------------------------------


def whitened_detector(spread=0.2, mean=0.03, size=1.5):
    whitening = size * np.array([[1.0, -0.4], [-0.4, 1.0]])
    rule = Threshold("pot", 1.25, 7.3, 0.6, 8)
    return Detector(
        np.array([mean, -mean]), np.array([spread, 2 * spread]), whitening, 0.25, rule, 0.75, 3, 9
    )


def test_integer_constants_are_the_real_ones_rounded_in_their_units():
    q = quantize_detector(whitened_detector(), INPUT, OUTPUT)
    unit = 2 ** (10 + q.shift)
    assert q.input_weight.tolist() == [round(INPUT.scale / 0.2 * unit), round(INPUT.scale / 0.4 * unit)]
    assert q.output_weight.tolist() == [round(OUTPUT.scale / 0.2 * unit), round(OUTPUT.scale / 0.4 * unit)]
    assert q.offset.tolist() == [round(0.15 * unit), round(-0.075 * unit)]
    assert (q.input_zero_point, q.output_zero_point) == (-7, 11)
    assert (q.base, q.excess, q.gain) == (round(1.25 * 2**14), round(0.6 * 2**14), round(7.3 * 256))
    assert (q.alpha, q.clear, q.rate, q.debounce, q.warmup) == (64, 192, 8, 3, 9)
    assert q.whitening.tolist() == [
        [round(w * 2**q.whitening_shift) for w in row] for row in [[1.5, -0.6], [-0.6, 1.5]]
    ]


@pytest.mark.parametrize("spread", [1e-4, 0.003, 0.2, 50.0])
@pytest.mark.parametrize("size", [0.01, 1.0, 30.0, 9000.0])
def test_shifts_are_the_largest_that_cannot_overflow(spread, size):
    q = quantize_detector(whitened_detector(spread=spread, size=size), INPUT, OUTPUT)
    twice = 255 * 2 * (q.input_weight + q.output_weight) + 2 * np.abs(q.offset)
    assert q.shift == 20 or twice.max() > 0.97 * 2**31  # one bit more would leave 32 bits, or nearly
    rows = np.abs(2 * q.whitening.astype(np.int64))
    assert q.whitening_shift == 15 or rows.max() > 32766 or rows.sum(axis=1).max() > 65530


def test_a_detector_that_does_not_fit_in_integers_is_refused():
    with pytest.raises(ModelError, match=r"channel 0 has a spread of 1e-07 .* fit it with a larger floor"):
        quantize_detector(whitened_detector(spread=1e-7, mean=0.0), INPUT, OUTPUT)
    with pytest.raises(ModelError, match=r"whitening's largest entry is 6e\+04.*use weighting"):
        quantize_detector(whitened_detector(size=6e4), INPUT, OUTPUT)
    high = replace(whitened_detector(), threshold=Threshold("sigma", 2.0**18))
    with pytest.raises(ModelError, match=r"threshold's base is 2.621e\+05, expected below 131072"):
        quantize_detector(high, INPUT, OUTPUT)


# --- thresholds ----------------------------------------------------------------------------------


def test_quantile_and_sigma_thresholds_are_what_they_say():
    score = np.arange(101.0)
    assert quantile_threshold(score, 0.9) == Threshold("quantile", 90.0)
    assert sigma_threshold(score, 2.0).value == pytest.approx(50 + 2 * np.sqrt((101**2 - 1) / 12))


@pytest.mark.parametrize("shape", [-2.0, -0.3, -1e-9, 0.0, 1e-9, 0.2, 0.45])
@pytest.mark.parametrize("ratio", [0.5, 0.01, 1e-6])
def test_the_pot_gain_is_the_quantile_of_a_pareto_distribution_of_mean_one(shape, ratio):
    assert pot_gain(shape, ratio) == pytest.approx(genpareto.isf(ratio, shape, scale=1 - shape), rel=1e-5)


@pytest.mark.parametrize("shape", [-0.4, 0.0, 0.2])
def test_peaks_over_threshold_find_a_level_far_beyond_the_sample(shape):
    score = genpareto.rvs(shape, scale=2.0, size=20000, random_state=3)
    rule = pot_threshold(score, risk=1e-5, tail=0.02, rate=8)
    assert rule.value == pytest.approx(genpareto.isf(1e-5, shape, scale=2.0), rel=0.25)
    assert rule.base == pytest.approx(np.quantile(score, 0.98))
    assert rule.excess == pytest.approx(np.mean(score[score > rule.base]) - rule.base)


def test_few_scores_widen_the_tail_to_ten_peaks():
    score = np.arange(60.0)
    assert (score > pot_threshold(score, 1e-4, 0.02, 8).base).sum() == 10


def test_equal_excesses_give_their_own_height_as_the_bound():
    assert pareto_shape(np.ones(12)) == -np.inf
    score = np.concatenate([np.zeros(900), np.ones(15)])
    assert pot_threshold(score, 1e-4, 0.02, 8).value == pytest.approx(1.0)


def test_too_few_or_frozen_scores_are_refused_with_figures():
    with pytest.raises(DataError, match="49 scored normal rows, expected 50 or more; give more normal"):
        pot_threshold(np.arange(49.0), 1e-4, 0.02, 8)
    with pytest.raises(
        DataError, match=r'0 of 200 normal scores lie above their 0.95 quantile.*use threshold = "sigma"'
    ):
        pot_threshold(np.ones(200), 1e-4, 0.02, 8)


def test_a_broken_threshold_names_all_its_faults():
    with pytest.raises(ModelError, match=r"(?s)kind 'best' is unknown.*base is -1.*gain is nan.*rate is 21"):
        Threshold("best", -1.0, float("nan"), 0.0, 21)


# --- fitting -------------------------------------------------------------------------------------


def test_options_out_of_range_are_all_named():
    with pytest.raises(ConfigError) as caught:
        DetectorConfig(
            weighting="best", alpha=0, threshold="max", quantile=0.1, sigma=-1, risk=0.3, tail=0.9,
            rate=-1, debounce=0, clear=0, warmup=0, holdout=1.0,
        )  # fmt: skip
    for name in ("weighting", "alpha", "threshold", "quantile", "sigma", "tail", "rate", "debounce", "clear",
                 "warmup", "holdout"):  # fmt: skip
        assert f"\n  - {name} is" in str(caught.value)
    with pytest.raises(
        ConfigError, match=r"(?s)alpha is 'slow', expected a number.*rate is 8.5, expected a whole"
    ):
        DetectorConfig(alpha="slow", rate=8.5, debounce=True)
    with pytest.raises(ConfigError, match="risk is 0.03 and tail 0.02; the risk must be below the tail"):
        DetectorConfig(risk=0.03)


def test_mean_and_spread_are_those_of_each_channels_present_normal_rows():
    rng = np.random.default_rng(2)
    residual = rng.normal([1.0, -2.0], [0.5, 3.0], size=(400, 2))
    present = rng.random((400, 2)) > 0.2
    normal = np.arange(400) < 300
    residual[~present] = np.nan
    residual[~normal] = 1e6
    detector = fit_residuals(residual, present, normal, QUICK)
    for channel in range(2):
        rows = np.flatnonzero(present[:, channel] & normal)
        rows = rows[rows > np.flatnonzero(present.any(axis=1))[0]]  # the warm-up row
        assert detector.mean[channel] == pytest.approx(residual[rows, channel].mean())
        assert detector.spread[channel] == pytest.approx(residual[rows, channel].std())


def test_the_last_part_of_the_normal_rows_sets_the_threshold_and_not_the_spread():
    rng = np.random.default_rng(3)
    residual = rng.normal(size=(1001, 1))
    louder = residual.copy()
    louder[801:] *= 3
    everywhere = np.ones((1001, 1), dtype=bool)
    config = DetectorConfig(warmup=1, holdout=0.2, threshold="quantile", alpha=1.0)
    quiet = fit_residuals(residual, everywhere, everywhere[:, 0], config)
    loud = fit_residuals(louder, everywhere, everywhere[:, 0], config)
    assert (quiet.mean, quiet.spread) == (loud.mean, loud.spread)
    assert loud.threshold.value == pytest.approx(
        np.quantile(((louder[801:, 0] - loud.mean) / loud.spread) ** 2, 0.999)
    )


def test_labelled_rows_of_the_training_part_do_not_reach_the_fit():
    x, forecast, label = machine(2000, 3, 0)
    spoilt = x.copy()
    spoilt[label] += 100.0
    present = np.ones(x.shape, dtype=bool)
    one, other = (fit_detector(stream, forecast, present, ~label, DetectorConfig()) for stream in (x, spoilt))
    assert one.spread.tolist() == other.spread.tolist()
    assert one.threshold == other.threshold


def test_a_channel_that_never_varies_gets_the_floor_as_its_spread():
    rng = np.random.default_rng(4)
    residual = np.column_stack([rng.normal(size=500), np.full(500, 0.25)])
    everywhere = np.ones(residual.shape, dtype=bool)
    for weighting in ("spread", "mahalanobis"):
        config = replace(QUICK, weighting=weighting)
        detector = fit_residuals(residual, everywhere, everywhere[:, 0], config, floor=0.02)
        assert (detector.mean[1], detector.spread[1]) == (pytest.approx(0.25), 0.02)
        stuck = floating.scan(detector, np.tile([0.0, 0.25], (50, 1)), everywhere[:50])
        assert stuck.score.max() < 0.1


def test_mahalanobis_whitening_gives_uncorrelated_unit_residuals_each_closest_to_its_channel():
    rng = np.random.default_rng(6)
    mixing = np.array([[1.0, 0.7, 0.2], [0.0, 0.8, 0.3], [0.0, 0.0, 2.0]])
    residual = rng.normal(size=(20000, 3)) @ mixing
    everywhere = np.ones(residual.shape, dtype=bool)
    config = replace(QUICK, weighting="mahalanobis")
    detector = fit_residuals(residual, everywhere, everywhere[:, 0], config)
    z = floating.standardize(detector, residual, everywhere)
    np.testing.assert_allclose(np.cov(z.T), np.eye(3), atol=0.02)
    assert np.abs(np.corrcoef(z.T, residual.T)[:3, 3:]).argmax(axis=0).tolist() == [0, 1, 2]
    # alpha 1: the score is the squared Mahalanobis distance
    distance = np.einsum("ti,ij,tj->t", residual, np.linalg.inv(np.cov(residual.T)), residual)
    score, _ = floating.score_rows(replace(detector, alpha=1.0, mean=np.zeros(3)), residual, everywhere)
    np.testing.assert_allclose(score, distance, rtol=0.05)


def test_duplicate_channels_are_not_magnified_beyond_ten():
    shared = np.random.default_rng(7).normal(size=(500, 1))
    residual = np.hstack([shared, shared])
    everywhere = np.ones(residual.shape, dtype=bool)
    detector = fit_residuals(residual, everywhere, everywhere[:, 0], replace(QUICK, weighting="mahalanobis"))
    assert np.linalg.eigvalsh(detector.whitening).max() <= 10.0 + 1e-9


def test_alpha_and_clear_are_rounded_to_what_the_integer_twin_can_hold():
    residual = np.random.default_rng(8).normal(size=(300, 1))
    everywhere = np.ones(residual.shape, dtype=bool)
    detector = fit_residuals(residual, everywhere, everywhere[:, 0], replace(QUICK, alpha=0.1, clear=0.7))
    assert (detector.alpha, detector.clear) == (26 / 256, 179 / 256)


def test_too_few_or_unusable_rows_are_refused_with_figures():
    rng = np.random.default_rng(9)
    residual = rng.normal(size=(300, 2))
    present = np.ones(residual.shape, dtype=bool)
    normal = np.ones(300, dtype=bool)
    few = normal & (np.arange(300) < 40)
    with pytest.raises(DataError, match=r"(?s)channel 0 has 39 normal rows.*channel 1.*give more normal"):
        fit_residuals(residual, present, few, QUICK)
    once = present.copy()
    once[:, 1] = False
    with pytest.raises(DataError, match=r"channel 1 has 0 normal rows with a residual, expected 50 or more"):
        fit_residuals(residual, once, normal, QUICK)
    apart = np.zeros_like(present)
    apart[::2, 0] = apart[1::2, 1] = True
    with pytest.raises(DataError, match=r'0 normal rows with every channel present.*weighting = "spread"'):
        fit_residuals(residual, apart, normal, replace(QUICK, weighting="mahalanobis"))
    with pytest.raises(DataError, match="residuals hold NaN or infinity; the forecaster diverged"):
        fit_residuals(np.where(residual > 2, np.inf, residual), present, normal, QUICK)
    with pytest.raises(DataError, match="the spread's floor is 0, expected a number above 0"):
        fit_residuals(residual, present, normal, QUICK, floor=0)
    with pytest.raises(DataError, match=r"20 scored normal rows, expected 50"):
        fit_residuals(residual[:101], present[:101], normal[:101], replace(QUICK, holdout=0.2))


def test_a_threshold_that_no_score_can_reach_is_refused():
    residual = np.random.default_rng(10).normal(size=(1001, 1))
    residual[800:][::3] = 1e4
    everywhere = np.ones(residual.shape, dtype=bool)
    config = DetectorConfig(warmup=1, threshold="sigma", sigma=100, alpha=1.0)
    with pytest.raises(
        DataError, match=r'scores of 1 channels end at 1024: it could never alarm.*"quantile"'
    ):
        fit_residuals(residual, everywhere, everywhere[:, 0], config)


def test_each_kind_of_threshold_is_the_one_asked_for():
    score = np.random.default_rng(0).exponential(size=500)
    for kind in ("quantile", "sigma", "pot"):
        assert fit_threshold(score, DetectorConfig(threshold=kind)).kind == kind


# --- events --------------------------------------------------------------------------------------


def three_alarms():
    score = np.array([0, 8, 18, 2, 0, 8, 0, 0, 32.0])
    alarm = np.array([0, 1, 1, 1, 0, 1, 0, 0, 1], dtype=np.uint8)
    smoothed = np.array([[0, 0], [2, 2], [3, 3], [1, 1], [0, 0], [2, 2], [0, 0], [0, 0], [4, -4.0]])
    smoothed[2] = [0, 18**0.5]
    return FloatDetection(score, alarm, np.full(9, 4.5), smoothed)


def test_events_have_their_rows_stamps_peak_and_contributions():
    stamps = [f"2026-01-01T00:00:0{second}" for second in range(9)]
    first, second, third = events(three_alarms(), ["flow", "pressure"], stamps)
    assert (first.start_row, first.stop_row, first.peak_row) == (1, 4, 2)
    assert (first.start, first.stop) == (stamps[1], stamps[4])
    assert (first.peak_score, first.threshold) == (3.0, 1.5)  # sqrt(18 / 2), sqrt(4.5 / 2)
    assert first.contributions == {"flow": 0.0, "pressure": 1.0}
    assert first.leading == "pressure"
    assert (second.start_row, second.stop_row) == (5, 6)
    assert (third.start_row, third.stop_row, third.stop) == (8, None, None)
    assert third.contributions == {"flow": 0.5, "pressure": 0.5}


def test_a_missing_channel_contributes_nothing():
    present = np.ones((9, 2), dtype=bool)
    present[8, 0] = False
    assert events(three_alarms(), ["flow", "pressure"], present=present)[2].contributions["flow"] == 0.0


def test_an_event_stream_tells_the_start_at_once_and_the_end_with_the_peak():
    detection, stream = three_alarms(), EventStream(["flow", "pressure"])
    told = [stream.push(detection.score[t], detection.alarm[t], 4.5, detection.smoothed[t]) for t in range(9)]
    assert [event and event.to_dict()["event"] for event in told] == [
        None, "alarm", None, None, "clear", "alarm", "clear", None, "alarm",
    ]  # fmt: skip
    assert (told[1].peak_score, told[4].peak_score) == (2.0, 3.0)
    assert stream.close() == told[8]
    assert stream.close() is None


def test_an_event_is_one_json_line_of_plain_values():
    line = json.dumps(events(three_alarms(), ["flow", "pressure"])[0].to_dict())
    assert "\n" not in line
    assert json.loads(line) == {
        "event": "clear", "start_row": 1, "stop_row": 4, "start": None, "stop": None, "peak_row": 2,
        "peak_score": 3.0, "threshold": 1.5, "contributions": {"flow": 0.0, "pressure": 1.0},
    }  # fmt: skip


def test_people_see_scores_as_the_root_mean_square_of_the_channels():
    assert in_spreads(36.0, 4) == 3.0
    assert in_spreads(-1e-12, 4) == 0.0
