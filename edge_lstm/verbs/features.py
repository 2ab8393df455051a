"""features: a CSV of samples -> a CSV of integer rows, as the device computes them, and the C that does."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_lstm.datasets.csv_file import read_csv
from edge_lstm.datasets.dataset import Dataset
from edge_lstm.datasets.policies import Policy
from edge_lstm.detection.fixed import INT32_MAX, MISSING
from edge_lstm.emit.c_features import emit_features
from edge_lstm.errors import DataError, raise_all
from edge_lstm.extraction.config import FeatureConfig
from edge_lstm.extraction.fixed import QFeatures, extract, quantize_features
from edge_lstm.files import make_folder, write_text
from edge_lstm.fixedpoint import IntArray

CHUNK_SAMPLES = 1 << 14  # between two reports of progress
RATE_TOLERANCE = 0.01
# every row of the file is a sample: none is merged, filled in or left out
POLICY = Policy(duplicates="refuse", constant="keep")
LABEL = "label"


@dataclass(frozen=True)
class Extracted:
    """What was written.  left_over: samples at the ends of the segments that fill no row."""

    out: str
    samples: int
    rows: int
    segments: int
    left_over: int
    columns: tuple[str, ...]
    c_files: tuple[str, ...]
    notes: tuple[str, ...]


def features(
    data: Path,
    config: FeatureConfig,
    out: Path,
    c: Path | None = None,
    time: str | None = None,
    label: str | None = None,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> Extracted:
    """Write the feature rows of the CSV ``data`` to the CSV ``out``, and the stage's C into the folder ``c``.

    A row has the stamp of its last sample, and is anomalous where one of its samples is.  Where time was
    interrupted the stage starts from reset.  time, label: those columns, "" for none, None to find them.
    Raises DataError where samples are missing, are no raw integers or have another rate.
    """
    stage = quantize_features(config)
    names = [channel.name for channel in config.channels]
    dataset = read_csv(Path(data), time=time, channels=names, label=label, policy=POLICY)
    counts = _counts(stage, dataset, str(data))
    parts, last = _rows(stage, dataset, counts, on_progress)
    if not len(last):
        raise DataError(
            f"{data}: {dataset.rows} samples fill no row of {config.hop}; record more, or lower hop"
        )
    files = emit_features(stage) if c is not None else {}
    folder = make_folder(Path(c)) if c is not None else None
    rows = np.concatenate(parts)
    write_text(Path(out), _csv_text(stage, dataset, rows, last))
    if folder is not None:
        for file, text in files.items():
            write_text(folder / file, text)
    used = len(last) * config.hop
    return Extracted(
        str(out), dataset.rows, len(last), len(parts), dataset.rows - used, config.columns, tuple(files),
        (*dataset.notes, *_constant_notes(config, rows)),
    )  # fmt: skip


def _counts(stage: QFeatures, dataset: Dataset, where: str) -> IntArray:
    """Raw integers (samples, channels), MISSING where a slow channel has no value."""
    config, problems = stage.config, _rate_problems(stage.config, dataset)
    counts = np.empty(dataset.values.shape, dtype=np.int64)
    for index, channel in enumerate(config.channels):
        fast = index < len(config.fast)
        real = (dataset.values[:, index] - channel.zero) / channel.resolution
        absent = np.isnan(real)
        whole = np.rint(np.where(absent, 0.0, real))
        limit = 32768 if fast else INT32_MAX + 1
        if fast and absent.any():
            problems.append(
                f"channel '{channel.name}': {absent.sum()} of {len(real)} samples are empty, the first is "
                f"{_place(dataset, absent)}; a fast channel has no missing samples: cut the recording there"
            )
        odd = ~absent & (np.abs(real - whole) > 1e-3) & (channel.resolution == 1)
        if odd.any():
            problems.append(
                f"channel '{channel.name}' holds {dataset.values[odd, index][0]:g} {_place(dataset, odd)}, "
                f"expected raw integers; state what one stands for: resolution = 0.001"
            )
        outside = (whole < -limit + (not fast)) | (whole >= limit)
        if outside.any():
            problems.append(
                f"channel '{channel.name}' holds {dataset.values[outside, index][0]:g} "
                f"{_place(dataset, outside)}, which is no int{16 if fast else 32} ({outside.sum()} samples); "
                "state a coarser resolution"
            )
        counts[:, index] = np.where(absent, MISSING, np.clip(whole, MISSING, INT32_MAX))
    raise_all(DataError, where, problems)
    return counts


def _constant_notes(config: FeatureConfig, rows: npt.NDArray[np.int32]) -> tuple[str, ...]:
    """A line for each column whose present values are all equal: a network would not have it."""
    notes = []
    for name, column in zip(config.columns, rows.T, strict=True):
        present = np.unique(column[column != MISSING])
        if len(present) < 2:
            found = f"{present[0]} in every row" if len(present) else "missing in every row"
            notes.append(
                f"column '{name}' is {found}: train would leave it out, and the device's rows would have it; "
                "remove the feature, or train with --constant keep"
            )
    return tuple(notes)


def _rate_problems(config: FeatureConfig, dataset: Dataset) -> list[str]:
    if not dataset.period_s or abs(dataset.period_s * config.rate_hz - 1) <= RATE_TOLERANCE:
        return []
    return [
        f"its samples are {dataset.period_s:g} s apart, {1 / dataset.period_s:g} a second, but rate_hz is "
        f"{config.rate_hz:g}"
    ]


def _place(dataset: Dataset, found: npt.NDArray[np.bool_]) -> str:
    row = int(np.flatnonzero(found)[0])
    return f"at {dataset.stamp(row)}" if dataset.start else f"in sample {row + 1}"


def _rows(
    stage: QFeatures,
    dataset: Dataset,
    counts: IntArray,
    on_progress: Callable[[int, int, str], None] | None,
) -> tuple[list[npt.NDArray[np.int32]], IntArray]:
    """Rows of each segment between gaps, and the last sample of every row."""
    fast = len(stage.config.fast)
    parts, last = [], []
    edges = [0, *np.flatnonzero(dataset.gap).tolist(), dataset.rows]
    for begin, end in pairwise(edges):
        state, found = None, []
        for at in range(begin, end, CHUNK_SAMPLES):
            chunk = counts[at : min(at + CHUNK_SAMPLES, end)]
            rows, state = extract(stage, chunk[:, :fast], chunk[:, fast:], state)
            found.append(rows)
            if on_progress is not None:
                on_progress(at + len(chunk), dataset.rows, "samples")
        parts.append(np.concatenate(found))
        last.append(begin + stage.config.hop * np.arange(1, len(parts[-1]) + 1) - 1)
    return parts, np.concatenate(last)


def _csv_text(stage: QFeatures, dataset: Dataset, rows: npt.NDArray[np.int32], last: IntArray) -> str:
    """Stamp, columns and label of every row; an empty cell stands for a missing value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    labelled = dataset.label is not None
    writer.writerow(["time", *stage.config.columns, *([LABEL] if labelled else [])])
    for row, sample in zip(rows.tolist(), last.tolist(), strict=True):
        cells = ["" if value == MISSING else value for value in row]
        if dataset.label is not None:
            cells.append(int(dataset.label[sample - stage.config.hop + 1 : sample + 1].max()))
        writer.writerow([_stamp(dataset, sample), *cells])
    return text.getvalue()


def _stamp(dataset: Dataset, sample: int) -> str:
    """All stamps of a file have one form: ISO with microseconds, or seconds, or samples."""
    if not dataset.start:
        return f"{dataset.time_s[sample]:.12g}"
    moment = datetime.fromisoformat(dataset.start) + timedelta(seconds=float(dataset.time_s[sample]))
    return moment.isoformat(timespec="microseconds")
