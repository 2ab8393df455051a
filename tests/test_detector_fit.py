"""Thresholds and the fit of a detector: what is estimated from which rows, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import genpareto

from edge_lstm.detection import floating
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.detection.fit import fit_detector, fit_threshold
from edge_lstm.detection.thresholds import (
    Threshold,
    pareto_shape,
    pot_gain,
    pot_threshold,
    quantile_threshold,
    sigma_threshold,
)
from edge_lstm.errors import ConfigError, DataError, ModelError
from test_detect import machine

QUICK = DetectorConfig(warmup=1, threshold="quantile", smoothing="residual", level=0.0)


def fit(residual, present, normal, config=QUICK, floor=0.01, x=None):
    """Fit on residuals alone, of inputs that stay 0."""
    return fit_detector(
        residual, np.zeros(residual.shape) if x is None else x, present, normal, config, floor
    )


def everywhere(residual):
    """All present, all normal."""
    return np.ones(residual.shape, dtype=bool), np.ones(len(residual), dtype=bool)


# --- thresholds ----------------------------------------------------------------------------------


def test_quantile_and_sigma_thresholds_are_what_they_say():
    score = np.arange(101.0)
    assert quantile_threshold(score, 0.9) == Threshold("quantile", 90.0)
    # 0 .. 98 are the usual ones
    assert sigma_threshold(score, 2.0).value == pytest.approx(49 + 2 * np.sqrt((99**2 - 1) / 12))


def test_the_highest_fiftieth_of_the_scores_does_not_raise_a_sigma_threshold():
    score = np.random.default_rng(0).exponential(size=1000)
    faulty = score.copy()
    faulty[np.argsort(score)[-19:]] *= 1000
    assert sigma_threshold(faulty, 15.0) == sigma_threshold(score, 15.0)


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
            weighting="best", smoothing="none", alpha=0, level=32, threshold="max", quantile=0.1, sigma=-1,
            risk=0.3, tail=0.9, rate=-1, debounce=0, clear=0, warmup=0,
        )  # fmt: skip
    for name in ("weighting", "smoothing", "alpha", "level", "threshold", "quantile", "sigma", "tail", "rate",
                 "debounce", "clear", "warmup"):  # fmt: skip
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
    detector = fit(residual, present, normal)
    for channel in range(2):
        rows = np.flatnonzero(present[:, channel] & normal)
        rows = rows[rows > np.flatnonzero(present.any(axis=1))[0]]  # the warm-up row
        assert detector.mean[channel] == pytest.approx(residual[rows, channel].mean())
        assert detector.spread[channel] == pytest.approx(residual[rows, channel].std())


def test_a_level_has_the_mean_of_the_inputs_and_their_spread_around_means_of_other_times():
    rng = np.random.default_rng(11)
    x = rng.normal(size=(501, 1)) + np.repeat([0.0, 5, 0, 0, 0], 101)[:501, None]
    residual = rng.normal(size=(501, 1))
    config = replace(QUICK, level=2.0)
    detector = fit(residual, *everywhere(residual), config, x=x)
    assert (detector.rows, detector.level_limit) == (2, 2.0)
    learnt = x[1:, 0]
    assert detector.mean[1] == pytest.approx(learnt.mean())
    pieces = np.split(learnt, 5)
    apart = [
        piece - np.delete(learnt, slice(k * 100, k * 100 + 100)).mean() for k, piece in enumerate(pieces)
    ]
    assert detector.spread[1] == pytest.approx(np.sqrt(np.mean(np.concatenate(apart) ** 2)))
    assert detector.spread[1] > learnt.std()


def test_an_input_that_never_varies_has_a_level_of_the_smallest_spread():
    residual = np.random.default_rng(1).normal(size=(300, 1))
    detector = fit(residual, *everywhere(residual), replace(QUICK, level=1.0), x=np.full((300, 1), 0.7))
    assert (detector.mean[1], detector.spread[1]) == (pytest.approx(0.7), 0.05)


def test_both_averages_are_weighed_so_that_their_99th_percentiles_are_equal():
    rng = np.random.default_rng(12)
    residual = rng.normal(size=(5000, 2))
    present, normal = everywhere(residual)
    detector = fit(residual, present, normal, replace(QUICK, smoothing="both", alpha=0.1))
    z = floating.standardize(detector, residual[1:], residual[1:], present[1:])
    tops = []
    for gains in ((detector.smoothed_gain, 0.0), (0.0, detector.energy_gain)):
        alone = replace(detector, smoothed_gain=gains[0], energy_gain=gains[1])
        tops.append(np.quantile(floating.score_rows(alone, z, present[1:]), 0.99))
    assert max(detector.smoothed_gain, detector.energy_gain) == 1.0
    assert tops[0] == pytest.approx(tops[1], rel=0.03)  # the smaller weight is a multiple of 1 / 256


@pytest.mark.parametrize(("smoothing", "gains"), [("residual", (1.0, 0.0)), ("square", (0.0, 1.0))])
def test_one_average_alone_has_the_whole_weight(smoothing, gains):
    residual = np.random.default_rng(0).normal(size=(300, 1))
    detector = fit(residual, *everywhere(residual), replace(QUICK, smoothing=smoothing))
    assert (detector.smoothed_gain, detector.energy_gain) == gains


def test_the_threshold_is_that_of_the_scores_of_the_normal_rows():
    residual = np.random.default_rng(3).normal(size=(1001, 1))
    present, normal = everywhere(residual)
    detector = fit(residual, present, normal, replace(QUICK, alpha=1.0))
    z = (residual[1:, 0] - residual[1:, 0].mean()) / residual[1:, 0].std()
    assert detector.threshold.value == pytest.approx(np.quantile(z**2, 0.999))


def test_rows_that_are_not_normal_do_not_reach_the_fit():
    x, residual, label = machine(2000, 3, 0)
    present = np.ones(x.shape, dtype=bool)
    one, other = (
        fit_detector(residual + 50.0 * k * label[:, None], x + 9.0 * k * label[:, None], present, ~label,
                     DetectorConfig())
        for k in (0, 1)
    )  # fmt: skip
    assert one.mean.tolist() == other.mean.tolist() and one.spread.tolist() == other.spread.tolist()
    assert (one.smoothed_gain, one.energy_gain) == (other.smoothed_gain, other.energy_gain)
    assert one.threshold == other.threshold


def test_a_channel_that_never_varies_gets_the_floor_as_its_spread():
    rng = np.random.default_rng(4)
    residual = np.column_stack([rng.normal(size=500), np.full(500, 0.25)])
    present, normal = everywhere(residual)
    for weighting in ("spread", "mahalanobis"):
        detector = fit(residual, present, normal, replace(QUICK, weighting=weighting), floor=0.02)
        assert (detector.mean[1], detector.spread[1]) == (pytest.approx(0.25), 0.02)
        stuck = np.tile([0.0, 0.25], (50, 1))
        assert floating.scan(detector, stuck, stuck, present[:50]).score.max() < 0.1


def test_mahalanobis_whitening_gives_uncorrelated_unit_residuals_each_closest_to_its_channel():
    rng = np.random.default_rng(6)
    mixing = np.array([[1.0, 0.7, 0.2], [0.0, 0.8, 0.3], [0.0, 0.0, 2.0]])
    residual = rng.normal(size=(20000, 3)) @ mixing
    present, normal = everywhere(residual)
    detector = fit(residual, present, normal, replace(QUICK, weighting="mahalanobis"))
    z = floating.standardize(detector, residual, residual, present)
    np.testing.assert_allclose(np.cov(z.T), np.eye(3), atol=0.02)
    assert np.abs(np.corrcoef(z.T, residual.T)[:3, 3:]).argmax(axis=0).tolist() == [0, 1, 2]
    # alpha 1: the score is the squared Mahalanobis distance
    distance = np.einsum("ti,ij,tj->t", residual, np.linalg.inv(np.cov(residual.T)), residual)
    raw = replace(detector, alpha=1.0, mean=np.zeros(3))
    score = floating.score_rows(raw, floating.standardize(raw, residual, residual, present), present)
    np.testing.assert_allclose(score, distance, rtol=0.05)


def test_duplicate_channels_are_not_magnified_beyond_ten():
    shared = np.random.default_rng(7).normal(size=(500, 1))
    residual = np.hstack([shared, shared])
    detector = fit(residual, *everywhere(residual), replace(QUICK, weighting="mahalanobis"))
    assert np.linalg.eigvalsh(detector.whitening).max() <= 10.0 + 1e-9


def test_alpha_and_clear_are_rounded_to_what_the_integer_twin_can_hold():
    residual = np.random.default_rng(8).normal(size=(300, 1))
    detector = fit(residual, *everywhere(residual), replace(QUICK, alpha=0.1, clear=0.7))
    assert (detector.alpha, detector.clear) == (26 / 256, 179 / 256)


def test_too_few_or_unusable_rows_are_refused_with_figures():
    rng = np.random.default_rng(9)
    residual = rng.normal(size=(300, 2))
    present, normal = everywhere(residual)
    few = normal & (np.arange(300) < 40)
    with pytest.raises(DataError, match=r"(?s)channel 0 has 39 normal rows.*channel 1.*give more normal"):
        fit(residual, present, few)
    once = present.copy()
    once[:, 1] = False
    with pytest.raises(DataError, match=r"channel 1 has 0 normal rows with a residual, expected 50 or more"):
        fit(residual, once, normal)
    apart = np.zeros_like(present)
    apart[::2, 0] = apart[1::2, 1] = True
    with pytest.raises(DataError, match=r'0 normal rows with every channel present.*weighting = "spread"'):
        fit(residual, apart, normal, replace(QUICK, weighting="mahalanobis"))
    with pytest.raises(DataError, match="residuals hold NaN or infinity; the forecaster diverged"):
        fit(np.where(residual > 2, np.inf, residual), present, normal)
    with pytest.raises(DataError, match="the spread's floor is 0, expected a number above 0"):
        fit(residual, present, normal, floor=0)


def test_a_threshold_that_no_score_can_reach_is_refused():
    residual = np.random.default_rng(10).normal(size=(1001, 1))
    residual[800:][::3] = 1e4
    config = replace(QUICK, threshold="sigma", sigma=1000, alpha=1.0)
    with pytest.raises(
        DataError, match=r'scores of 1 channels end at 2048: it could never alarm.*"quantile"'
    ):
        fit(residual, *everywhere(residual), config)


def test_each_kind_of_threshold_is_the_one_asked_for():
    score = np.random.default_rng(0).exponential(size=500)
    for kind in ("quantile", "sigma", "pot"):
        assert fit_threshold(score, DetectorConfig(threshold=kind)).kind == kind
