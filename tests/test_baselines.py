"""The simple methods against statsmodels and by hand, their honest thresholds, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from statsmodels.tsa.api import ARIMA, VAR, AutoReg

from edge_lstm.detection import linear as linear_module
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.detection.linear import Rows
from edge_lstm.errors import DataError
from edge_lstm.evaluation.baselines import default_baselines, run_baseline
from edge_lstm.evaluation.forecast import forecast_metrics
from edge_lstm.evaluation.methods import Arima, Autoencoder, Baseline, Forest, Line, Seasonal, WindowPca
from edge_lstm.evaluation.metrics import auc_pr, evaluate_stream
from test_evaluate import flags

CONFIG = DetectorConfig()
NO_RIDGE, ROUNDING = 1e-12, 1e-6  # what is left between two solvers of the same least squares


def machine(steps=3000, channels=3, seed=0):
    """An autoregressive stream of correlated channels whose first one jumps in two labelled faults."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(steps, channels)) @ (np.eye(channels) + 0.3)
    x = np.zeros((steps, channels))
    for t in range(2, steps):
        x[t] = 1.2 * x[t - 1] - 0.4 * x[t - 2] + 0.3 * noise[t]
    label = flags(steps, (steps * 7 // 10, steps * 7 // 10 + 50), (steps * 9 // 10, steps * 9 // 10 + 50))
    x[label == 1, 0] += 3.0
    return x, label


def stream(x, normal=None):
    """Rows of a complete stream."""
    steps = len(x)
    return Rows(
        x,
        np.ones(x.shape, dtype=bool),
        np.zeros(steps, dtype=bool),
        np.ones(steps, dtype=bool) if normal is None else normal,
    )


def run_all(x, present=None, gap=None, train=1800, config=CONFIG, baselines=None):
    steps = len(x)
    present = np.ones(x.shape, dtype=bool) if present is None else present
    gap = np.zeros(steps, dtype=bool) if gap is None else gap
    normal = np.arange(steps) < train
    chosen = default_baselines(stream(x, normal)) if baselines is None else baselines
    return [run_baseline(baseline, x, present, gap, normal, config) for baseline in chosen]


def quick(channels, rows=1800):
    """The baselines that take no time to learn."""
    lines = [line(method, channels, rows) for method in ("zscore", "ewma", "persistence", "var", "pca")]
    return [*lines, Seasonal(7), Arima()]


def line(method, channels=3, rows=3000):
    return Line(method, channels, rows)


def fitted(baseline, rows):
    baseline.fit(rows)
    return baseline


def test_a_var_forecasts_what_statsmodels_forecasts(monkeypatch):
    monkeypatch.setattr(linear_module, "RIDGE", NO_RIDGE)
    x, _ = machine()
    linear, lags = fitted(line("var", 3, 3000), stream(x)), 11
    residual, present = linear.residuals(stream(x))
    assert linear.name == "VAR(11)"
    assert present[:, 0].tolist() == [False] * lags + [True] * (len(x) - lags)
    np.testing.assert_allclose(residual[lags:], VAR(x).fit(lags).resid, atol=ROUNDING)


def test_an_ar_forecasts_what_statsmodels_forecasts(monkeypatch):
    monkeypatch.setattr(linear_module, "RIDGE", NO_RIDGE)
    x, _ = machine(channels=1)
    linear = fitted(line("var", 1, 3000), stream(x))
    assert linear.name == "AR(16)"
    np.testing.assert_allclose(
        linear.residuals(stream(x))[0][16:, 0], AutoReg(x[:, 0], 16).fit().resid, atol=ROUNDING
    )


@pytest.mark.parametrize("channels", [1, 2])
def test_an_arima_filters_as_statsmodels_does_and_recovers_the_process(channels):
    x, _ = machine(channels=channels)
    arima = fitted(Arima(), stream(x))
    residual, present = arima.residuals(stream(x))
    assert present[:, 0].tolist() == [False] * 4 + [True] * (len(x) - 4)
    for channel, (ar, ma) in enumerate(arima._filters):
        reference = ARIMA(x[:, channel], order=(2, 1, 1)).filter([*-ar[1:], ma[1], 1.0]).resid
        # statsmodels begins with the process's own variance, the filter at 0; both forget it
        np.testing.assert_allclose(residual[200:, channel], reference[200:], atol=0.05)
        assert residual[:, channel].std() < 1.2 * np.diff(x[:, channel]).std()


def test_an_arima_of_what_it_cannot_describe_does_not_diverge():
    t = np.arange(3000)
    x = np.column_stack([np.zeros(3000), t % 2, np.sin(t / 9), np.random.default_rng(1).normal(size=3000)])
    residual, _ = fitted(Arima(), stream(x)).residuals(stream(x))
    assert np.abs(residual).max() < 10


def test_too_few_rows_shorten_the_lags_and_the_name_says_so():
    assert line("var", 6, 60).name == "VAR(5)"
    assert line("var", 6, 10**5).name == "VAR(5)"
    assert line("var", 1, 12).name == "AR(6)"


def test_constant_and_duplicate_channels_do_no_harm():
    x, label = machine(steps=1500)
    x = np.column_stack([x, x[:, 0], np.full(len(x), 2.0)])
    for result in run_all(x, train=900):
        assert np.isfinite(result.detection.score).all()
        assert evaluate_stream(result.detection.score, result.detection.alarm, label).auc_pr > 0.05


def test_a_z_score_is_the_deviation_from_the_training_mean_in_spreads_of_means_of_other_times():
    x, _ = machine(channels=1)
    present, gap = np.ones(x.shape, dtype=bool), np.zeros(len(x), dtype=bool)
    result = run_baseline(
        line("zscore"), x, present, gap, np.arange(len(x)) < 1000, replace(CONFIG, warmup=1)
    )
    apart = np.concatenate(
        [x[k : k + 200, 0] - np.delete(x[:1000, 0], slice(k, k + 200)).mean() for k in range(0, 1000, 200)]
    )[1:]
    z = (x[1:, 0] - x[:1000, 0].mean() - apart.mean()) / apart.std()
    np.testing.assert_allclose(result.detection.score[1:], z**2, atol=1e-9)
    np.testing.assert_allclose(result.expected, x[:1000].mean(), atol=1e-12)


def test_an_ewma_chart_smooths_the_z_score():
    x, _ = machine(channels=1)
    raw, smooth = (
        run_all(x, config=replace(CONFIG, alpha=0.25), baselines=[line(method, 1)])[0].detection.score
        for method in ("zscore", "ewma")
    )
    z = np.sqrt(raw)
    assert np.abs(np.diff(smooth[40:])).mean() < np.abs(np.diff(raw[40:])).mean()
    assert np.corrcoef(z[40:], np.sqrt(smooth[40:]))[0, 1] > 0.7


def test_persistence_expects_the_last_row():
    x, _ = machine(channels=2)
    residual, present = fitted(line("persistence", 2), stream(x)).residuals(stream(x))
    np.testing.assert_array_equal(residual[1:], np.diff(x, axis=0))
    assert present[:, 0].tolist() == [False] + [True] * (len(x) - 1)


def test_seasonal_naive_expects_the_row_a_period_before():
    x, _ = machine(channels=2)
    seasonal = Seasonal(12)
    residual, present = seasonal.residuals(stream(x))
    np.testing.assert_array_equal(residual[12:], x[12:] - x[:-12])
    assert seasonal.name == "seasonal naive (12 rows)"
    assert present[:, 0].tolist() == [False] * 12 + [True] * (len(x) - 12)
    short = Seasonal(50).residuals(stream(x[:20]))
    assert short[0].shape == (20, 2) and not short[1].any()


def test_the_period_of_the_seasonal_baseline_is_that_of_the_rows_to_learn_from():
    t = np.arange(2000)
    x = np.sin(2 * np.pi * t / 25)[:, None]
    x[1000:, 0] = np.sin(2 * np.pi * t[1000:] / 60)
    names = [baseline.name for baseline in default_baselines(stream(x, t < 1000))]
    assert names == [
        "z-score", "EWMA chart", "persistence", "AR(16)", "PCA", "seasonal naive (25 rows)", "ARIMA(2,1,1)",
        "isolation forest", "dense autoencoder",
    ]  # fmt: skip


def test_pca_keeps_nine_tenths_of_the_variance_and_leaves_what_is_orthogonal():
    rng = np.random.default_rng(3)
    plane = rng.normal(size=(1000, 2)) @ np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    x = plane + 0.01 * rng.normal(size=plane.shape)
    residual, _ = fitted(line("pca"), stream(x)).residuals(stream(x))
    along = np.array([1.0, -1.0, 0.0]) / np.sqrt(2)
    # the fitted plane is tilted by about 0.01 / sqrt(1000)
    np.testing.assert_allclose(residual, np.outer((x - x.mean(axis=0)) @ along, along), atol=3e-3)


@pytest.mark.parametrize("kind", [WindowPca, Autoencoder, Forest])
def test_window_methods_see_the_shape_of_one_channel(kind):
    t = np.arange(2000)
    x = (np.sin(2 * np.pi * t / 20) + 0.05 * np.random.default_rng(4).normal(size=2000))[:, None]
    x[1500:1510, 0] = 0.0  # within the range of values, but not of shapes
    everywhere, gap = np.ones(x.shape, dtype=bool), np.zeros(2000, dtype=bool)
    result = run_baseline(kind(), x, everywhere, gap, t < 1200, CONFIG)
    label = flags(2000, (1500, 1542))
    assert result.expected is None and not result.detection.score[:32].any()
    assert auc_pr(result.detection.score[1200:], label[1200:]) > 0.8
    assert fitted(kind(), stream(x, t < 1200)).residuals(stream(x))[0].shape == (2000, 1)


@pytest.mark.parametrize("kind", [Autoencoder, Forest])
def test_methods_of_rows_find_a_broken_correlation_and_learn_alike_twice(kind):
    rng = np.random.default_rng(5)
    shared = rng.normal(size=(1500, 1))
    x = shared * [1.0, -0.8, 0.6] + 0.05 * rng.normal(size=(1500, 3))
    x[1300:1330] = rng.permuted(x[1300:1330], axis=0) * [2.0, 2.0, -2.0]
    rows = stream(x, np.arange(1500) < 1000)
    (one, _), (two, _) = (fitted(kind(), rows).residuals(stream(x)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    size = np.linalg.norm(one - one[:1000].mean(axis=0), axis=1)
    assert np.median(size[1300:1330]) > 2 * np.median(size[:1300])


def test_baselines_pass_over_empty_rows_and_mask_missing_channels():
    x, _ = machine()
    rng = np.random.default_rng(5)
    present = rng.random(x.shape) > 0.05
    present[700:720] = False
    full = np.repeat(present[:, :1] | True, 3, axis=1)
    full[700:720] = False
    kept = full.any(axis=1)
    for masked, whole, dense in zip(
        run_all(np.where(present, x, np.nan), present, baselines=quick(3)),
        run_all(np.where(full, x, np.nan), full, baselines=quick(3)),
        run_all(x[kept], train=1780, baselines=quick(3)),
        strict=True,
    ):
        assert np.isfinite(masked.detection.score).all()
        np.testing.assert_allclose(whole.detection.score[kept], dense.detection.score, rtol=1e-9, atol=1e-12)
        assert len(set(whole.detection.score[699:720])) == 1
        if masked.expected is not None:
            assert np.isnan(masked.expected[~present]).all()


def test_each_forecasting_baseline_gives_the_forecast_of_each_row():
    x, _ = machine()
    results = {result.name: result for result in run_all(x, baselines=quick(3))}
    np.testing.assert_allclose(results["persistence"].expected[1:], x[:-1], atol=1e-12)
    line = results["VAR(11)"]
    known = np.isfinite(line.expected)
    assert known[:, 0].tolist() == [False] * 11 + [True] * (len(x) - 11)
    assert forecast_metrics(x, line.expected, known, "abc").r2 > 0.7
    assert results["PCA"].expected is None


def test_a_var_finds_the_faults_of_an_autoregressive_machine():
    x, label = machine()
    result = run_all(x, baselines=[line("var", 3, 1800)])[0]
    metrics = evaluate_stream(result.detection.score[1800:], result.detection.alarm[1800:], label[1800:])
    assert (metrics.found, metrics.events) == (2, 2)
    assert metrics.false_alarms <= 2


def test_a_method_that_learns_its_rows_by_heart_gets_an_honest_threshold():
    """Rows that are remembered leave no residual; what the threshold is made of has not been seen."""

    class Memory(Baseline):
        name = "memory"

        def fit(self, rows):
            self._seen = {row.tobytes() for row in rows.x[rows.normal]}

        def residuals(self, rows):
            known = np.array([row.tobytes() in self._seen for row in rows.x])
            return np.where(known[:, None], 0.0, rows.x), rows.present

    x = np.random.default_rng(0).normal(size=(1000, 1))
    result = run_all(x, train=600, baselines=[Memory()])[0].detection
    honest = run_all(x, train=600, baselines=[line("ewma", 1)])[0].detection
    assert result.score[32:600].max() < 0.01 * result.threshold[0]
    assert 0.5 < result.threshold[0] / honest.threshold[0] < 2 and not result.alarm.any()


def test_unusable_streams_are_refused_with_figures():
    x, _ = machine(steps=200)
    present, gap = np.ones(x.shape, dtype=bool), np.zeros(200, dtype=bool)
    with pytest.raises(
        DataError, match=r"x \(200, 3\), present \(200, 3\), gap \(3,\), normal \(200,\): expected"
    ):
        run_baseline(line("ewma"), x, present, gap[:3], ~gap, CONFIG)
    with pytest.raises(DataError, match="x holds NaN or infinity where it is present"):
        run_baseline(line("ewma"), np.where(x > 1, np.nan, x), present, gap, ~gap, CONFIG)
    few = stream(x, np.arange(200) < 3)
    with pytest.raises(DataError, match="linear predictor: 0 normal rows that follow 4 normal rows"):
        line("var", 8, 3000).fit(few)
    for baseline in (line("pca"), Forest(), Autoencoder()):
        with pytest.raises(
            DataError, match=f"baseline {baseline.name}: 3 normal rows for 3 columns; give more"
        ):
            baseline.fit(few)
    for nothing in (np.zeros_like(present), present):
        for baseline in (line("zscore"), line("persistence"), Seasonal(3), line("var", 3, 0)):
            with pytest.raises(DataError, match="expected 50 or more|0 normal rows that follow"):
                run_baseline(baseline, x, nothing, gap, gap, CONFIG)
        with pytest.raises(DataError, match="baseline PCA: 0 normal rows"):
            run_baseline(line("pca"), x, nothing, gap, gap, CONFIG)
