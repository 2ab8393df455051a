"""The integer detector against plain Python, at the ends of 32 bits, and its rounding from floats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detector_oracles import FineCodes, columns, integer_detector, largest_detector, real_detection
from edge_lstm.detection import fixed, floating
from edge_lstm.detection.fit import quantize_detector
from edge_lstm.detection.fixed import QDetector, detector_values
from edge_lstm.detection.floating import Detector
from edge_lstm.detection.thresholds import Threshold
from edge_lstm.errors import ModelError
from edge_lstm.predictor import LinearPredictor
from edge_lstm.qgraph import Quantization
from random_models import random_detector

FINE = FineCodes(0.0006, -448)
OUTPUT = Quantization(float(np.float32(0.031)), 11)
LINE = LinearPredictor(0.3 * np.ones((2, 2, 2)), [0.5, -0.25], [0.7, 0.2])


def same(detector, fine, forecast, present):
    """Assert that the integer detector is the plain one; returns the oracle's columns."""
    oracle = integer_detector(detector, fine.tolist(), forecast.tolist(), present.tolist())
    np.testing.assert_array_equal(columns(fixed.detect(detector, fine, forecast, present)[0]), oracle)
    return oracle


def codes(rng, steps, channels, output_bits=8):
    """Fine codes and output codes: smooth, loud, and at the rails."""
    most = 2 ** (output_bits - 1)
    fine = rng.integers(-600, 600, (steps, channels)).cumsum(axis=0)
    fine[steps // 2 : steps // 2 + 30] = rng.choice([-32768, 32767], (30, channels))
    fine[steps // 4 : steps // 4 + 8] = fine[steps // 4]
    return np.clip(fine, -32768, 32767), rng.integers(-most, most, (steps, channels))


# --- against plain integers ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(24))
def test_the_integer_detector_is_the_plain_one_sample_by_sample(seed):
    rng = np.random.default_rng(seed)
    channels, steps = int(rng.integers(1, 5)), 250
    bits, zeros = (8, 16)[seed % 3 == 2], rng.integers(-128, 128, 2).tolist()
    drawn = random_detector(rng, channels, 64 * zeros[0], zeros[1], bits)
    drawn = replace(drawn, ahead=(0, 1, 3, 16)[seed % 4], warmup=max(16, drawn.warmup))
    fine, forecast = codes(rng, steps, channels, bits)
    present = rng.random((steps, channels)) > 0.2 * (seed % 2)
    present[40:43] = False
    scores = fixed.detect(drawn, fine, forecast, present)[0].score
    base, mean = int(np.quantile(scores, 0.6)), int(drawn.depth > 0)
    lively = replace(drawn, base=base - mean, excess=int(scores.max()) // 50, score_mean=mean)
    oracle = same(lively, fine, forecast, present)
    follows = drawn.depth or drawn.adapt  # which may end all alarms
    assert not oracle[:, 1].all() and (oracle[:, 1].any() or follows)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_a_stream_in_pieces_gives_what_it_gives_at_once(ahead, seed):
    rng = np.random.default_rng(seed)
    detector = replace(random_detector(rng, 3, 320, -9), ahead=ahead)
    fine, forecast = codes(rng, 120, 3)
    present = rng.random((120, 3)) > 0.3
    whole, last = fixed.detect(detector, fine, forecast, present)
    state, parts = None, []
    for cut in np.split(np.arange(120), [0, 1, 2, 30, 31, 90]):
        part, state = fixed.detect(detector, fine[cut], forecast[cut], present[cut], state)
        parts.append(columns(part))
    np.testing.assert_array_equal(np.vstack(parts), columns(whole))
    for one, other in ((state, last), (state.scores, last.scores)):
        for name in set(one.__dataclass_fields__) - {"scores"}:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def worked(**changes):
    """One channel, a form of half the row before, a level within 2 spreads."""
    return QDetector(**{
        "start": 0, "lags": 1, "forms": [[2, -1]], "forms_shift": 1, "residual_weight": [2, 1],
        "output_weight": [100], "output_zero_point": 1, "offset": [30, 0], "shift": 1, "level_limit": 2048,
        "whitening": None, "whitening_shift": 0, "alpha": 128, "smoothed_gain": 256, "energy_gain": 128,
        "base": 10**6, "excess": 0, "gain": 0, "rate": 0, "clear": 128, "debounce": 1, "warmup": 1,
    } | changes)  # fmt: skip


def test_a_row_worked_by_hand():
    fine, forecast = np.array([[1000], [2001], [-9999]]), np.array([[3], [0], [0]])
    found, state = fixed.detect(worked(), fine, forecast, np.ones((3, 1), dtype=bool))
    # row 1: form (2 * 2001 - 1000) / 2 = 1501; (2 * 1501 - 100 * (3 - 1) - 30) / 2 = 1386
    # EWMA: 1386 * 64 / 2 = 44352, squared (693**2 >> 8) = 1875; of squares (1386**2 >> 8) = 7503 -> 3752
    # level: 2001 / 2 = 1001; 1001 * 64 / 2 = 32032, (501**2 >> 8) = 980; (1001**2 >> 8) = 3914 -> 1957
    # parts: (1875 * 256 + 3752 * 128) >> 8 = 3751; (980 * 256 + 1957 * 128) >> 8 = 1958
    assert found.score.tolist()[:2] == [0, 3751 + 1958]
    # row 2: form (-19998 - 2001) / 2 = -11000 (ties away); (-22000 - 100 * (0 - 1) - 30) / 2 = -10965
    # EWMA: 44352 + (-701760 - 44352) / 2 = -328704; level -5000 -> -2048: 32032 + (-131072 - 32032) / 2
    assert state.scores.smoothed.tolist() == [-328704, -49520]
    assert state.scores.energy.tolist() == [3752 + (469653 - 3752 + 1) // 2, 1957 + (16384 - 1957 + 1) // 2]
    assert (state.history.tolist(), state.forecast.tolist(), state.seen) == ([[-9999]], [[0]], 1)


def test_the_outputs_are_of_rows_so_many_ahead():
    """Without input, smoothing or level a contribution is the square of 100 * (y - 1) / 2."""
    fine, outputs = np.zeros((6, 1), dtype=int), np.array([[9], [3], [5], [1], [2], [7]])
    present = np.array([[True], [True], [False], [True], [True], [True]])
    expected = {0: [0, 3, 3, 1, 2, 7], 1: [0, 9, 9, 3, 1, 2], 3: [0, 0, 0, 0, 9, 3]}
    for ahead, read in expected.items():
        detector = worked(lags=0, forms=None, offset=[0], residual_weight=[1], level_limit=0, alpha=256,
                          energy_gain=0, ahead=ahead, warmup=max(1, ahead))  # fmt: skip
        found = fixed.detect(detector, fine, outputs, present)[0].score
        scored = [0 if y == 0 else ((50 * (y - 1)) ** 2) >> 8 for y in read]
        assert found.tolist() == scored, ahead


# --- the ends of 32 bits -------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [1, 255, 256])
@pytest.mark.parametrize("shift", [0, 20])
@pytest.mark.parametrize("bits", [8, 16])
def test_constants_at_the_ends_of_their_ranges_leave_no_sum_beyond_32_bits(alpha, shift, bits):
    rng = np.random.default_rng(alpha)
    low = -(2 ** (bits - 1))
    detector = replace(largest_detector(alpha, low, bits), shift=shift, forms_shift=15 * (shift > 0))
    fine = rng.choice([-32768, 32767], (300, 2))
    fine[100:200] = rng.choice([-32768, 32767], 2)
    forecast = rng.choice([low, -low - 1], (300, 2))
    same(detector, fine, forecast, np.ones((300, 2), dtype=bool))


@pytest.mark.parametrize("options", [
    {"adapt": 18, "adapt_limit": 3072, "usual": [0, 32767, 32767, 0], "base": 2**31 - 1, "clear": 256},
    {"adapt": 1, "adapt_limit": 3072, "usual": [32767] * 4, "knee": [1, 32767, 9, 32766], "base": 2**31 - 1},
    {"adapt": 18, "adapt_limit": 0, "usual": [0] * 4, "depth": 20, "score_mean": 2**31 - 1, "base": 0},
    {"depth": 20, "base": 2**30, "score_mean": 0}, {"depth": 1, "base": 0, "gain": 0, "excess": 0},
    {"depth": 20, "base": 2**31 - 1, "stuck": [1, 2], "hold": 65535, "cooldown": 65535},
])  # fmt: skip
def test_options_at_the_ends_of_their_ranges_leave_no_sum_beyond_32_bits(options):
    rng = np.random.default_rng(1)
    detector = replace(largest_detector(), **options)
    fine = np.repeat(rng.choice([-32768, 32767], (100, 2)), 3, axis=0)
    forecast = rng.choice([-128, 127], (300, 2))
    same(detector, fine, forecast, rng.random((300, 2)) > 0.1)


def test_the_largest_score_of_127_channels_fits_in_32_bits():
    n, steps = 127, 4
    detector = worked(
        lags=0, forms=None, residual_weight=[1] * 2 * n, output_weight=[0] * n, offset=[0] * 2 * n, shift=0,
        level_limit=32767, alpha=256, energy_gain=256,
    )  # fmt: skip
    fine = np.full((steps, n), -32768)
    found = fixed.detect(detector, fine, np.zeros((steps, n), int), np.ones((steps, n), dtype=bool))[0]
    assert found.contributions[-1].tolist() == [2**23 + 2 * (32767**2 >> 8)] * n
    assert found.score[-1] == n * found.contributions[-1, 0] < 254 * 2**23 < 2**31


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"residual_weight": [70000, 1]}, "a residual can exceed 32 bits"),
        ({"output_weight": [2**23 + 2**16]}, "a residual can exceed 32 bits"),
        ({"offset": [0, 2**31 - 2**19 - 32768]}, "a residual can exceed 32 bits"),
        ({"forms": [[32767, 32767]], "whitening": [[-32768]]}, None),
        ({"lags": 2, "warmup": 2, "forms": [[32767, 32767, 2]]}, "a row of forms can exceed 32 bits"),
        ({"forms": [[1]]}, r"forms is \(1, 1\), expected \(1, 2\)"),
        ({"forms": None}, "lags is 1 without forms, expected 0"),
        ({"whitening": [[1, 2]]}, r"whitening is \(1, 2\), expected \(1, 1\)"),
        ({"level_limit": 0}, "residual_weight and offset must have 1 entries, one a scored row"),
        ({"lags": 3, "forms": [[1, 0, 0, 0]]}, "warmup is 1, expected 3 .. 65535"),
        ({"smoothed_gain": 257}, "smoothed_gain is 257, expected 0 .. 256"),
        ({"start": 32768}, "start is 32768, expected -32768 .. 32767"),
        ({"output_bits": 16, "output_weight": [2**15]}, "a residual can exceed 32 bits"),
        ({"output_bits": 12}, "output_bits is 12, expected 8 or 16"),
        ({"ahead": 17, "warmup": 17}, "ahead is 17, expected 0 .. 16"),
        ({"ahead": 3}, "warmup is 1, expected 3 .. 65535"),
        ({"score_mean": 5}, "score_mean is 5, expected 0 .. 0"),
        ({"adapt": 3}, "adapt is 3, but usual is None; it takes both or none"),
        ({"adapt_limit": 5}, "adapt_limit is 5, expected 0 .. 0"),
        ({"adapt": 19, "usual": [1, 1]}, "adapt is 19, expected 0 .. 18"),
        ({"knee": [0, 5]}, "knee must have 2 entries of 1 .. 32767"),
        ({"stuck": [1, 5]}, "stuck must have 1 entries of 0 .. 65535"),
        ({"hold": 65536, "cooldown": -1}, "hold is 65536, expected 0 .. 65535"),
    ],
)
def test_constants_beyond_their_ranges_are_refused(changes, message):
    if message is None:
        worked(**changes)
        return
    with pytest.raises(ModelError, match=message):
        worked(**changes)


