"""A folder of labelled recordings as a suite: ``index.csv`` and ``<dataset>/<series>.csv`` or ``.csv.gz``.

Reads the index and, one at a time, the recordings; rows before ``train_end`` are for training.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_lstm.datasets.csv_file import read_csv
from edge_lstm.datasets.dataset import MIN_ROWS, BoolArray, Dataset
from edge_lstm.datasets.policies import Policy
from edge_lstm.datasets.table import listed
from edge_lstm.errors import DataError, raise_all

INDEX = "index.csv"
COLUMNS = ("dataset", "series", "train_end")
POLICY = Policy(constant="keep")  # dead channels are part of the test
RATE = re.compile(r"(1/)?(\d+(?:\.\d+)?) Hz")
EVENT = re.compile(r"(\d+)-(\d+):(\d+(?:,\d+)*)")


@dataclass(frozen=True)
class Recording:
    """One series of the suite.

    train_end: rows of the file that are for training; 0 where another recording, ``normal``, is.
    fs: sampling as the index words it, "" where it does not.
    interpretation: file with the channels of each event, None where there is none.
    """

    dataset: str
    series: str
    path: Path
    train_end: int
    fs: str
    interpretation: Path | None
    normal: Path | None


@dataclass(frozen=True)
class Suite:
    """The recordings that can be used, in the order of the index; notes: what was left out, and why."""

    recordings: tuple[Recording, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Loaded:
    """Rows of a recording; train: bool (rows,), True for the first rows, which training may see."""

    dataset: Dataset
    train: BoolArray


@dataclass(frozen=True)
class FaultyChannels:
    """Ground truth of one event: rows ``start`` to ``stop`` (not included), its channels by number from 0."""

    start: int
    stop: int
    channels: tuple[int, ...]


@dataclass(frozen=True)
class _Entry:
    """A line of the index; rows and anomaly_rows are None where the index does not say."""

    dataset: str
    series: str
    fs: str
    train_end: int
    rows: int | None
    anomaly_rows: int | None
    path: Path | None


def read_suite(folder: Path | str) -> Suite:
    """Recordings of a folder by its ``index.csv``; raises DataError with all problems of the index.

    Columns: dataset, series and train_end; fs, rows and anomaly_rows where present.  A series whose
    train_end is 0 is trained on the first such series of its data set whose anomaly_rows is 0.
    """
    folder = Path(folder)
    entries = _read_index(folder)
    with_file = [entry for entry in entries if entry.path is not None]
    normal: dict[str, _Entry] = {}
    for entry in with_file:
        if entry.train_end == 0 and entry.anomaly_rows == 0:
            normal.setdefault(entry.dataset, entry)
    whole = [entry for entry in with_file if entry.rows is not None and entry.train_end >= entry.rows > 0]
    untrained = [entry for entry in with_file if entry.train_end == 0 and entry.dataset not in normal]
    notes = [
        *_left_out([entry for entry in entries if entry.path is None], "there is no such .csv or .csv.gz"),
        *_left_out(whole, "no row is left to test after train_end"),
        *_left_out(untrained, "train_end is 0, and no such series of the data set has anomaly_rows 0"),
        *(f"{name}: series with train_end 0 are trained on {entry.series}" for name, entry in normal.items()),
    ]
    out = [*whole, *untrained, *normal.values()]
    recordings = tuple(_recording(entry, normal) for entry in with_file if entry not in out)
    if not recordings:
        raise DataError(f"{folder}: no recording can be used: {'; '.join(notes) or 'the index has no rows'}")
    return Suite(recordings, tuple(notes))


def _left_out(entries: Sequence[_Entry], why: str) -> list[str]:
    """One line for each data set."""
    names = dict.fromkeys(entry.dataset for entry in entries)
    return [
        f"{name}: left out {listed([entry.series for entry in entries if entry.dataset == name], 8)}: {why}"
        for name in names
    ]


def _recording(entry: _Entry, normal: dict[str, _Entry]) -> Recording:
    assert entry.path is not None
    truth = entry.path.with_name(f"{entry.series}.interpretation.txt")
    return Recording(
        entry.dataset,
        entry.series,
        entry.path,
        entry.train_end,
        entry.fs,
        truth if truth.is_file() else None,
        normal[entry.dataset].path if entry.train_end == 0 else None,
    )


def _read_index(folder: Path) -> list[_Entry]:
    """Lines of the index in its order."""
    path = folder / INDEX
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = list(csv.reader(text.splitlines(), strict=True))
    except FileNotFoundError:
        raise DataError(
            f"{path}: there is no such file; a suite is a folder with an index.csv of the columns "
            f"{', '.join(COLUMNS)}, and its recordings as <dataset>/<series>.csv"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}") from error
    header = [field.strip() for field in lines[0]] if lines else []
    raise_all(
        DataError,
        str(path),
        [
            f"column '{name}' appears {header.count(name)} times among {', '.join(header) or 'none'}, "
            "expected once"
            for name in (*COLUMNS, "fs", "rows", "anomaly_rows")
            if header.count(name) > 1 or (name in COLUMNS and name not in header)
        ],
    )
    problems: list[str] = []
    entries = [
        _entry(folder, header, fields, number, problems)
        for number, fields in enumerate(lines[1:], 2)
        if fields
    ]
    known = [entry for entry in entries if entry is not None]
    names = [(entry.dataset, entry.series) for entry in known]
    problems += [
        f"series '{series}' of data set '{dataset}' appears {names.count((dataset, series))} times"
        for dataset, series in dict.fromkeys(names)
        if names.count((dataset, series)) > 1
    ]
    raise_all(DataError, str(path), problems)
    return known


def _entry(
    folder: Path, header: list[str], fields: list[str], number: int, problems: list[str]
) -> _Entry | None:
    """One line of the index, None where it has problems."""
    if len(fields) != len(header):
        problems.append(f"line {number} has {len(fields)} fields, expected {len(header)} as in the header")
        return None
    row = {name: field.strip() for name, field in zip(header, fields, strict=True)}
    found = [
        f"line {number}: {name} is '{row[name]}', expected the name of a {kind}"
        for name, kind in (("dataset", "folder"), ("series", "file in it without .csv"))
        if not row[name] or "/" in row[name] or "\\" in row[name] or row[name].startswith(".")
    ]
    counts: dict[str, int | None] = {}
    for name in ("train_end", "rows", "anomaly_rows"):
        cell = row.get(name, "")
        counts[name] = int(cell) if cell.isascii() and cell.isdigit() else None
        if counts[name] is None and (cell or name == "train_end"):
            found.append(f"line {number}: {name} is '{cell}', expected a whole number of rows, 0 or more")
    problems += found
    train_end = counts["train_end"]
    if found or train_end is None:
        return None
    places = [folder / row["dataset"] / f"{row['series']}{ending}" for ending in (".csv", ".csv.gz")]
    path = next((place for place in places if place.is_file()), None)
    return _Entry(
        row["dataset"],
        row["series"],
        row.get("fs", ""),
        train_end,
        counts["rows"],
        counts["anomaly_rows"],
        path,
    )


def load(recording: Recording) -> Loaded:
    """Read a recording: constant channels kept, missing values NaN, time from ``fs`` where the file has none.

    Rows with duplicate stamps are merged; the training rows then end earlier by as many, never later.
    Raises DataError on a file that cannot be used or has no label column.
    """
    where, train_end = str(recording.path), recording.train_end
    dataset = _timed(read_csv(recording.path, policy=POLICY), recording.fs)
    if recording.normal is not None:
        normal = _timed(read_csv(recording.normal, policy=POLICY), recording.fs)
        dataset, train_end = _join(normal, dataset, where), normal.rows
    else:
        train_end -= _file_rows(recording.path) - dataset.rows
    problems = []
    if dataset.label is None:
        problems.append("there is no label column, expected one of 0 and 1, such as 'label'")
    if not MIN_ROWS <= train_end <= dataset.rows - MIN_ROWS:
        problems.append(
            f"{train_end} of {dataset.rows} rows are for training, expected at least {MIN_ROWS} there and "
            "after them; correct train_end in the index"
        )
    raise_all(DataError, where, problems)
    return Loaded(dataset, np.arange(dataset.rows) < train_end)


def _file_rows(path: Path) -> int:
    """Rows of a CSV that has been read, without its header."""
    content = path.read_bytes()
    text = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    return sum(bool(line.strip()) for line in text.splitlines()) - 1


def _timed(dataset: Dataset, fs: str) -> Dataset:
    """The dataset with the time that ``fs`` (as in "1/60 Hz") gives to counted rows."""
    match = RATE.match(fs)
    if dataset.period_s or not match or float(match[2]) == 0:
        return dataset
    period_s = float(match[2]) if match[1] else 1 / float(match[2])
    return replace(dataset, time_s=dataset.time_s * period_s, period_s=period_s)


def _join(first: Dataset, second: Dataset, where: str) -> Dataset:
    """Both one after the other, with a gap between them."""
    if first.names != second.names or (first.label is None) != (second.label is None):
        raise DataError(
            f"{where}: the columns are not those of the recording that it is trained on: "
            f"{listed(list(second.names), 8)} against {listed(list(first.names), 8)}"
        )
    gap = np.concatenate([first.gap, second.gap])
    gap[first.rows] = True
    labels = None
    if first.label is not None and second.label is not None:
        labels = np.concatenate([first.label, second.label])
    return replace(
        second,
        values=np.concatenate([first.values, second.values]),
        present=np.concatenate([first.present, second.present]),
        gap=gap,
        label=labels,
        time_s=np.concatenate([first.time_s, first.time_s[-1] + (first.period_s or 1.0) + second.time_s]),
        start="",
    )


def faulty_channels(recording: Recording, channels: int) -> tuple[FaultyChannels, ...]:
    """Ground truth of the channels of each event, rows counted from ``train_end``; empty without a file.

    Lines of the file are ``start-stop:1,2,5``, channels numbered from 1 to ``channels`` (SMD, Su et al.,
    KDD 2019).  Raises DataError with every line that is not.
    """
    path = recording.interpretation
    if path is None:
        return ()
    events, problems = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        match = EVENT.fullmatch(line.strip())
        numbers = sorted({int(part) for part in match[3].split(",")}) if match else []
        if match and int(match[1]) < int(match[2]) and numbers[0] >= 1 and numbers[-1] <= channels:
            events.append(FaultyChannels(int(match[1]), int(match[2]), tuple(n - 1 for n in numbers)))
        elif line.strip():
            problems.append(
                f"line {number} is '{line.strip()[:60]}', expected start-stop:channels as in 10-20:1,2 with "
                f"channels 1 to {channels}"
            )
    raise_all(DataError, str(path), problems)
    return tuple(events)
