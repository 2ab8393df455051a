"""The detector's real twin against plain Python and the integer twin, and its rounding to integers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_lstm.detection import fixed, floating
from edge_lstm.detection.fit import (
    DetectorConfig,
    fit_detector,
    quantize_detector,
)
from edge_lstm.detection.floating import Detector, FloatDetection
from edge_lstm.detection.thresholds import (
    Threshold,
)
from edge_lstm.errors import ModelError
from edge_lstm.qgraph import Quantization

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
