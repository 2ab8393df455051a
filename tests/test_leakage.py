"""No row of the test part reaches what is learnt, and no future row reaches a score."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from edge_lstm.datasets.dataset import Dataset
from edge_lstm.datasets.pump import NAMES, UNITS, make_pump
from edge_lstm.datasets.resolution import with_resolution
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.detection.floating import FloatDetection
from edge_lstm.detection.linear import Rows as LinearRows
from edge_lstm.detection.linear import fit_predictor
from edge_lstm.emit.tflite_model import emit_tflite
from edge_lstm.evaluation.baselines import BaselineResult, default_baselines, run_baseline
from edge_lstm.graph import Graph
from edge_lstm.layer_types import Dense, Lstm
from edge_lstm.qgraph import QGraph
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.training.config import TrainConfig
from edge_lstm.training.fit import Prepared, prepare
from edge_lstm.verbs.detectors import float_detection, int8_detection
from edge_lstm.verbs.quantize import quantize_rows
from edge_lstm.verbs.streams import Rows, network_rows

ROWS, SPLIT = 1000, 800  # the default fractions: 0.6 train, 0.2 validation
TRAIN = TrainConfig(timesteps=32)
CONFIGS = (
    DetectorConfig(), DetectorConfig(weighting="mahalanobis", threshold="pot", smoothing="square"),
    DetectorConfig(weighting="likelihood", threshold="dynamic", depth=6, adapt=256, stuck=4.0, level=1.0),
)  # fmt: skip


def pump(single: bool = False) -> Dataset:
    """A pump recording with missing samples, a gap, and a fault among the rows to learn from."""
    values = make_pump(2000, 7).values[:ROWS].copy()
    rng = np.random.default_rng(0)
    values[rng.random(values.shape) < 0.01] = np.nan
    values[200:203] = np.nan
    gap = np.zeros(ROWS, dtype=bool)
    gap[[450, 850]] = True
    label = np.zeros(ROWS, dtype=np.uint8)
    label[550:570] = label[900:930] = 1
    chosen = slice(1) if single else slice(None)
    values = values[:, chosen]
    return Dataset(
        NAMES[chosen], UNITS[chosen], values, ~np.isnan(values), gap, label, np.arange(float(ROWS))
    )


def corrupted(dataset: Dataset, rows: slice, label: bool = False) -> Dataset:
    """The same with other values in ``rows``: off the resolution, far out, and missing."""
    values = dataset.values.copy()
    rng = np.random.default_rng(1)
    values[rows] = rng.normal(0, 300.0, values[rows].shape)
    values[rows][::3] = -values[rows][::3] * 1e4
    values[rows][1::5, 0] = np.nan
    labels = dataset.label.copy()
    labels[rows] = 1 - labels[rows] if label else labels[rows]
    return replace(dataset, values=values, present=~np.isnan(values), label=labels)


def learnt(dataset: Dataset) -> tuple[Prepared, Rows, Graph]:
    """What training makes of a recording, but for the weights: those are drawn."""
    prepared = prepare(dataset, TRAIN)
    rows = network_rows(dataset, prepared.stream, TRAIN)
    line = fit_predictor(LinearRows.of(rows.x, rows.present, rows.gap, rows.learn)[0])[0]
    rng, n = np.random.default_rng(2), dataset.channels
    layers = (
        Lstm("lstm", rng.normal(0, 0.5, (n, 16)), rng.normal(0, 0.4, (4, 16)), rng.normal(0, 0.3, 16)),
        Dense("dense", rng.normal(0, 0.2, (4, n)), rng.normal(0, 0.05, n)),
    )
    return prepared, rows, Graph("leak", layers, prepared.stream, predictor=line)


@cache
def original(single: bool = False) -> tuple[Dataset, Prepared, Rows, Graph]:
    dataset = pump(single)
    return dataset, *learnt(dataset)


@cache
def unspoilt(config: DetectorConfig) -> QGraph:
    """The integer model of the recording itself."""
    _, _, rows, graph = original()
    return quantized(graph, rows, config)


@cache
def unspoilt_baselines(single: bool) -> dict[str, BaselineResult]:
    return baselines_of(original(single)[2])


def quantized(graph: Graph, rows: Rows, config: DetectorConfig) -> QGraph:
    return quantize_rows(graph, rows, QuantizeConfig(), config)[0]


def baselines_of(rows: Rows) -> dict[str, BaselineResult]:
    stream = rows.x, rows.present, rows.gap, rows.learn
    found = [run_baseline(baseline, *stream, DetectorConfig()) for baseline in default_baselines(_kept(rows))]
    return {result.name: result for result in found}


# --- rows after the split ------------------------------------------------------------------------


@pytest.mark.parametrize("single", [False, True])
def test_rows_after_the_split_change_nothing_that_training_takes(single: bool) -> None:
    dataset, before, rows, graph = original(single)
    after, others, again = learnt(corrupted(dataset, slice(SPLIT, None), label=True))
    assert after.stream == before.stream
    for part in ("train", "validation"):
        for name in ("inputs", "targets", "weights"):
            found, expected = (getattr(getattr(p, part), name) for p in (after, before))
            assert np.array_equal(found, expected)
    assert np.array_equal(rows.x[:SPLIT], others.x[:SPLIT])
    assert np.array_equal(rows.learn, others.learn) and not rows.learn[SPLIT:].any()
    assert graph.predictor is not None and again.predictor is not None
    for name in ("kernel", "bias", "spread"):
        assert np.array_equal(getattr(graph.predictor, name), getattr(again.predictor, name))


@pytest.mark.parametrize("config", CONFIGS)
def test_rows_after_the_split_change_no_byte_of_the_integer_model(config: DetectorConfig) -> None:
    dataset, _, _, graph = original()
    spoilt = network_rows(corrupted(dataset, slice(SPLIT, None), label=True), graph.stream, TRAIN)
    expected = unspoilt(config)
    assert expected.detector is not None
    assert emit_tflite(quantized(graph, spoilt, config)) == emit_tflite(expected)


def test_a_row_before_the_split_does_reach_the_integer_model() -> None:
    dataset, _, _, graph = original()
    values = dataset.values.copy()
    values[300:320] *= 1.1
    reached = network_rows(replace(dataset, values=values), graph.stream, TRAIN)
    assert emit_tflite(quantized(graph, reached, CONFIGS[0])) != emit_tflite(unspoilt(CONFIGS[0]))


def test_the_resolution_of_a_sensor_is_that_of_the_rows_before_the_split() -> None:
    dataset, _, _, graph = original()
    spoilt = corrupted(dataset, slice(SPLIT, None))
    found = unspoilt(CONFIGS[0]).stream
    assert found == with_resolution(graph.stream, dataset.values[:SPLIT])
    assert found != with_resolution(graph.stream, spoilt.values)


def same_until(found: FloatDetection, expected: FloatDetection, row: int, name: str) -> None:
    """Assert that two detections are equal before ``row`` and differ behind it."""
    for column in ("score", "alarm", "threshold", "contributions"):
        assert np.array_equal(getattr(found, column)[:row], getattr(expected, column)[:row]), name
    assert (found.score[row:] != expected.score[row:]).any(), name


@pytest.mark.parametrize("config", CONFIGS)
def test_rows_after_the_split_change_no_threshold_and_no_earlier_score_of_float(
    config: DetectorConfig,
) -> None:
    dataset, _, rows, graph = original()
    spoilt = network_rows(corrupted(dataset, slice(SPLIT, None), label=True), graph.stream, TRAIN)
    found, expected = (float_detection(graph, some, config)[0] for some in (spoilt, rows))
    same_until(found, expected, SPLIT, "float")


@pytest.mark.parametrize("single", [False, True])
def test_rows_after_the_split_change_no_threshold_and_no_earlier_score_of_a_baseline(single: bool) -> None:
    dataset, _, _, graph = original(single)
    spoilt = network_rows(corrupted(dataset, slice(SPLIT, None), label=True), graph.stream, TRAIN)
    for name, result in baselines_of(spoilt).items():
        same_until(result.detection, unspoilt_baselines(single)[name].detection, SPLIT, name)


# --- a future row --------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [820, 900, 999])
def test_a_future_row_changes_no_score_of_a_network_before_it(at: int) -> None:
    dataset, _, rows, graph = original()
    spoilt = network_rows(corrupted(dataset, slice(at, at + 1)), graph.stream, TRAIN)
    qgraph, config = unspoilt(CONFIGS[0]), CONFIGS[0]
    found, expected = (int8_detection(qgraph, some) for some in (spoilt, rows))
    same_until(found[0], expected[0], at, "int8")
    assert np.array_equal(found[1][:at], expected[1][:at])
    found, expected = (float_detection(graph, some, config) for some in (spoilt, rows))
    same_until(found[0], expected[0], at, "float")
    assert np.array_equal(found[1][: at + 1], expected[1][: at + 1])  # nor the forecast OF it


@pytest.mark.parametrize("single", [False, True])
def test_a_future_row_changes_no_score_of_a_baseline_before_it(single: bool) -> None:
    dataset, _, _, graph = original(single)
    at = 900
    spoilt = network_rows(corrupted(dataset, slice(at, at + 1)), graph.stream, TRAIN)
    found = baselines_of(spoilt)
    assert list(found) == list(unspoilt_baselines(single))
    for name, result in found.items():
        same_until(result.detection, unspoilt_baselines(single)[name].detection, at, name)


def test_the_baselines_are_all_there_are() -> None:
    names = [baseline.name.split("(")[0].strip() for baseline in default_baselines(_kept(original()[2]))]
    assert names == [
        "z-score", "EWMA chart", "persistence", "VAR", "PCA", "seasonal naive", "ARIMA", "isolation forest",
        "dense autoencoder",
    ]  # fmt: skip


def _kept(rows: Rows) -> LinearRows:
    return LinearRows.of(rows.x, rows.present, rows.gap, rows.learn)[0]
