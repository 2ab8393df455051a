"""Thresholds and the fit of a detector: what is estimated from which rows, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import genpareto

from edge_lstm.detection import floating
from edge_lstm.detection.fit import (
    DetectorConfig,
    fit_detector,
    fit_residuals,
    fit_threshold,
)
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

QUICK = DetectorConfig(warmup=1, holdout=0.0, threshold="quantile")


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
