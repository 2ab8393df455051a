"""Forecasts several rows ahead, and the autoencoder: what they learn, what they see, and the same in C."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from edge_lstm.datasets.dataset import Dataset
from edge_lstm.detection import fixed
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.detection.linear import Rows, clean, fit_predictor
from edge_lstm.errors import ConfigError
from edge_lstm.evaluation.methods import Line
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.graph import Graph
from edge_lstm.layer_types import Dense
from edge_lstm.qgraph import QGraph
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.training.config import TrainConfig
from edge_lstm.training.figures import forecast_figures
from edge_lstm.training.fit import Prepared, fresh_graph, prepare, prepare_again
from edge_lstm.training.removal import kept_units, remove_units
from edge_lstm.training.stack import stack_weights, unstack
from edge_lstm.verbs import evaluate
from edge_lstm.verbs.detectors import float_detection, held_out_errors, int8_detection
from edge_lstm.verbs.quantize import quantize_rows
from edge_lstm.verbs.streams import counts_of, network_rows
from firmware_tools.cores import core_named
from firmware_tools.emulator import EmulatedExecutor, build_machine
from firmware_tools.host import HostExecutor, load_library
from test_leakage import TRAIN, corrupted, pump, same_until

LEVEL = DetectorConfig(level=4.0)


def tones(rows: int = 1500) -> Dataset:
    """Two channels whose every row is a linear function of rows long before it, but for a little noise."""
    t = np.arange(float(rows))
    values = np.stack([3 * np.sin(0.3 * t), 5 + 2 * np.sin(0.11 * t + 1) + np.sin(0.3 * t)], axis=1)
    values += np.random.default_rng(0).normal(0, 1e-3, values.shape)
    return Dataset(
        ("a", "b"), ("", ""), values, ~np.isnan(values), np.zeros(rows, dtype=bool), None, t, period_s=1.0
    )


def fresh(dataset: Dataset, config: TrainConfig) -> tuple[Prepared, Graph]:
    """What training starts from."""
    prepared = prepare(dataset, config)
    return prepared, fresh_graph(config, prepared.stream, dataset.channels, "fresh", prepared.predictor)


@cache
def drawn(ahead: int) -> tuple[QGraph, Graph]:
    """A network of the pump with random weights, and in integers with its detector."""
    _, graph = fresh(pump(), replace(TRAIN, ahead=ahead, units=(8,)))
    rng = np.random.default_rng(ahead)
    *layers, head = graph.layers
    assert isinstance(head, Dense)
    head = replace(head, kernel=rng.normal(0, 0.3, head.kernel.shape), bias=rng.normal(0, 0.1, head.outputs))
    graph = replace(graph, layers=(*layers, head))
    rows = network_rows(pump(), graph.stream, TRAIN)
    return quantize_rows(graph, rows, QuantizeConfig(), LEVEL if ahead == 0 else DetectorConfig())[0], graph


# --- the line and what the network learns --------------------------------------------------------


def test_a_sum_of_tones_is_forecast_four_rows_ahead() -> None:
    prepared, graph = fresh(tones(), TrainConfig(ahead=4, units=(2,)))
    figures = forecast_figures(graph, prepared.parts.test, 8)
    assert min(figures["r2"].values()) > 0.9999
    assert figures["persistence_r2_mean"] < 0.7


def test_the_line_looks_as_far_ahead_as_it_should() -> None:
    rng, turn = np.random.default_rng(1), np.array([[0.8, 0.5], [-0.5, 0.8]])
    x = np.zeros((4000, 2))
    for t in range(1, len(x)):
        x[t] = x[t - 1] @ turn + rng.normal(0, 0.3, 2)
    rows = Rows(x, np.ones(x.shape, dtype=bool), np.zeros(len(x), dtype=bool), np.ones(len(x), dtype=bool))
    predictor, forecasts = fit_predictor(rows, 1, 3)
    assert predictor.lags == 3 and not predictor.kernel[:2].any()
    # 4,000 rows: weights are off by some 1 / sqrt(4000), the ridge shrinks them a little
    np.testing.assert_allclose(predictor.kernel[2], turn @ turn @ turn, atol=0.05)
    assert np.std((x - forecasts)[3:], axis=0) == pytest.approx(predictor.spread, rel=0.01)


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_targets_are_rows_as_far_ahead_and_none_beyond_the_end_or_a_gap(ahead: int) -> None:
    dataset = tones(200)
    gap = np.arange(200) == 90
    prepared = prepare(
        replace(dataset, gap=gap), TrainConfig(ahead=ahead, linear=False, timesteps=16, burn_in=2)
    )
    x = prepared.stream.to_network(dataset.values)
    for samples, part in ((prepared.train, slice(0, 120)), (prepared.validation, slice(120, 160))):
        counted = samples.weights.any(axis=1)
        rows = np.flatnonzero(counted)
        np.testing.assert_allclose(samples.targets[rows], x[rows + ahead], atol=1e-6)
        wanted = np.zeros(160, dtype=bool)
        wanted[part.start - ahead if part.start else 0 : part.stop - ahead] = True
        wanted[90 - ahead : 90] = False  # their targets lie behind the gap
        assert np.array_equal(counted, wanted)


def test_an_autoencoder_has_a_narrow_layer_and_no_line() -> None:
    prepared, graph = fresh(pump(), replace(TRAIN, ahead=0))
    assert [(layer.name, layer.outputs) for layer in graph.layers] == [
        ("lstm_1", 16), ("bottleneck", 1), ("dense", 5),
    ]  # fmt: skip
    assert graph.ahead == 0 and graph.predictor is None and prepared.predictor.lags == 0
    wider = fresh(pump(), replace(TRAIN, ahead=0, bottleneck=3))[1]
    assert wider.layers[1].outputs == 3
    figures = forecast_figures(graph, prepared.parts.validation, 8)
    assert figures["r2_mean"] is not None and figures["persistence_mse"] is None


def test_an_autoencoder_that_would_copy_is_refused() -> None:
    with pytest.raises(ConfigError, match="ahead is 0 with one channel.*would copy it; forecast it"):
        prepare(pump(single=True), replace(TRAIN, ahead=0))
    with pytest.raises(ConfigError, match="bottleneck is 5, expected below the 5 channels"):
        prepare(pump(), replace(TRAIN, ahead=0, bottleneck=5))
    with pytest.raises(ConfigError, match="ahead is 17, expected a whole number from 0 to 16"):
        TrainConfig(ahead=17)


@pytest.mark.parametrize("ahead", [0, 4])
def test_a_network_that_is_trained_on_keeps_its_task(ahead: int) -> None:
    config = replace(TRAIN, ahead=ahead, units=(4,))
    prepared, graph = fresh(pump(), config)
    kept = kept_units(graph, 0.5)
    for after in (unstack(graph, stack_weights([graph]), 0), remove_units(graph, kept)):
        assert after.ahead == ahead and after.predictor is graph.predictor
    again = prepare_again(graph, pump(), config)
    for name in ("inputs", "targets", "weights"):
        assert np.array_equal(getattr(again.train, name), getattr(prepared.train, name))


# --- detectors of such networks ------------------------------------------------------------------


def test_errors_several_rows_ahead_are_cross_validated() -> None:
    graph = drawn(4)[1]
    rows, line = network_rows(pump(), graph.stream, TRAIN), graph.predictor
    assert line is not None
    unseen = held_out_errors(line, rows, rows.x, np.zeros_like(rows.x), 4)
    kept, steps = Rows.of(rows.x, rows.present, rows.gap, rows.learn)
    taught = clean(kept, line.lags)
    forecasts = fit_predictor(kept, line.lags - 3, 4)[1]
    np.testing.assert_allclose(unseen[steps[taught]], (kept.x - forecasts)[taught], atol=1e-9)


@pytest.mark.parametrize("ahead", [0, 4])
def test_a_future_row_changes_no_score_before_it(ahead: int) -> None:
    qgraph, graph = drawn(ahead)
    rows, at = network_rows(pump(), graph.stream, TRAIN), 900
    spoilt = network_rows(corrupted(pump(), slice(at, at + 1)), graph.stream, TRAIN)
    found, expected = (int8_detection(qgraph, some) for some in (spoilt, rows))
    same_until(found[0], expected[0], at, "int8")
    found, expected = (float_detection(graph, some, LEVEL) for some in (spoilt, rows))
    same_until(found[0], expected[0], at, "float")
    if ahead:  # nor the forecast of the rows until it has aged
        assert np.array_equal(found[1][: at + ahead], expected[1][: at + ahead])
        assert (found[1][at + ahead] != expected[1][at + ahead]).any()


@pytest.mark.parametrize("ahead", [0, 4])
def test_the_integer_detector_of_a_recording_is_that_of_host_and_cortex_m4(ahead: int) -> None:
    qgraph, graph = drawn(ahead)
    assert qgraph.detector is not None and qgraph.detector.ahead == ahead
    dataset = pump()
    raw = counts_of(qgraph.stream, dataset.values)[:450]
    found = int8_detection(qgraph, network_rows(dataset, graph.stream, TRAIN))[0]
    library, machine = load_library([qgraph]), build_machine([qgraph], core_named("cortex-m4"))
    for executor in (
        NumpyExecutor(qgraph),
        HostExecutor(qgraph, library=library),
        EmulatedExecutor(qgraph, "cortex-m4", machine=machine),
    ):
        parts = [executor.detect(raw[a:b]) for a, b in ((0, 1), (1, 7), (7, 450))]
        score = np.concatenate([part.score for part in parts]) / 2.0**fixed.SCORE_BITS
        assert np.array_equal(score, found.score[:450]) and score[-1] > 0
        alarm = np.concatenate([part.alarm for part in parts])
        assert np.array_equal(alarm, found.alarm[:450])


def test_evaluate_judges_no_other_horizon_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        evaluate, "default_baselines", lambda rows: [Line("persistence", *rows.x.shape[::-1])]
    )
    qgraph, graph = drawn(4)
    found = evaluate.evaluate_rows(qgraph, network_rows(pump(), graph.stream, TRAIN), DetectorConfig(), graph)
    assert [name for name, method in found.methods.items() if method.forecast] == [
        "LSTM int8", "LSTM float", "linear part alone",
    ]  # fmt: skip
    assert "persistence" in found.methods
    assert any(
        note.startswith("the network forecasts 4 rows ahead; errors of simple methods")
        for note in found.notes
    )
