"""Contextual inputs: read by the network and the line, but neither forecast nor scored."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from detector_oracles import columns, integer_detector, plain_detector
from edge_lstm.cli import main
from edge_lstm.datasets.clock import with_clock
from edge_lstm.datasets.dataset import Dataset
from edge_lstm.detection import fixed, floating
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.detection.events import events
from edge_lstm.detection.fit import fit_detector
from edge_lstm.detection.fixed import QDetector
from edge_lstm.emit.onnx_model import emit_onnx
from edge_lstm.errors import ConfigError, DataError, ModelError
from edge_lstm.evaluation.methods import Line
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.graph import Graph
from edge_lstm.importers.keras_model import read_keras
from edge_lstm.importers.onnx_model import read_onnx
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.layer_types import Dense, Lstm
from edge_lstm.predictor import LinearPredictor
from edge_lstm.qgraph import QGraph
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.training.config import TrainConfig
from edge_lstm.training.fit import fresh_graph, prepare
from edge_lstm.training.model import from_graph, save
from edge_lstm.verbs import evaluate
from edge_lstm.verbs.detect import detect
from edge_lstm.verbs.detectors import float_detection, int8_detection
from edge_lstm.verbs.evaluate import baseline_methods
from edge_lstm.verbs.quantize import quantize, quantize_rows
from edge_lstm.verbs.streams import StreamOptions, network_rows, read_stream
from firmware_tools.cores import core_named
from firmware_tools.emulator import EmulatedExecutor, build_machine
from firmware_tools.host import HostExecutor, load_library
from random_models import random_detector, random_present, random_qgraph, random_raw

CONFIGS = (DetectorConfig(), DetectorConfig(level=4.0, weighting="mahalanobis"))
TRAIN = TrainConfig(units=(6,), context=("command",), timesteps=32)
COMMAND = 1  # its column


def machine(rows: int = 900) -> Dataset:
    """Pressure and flow follow a command that nobody can foresee."""
    rng = np.random.default_rng(3)
    command = np.repeat(rng.integers(0, 3, rows // 20), 20).astype(float)
    speed = np.zeros(rows)
    for t in range(1, rows):
        speed[t] = speed[t - 1] + 0.2 * (command[t - 1] - speed[t - 1])
    values = np.stack([2 * speed, command, 5 - speed], axis=1)
    values[:, ::2] += rng.normal(0, 0.02, (rows, 2))
    values = np.round(values, 2)
    return Dataset(
        ("pressure", "command", "flow"), ("bar", "", ""), values, ~np.isnan(values),
        np.zeros(rows, dtype=bool), np.zeros(rows, dtype=np.uint8), np.arange(float(rows)), period_s=1.0,
    )  # fmt: skip


def shuffled(dataset: Dataset) -> Dataset:
    """The same with another command."""
    values = dataset.values.copy()
    values[:, COMMAND] = np.roll(values[:, COMMAND], 77)
    return replace(dataset, values=values)


@cache
def deaf() -> Graph:
    """A network and a line that read the command with weight 0; the other weights are drawn."""
    prepared = prepare(machine(), TRAIN)
    graph = fresh_graph(TRAIN, prepared.stream, 3, "deaf", prepared.predictor)
    rng = np.random.default_rng(5)
    lstm, dense = graph.layers
    assert isinstance(lstm, Lstm) and isinstance(dense, Dense) and graph.predictor is not None
    kernel, line = lstm.kernel.copy(), graph.predictor.kernel.copy()
    kernel[COMMAND], line[:, COMMAND] = 0.0, 0.0
    drawn = rng.normal(0, 0.3, dense.kernel.shape) * prepared.stream.scored
    return replace(
        graph, layers=(replace(lstm, kernel=kernel), replace(dense, kernel=drawn)),
        predictor=replace(graph.predictor, kernel=line),
    )  # fmt: skip


@cache
def integers(config: DetectorConfig, line: bool = False) -> QGraph:
    graph = deaf() if line else replace(deaf(), predictor=None)
    return quantize_rows(graph, network_rows(machine(), graph.stream, TRAIN), QuantizeConfig(), config)[0]


# --- learning ------------------------------------------------------------------------------------


def test_context_is_no_target_but_helps_the_others() -> None:
    prepared = prepare(machine(), TRAIN)
    assert [channel.context for channel in prepared.stream.channels] == [False, True, False]
    assert not prepared.train.weights[:, COMMAND].any() and prepared.train.weights[:, ::2].any()
    assert not prepared.predictor.kernel[:, :, COMMAND].any()
    assert prepared.predictor.kernel[0, COMMAND, ::2].all()
    whole = machine()
    alone = Dataset(
        ("pressure", "flow"), ("bar", ""), whole.values[:, ::2], whole.present[:, ::2], whole.gap,
        whole.label, whole.time_s, period_s=1.0,
    )  # fmt: skip
    without = prepare(alone, replace(TRAIN, context=()))
    assert (prepared.predictor.spread[::2] < 0.5 * without.predictor.spread).all()


def test_from_csv_to_alarm_with_context_two_rows_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        evaluate, "default_baselines", lambda rows: [Line("persistence", *rows.x.shape[::-1])]
    )
    data, model, small = (tmp_path / name for name in ("machine.csv", "machine.keras", "machine.tflite"))
    table = np.column_stack([np.arange(900), machine().values])
    np.savetxt(data, table, "%g", ",", header="time,pressure,command,flow", comments="")
    run = partial(CliRunner().invoke, main)
    done = run(
        ["train", str(data), "-o", str(model), "--context", "command", "--ahead", "2", "--units", "4",
         "--epochs", "1", "--updates", "2", "--timesteps", "32", "--json"]
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)["figures"]["validation"]
    assert figures["r2"]["command"] is None and figures["persistence_r2"]["command"] is None
    graph = read_keras(model)
    head = graph.layers[-1]
    assert isinstance(head, Dense) and not head.kernel[:, COMMAND].any() and not head.bias[COMMAND]
    assert graph.ahead == 2 and graph.stream.scored.tolist() == [True, False, True]
    assert graph.predictor is not None and not graph.predictor.kernel[0].any()
    assert run(["quantize", str(model), "--data", str(data), "-o", str(small)]).exit_code == 0
    qgraph = read_tflite(small)
    assert qgraph.detector is not None and qgraph.stream.scored.tolist() == [True, False, True]
    assert qgraph.detector.ahead == 2 and qgraph.detector.scored.tolist() == [True, False, True]
    table[800:820, 3] += 30.0
    np.savetxt(data, table, "%g", ",", header="time,pressure,command,flow", comments="")
    found = detect(small, data)
    assert [event.start_row for event in found.events] == [800]
    assert set(found.events[0].contributions) == {"pressure", "flow"}
    evaluated = run(["evaluate", str(small), str(data), "--reference", str(model)])
    assert evaluated.exit_code == 0, evaluated.output
    assert "the network forecasts 2 rows ahead" in evaluated.stderr


def test_context_that_is_no_channel_or_leaves_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="context 'valve' is no channel; expected one of pressure, command"):
        prepare(machine(), replace(TRAIN, context=("valve",)))
    with pytest.raises(ConfigError, match="every channel is context; leave one to forecast"):
        prepare(machine(), replace(TRAIN, context=machine().names))
    with pytest.raises(ConfigError, match=r"context is \('',\), expected names of channels"):
        TrainConfig(context=("",))


def test_an_onnx_file_keeps_what_is_context() -> None:
    found = read_onnx(emit_onnx(replace(deaf(), predictor=None)))
    assert found.stream.scored.tolist() == [True, False, True]


# --- the detector --------------------------------------------------------------------------------


def assert_same(found: floating.FloatDetection, expected: floating.FloatDetection) -> None:
    assert found.score.max() > 0 and not found.contributions[:, COMMAND].any()
    for column in ("score", "alarm", "threshold", "contributions"):
        assert np.array_equal(getattr(found, column), getattr(expected, column)), column


@pytest.mark.parametrize("config", CONFIGS)
def test_another_command_changes_no_score_of_a_network_that_ignores_it(config: DetectorConfig) -> None:
    graph = replace(deaf(), predictor=None)  # a line that is fitted again would read the command
    rows, others = (network_rows(d, graph.stream, TRAIN) for d in (machine(), shuffled(machine())))
    for qgraph in (integers(config), integers(config, line=True)):
        assert_same(int8_detection(qgraph, others)[0], int8_detection(qgraph, rows)[0])
    assert_same(float_detection(graph, others, config)[0], float_detection(graph, rows, config)[0])
    again, first = (
        quantize_rows(graph, others, QuantizeConfig(), config)[0].detector,
        integers(config).detector,
    )
    assert again is not None and first is not None
    assert fixed.detector_values(again) == fixed.detector_values(first)


def test_a_wild_command_raises_no_alarm_and_a_wild_flow_does() -> None:
    qgraph, graph = integers(CONFIGS[0]), deaf()
    for channel, alarmed in ((COMMAND, False), (2, True)):
        values = machine().values.copy()
        values[800:820, channel] += 30.0
        rows = network_rows(replace(machine(), values=values), graph.stream, TRAIN)
        found = int8_detection(qgraph, rows)[0]
        assert found.alarm[800:830].any() == alarmed
        for event in events(found, rows.dataset.names, None, rows.present, rows.scored):
            assert list(event.contributions) == ["pressure", "flow"] and event.leading == "flow"


def test_a_row_of_context_alone_is_read_but_not_scored() -> None:
    qgraph = integers(CONFIGS[0], line=True)
    detector = qgraph.detector
    assert detector is not None and detector.scored.tolist() == [True, False, True]
    rng = np.random.default_rng(0)
    fine, forecast = rng.integers(-3000, 3000, (60, 3)), rng.integers(-100, 100, (60, 3))
    present = np.ones((60, 3), dtype=bool)
    present[50:55, ::2] = False
    found, _ = fixed.detect(detector, fine, forecast, present)
    assert (found.score[50:55] == found.score[49]).all() and found.score[55] != found.score[49]
    assert (found.alarm[50:55] == found.alarm[49]).all()
    moved = fine.copy()
    moved[54, 0] += 500  # a value that is held there: the line reads it one row later
    assert fixed.detect(detector, moved, forecast, present)[0].score[55] != found.score[55]


def test_simple_methods_beside_it_score_the_other_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        evaluate,
        "default_baselines",
        lambda rows: [Line(name, *rows.x.shape[::-1]) for name in ("persistence", "pca")],
    )
    graph = deaf()
    rows, others = (network_rows(d, graph.stream, TRAIN) for d in (machine(), shuffled(machine())))
    found, expected = (baseline_methods(some, DetectorConfig()) for some in (others, rows))
    assert list(found) == ["persistence", "PCA"]
    for name, method in found.items():
        assert np.array_equal(method.detection.score, expected[name].detection.score), name
        if method.forecast is not None:
            assert method.forecast.channels["command"].rows == 0


# --- the time of day -----------------------------------------------------------------------------


def test_the_time_of_day_is_two_channels_of_a_thousandth() -> None:
    values = np.ones((5, 1))
    values[3] = np.nan
    six_hours = np.arange(5) * 6 * 3600.0
    days = Dataset(
        ("a",), ("",), values, ~np.isnan(values), np.zeros(5, dtype=bool), None, six_hours,
        start="2026-03-01T03:00:00", period_s=six_hours[1],
    )  # fmt: skip
    found = with_clock(days)
    assert found.names == ("a", "day_sin", "day_cos")
    np.testing.assert_allclose(found.values[:3, 1:], [[0.707, 0.707], [0.707, -0.707], [-0.707, -0.707]])
    assert not found.present[3].any() and found.values[4, 1:].tolist() == found.values[0, 1:].tolist()
    with pytest.raises(DataError, match="clock: the recording has no stamps with a time of day"):
        with_clock(replace(days, start=""))
    with pytest.raises(DataError, match="clock: the recording has a channel day_sin; rename it"):
        with_clock(found)


def test_every_verb_makes_the_time_of_day_that_a_model_takes(tmp_path: Path) -> None:
    data, stamps = tmp_path / "day.csv", np.datetime64("2026-03-01T00:00") + np.arange(900) * 15
    rows = "".join(f"{t},{a:g},{b:g}\n" for t, (a, _, b) in zip(stamps, machine().values, strict=True))
    data.write_text("time,pressure,flow\n" + rows)
    config = replace(TRAIN, context=(), clock=True)
    prepared = prepare(with_clock(read_stream(data, StreamOptions())), config)
    assert prepared.stream.scored.tolist() == [True, True, False, False]
    again = read_stream(data, StreamOptions(), prepared.stream)
    assert again.names == ("pressure", "flow", "day_sin", "day_cos")
    assert abs(again.values[:, 2]).max() == 1.0 and read_stream(data, StreamOptions()).channels == 2
    graph = fresh_graph(config, prepared.stream, 4, "day", prepared.predictor)
    model, out = tmp_path / "day.keras", tmp_path / "day.tflite"
    save(from_graph(graph, config), graph.stream, {"train": config.to_mapping()}, model, graph.predictor)
    qgraph = quantize(model, data, out).qgraph
    assert [channel.resolution for channel in qgraph.stream.channels][2:] == [0.001, 0.001]
    assert qgraph.detector is not None and qgraph.detector.scored.tolist() == [True, True, False, False]
    assert detect(out, data).rows == 900


# --- the same in C -------------------------------------------------------------------------------


def silenced(detector: QDetector, context: np.ndarray) -> QDetector:
    """The detector with the channels of ``context`` as such."""
    every = np.tile(context, detector.rows // detector.channels)
    return replace(
        detector,
        residual_weight=np.where(every, 0, detector.residual_weight),
        output_weight=np.where(context, 0, detector.output_weight),
        offset=np.where(every, 0, detector.offset),
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_integer_detector_follows_the_specification(seed: int) -> None:
    rng, context = np.random.default_rng(seed), np.arange(3) < 1 + seed % 2
    detector = silenced(random_detector(rng, 3, 320, -9), context)
    detector = replace(detector, whitening=None, base=1000)
    fine, codes = rng.integers(-4000, 4000, (120, 3)), rng.integers(-128, 128, (120, 3))
    present = random_present(seed, 120, 3)
    present[60:66] = context
    found = fixed.detect(detector, fine, codes, present)[0]
    expected = integer_detector(detector, fine.tolist(), codes.tolist(), present.tolist())
    assert np.array_equal(columns(found), expected) and found.alarm.any()
    assert not found.contributions[:, context].any()
    with pytest.raises(ModelError, match="every channel is context"):
        silenced(detector, np.ones(3, dtype=bool))


def test_the_real_detector_follows_the_specification() -> None:
    graph, config = replace(deaf(), predictor=None), CONFIGS[1]
    rows = network_rows(machine(), graph.stream, TRAIN)
    present = rows.present.copy()
    present[760:765, ::2] = False
    residual = rows.x * 0.1
    detector = fit_detector(residual, rows.x, rows.present, rows.learn, config, scored=rows.scored)
    assert detector.scored.tolist() == [True, False, True]
    found = floating.scan(detector, residual, rows.x, present)
    assert (found.score[760:765] == found.score[759]).all() and not found.contributions[:, COMMAND].any()
    line = LinearPredictor.none(3)
    outputs = np.vstack([rows.x[1:] - residual[1:], np.zeros((1, 3))])
    found = floating.scan(detector, rows.x - floating.expectations(line, rows.x, outputs), rows.x, present)
    expected = plain_detector(detector, line, rows.x.tolist(), outputs.tolist(), present.tolist())
    np.testing.assert_allclose(columns(found), expected, atol=1e-9)


def test_host_and_cortex_m4_give_the_scores_of_numpy() -> None:
    graphs, streams = [], []
    for seed in range(3):
        qgraph = random_qgraph(seed, units=4, features=4, detector=True)
        assert qgraph.detector is not None
        context = np.arange(4) < 1 + seed % 3
        graphs.append(replace(qgraph, detector=silenced(qgraph.detector, context)))
        present = random_present(seed, 90, 4)
        present[40:46] = context  # all that is scored is missing
        streams.append(random_raw(qgraph, seed, 90, present))
    library, emulated = load_library(graphs), build_machine(graphs, core_named("cortex-m4"))
    for qgraph, raw in zip(graphs, streams, strict=True):
        expected = columns(NumpyExecutor(qgraph).detect(raw))
        assert expected[:, 0].any() and (expected[40:46, 0] == expected[39, 0]).all()
        for executor in (
            HostExecutor(qgraph, library=library),
            EmulatedExecutor(qgraph, "cortex-m4", machine=emulated),
        ):
            parts = [columns(executor.detect(raw[a:b])) for a, b in ((0, 43), (43, 90))]
            assert np.array_equal(np.concatenate(parts), expected), executor.name
