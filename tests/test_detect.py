"""The detector's real twin against plain Python, by hand, and against the integer twin."""

from __future__ import annotations

import numpy as np
import pytest

from detector_oracles import FineCodes, columns, plain_detector, real_detection, residuals
from edge_lstm.detection import fixed, floating
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.detection.fit import fit_detector, quantize_detector
from edge_lstm.detection.floating import Detector, FloatDetection
from edge_lstm.detection.linear import Rows, clean, fit_predictor
from edge_lstm.detection.thresholds import Threshold
from edge_lstm.errors import ModelError
from edge_lstm.predictor import LinearPredictor
from edge_lstm.qgraph import Quantization

FINE = FineCodes(0.0006, -448)
OUTPUT = Quantization(float(np.float32(0.031)), 11)
FIXED_RULE = Threshold("sigma", 99.0)


def single(alpha=1.0, base=4.0, clear=0.5, debounce=1, warmup=1, gains=(1.0, 0.0), **rule):
    """One channel of mean 0 and spread 1 without a level."""
    threshold = Threshold("pot" if rule else "sigma", base, **rule)
    return Detector(np.zeros(1), np.ones(1), 0.0, None, alpha, *gains, threshold, clear, debounce, warmup)


def scan_column(detector, values):
    """Scan one channel of residuals behind a first row, which is never scored; returns rows 1 on."""
    residual = np.concatenate([[0.0], values])[:, None]
    result = floating.scan(detector, residual, np.zeros(residual.shape), np.ones(residual.shape, dtype=bool))
    return FloatDetection(*(getattr(result, name)[1:] for name in result.__dataclass_fields__))


def machine(steps, channels, seed):
    """A correlated stream, outputs of a network that knows little of it, and two faults."""
    rng = np.random.default_rng(seed)
    x = np.zeros((steps, channels))
    mixing = 0.6 * np.eye(channels) + 0.4 / channels
    noise = rng.normal(size=(steps, channels)) @ mixing * 0.5
    for t in range(1, steps):
        x[t] = 0.9 * x[t - 1] + noise[t]
    outputs = 0.2 * rng.normal(size=x.shape) + 0.05
    label = np.zeros(steps, dtype=bool)
    for start in (steps * 7 // 10, steps * 8 // 10):
        label[start : start + 60] = True
        x[start : start + 60, start % channels] += 4.0 + rng.normal(0, 4.0, 60)
    return x, outputs, label


def held(x, present):
    """Missing values as on the device: the last present one, 0 before the first."""
    found = np.zeros(x.shape)
    for t in range(len(x)):
        found[t] = np.where(present[t], x[t], found[t - 1] if t else 0.0)
    return found


# --- the real twin -------------------------------------------------------------------------------


def drawn_predictor(rng, channels, lags):
    if not lags:
        return LinearPredictor.none(channels)
    kernel = rng.normal(0, 0.5 / np.sqrt(lags * channels), (lags, channels, channels))
    return LinearPredictor(kernel, rng.normal(size=channels), rng.uniform(0.2, 2, channels))


@pytest.mark.parametrize("lags", [0, 3])
@pytest.mark.parametrize("level", [0.0, 1.5])
@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("gain", [0.0, 2.0])
def test_the_float_detector_is_the_plain_one_sample_by_sample(lags, level, whitened, missing, gain):
    rng = np.random.default_rng(5)
    channels, steps = 3, 600
    x, outputs = rng.normal(size=(2, steps, channels))
    x[200:240] += 4
    x[300, 1] = 1e9  # saturates
    present = rng.random((steps, channels)) >= missing
    present[90:95] = False
    x = held(x, present)
    predictor = drawn_predictor(rng, channels, lags)
    rows = channels * (2 if level else 1)
    whitening = rng.normal(size=(channels, channels)) if whitened else None
    detector = Detector(
        rng.normal(0, 0.2, rows), rng.uniform(0.5, 2, rows), level, whitening, 0.25, 0.75, 1.0,
        Threshold("pot", 4.0, gain, 2.0, 4), 0.6, 2, 7,
    )  # fmt: skip
    result = real_detection(detector, predictor, x, outputs, present)
    oracle = plain_detector(detector, predictor, x.tolist(), outputs.tolist(), present.tolist())
    np.testing.assert_allclose(columns(result), oracle, rtol=1e-10, atol=1e-11)
    assert 0 < result.alarm.sum() < steps


def test_an_alarm_needs_debounce_rows_to_start_and_to_end_and_clears_below_the_lower_level():
    detector = single(base=4.0, clear=0.5, debounce=2)
    # scores 9 1: too short | 9 9: alarm | 2.25 2.25: above 4 * 0.5, stays | 1 9 1 1: ends at the second 1
    result = scan_column(detector, [3, 1, 3, 3, 1.5, 1.5, 1, 3, 1, 1, 0])
    assert result.alarm.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0]


