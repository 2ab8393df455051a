"""evaluate: forecast and alarms of the int8 model beside float and beside simple methods."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.detection import floating
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.detection.linear import Rows as LearningRows
from edge_lstm.detection.methods import METHODS
from edge_lstm.errors import DataError, EdgeLstmError, MissingTool
from edge_lstm.evaluation.baselines import default_baselines, run_baseline
from edge_lstm.evaluation.forecast import ForecastMetrics, forecast_metrics
from edge_lstm.evaluation.metrics import Metrics, Verdict, evaluate_stream, verdict
from edge_lstm.evaluation.period import period
from edge_lstm.executors.protocol import Executor
from edge_lstm.graph import Graph
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.predictor import LinearPredictor
from edge_lstm.qgraph import QGraph
from edge_lstm.training.config import LSTM
from edge_lstm.verbs.costs import Cost, cost_of, method_qgraph
from edge_lstm.verbs.detectors import float_detection, int8_detection, linear_detection
from edge_lstm.verbs.streams import (
    Rows,
    StreamOptions,
    network_rows,
    read_graph,
    read_stream,
    train_config,
)

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Method:
    """One method on the test rows.

    expected: (steps, channels) in network units, its forecast OF each row, NaN where it has none; or None.
    alarms: None where the rows have no labels.
    option: its name for ``edge-lstm train --method``, "" where it has none.  cost: None where not measured.
    """

    detection: floating.FloatDetection
    expected: FloatArray | None
    forecast: ForecastMetrics | None
    alarms: Metrics | None
    option: str = ""
    cost: Cost | None = None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Every method by name, the int8 model first, then the float one where it was given.

    network: "LSTM", or which simple method the model is.  data: the recording's file, for commands.
    """

    model: str
    network: str
    rows: Rows
    methods: dict[str, Method]
    notes: tuple[str, ...]
    data: str = "DATA.csv"

    @property
    def int8(self) -> Method:
        return self.methods[f"{self.network} int8"]

    @property
    def real(self) -> Method | None:
        """The float model, None where none was given."""
        return self.methods.get(f"{self.network} float")

    @property
    def verdict(self) -> str:
        """Whether the LSTM earns its flash; where it does not, what to ship instead, its cost and how."""
        if self.int8.alarms is None:
            return "Cannot tell: the recording has no label column."
        if self.network != "LSTM":
            return f"Nothing to decide: the model is itself a simple method, {self.network}."
        others = {name: m for name, m in self.methods.items() if m not in (self.int8, self.real)}
        found = _verdict(self.int8.alarms, others)
        if not found.ship or others[found.ship].option:
            return found.sentence + self._way(found.ship)
        rest = _verdict(self.int8.alarms, {name: m for name, m in others.items() if m.option})
        return (
            f"{found.sentence} {found.ship}, as it is judged here, has no C. Among the methods that have: "
            f"{rest.sentence}{self._way(rest.ship)}"
        )

    def _way(self, ship: str) -> str:
        """The cost of a method, and the command that makes its model; "" for no method."""
        if not ship:
            return ""
        chosen, own, cost = self.methods[ship], self.int8.cost, self.methods[ship].cost
        text = ""
        if cost and own:
            text = (
                f" {ship} takes {cost.instructions:,.0f} instructions a row and {cost.flash_bytes:,} bytes "
                f"of flash, the LSTM {own.instructions:,.0f} and {own.flash_bytes:,}."
            )
        out, data = f"{self.model}_{chosen.option}.keras", shlex.quote(self.data)
        return f"{text} To ship it: edge-lstm train {data} -o {out} --method {chosen.option}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        methods = {
            name: {
                "forecast": method.forecast.to_dict() if method.forecast else None,
                "alarms": method.alarms.to_dict() if method.alarms else None,
                "option": method.option or None,
                "cost": asdict(method.cost) if method.cost else None,
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
    if expected is not None and counted.any():
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


def int8_method(qgraph: QGraph, rows: Rows, executor: Executor | None = None) -> Method:
    """The integer model with its own detector.  executor: with the model loaded; None: NumPy."""
    detection, expected, known = int8_detection(qgraph, rows, executor)
    return _judge(rows, detection, np.where(known, expected, np.nan), known)


def float_method(graph: Graph, rows: Rows, config: DetectorConfig) -> Method:
    """The float model with a detector fitted in the same way on its own errors."""
    detection, expected, known = float_detection(graph, rows, config)
    return _judge(rows, detection, np.where(known, expected, np.nan), known)


def linear_method(predictor: LinearPredictor, rows: Rows, config: DetectorConfig, ahead: int = 1) -> Method:
    """The float detector of a network that adds nothing: what the LSTM is worth shows beside it."""
    detection, expected, known = linear_detection(predictor, rows, config, ahead)
    return replace(_judge(rows, detection, np.where(known, expected, np.nan), known), option="linear")


def baseline_methods(
    rows: Rows, config: DetectorConfig, notes: list[str] | None = None, ahead: int = 1
) -> dict[str, Method]:
    """The simple methods on the channels that are scored, without context.

    One that cannot learn from the recording is left out and told in ``notes``.  All of them forecast the next
    row: beside a network that does not (``ahead``), their forecasts are not judged.
    """
    methods = {}
    scored = rows.scored
    stream = rows.x[:, scored], rows.present[:, scored], rows.gap, rows.learn
    for baseline in default_baselines(LearningRows.of(*stream)[0]):
        try:
            result = run_baseline(baseline, *stream, config)
        except DataError as error:
            if notes is not None:
                notes.append(f"{baseline.name} is left out: {error}")
            continue
        expected = None
        if result.expected is not None and ahead == 1:
            expected = np.full_like(rows.x, np.nan)
            expected[:, scored] = result.expected
        counted = np.zeros_like(rows.present) if expected is None else np.isfinite(expected)
        judged = _judge(rows, result.detection, expected, counted)
        methods[result.name] = replace(judged, option=result.method)
    return methods


def evaluate_rows(
    qgraph: QGraph, rows: Rows, config: DetectorConfig, graph: Graph | None = None
) -> Evaluation:
    """Evaluate a network that is in memory; see ``evaluate``."""
    made = qgraph.made.get("train", {}).get("method", LSTM)
    network = "LSTM" if made == LSTM else METHODS[made]
    methods = {f"{network} int8": int8_method(qgraph, rows)}
    if graph is not None:
        methods[f"{network} float"] = float_method(graph, rows, config)
        if graph.predictor is not None and made == LSTM:
            methods[METHODS["linear"]] = linear_method(graph.predictor, rows, config, graph.ahead)
    notes = list(rows.dataset.notes)
    ahead = qgraph.detector.ahead if qgraph.detector is not None else 1
    methods |= baseline_methods(rows, config, notes, ahead)
    if ahead != 1:
        task = f"forecasts {ahead} rows ahead" if ahead else "rebuilds the row that it has read"
        notes.append(f"the network {task}; errors of simple methods, of the next row, do not compare")
    if rows.dataset.label is None:
        notes.append("no label column: alarms cannot be judged, only the forecast")
    return Evaluation(qgraph.name, network, rows, methods, tuple(notes))


def _verdict(lstm: Metrics, others: dict[str, Method]) -> Verdict:
    return verdict(lstm, {name: method.alarms for name, method in others.items() if method.alarms})


def with_costs(
    evaluation: Evaluation, qgraph: QGraph, config: DetectorConfig, progress: Progress | None = None
) -> Evaluation:
    """Measure the model, and every method that has C as if it were shipped in its place.

    Without compiler or emulator there are no costs, and a note says why.
    """
    methods, notes = dict(evaluation.methods), list(evaluation.notes)
    rows, measured = evaluation.rows, [name for name, method in methods.items() if method.option]
    own = f"{evaluation.network} int8"
    if not rows.scored.all():
        measured = []
        notes.append("no instructions, flash and RAM of simple methods: they know no context")
    for done, name in enumerate([own, *measured]):
        if progress:
            progress(done, 1 + len(measured), f"cost of {name}")
        try:
            option = methods[name].option
            network = (
                method_qgraph(option, rows, qgraph.stream, config, qgraph.profile) if name != own else qgraph
            )
            methods[name] = replace(methods[name], cost=cost_of(network))
        except MissingTool as error:
            notes.append(f"no instructions, flash and RAM: {error}")
            break
        except EdgeLstmError as error:
            notes.append(f"no instructions, flash and RAM of {name}: {error}")
    return replace(evaluation, methods=methods, notes=tuple(notes))


def detector_config(qgraph: QGraph) -> DetectorConfig:
    """The options the model's detector was fitted with; the defaults where the file does not say."""
    return DetectorConfig(**qgraph.made.get("detector", asdict(DetectorConfig())))


def evaluate(
    model: Path,
    data: Path,
    reference: Path | None = None,
    options: StreamOptions | None = None,
    costs: bool = True,
    progress: Progress | None = None,
) -> Evaluation:
    """Judge the .tflite ``model`` on the test part of ``data``, beside simple methods.

    reference: the .keras model it was quantized from, for the float rows of the table.
    costs: whether instructions, flash and RAM of the methods that have C are measured; see ``with_costs``.
    """
    qgraph = read_tflite(Path(model))
    graph = read_graph(reference) if reference is not None else None
    dataset = read_stream(data, options or StreamOptions(), qgraph.stream)
    rows = network_rows(dataset, qgraph.stream, train_config(qgraph.made))
    config = detector_config(qgraph)
    found = replace(evaluate_rows(qgraph, rows, config, graph), data=str(data))
    return with_costs(found, qgraph, config, progress) if costs else found
