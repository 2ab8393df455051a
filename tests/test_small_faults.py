"""What int16x8 is for: a fault smaller than a step of the int8 codes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from edge_lstm.datasets.dataset import Dataset
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.evaluation.metrics import Metrics
from edge_lstm.graph import Channel, Dense, Graph, Lstm, Stream
from edge_lstm.quantizer import QuantizeConfig, quantize
from edge_lstm.reference import floating
from edge_lstm.training.config import TrainConfig
from edge_lstm.verbs.evaluate import int8_method
from edge_lstm.verbs.quantize import quantize_rows
from edge_lstm.verbs.streams import Rows, network_rows

ROWS, LENGTH = 3000, 50
EVENTS = range(2460, 2960, 100)
RESOLUTION, NOISE = 1e-4, 2e-3  # of the sensors
RIDGE = 1e-5
MARGIN = 5.0  # room for faults of five times the usual range


def recording(amplitude: float) -> Dataset:
    """Two sensors of one temperature; in the events one of them oscillates by ``amplitude``."""
    t = np.arange(ROWS)
    truth = np.sin(2 * np.pi * t / 140.7) + 0.4 * np.sin(2 * np.pi * t / 37.3 + 1)
    values = truth[:, None] + np.random.default_rng(1).normal(0, NOISE, (ROWS, 2))
    label = np.zeros(ROWS, dtype=np.uint8)
    for index, start in enumerate(EVENTS):
        label[start : start + LENGTH] = 1
        phase = 2 * np.pi * np.arange(LENGTH) / 5 + 0.3
        values[start : start + LENGTH, index % 2] += amplitude * np.sin(phase)
    values = np.round(values / RESOLUTION) * RESOLUTION
    gap = np.zeros(ROWS, dtype=bool)
    return Dataset(
        ("inlet", "outlet"), ("", ""), values, ~np.isnan(values), gap, label, np.arange(float(ROWS))
    )


def network(rows: Rows, stream: Stream, units: int = 12) -> Graph:
    """Each sensor reconstructed from the other: drawn units of an LSTM that forgets, a fitted head."""
    rng = np.random.default_rng(1)
    kernel, bias, unit = np.zeros((2, 4, units)), np.zeros((4, units)), np.arange(units)
    kernel[unit % 2, 2, unit], bias[2] = rng.uniform(0.2, 0.6, units), rng.uniform(-0.6, 0.6, units)
    bias[[0, 1, 3]] = np.array([[6.0], [-6.0], [6.0]])
    lstm = Lstm("lstm", kernel.reshape(2, -1), np.zeros((units, 4 * units)), bias.ravel())
    hidden = floating.run(Graph("hidden", (lstm,), stream), rows.x[None])[0][0][rows.learn]
    head, level = np.zeros((units, 2)), np.zeros(2)
    for sensor in range(2):
        seen = hidden[:, 1 - sensor :: 2]
        found = Ridge(alpha=RIDGE * len(seen)).fit(seen, rows.x[rows.learn, sensor])
        head[1 - sensor :: 2, sensor], level[sensor] = found.coef_, found.intercept_
    return Graph("pair", (lstm, Dense("dense", head, level)), stream, ahead=0)


@pytest.fixture(scope="module")
def alarms() -> dict[str, Metrics]:
    """By scheme; the oscillation has an amplitude of 0.4 of a step of the int8 codes."""
    clean = recording(0.0)
    center, scale = clean.values.mean(axis=0), clean.values.std(axis=0)
    stream = Stream(
        tuple(Channel(n, "", float(c), float(s)) for n, c, s in zip(clean.names, center, scale, strict=True))
    )
    usual = network_rows(clean, stream, TrainConfig())
    graph = network(usual, stream)
    step = quantize(graph, usual.x[usual.learn], QuantizeConfig(input_margin=MARGIN)).input.scale
    amplitude = 0.4 * step * float(scale.max())
    assert amplitude > 100 * RESOLUTION
    rows = network_rows(recording(amplitude), stream, TrainConfig())
    found = {}
    for scheme in ("int8", "int16x8"):
        config = QuantizeConfig(scheme=scheme, input_margin=MARGIN)
        judged = int8_method(quantize_rows(graph, rows, config, DetectorConfig())[0], rows).alarms
        assert judged is not None
        found[scheme] = judged
    return found


def test_int16x8_finds_an_oscillation_of_less_than_half_a_step_of_int8(alarms: dict[str, Metrics]) -> None:
    assert alarms["int16x8"].event_f1 == 1
    assert alarms["int16x8"].false_alarms == 0
    assert (alarms["int16x8"].auc_pr or 0) > 0.9


def test_int8_does_not_find_it(alarms: dict[str, Metrics]) -> None:
    assert alarms["int8"].event_f1 == 0
    assert (alarms["int8"].auc_pr or 0) < 0.7