def test_a_score_equal_to_the_threshold_raises_no_alarm():
    assert scan_column(single(base=4.0), [2, 2, -2]).alarm.tolist() == [0, 0, 0]


def test_residuals_that_alternate_cancel_in_the_squared_average_and_not_in_the_average_of_squares():
    wobble, shift = np.tile([3.0, -3.0], 50), np.full(100, 3.0)
    assert scan_column(single(alpha=0.1), wobble).score.max() < 0.1
    assert scan_column(single(alpha=0.1), shift).score[-1] == pytest.approx(9.0, rel=1e-3)
    for values in (wobble, shift):
        score = scan_column(single(alpha=0.1, gains=(0.0, 1.0)), values).score
        assert score[-1] == pytest.approx(9.0, rel=1e-3)


def test_the_score_weighs_both_averages():
    result = scan_column(single(alpha=0.5, gains=(0.25, 1.0)), [2, 4])
    # smoothed 1, 2.5; energy 2, 9
    assert result.score.tolist() == [0.25 * 1 + 2, 0.25 * 6.25 + 9]


def test_a_level_counts_within_its_limit_beside_the_residual():
    detector = Detector(
        np.array([0.0, 10.0]), np.array([1.0, 4.0]), 1.0, None, 1.0, 1.0, 0.0, FIXED_RULE, 0.5, 1, 1
    )
    x = np.array([[0.0], [12.0], [10.0], [6.0], [-90.0], [1e6]])
    result = floating.scan(detector, np.zeros((6, 1)), x, np.ones((6, 1), dtype=bool))
    assert result.score.tolist() == [0, 0.25, 0, 1, 1, 1]


def test_rows_of_the_warm_up_have_no_score_and_empty_rows_do_not_count_as_warm_up():
    present = np.ones((8, 1), dtype=bool)
    present[1] = False
    result = floating.scan(single(warmup=3), np.full((8, 1), 5.0), np.zeros((8, 1)), present)
    assert result.score.tolist() == [0, 0, 0, 0, 25, 25, 25, 25]
    assert result.alarm.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert result.contributions[:, 0].tolist() == result.score.tolist()


def test_an_empty_row_changes_nothing_and_its_output_is_not_read():
    x = np.array([[0.0], [1.0], [1.0], [5.0]])
    present = np.array([[True], [True], [False], [True]])
    outputs = np.array([[0.5], [2.0], [np.nan], [0.0]])
    result = real_detection(single(base=99), LinearPredictor.none(1), x, outputs, present)
    assert result.score.tolist() == [0, 0.25, 0.25, 9]  # (1 - 0.5)**2, kept, (5 - 2)**2


def test_a_missing_channel_leaves_the_score_and_keeps_its_memory():
    detector = Detector(np.zeros(2), np.ones(2), 0.0, None, 0.5, 1.0, 0.0, FIXED_RULE, 0.5, 1, 1)
    residual = np.array([[0, 0], [2, 4], [2, 4], [2, 4]], dtype=float)
    present = np.array([[1, 1], [1, 1], [1, 0], [1, 1]], dtype=bool)
    result = floating.scan(detector, residual, np.zeros((4, 2)), present)
    # the averages are 1 2, 1.5 2, 1.75 3
    assert result.contributions.tolist() == [[0, 0], [1, 4], [2.25, 4], [1.75**2, 9]]
    assert result.score.tolist() == [0, 5, 2.25, 1.75**2 + 9]


def test_the_mean_excess_follows_peaks_below_the_threshold_and_rests_during_an_alarm():
    detector = single(base=1.0, gain=3.0, excess=1.0, rate=1)
    result = scan_column(detector, [1, np.sqrt(3), np.sqrt(2), 9, np.sqrt(3)])
    # threshold 4; score 1 is no peak; 3: excess 1 -> 1.5; 2: 1.5 -> 1.25; 81: alarm, rests; 3: still alarm
    assert result.threshold == pytest.approx([4, 5.5, 4.75, 4.75, 4.75])
    assert result.alarm.tolist() == [0, 0, 0, 1, 1]