def test_plain_values_rebuild_the_detector():
    detector = random_detector(np.random.default_rng(1), 2, 3, 4)
    assert detector_values(QDetector(**detector_values(detector))) == detector_values(detector)


# --- rounding to integers ------------------------------------------------------------------------


def real_detector(spread=0.2, mean=0.03, size=1.5):
    whitening = size * np.array([[1.0, -0.4], [-0.4, 1.0]])
    return Detector(
        np.array([mean, -mean, 0.5, 0.0]), np.array([spread, 2 * spread, 1.0, 2.0]), 1.0, whitening,
        0.25, 0.5, 1.0, Threshold("pot", 1.25, 7.3, 0.6, 8), 0.75, 3, 9,
    )  # fmt: skip


def test_integer_constants_are_the_real_ones_rounded_in_their_units():
    q = quantize_detector(real_detector(), LINE, FINE, OUTPUT)
    unit = 2.0 ** (10 + q.shift)
    assert q.residual_weight.tolist() == [round(0.0006 / s * unit) for s in (0.2, 0.4, 1.0, 2.0)]
    assert q.output_weight.tolist() == [
        round(OUTPUT.scale * 0.7 / 0.2 * unit), round(OUTPUT.scale * 0.2 / 0.4 * unit)
    ]  # fmt: skip
    past = round(0.3 * 2**q.forms_shift)
    one = 2**q.forms_shift
    assert q.forms.tolist() == [[one, 0] + [-past] * 4, [0, one] + [-past] * 4]
    assert q.forms_shift == 14 and (q.lags, q.start, q.output_zero_point) == (2, -448, 11)
    zero = 0.0006 * -448 * (one - 4 * past) / one  # what the forms give of rows of zeros
    offsets = [(zero + 0.5 + 0.03) / 0.2, (zero - 0.25 - 0.03) / 0.4, 0.5 - 0.2688, -0.1344]
    np.testing.assert_allclose(q.offset, np.array(offsets) * unit, rtol=0, atol=0.5 + 1e-6)
    assert (q.base, q.excess, q.gain) == (round(1.25 * 2**12), round(0.6 * 2**12), round(7.3 * 256))
    assert (q.alpha, q.smoothed_gain, q.energy_gain, q.level_limit) == (64, 128, 256, 1024)
    assert (q.clear, q.rate, q.debounce, q.warmup) == (192, 8, 3, 9)
    assert q.whitening.tolist() == [
        [round(w * 2**q.whitening_shift) for w in row] for row in [[1.5, -0.6], [-0.6, 1.5]]
    ]


