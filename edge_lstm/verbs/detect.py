"""detect: a recording through network and detector on any executor; alarms as they happen."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_lstm.detection import floating
from edge_lstm.detection.events import Event, EventStream, in_spreads
from edge_lstm.errors import ModelError
from edge_lstm.files import write_text
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.verbs.streams import (
    Rows,
    StreamOptions,
    codes_of,
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
    qgraph = read_tflite(Path(model))
    if qgraph.detector is None:
        raise ModelError(
            f"{model}: carries no detector; make one with: edge-lstm quantize MODEL.keras --data CSV"
        )
    dataset = read_stream(data, options or StreamOptions(), qgraph.stream)
    rows = network_rows(dataset, qgraph.stream, train_config(qgraph.made))
    codes = codes_of(qgraph, rows)
    stream = EventStream(qgraph.stream.names)
    events: list[Event] = []
    parts: list[floating.FloatDetection] = []
    with open_executor(on, qgraph, Path(model).read_bytes()) as executor:
        for segment in rows.segments:
            executor.reset()
            for start in range(segment.start, segment.stop, CHUNK_ROWS):
                stop = min(start + CHUNK_ROWS, segment.stop)
                found = executor.detect(codes[start:stop], rows.present[start:stop])
                parts.append(floating.from_fixed(found))
                events += _push(stream, parts[-1], rows, start, on_event)
    last = stream.close()
    detection = join(parts)
    if out is not None:
        write_text(Path(out), _csv_text(rows, detection))
    return Detected(
        qgraph.name,
        on,
        dataset.rows,
        tuple(events if last is None else [*events, last]),
        detection,
        dataset.notes,
    )


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
            part.smoothed[index],
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
    channels = rows.x.shape[1]
    for row in range(len(rows.x)):
        score = in_spreads(float(detection.score[row]), channels)
        limit = in_spreads(float(detection.threshold[row]), channels)
        stamp = rows.dataset.stamp(row) or f"{rows.dataset.time_s[row]:.9g}"
        writer.writerow([stamp, f"{score:.6g}", f"{limit:.6g}", int(detection.alarm[row])])
    return text.getvalue()
