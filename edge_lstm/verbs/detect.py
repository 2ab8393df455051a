"""detect: a recording through network and detector on any executor; alarms as they happen."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_lstm.datasets.dataset import Dataset
from edge_lstm.detection import fixed, floating
from edge_lstm.detection.events import Event, EventStream, in_spreads
from edge_lstm.errors import DataError, ModelError
from edge_lstm.executors.protocol import Executor
from edge_lstm.files import write_text
from edge_lstm.fixedpoint import IntArray
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.qgraph import QGraph
from edge_lstm.scaling import counts_of
from edge_lstm.verbs.streams import (
    Rows,
    StreamOptions,
    fine_of,
    join,
    network_rows,
    read_stream,
    train_config,
)
from firmware_tools.executors import open_executor

CHUNK_ROWS = 256  # rows between two reports while a recording is scored


@dataclass(frozen=True)
class Detected:
    """All alarms of a recording.  detection: row by row, in squared spreads summed over channels."""

    model: str
    executor: str
    rows: int
    events: tuple[Event, ...]
    detection: floating.FloatDetection
    notes: tuple[str, ...]


def detect(
    model: Path,
    data: Path,
    on: str = "numpy",
    out: Path | None = None,
    options: StreamOptions | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Detected:
    """Score the CSV ``data`` row by row with the detector of ``model``; state is reset at gaps.

    on_event: called as each alarm starts and again as it ends.  out: a CSV with time, score, threshold
    and alarm of every row; scores are root mean squares over channels, in spreads.
    """
    qgraph = read_detector(model)
    dataset = read_stream(data, options or StreamOptions(), qgraph.stream)
    with open_executor(on, qgraph, Path(model).read_bytes()) as executor:
        rows, detected = _score(executor, dataset, on_event)
    if out is not None:
        write_text(Path(out), _csv_text(rows, detected.detection))
    return detected


def detect_files(
    model: Path, data: Sequence[Path], on: str = "numpy", options: StreamOptions | None = None
) -> Iterator[tuple[Path, Detected]]:
    """Score many CSVs, each from reset, on an executor that is opened once; yields each with its file.

    data: CSVs, and folders that stand for the CSVs in them; DataError for a folder without any.
    """
    files = csv_files(data)
    qgraph = read_detector(model)
    with open_executor(on, qgraph, Path(model).read_bytes()) as executor:
        for file in files:
            dataset = read_stream(file, options or StreamOptions(), qgraph.stream)
            yield file, _score(executor, dataset)[1]


def csv_files(data: Sequence[Path]) -> list[Path]:
    """The files of ``data``, those of its folders by name."""
    files: list[Path] = []
    for path in map(Path, data):
        found = sorted(path.glob("*.csv")) if path.is_dir() else [path]
        if not found:
            raise DataError(f"folder '{path}' has no .csv file; name the files, or the folder they are in")
        files += found
    return files


def read_detector(model: Path) -> QGraph:
    """A model that carries a detector and scales raw values; ModelError for one that does not."""
    qgraph = read_tflite(Path(model))
    if qgraph.detector is None:
        raise ModelError(
            f"{model}: carries no detector; make one with: edge-lstm quantize MODEL.keras --data CSV"
        )
    if not qgraph.stream.raw:
        raise ModelError(
            f"{model}: does not state the resolution of its channels; quantize the float model again with: "
            "edge-lstm quantize MODEL.keras --data CSV"
        )
    return qgraph


def _score(
    executor: Executor, dataset: Dataset, on_event: Callable[[Event], None] | None = None
) -> tuple[Rows, Detected]:
    """A recording from reset, reset again at its gaps."""
    qgraph = executor.qgraph
    rows = network_rows(dataset, qgraph.stream, train_config(qgraph.made))
    raw = counts_of(qgraph.stream, dataset.values)
    stream = EventStream(qgraph.stream.names, qgraph.stream.scored)
    events: list[Event] = []
    parts: list[floating.FloatDetection] = []
    for segment in rows.segments:
        executor.reset()
        for start in range(segment.start, segment.stop, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, segment.stop)
            found = executor.detect(raw[start:stop])
            parts.append(floating.from_fixed(found))
            events += _push(stream, parts[-1], rows, start, on_event)
    last = stream.close()
    ended = tuple(events if last is None else [*events, last])
    notes = (
        *dataset.notes,
        *saturation_notes(executor.scaling.saturated(raw), int(rows.present.sum())),
        *_stuck_notes(qgraph, fine_of(executor.scaling, rows), rows),
    )
    return rows, Detected(qgraph.name, executor.name, dataset.rows, ended, join(parts), notes)


def saturation_notes(saturated: int, values: int) -> tuple[str, ...]:
    """One note where ``saturated`` of ``values`` saturated the network's input, else none."""
    if not saturated:
        return ()
    return (f"{saturated:,} of {values:,} values lay outside the calibrated range",)


def _stuck_notes(qgraph: QGraph, fine: IntArray, rows: Rows) -> list[str]:
    """One note for each channel that the detector finds stuck, and for how long."""
    detector, notes = qgraph.detector, []
    if detector is None or detector.stuck is None:
        return []
    stuck = np.vstack(
        [fixed.stuck_channels(detector, fine[part], rows.present[part]) for part in rows.segments]
    )
    for channel, name in enumerate(qgraph.stream.names):
        found = np.flatnonzero(stuck[:, channel])
        if len(found):
            where = rows.dataset.stamp(int(found[0])) or f"row {found[0]}"
            notes.append(f"channel '{name}' is stuck in {len(found):,} rows, first at {where}")
    return notes


def _push(
    stream: EventStream,
    part: floating.FloatDetection,
    rows: Rows,
    start: int,
    on_event: Callable[[Event], None] | None,
) -> list[Event]:
    """Feed scored rows to the event stream; return the alarms that ended."""
    ended = []
    for index in range(len(part.score)):
        row = start + index
        event = stream.push(
            float(part.score[index]),
            int(part.alarm[index]),
            float(part.threshold[index]),
            part.contributions[index],
            rows.present[row],
            rows.dataset.stamp(row) or None,
        )
        if event is not None:
            if on_event:
                on_event(event)
            if event.stop_row is not None:
                ended.append(event)
    return ended


def _csv_text(rows: Rows, detection: floating.FloatDetection) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["time", "score", "threshold", "alarm"])
    channels = int(rows.scored.sum())
    for row in range(len(rows.x)):
        score = in_spreads(float(detection.score[row]), channels)
        limit = in_spreads(float(detection.threshold[row]), channels)
        stamp = rows.dataset.stamp(row) or f"{rows.dataset.time_s[row]:.9g}"
        writer.writerow([stamp, f"{score:.6g}", f"{limit:.6g}", int(detection.alarm[row])])
    return text.getvalue()