def test_the_offset_takes_away_what_the_rounded_forms_make_of_the_start_code():
    kernel = np.array([4.3, -4.45])[:, None, None] * np.ones((2, 2, 2))
    line, fine = LinearPredictor(kernel, [0.5, -0.25], [1, 1]), FineCodes(0.0006, -8192)
    detector = replace(real_detector(), whitening=None, alpha=1.0, smoothed_gain=1.0, energy_gain=0.0)
    q = quantize_detector(detector, line, fine, OUTPUT)
    zeros, present = np.zeros((12, 2)), np.ones((12, 2), dtype=bool)
    rows = np.full((12, 2), -8192), np.full((12, 2), 11)
    real = real_detection(replace(detector, mean=detector.mean + np.array([0.5, -0.25, 0, 0])),
                          LinearPredictor.none(2), zeros, zeros, present)  # fmt: skip
    integer = floating.from_fixed(fixed.detect(q, *rows, present)[0])
    assert 6 < real.score[-1] < 9
    # half a fine code is 0.0015 spreads; the forms' own rounding would be 6 of them
    np.testing.assert_allclose(integer.score, real.score, atol=2 * 3 * 0.0025)


def test_a_detector_warms_up_until_its_lags_are_full():
    line = LinearPredictor(np.zeros((12, 2, 2)), np.zeros(2), np.ones(2))
    assert quantize_detector(real_detector(), line, FINE, OUTPUT).warmup == 12