def test_a_stream_without_any_value_has_no_score():
    nothing = np.zeros((5, 1))
    result = floating.scan(single(), nothing, nothing, np.zeros((5, 1), dtype=bool))
    assert result.score.tolist() == [0] * 5
    assert result.threshold.tolist() == [4.0] * 5
    assert len(floating.scan(single(), nothing[:0], nothing[:0], np.zeros((0, 1), dtype=bool)).score) == 0


def test_a_forecast_is_the_line_over_the_rows_before_and_what_the_network_adds():
    predictor = LinearPredictor([[[0.5]], [[0.25]]], [1.0], [2.0])
    expected = floating.expectations(
        predictor, np.array([[4.0], [8.0], [0.0]]), np.array([[1.0], [3.0], [9]])
    )
    # 1 | 1 + 4 / 2 + 2 * 1 | 1 + 8 / 2 + 4 / 4 + 2 * 3
    assert expected[:, 0].tolist() == [1, 5, 12]


@pytest.mark.parametrize(
    ("ahead", "expected"), [(0, [3, 4, 5]), (1, [0, 3, 4]), (2, [0, 0, 3]), (16, [0, 0, 0])]
)
def test_what_a_network_adds_is_of_rows_so_many_ahead(ahead, expected):
    x, outputs = np.zeros((3, 1)), np.array([[3.0], [4.0], [5.0]])
    assert floating.expectations(LinearPredictor.none(1), x, outputs, ahead)[:, 0].tolist() == expected


def test_a_detector_with_broken_constants_names_all_of_them():
    rest = (None, 1.0, 1.0, 0.0, FIXED_RULE, 0.5, 1, 1)
    with pytest.raises(
        ModelError,
        match=r"(?s)spread.*alpha is 0.*clear is 2.*debounce is 0.*warmup is 0.*level_limit is 33"
        r".*smoothed_gain is 1.1.*energy_gain is -1",
    ):
        Detector(np.zeros(4), np.array([1.0, 0, 1, 1]), 33.0, None, 0.0, 1.1, -1.0, FIXED_RULE, 2.0, 0, 0)
    with pytest.raises(ModelError, match=r"whitening is \(1, 2\), expected \(2, 2\), all finite"):
        Detector(np.zeros(2), np.ones(2), 0.0, np.ones((1, 2)), *rest[1:])
    with pytest.raises(ModelError, match=r"mean is \(2,\) and spread \(3,\), expected one entry a scored"):
        Detector(np.zeros(2), np.ones(3), 0.0, *rest)


# --- both twins ----------------------------------------------------------------------------------


def standardized_error(detector, predictor, q, fine):
    """Largest error (R,) of a standardized value in integers.

    A form is off by half a fine code and by the rounding of its weights; the residual by the rounding of
    its weights and by half a code of 2**-10.
    """
    channels = detector.channels
    form = 0.5 / 2**q.forms_shift * predictor.lags * channels * np.abs(fine - FINE.start).max() + 0.5
    rounded = 0.5 * (32768 + 255 + 1) / 2 ** (10 + q.shift) + 2.0**-11
    error = np.full(detector.rows, rounded)
    error[:channels] += form * FINE.unit / detector.spread[:channels]
    if detector.whitening is not None:
        sums = np.abs(detector.whitening).sum(axis=1)
        step = 2.0**-11 + 0.5 / 2**q.whitening_shift * 33 * channels
        error[:channels] = sums * error[:channels] + step
    return error


