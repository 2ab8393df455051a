"""evaluate: forecast and alarms of the int8 model beside float and beside simple methods."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.detection import floating
from edge_lstm.detection.fit import DetectorConfig
from edge_lstm.detection.linear import Rows as LearningRows
from edge_lstm.errors import DataError
from edge_lstm.evaluation.baselines import default_baselines, run_baseline
from edge_lstm.evaluation.forecast import ForecastMetrics, forecast_metrics
from edge_lstm.evaluation.metrics import Metrics, evaluate_stream, verdict
from edge_lstm.evaluation.period import period
from edge_lstm.graph import Graph
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.predictor import LinearPredictor
from edge_lstm.qgraph import QGraph
from edge_lstm.verbs.detectors import float_detection, int8_detection, linear_detection
from edge_lstm.verbs.streams import (
    Rows,
    StreamOptions,
    network_rows,
    read_graph,
    read_stream,
    train_config,
)

INT8, FLOAT = "LSTM int8", "LSTM float"
LINEAR = "linear part alone"  # the detector without its network


@dataclass(frozen=True, eq=False)
class Method:
    """One method on the test rows.

    expected: (steps, channels) in network units, its forecast OF each row, NaN where it has none; or None.
    alarms: None where the rows have no labels.
    """

    detection: floating.FloatDetection
    expected: FloatArray | None
    forecast: ForecastMetrics | None
    alarms: Metrics | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Every method by name, the int8 LSTM first; verdict: whether the LSTM earns its flash."""

    model: str
    rows: Rows
    methods: dict[str, Method]
    verdict: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        methods = {
            name: {
                "forecast": method.forecast.to_dict() if method.forecast else None,
                "alarms": method.alarms.to_dict() if method.alarms else None,
            }
            for name, method in self.methods.items()
        }
        test_rows = int(self.rows.test.sum())
        return {
            "model": self.model,
            "test_rows": test_rows,
            "methods": methods,
            "verdict": self.verdict,
            "notes": list(self.notes),
        }


def _judge(
    rows: Rows, detection: floating.FloatDetection, expected: FloatArray | None, counted: np.ndarray[Any, Any]
) -> Method:
    """Figures of the test rows alone; forecasts are judged on normal rows."""
    test, label = rows.test, rows.dataset.label
    forecast = None
    if expected is not None:
        judged = counted & rows.present & (test & rows.dataset.normal & ~rows.gap)[:, None]
        forecast = forecast_metrics(rows.x, expected, judged, rows.dataset.names)
    alarms = None
    if label is not None:
        alarms = evaluate_stream(
            detection.score[test],
            detection.alarm[test],
            label[test],
            window=period(rows.dataset.values),
            period_s=rows.dataset.period_s,
        )
    return Method(detection, expected, forecast, alarms)


def int8_method(qgraph: QGraph, rows: Rows) -> Method:
    """The int8 model with its own detector."""
    detection, expected, known = int8_detection(qgraph, rows)
    return _judge(rows, detection, np.where(known, expected, np.nan), known)


def float_method(graph: Graph, rows: Rows, config: DetectorConfig) -> Method:
    """The float model with a detector fitted in the same way on its own errors."""
    detection, expected, known = float_detection(graph, rows, config)
    return _judge(rows, detection, np.where(known, expected, np.nan), known)


def linear_method(predictor: LinearPredictor, rows: Rows, config: DetectorConfig) -> Method:
    """The float detector of a network that adds nothing: what the LSTM is worth shows beside it."""
    detection, expected, known = linear_detection(predictor, rows, config)
    return _judge(rows, detection, np.where(known, expected, np.nan), known)


def baseline_methods(rows: Rows, config: DetectorConfig, notes: list[str] | None = None) -> dict[str, Method]:
    """The simple methods; one that cannot learn from the recording is left out and told in ``notes``."""
    methods = {}
    stream = rows.x, rows.present, rows.gap, rows.learn
    for baseline in default_baselines(LearningRows.of(*stream)[0]):
        try:
            result = run_baseline(baseline, *stream, config)
        except DataError as error:
            if notes is not None:
                notes.append(f"{baseline.name} is left out: {error}")
            continue
        counted = np.zeros_like(rows.present)
        if result.expected is not None:
            counted = np.isfinite(result.expected)
        methods[result.name] = _judge(rows, result.detection, result.expected, counted)
    return methods


def evaluate_rows(
    qgraph: QGraph, rows: Rows, config: DetectorConfig, graph: Graph | None = None
) -> Evaluation:
    """Evaluate a network that is in memory; see ``evaluate``."""
    methods = {INT8: int8_method(qgraph, rows)}
    if graph is not None:
        methods[FLOAT] = float_method(graph, rows, config)
        if graph.predictor is not None:
            methods[LINEAR] = linear_method(graph.predictor, rows, config)
    notes = list(rows.dataset.notes)
    methods |= baseline_methods(rows, config, notes)
    if rows.dataset.label is None:
        notes.append("no label column: alarms cannot be judged, only the forecast")
    return Evaluation(qgraph.name, rows, methods, _verdict(methods), tuple(notes))


def _verdict(methods: dict[str, Method]) -> str:
    lstm = methods[INT8].alarms
    others = {
        name: method.alarms
        for name, method in methods.items()
        if name not in (INT8, FLOAT) and method.alarms is not None
    }
    return "Cannot tell: the recording has no label column." if lstm is None else verdict(lstm, others)


def detector_config(qgraph: QGraph) -> DetectorConfig:
    """The options the model's detector was fitted with; the defaults where the file does not say."""
    return DetectorConfig(**qgraph.made.get("detector", asdict(DetectorConfig())))


def evaluate(
    model: Path, data: Path, reference: Path | None = None, options: StreamOptions | None = None
) -> Evaluation:
    """Judge the .tflite ``model`` on the test part of ``data``, beside simple methods.

    reference: the .keras model it was quantized from, for the float rows of the table.
    """
    qgraph = read_tflite(Path(model))
    graph = read_graph(reference) if reference is not None else None
    dataset = read_stream(data, options or StreamOptions(), qgraph.stream)
    rows = network_rows(dataset, qgraph.stream, train_config(qgraph.made))
    return evaluate_rows(qgraph, rows, detector_config(qgraph), graph)
