"""evaluate: forecast and alarms of the int8 model beside float and beside simple methods."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.detection import fixed, floating
from edge_lstm.detection.fit import DetectorConfig, fit_detector
from edge_lstm.errors import ModelError
from edge_lstm.evaluation.baselines import run_baselines
from edge_lstm.evaluation.forecast import ForecastMetrics, expected_rows, forecast_metrics
from edge_lstm.evaluation.metrics import Metrics, evaluate_stream, verdict
from edge_lstm.evaluation.period import period
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.graph import Graph
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.qgraph import QGraph
from edge_lstm.verbs.streams import (
    Rows,
    StreamOptions,
    codes_of,
    float_detection,
    float_forecasts,
    int8_forecasts,
    join,
    network_rows,
    read_graph,
    read_stream,
    train_config,
)

INT8, FLOAT = "LSTM int8", "LSTM float"


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


def _lstm(rows: Rows, detection: floating.FloatDetection, forecasts: FloatArray) -> Method:
    expected, known = expected_rows(forecasts, rows.present)
    return _judge(rows, detection, np.where(known, expected, np.nan), known)


def int8_method(qgraph: QGraph, rows: Rows) -> Method:
    """The int8 model with its own detector."""
    if qgraph.detector is None:
        raise ModelError(f"model '{qgraph.name}' carries no detector; quantize it with --data")
    codes = codes_of(qgraph, rows)
    with NumpyExecutor(qgraph) as executor:
        forecasts = int8_forecasts(executor, codes, rows)
    parts = [
        fixed.detect(
            qgraph.detector,
            codes[part].astype(np.int64),
            forecasts[part].astype(np.int64),
            rows.present[part],
        )[0]
        for part in rows.segments
    ]
    return _lstm(rows, floating.from_fixed(join(parts)), qgraph.output.decode(forecasts))


def float_method(graph: Graph, rows: Rows, config: DetectorConfig) -> Method:
    """The float model with a detector fitted in the same way on its own residuals."""
    forecasts = float_forecasts(graph, rows)
    detector = fit_detector(rows.x, forecasts, rows.present, rows.learn, config)
    return _lstm(rows, float_detection(detector, forecasts, rows), forecasts)


def evaluate_rows(
    qgraph: QGraph, rows: Rows, config: DetectorConfig, graph: Graph | None = None
) -> Evaluation:
    """Evaluate a network that is in memory; see ``evaluate``."""
    methods = {INT8: int8_method(qgraph, rows)}
    if graph is not None:
        methods[FLOAT] = float_method(graph, rows, config)
    for result in run_baselines(rows.x, rows.present, rows.gap, rows.learn, config):
        counted = np.zeros_like(rows.present)
        if result.expected is not None:
            counted = np.isfinite(result.expected)
        methods[result.name] = _judge(rows, result.detection, result.expected, counted)
    notes = list(rows.dataset.notes)
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