def twin_bound(detector, q, z, present, error):
    """Largest score difference (rows,) that the integer twin's roundings allow.

    The EWMA is off by the error of z, half a code of 2**-16 a sample, and half of 2**-10 where it is squared;
    that of squares by the error of z**2, a code of 2**-12 cut off, and half a code a sample.  Each part is
    cut to 2**-12.
    """
    here = np.hstack([present] * (detector.rows // detector.channels))
    zero = np.zeros(detector.rows)
    smoothed = np.abs(floating.average(z, detector.alpha, here, zero))
    smoothed_error = error + 2.0**-17 / detector.alpha + 2.0**-11
    square = 2 * smoothed * smoothed_error + smoothed_error**2 + 2.0**-12
    moved = floating.average(2 * np.abs(z) * error + error**2 + 2.0**-12, detector.alpha, here, zero)
    energy = moved + 2.0**-13 / detector.alpha
    return (detector.smoothed_gain * square + detector.energy_gain * energy + 2.0**-12).sum(axis=1)


def fitted(config, seed):
    """A stream in codes and in network units, with the predictor and detector fitted on its first part."""
    steps, channels = 2000, 4
    x, outputs, label = machine(steps, channels, seed)
    present = np.random.default_rng(seed).random(x.shape) > 0.02
    fine, codes = FINE.encode(held(x, present)), OUTPUT.encode(outputs).astype(np.int64)
    x, outputs = FINE.decode(fine), OUTPUT.decode(codes)
    normal = ~label & (np.arange(steps) < 1400)
    rows = Rows(x, present, np.zeros(steps, dtype=bool), normal)
    predictor, forecasts = fit_predictor(rows, 5)
    error = residuals(predictor, x, outputs, present)
    error += np.where(clean(rows, 5)[:, None], predictor.forecast(x) - forecasts, 0.0)
    detector = fit_detector(error, x, present, normal, config, floor=FINE.unit)
    return detector, predictor, fine, codes, present, label


@pytest.mark.parametrize(
    ("weighting", "smoothing", "threshold", "level"),
    [
        ("spread", "both", "sigma", 1.0), ("spread", "both", "pot", 0.0), ("spread", "square", "pot", 1.0),
        ("spread", "residual", "quantile", 0.0), ("mahalanobis", "both", "sigma", 1.0),
        ("mahalanobis", "both", "quantile", 0.0), ("mahalanobis", "residual", "pot", 1.0),
    ],
)  # fmt: skip
def test_integer_scores_stay_within_their_rounding_bound_of_the_float_scores(
    weighting, smoothing, threshold, level
):
    config = DetectorConfig(weighting=weighting, smoothing=smoothing, threshold=threshold, level=level)
    detector, predictor, fine, codes, present, label = fitted(config, seed=len(threshold))
    q = quantize_detector(detector, predictor, FINE, OUTPUT)
    x, outputs = FINE.decode(fine), OUTPUT.decode(codes)
    real = real_detection(detector, predictor, x, outputs, present)
    integer = floating.from_fixed(fixed.detect(q, fine, codes, present)[0])
    scored = slice(detector.warmup, None)
    assert present.any(axis=1).all()
    error = residuals(predictor, x, outputs, present)
    z = floating.standardize(detector, error[scored], x[scored], present[scored])
    bound = twin_bound(detector, q, z, present[scored], standardized_error(detector, predictor, q, fine))
    difference = np.abs(integer.score - real.score)
    assert (difference[: detector.warmup] == 0).all() and (difference[scored] <= bound).all()
    assert difference.max() < 0.02 * max(1.0, real.score.max())
    # the integer mean excess moves in steps of 2**-12 * 2**rate of a difference
    step = detector.threshold.gain * 2.0 ** (detector.threshold.rate - 12) + 2.0**-12
    np.testing.assert_allclose(integer.threshold, real.threshold, rtol=1e-3, atol=step)
    assert (integer.alarm != real.alarm).mean() < 0.002
    assert real.alarm[label].mean() > 0.5 and real.alarm[~label].mean() < 0.2


def test_both_twins_saturate_at_the_same_values():
    detector = Detector(
        np.zeros(2), np.array([0.02, 1.0]), 5.0, None, 1.0, 1.0, 0.0, Threshold("sigma", 9.0), 0.5, 1, 1
    )
    fine, zero, present = np.array([[0], [127], [-128], [0]]), np.zeros((4, 1), int), np.ones((4, 1), bool)
    predictor = LinearPredictor.none(1)
    q = quantize_detector(detector, predictor, FineCodes(1.0, 0), Quantization(1.0, 0))
    integer = floating.from_fixed(fixed.detect(q, fine, zero, present)[0])
    real = real_detection(detector, predictor, fine.astype(float), zero, present)
    largest = [(32767 / 1024) ** 2 + 25, 1024 + 25, 0]
    assert real.score[1:].tolist() == largest
    np.testing.assert_allclose(integer.score[1:], largest, rtol=0, atol=2.0**-11)  # two parts, each cut
