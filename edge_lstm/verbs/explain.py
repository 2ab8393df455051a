"""explain: what an int8 model rests on, what its forecast leaves, and why its alarms rise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edge_lstm.analysis.alarms import AlarmCurves, read_alarms
from edge_lstm.analysis.residuals import read_residuals
from edge_lstm.analysis.sensitivity import Sensitivity
from edge_lstm.arrays import FloatArray
from edge_lstm.detection.events import Event, events
from edge_lstm.detection.floating import FloatDetection
from edge_lstm.errors import DataError, ModelError
from edge_lstm.evaluation.forecast import forecast_metrics
from edge_lstm.files import check_place, write_text
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.qgraph import QGraph
from edge_lstm.reporting.data import ReportData
from edge_lstm.reporting.explain import Findings, render_explain
from edge_lstm.verbs.detectors import float_detection, int8_detection
from edge_lstm.verbs.evaluate import detector_config
from edge_lstm.verbs.explain_network import attention, reach, sensitivity
from edge_lstm.verbs.explain_words import sentences
from edge_lstm.verbs.streams import Rows, StreamOptions, network_rows, read_graph, read_stream, train_config

Progress = Callable[[int, int, str], None]


class Detected(NamedTuple):
    """expected: the forecast OF each row in network units (steps, channels), NaN where there is none."""

    detection: FloatDetection
    expected: FloatArray


@dataclass(frozen=True, eq=False)
class Explanation:
    """What was found on the test rows.  data: those rows.  page: the written file, "" for none."""

    model: str
    data: ReportData
    findings: Findings
    page: str

    def to_json(self) -> dict[str, Any]:
        """Plain values; sensitivities by channel: of the whole channel, and of each lag."""
        found = self.findings
        return {
            "model": self.model,
            "test_rows": self.data.steps,
            "sentences": list(found.sentences),
            "r2": found.r2,
            "sensitivity": None if found.sensitivity is None else _plain(found.sensitivity, found.inputs),
            "attention": {name: weights.tolist() for name, weights in found.attention.items()},
            "residuals": [asdict(residuals) for residuals in found.residuals],
            "alarms": {name: _figures(curves) for name, curves in found.curves.items()},
            "events": [event.to_dict() for event in found.events],
            "history": {name: list(values) for name, values in self.data.history.items()},
            "notes": list(self.data.notes),
            "page": self.page,
        }


def _plain(found: Sensitivity, names: Sequence[str]) -> dict[str, Any]:
    by_lag = found.by_lag
    return {
        "lags": list(found.lags),
        "windows": found.windows,
        "channels": {
            name: {
                "share": float(found.shares[place]),
                "change": float(found.whole[place].mean()),
                "by_lag": by_lag[place].tolist(),
            }
            for place, name in enumerate(names)
        },
    }


def _figures(curves: AlarmCurves) -> dict[str, Any]:
    """Without the points of the curves."""
    found = {name: value for name, value in asdict(curves).items() if not isinstance(value, np.ndarray)}
    return found | {"precision": curves.alarm_precision, "recall": curves.alarm_recall}


def explain(
    model: Path,
    data: Path,
    out: Path | None = None,
    reference: Path | None = None,
    options: StreamOptions | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """Explain the .tflite ``model`` on the test part of ``data``; write one HTML page to ``out``, if given.

    reference: the float model it was quantized from, for its alarms beside those of int8.
    A model without a detector does not say what it forecasts: only its sensitivity and attention are found.
    """
    show: Progress = progress or (lambda done, total, text: None)
    if out is not None:
        check_place(Path(out))
    qgraph = read_tflite(Path(model))
    dataset = read_stream(data, options or StreamOptions(), qgraph.stream)
    rows = network_rows(dataset, qgraph.stream, train_config(qgraph.made))
    show(0, 4, "detect")
    detected = _detect(qgraph, rows, reference)
    show(1, 4, "sensitivity")
    findings = _network(qgraph, rows)
    show(2, 4, "errors and alarms")
    findings = _judged(findings, rows, detected, reach(qgraph))
    test = _test_data(qgraph, rows, detected, findings.notes)
    show(3, 4, "draw")
    if out is not None:
        write_text(Path(out), render_explain(test, findings))
    show(4, 4, "done")
    return Explanation(qgraph.name, test, findings, "" if out is None else str(out))


def _detect(qgraph: QGraph, rows: Rows, reference: Path | None) -> dict[str, Detected]:
    """The int8 model and the float one, where they have detectors."""
    graph = None if reference is None else read_graph(reference)
    if graph is not None and graph.stream.names != qgraph.stream.names:
        raise ModelError(
            f"{reference}: reads {', '.join(graph.stream.names)}, model '{qgraph.name}' "
            f"{', '.join(qgraph.stream.names)}; give the --reference that it was quantized from"
        )
    if qgraph.detector is None:
        return {}
    found = {"int8": int8_detection(qgraph, rows)}
    if graph is not None:
        found["float"] = float_detection(graph, rows, detector_config(qgraph))
    return {
        name: Detected(detection, np.where(known, expected, np.nan))
        for name, (detection, expected, known) in found.items()
    }


def _network(qgraph: QGraph, rows: Rows) -> Findings:
    """What the network itself tells."""
    names = qgraph.stream.names if rows.dataset.channels != len(qgraph.stream.names) else rows.dataset.names
    scored = tuple(name for name, kept in zip(names, rows.scored, strict=True) if kept)
    outputs = scored if qgraph.detector else tuple(f"output {place}" for place in range(qgraph.outputs))
    notes = list(rows.dataset.notes)
    if qgraph.detector is None:
        notes.append(
            "the model carries no detector and does not say what it forecasts: no errors, no alarms; "
            "changes are those of its outputs, in their own spreads"
        )
    found, weights = None, {}
    try:
        found, weights = sensitivity(qgraph, rows), attention(qgraph, rows)
    except DataError as error:
        notes.append(str(error))
    return Findings(tuple(names), outputs, found, weights, notes=tuple(notes))


def _judged(findings: Findings, rows: Rows, detected: Mapping[str, Detected], ahead: int) -> Findings:
    """With errors and alarms of the test rows, and what follows in words."""
    if not detected:
        return replace(findings, sentences=sentences(findings))
    own, test = detected["int8"], rows.test
    expected = np.where(rows.scored, own.expected, np.nan)
    counted = np.isfinite(expected) & rows.present & (rows.dataset.normal & ~rows.gap)[:, None]
    residuals = read_residuals((rows.x - expected)[test], counted[test], rows.dataset.names, ahead)
    curves = {}
    for name, other in detected.items():
        found, faulty = other.detection, ~rows.dataset.normal[test]
        read = read_alarms(found.score[test], found.threshold[test], found.alarm[test] > 0, faulty)
        if read is not None:
            curves[name] = read
    notes = list(findings.notes)
    if not residuals:
        notes.append("no row of the test part is forecast (the model rebuilds rows, or there are too few)")
    if not curves:
        notes.append("the test part has no labelled faults beside normal rows: alarms cannot be judged")
    judged = replace(
        findings, residuals=residuals, curves=curves, events=_events(rows, own), notes=tuple(notes),
        r2=forecast_metrics(rows.x[test], expected[test], counted[test], rows.dataset.names).r2,
    )  # fmt: skip
    return replace(judged, sentences=sentences(judged))


def _events(rows: Rows, own: Detected) -> tuple[Event, ...]:
    """Alarms that start in the test part."""
    stamps = [rows.dataset.stamp(row) for row in range(len(rows.x))] if rows.dataset.start else None
    found = events(own.detection, rows.dataset.names, stamps, rows.present, rows.scored)
    return tuple(event for event in found if rows.test[event.start_row])


def _test_data(
    qgraph: QGraph, rows: Rows, detected: Mapping[str, Detected], notes: Sequence[str]
) -> ReportData:
    """The test part as the pictures take it; its time starts at 0."""
    test, dataset = rows.test, rows.dataset
    forecasts = {name: qgraph.stream.to_real(own.expected)[test] for name, own in detected.items()}
    history = {
        name.replace("validation_", "val_"): values
        for name, values in dict(qgraph.made.get("history", {})).items()
    }
    return ReportData(
        name=qgraph.name,
        channels=qgraph.stream.channels,
        values=dataset.values[test],
        time_s=dataset.time_s[test] - dataset.time_s[test][0] if dataset.period_s else None,
        label=None if dataset.label is None else dataset.label[test],
        history=history,
        notes=list(notes),
        forecast_int8=forecasts.get("int8"),
        forecast_float=forecasts.get("float"),
    )
