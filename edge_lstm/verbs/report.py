"""report: everything about a model and a recording on one self-contained page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.detection import floating
from edge_lstm.detection.events import events
from edge_lstm.evaluation.quantization import QuantizationFigures, compare
from edge_lstm.files import write_text
from edge_lstm.graph import Graph
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.qgraph import QGraph
from edge_lstm.registry.record import LINEAGE
from edge_lstm.reporting.data import Agreement, CoreCost, DetectorTrace, Event, ReportData, TensorRange
from edge_lstm.reporting.page import render
from edge_lstm.verbs.bench import DEFAULT_CORES, Benchmark, bench_graph
from edge_lstm.verbs.evaluate import Evaluation, Method, detector_config, evaluate_rows
from edge_lstm.verbs.streams import StreamOptions, network_rows, read_graph, read_stream, train_config
from edge_lstm.verbs.verify import Verification, verify_graph

Progress = Callable[[int, int, str], None]
REPORT_EXECUTORS = ("numpy", "host", "cortex-m0", "cortex-m4")


@dataclass(frozen=True)
class Reported:
    """The written page."""

    path: str
    size_bytes: int


def _trace(detection: floating.FloatDetection, channels: int) -> DetectorTrace:
    """Scores in spreads, as everywhere people read them."""
    return DetectorTrace(
        np.sqrt(np.maximum(detection.score, 0) / channels),
        np.sqrt(np.maximum(detection.threshold, 0) / channels),
        detection.alarm.astype(np.float64),
    )


def _real(method: Method | None, qgraph: QGraph) -> FloatArray | None:
    if method is None or method.expected is None:
        return None
    return qgraph.stream.to_real(method.expected)


def _events(evaluation: Evaluation) -> list[Event]:
    rows = evaluation.rows
    detection = evaluation.int8.detection
    stamps = [rows.dataset.stamp(row) for row in range(len(rows.x))] if rows.dataset.start else None
    found = events(detection, rows.dataset.names, stamps, rows.present, rows.scored)
    return [
        Event(
            event.start_row,
            event.stop_row if event.stop_row is not None else len(rows.x),
            event.peak_score,
            event.start or "",
            event.contributions,
        )
        for event in found
    ]


def quality_table(evaluation: Evaluation) -> dict[str, dict[str, float | None]]:
    """Figures by method, as the page and the demo show them."""
    table: dict[str, dict[str, float | None]] = {}
    for name, method in evaluation.methods.items():
        row: dict[str, float | None] = {"R2": method.forecast.r2 if method.forecast else None}
        if method.alarms is not None:
            row["AUC-PR"] = method.alarms.auc_pr
            row["event F1"] = method.alarms.event_f1
            row["events found"] = method.alarms.found
            row["false alarms"] = method.alarms.false_alarms
            row["delay, rows"] = method.alarms.delay_rows
        table[name] = row
    return table


def report_data(
    qgraph: QGraph,
    evaluation: Evaluation,
    figures: QuantizationFigures | None = None,
    benchmark: Benchmark | None = None,
    verification: Verification | None = None,
    history: Mapping[str, Sequence[float]] | None = None,
) -> ReportData:
    """Gather what the verbs found."""
    rows, real = evaluation.rows, evaluation.real
    channels = int(qgraph.stream.scored.sum())
    return ReportData(
        name=qgraph.name,
        channels=qgraph.stream.channels,
        values=rows.dataset.values,
        time_s=rows.dataset.time_s,
        label=rows.dataset.label,
        detection_int8=_trace(evaluation.int8.detection, channels),
        detection_float=_trace(real.detection, channels) if real else None,
        forecast_float=_real(real, qgraph),
        forecast_int8=_real(evaluation.int8, qgraph),
        tensors=[TensorRange(**asdict(tensor)) for tensor in figures.tensors] if figures else (),
        quality=quality_table(evaluation),
        cores=_costs(benchmark),
        agreement=_agreements(verification),
        events=_events(evaluation),
        history=_curves(history or {}),
        notes=[*evaluation.notes, *(figures.notes if figures else ())],
        made={key: value for key, value in qgraph.made.items() if key not in ("history", LINEAGE)},
        verdict=evaluation.verdict,
    )


def _curves(history: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """Training curves; a curve of the validation is drawn with its training curve."""
    return {name.replace("validation_", "val_"): values for name, values in history.items()}


def _costs(benchmark: Benchmark | None) -> list[CoreCost]:
    names = [name for name in CoreCost.__annotations__ if name != "core"]
    return [
        CoreCost(core, **{name: getattr(measured, name) for name in names})
        for core, measured in (benchmark.cores.items() if benchmark else ())
    ]


def _agreements(verification: Verification | None) -> list[Agreement]:
    return [
        Agreement(a.executor, a.profile, a.network.codes, a.network.differing, a.network.max_difference)
        for a in (verification.agreements if verification else ())
    ]


def write_report(data: ReportData, out: Path) -> Reported:
    """Render the page and write it."""
    page = render(data)
    write_text(out, page)
    return Reported(str(out), len(page.encode("utf-8")))


def _figures(graph: Graph | None, qgraph: QGraph, evaluation: Evaluation) -> QuantizationFigures | None:
    rows = evaluation.rows
    return None if graph is None else compare(graph, qgraph, rows.x[rows.learn & rows.present.any(axis=1)])


def report(
    model: Path,
    data: Path,
    out: Path,
    reference: Path | None = None,
    options: StreamOptions | None = None,
    progress: Progress | None = None,
) -> Reported:
    """Evaluate, verify and measure the .tflite ``model`` on ``data`` and write one HTML page to ``out``.

    reference: the .keras model it was quantized from, for what quantization did.
    """
    show: Progress = progress or (lambda done, total, text: None)
    qgraph = read_tflite(Path(model))
    graph = read_graph(reference) if reference is not None else None
    dataset = read_stream(data, options or StreamOptions(), qgraph.stream)
    rows = network_rows(dataset, qgraph.stream, train_config(qgraph.made))
    show(0, 4, "evaluate")
    evaluation = evaluate_rows(qgraph, rows, detector_config(qgraph), graph)
    show(1, 4, "verify")
    verification = verify_graph(qgraph, REPORT_EXECUTORS, model=Path(model).read_bytes())
    show(2, 4, "bench")
    benchmark = bench_graph(qgraph, DEFAULT_CORES)
    show(3, 4, "draw")
    history: dict[str, Any] = dict(qgraph.made.get("history", {}))
    content = report_data(
        qgraph, evaluation, _figures(graph, qgraph, evaluation), benchmark, verification, history
    )
    result = write_report(content, Path(out))
    show(4, 4, "done")
    return result
