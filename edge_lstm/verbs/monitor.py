"""monitor: a recording through the detector of a board, one row at a time, as the board answers."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edge_lstm.detection import floating
from edge_lstm.detection.events import in_spreads
from edge_lstm.errors import ConfigError, DataError
from edge_lstm.scaling import counts_of
from edge_lstm.verbs.detect import read_detector
from edge_lstm.verbs.streams import StreamOptions, network_rows, read_stream, train_config
from firmware_tools.executors import open_executor


@dataclass(frozen=True)
class Sample:
    """One row and what the board said of it.

    values: of the channels, None where missing.  score, threshold: root mean square over channels, in
    spreads.  contributions: each channel's share of the score, 0 .. 1.  rate: rows a second so far.
    saturated: values so far outside the calibrated range.
    """

    row: int
    time: str
    values: dict[str, float | None]
    score: float
    threshold: float
    alarm: bool
    contributions: dict[str, float]
    rate: float
    saturated: int = 0


@dataclass(frozen=True)
class Monitored:
    """rows: that the board answered.  alarms: how often one began.  saturated: values outside
    the calibrated range.
    """

    model: str
    executor: str
    rows: int
    alarms: int
    seconds: float
    saturated: int = 0


def monitor(
    model: Path,
    data: Path,
    on: str,
    rate: float = 0.0,
    out: Path | None = None,
    options: StreamOptions | None = None,
    on_sample: Callable[[Sample], None] | None = None,
) -> Monitored:
    """Send the rows of the CSV ``data`` to the executor ``on``, one by one, and report each answer.

    rate: rows a second, 0 for as fast as the line goes.  out: a CSV of every sample, whole at any end, Ctrl-C
    among them.  Raises ConfigError, DataError or RuntimeFailure, the latter when a board is lost for good.
    """
    if rate < 0:
        raise ConfigError(f"rate is {rate:g}, expected rows a second, or 0 for as fast as the line goes")
    start, rows, alarms, before, saturated = time.monotonic(), 0, 0, False, 0
    with _recording(out) as record:
        for sample in _samples(Path(model), Path(data), on, options or StreamOptions(), start):
            rows, alarms = rows + 1, alarms + (sample.alarm and not before)
            before, saturated = sample.alarm, sample.saturated
            record(sample)
            if on_sample:
                on_sample(sample)
            if rate:
                time.sleep(max(start + rows / rate - time.monotonic(), 0.0))
    return Monitored(Path(model).stem, on, rows, alarms, time.monotonic() - start, saturated)


def _samples(model: Path, data: Path, on: str, options: StreamOptions, start: float) -> Iterator[Sample]:
    qgraph = read_detector(model)
    dataset = read_stream(data, options, qgraph.stream)
    rows = network_rows(dataset, qgraph.stream, train_config(qgraph.made))
    raw, names = counts_of(qgraph.stream, dataset.values), qgraph.stream.names
    saturated, scored = 0, int(qgraph.stream.scored.sum())
    with open_executor(on, qgraph, model.read_bytes()) as executor:
        for segment in rows.segments:
            executor.reset()
            for row in range(segment.start, segment.stop):
                part = executor.detect(raw[row : row + 1])
                saturated += executor.scaling.saturated(raw[row])
                found = floating.from_fixed(part)
                squares = found.contributions[0].tolist()
                present, values = rows.present[row].tolist(), dataset.values[row].tolist()
                yield Sample(
                    row,
                    dataset.stamp(row) or f"{dataset.time_s[row]:.9g}",
                    {name: value if is_there else None
                     for name, value, is_there in zip(names, values, present, strict=True)},
                    in_spreads(float(found.score[0]), scored),
                    in_spreads(float(found.threshold[0]), scored),
                    bool(found.alarm[0]),
                    {name: s / (sum(squares) or 1.0) for name, s in zip(names, squares, strict=True)},
                    (row + 1) / max(time.monotonic() - start, 1e-9),
                    saturated,
                )  # fmt: skip


@contextmanager
def _recording(out: Path | None) -> Iterator[Callable[[Sample], None]]:
    """Writes samples beside ``out`` and puts the file in its place at the end, however it comes."""
    if out is None:
        yield lambda _sample: None
        return
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        file = temporary.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}; choose a folder that exists") from error
    try:
        with file:
            yield _Writer(file)
    finally:
        if temporary.stat().st_size:
            temporary.replace(out)
        else:
            temporary.unlink()


class _Writer:
    """Writes the head with the first sample."""

    def __init__(self, file: IO[str]) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self._begun = False

    def __call__(self, sample: Sample) -> None:
        if not self._begun:
            self._writer.writerow(["time", *sample.values, "score", "threshold", "alarm"])
            self._begun = True
        values = ["" if value is None else f"{value:.9g}" for value in sample.values.values()]
        self._writer.writerow(
            [sample.time, *values, f"{sample.score:.6g}", f"{sample.threshold:.6g}", int(sample.alarm)]
        )