def test_without_a_line_the_fine_codes_are_the_forms():
    q = quantize_detector(real_detector(), LinearPredictor.none(2), FINE, OUTPUT)
    assert (q.forms, q.lags, q.forms_shift) == (None, 0, 0)


@pytest.mark.parametrize("spread", [1e-3, 0.02, 0.2, 50.0])
@pytest.mark.parametrize("size", [0.01, 1.0, 30.0, 9000.0])
def test_shifts_are_the_largest_that_cannot_overflow(spread, size):
    q = quantize_detector(real_detector(spread=spread, size=size), LINE, FINE, OUTPUT)
    twice = 2 * (32768 * np.abs(q.residual_weight) + np.abs(q.offset))
    twice[:2] += 2 * 255 * q.output_weight
    assert q.shift == 20 or twice.max() > 0.97 * 2**31  # one bit more would leave 32 bits, or nearly
    for matrix, shift in ((q.whitening, q.whitening_shift), (q.forms, q.forms_shift)):
        rows = np.abs(2 * matrix.astype(np.int64))
        assert shift == 15 or rows.max() > 32766 or rows.sum(axis=1).max() > 65530


@pytest.mark.parametrize("below", [0.4, 1e-3, 2e-4, 1e-5, 1e-9])
def test_constants_that_almost_fill_32_bits_lose_a_bit_and_fit(below):
    """The sum is ``64 * (1 - below)``, so that a shift of 15 leaves nothing, or next to nothing."""
    mean = 64 * (1 - below) - 32 - 255 / 64
    detector = Detector([mean], [1.0], 0.0, None, 1.0, 1.0, 0.0, Threshold("sigma", 1.0), 0.5, 1, 1)
    none = LinearPredictor.none(1)
    q = quantize_detector(detector, none, FineCodes(2.0**-10, 0), Quantization(2.0**-6, 0))
    assert q.shift == (15 if below > 2**20 / 2**31 else 14)


def test_a_detector_that_does_not_fit_in_integers_is_refused():
    with pytest.raises(ModelError, match=r"channel 0 has a spread of 1e-07 .* fit it with a larger floor"):
        quantize_detector(real_detector(spread=1e-7, mean=0.0), LINE, FINE, OUTPUT)
    with pytest.raises(ModelError, match=r"whitening's largest entry is 6e\+04.*weighting = \"spread\""):
        quantize_detector(real_detector(size=6e4), LINE, FINE, OUTPUT)
    steep = replace(LINE, kernel=LINE.kernel * 2e5)
    with pytest.raises(ModelError, match=r"linear predictor's largest entry is 6e\+04.*use fewer lags"):
        quantize_detector(real_detector(), steep, FINE, OUTPUT)
    high = replace(real_detector(), threshold=Threshold("sigma", 2.0**20))
    with pytest.raises(
        ModelError, match=r"threshold's base is 1.049e\+06, expected below 524288; scores end"
    ):
        quantize_detector(high, LINE, FINE, OUTPUT)
