"""The C of detectors on every recording, raw ADC integers to alarm: bit by bit what NumPy computes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from conftest import missing
from edge_lstm.datasets.csv_file import read_csv
from edge_lstm.datasets.dataset import Dataset
from edge_lstm.datasets.suite import POLICY, load, read_suite
from edge_lstm.qgraph import QGraph
from firmware_tools.cores import core_named
from firmware_tools.emulator import EmulatedExecutor, build_machine
from firmware_tools.host import HostExecutor, load_library
from suite_twins import FITTED, differing, reference, twin

CORE = "cortex-m4"
TESTED = 200  # rows after training
WIDTHS = (1, 2, 5, 9)


def window(dataset: Dataset, train_rows: int) -> tuple[Dataset, int]:
    """The rows around the end of training, and how many of them are for training."""
    first = max(0, train_rows - FITTED)
    return dataset.slice(first, min(dataset.rows, train_rows + TESTED)), train_rows - first


def check(qgraphs: Sequence[QGraph], datasets: Sequence[Dataset]) -> None:
    """Host and emulated core against NumPy."""
    expected = [reference(qgraph, dataset) for qgraph, dataset in zip(qgraphs, datasets, strict=True)]
    alarms = np.concatenate([rows[:, 1] for rows in expected])
    assert 0 < alarms.mean() < 0.9  # both are compared
    own = list({qgraph.name: qgraph for qgraph in qgraphs}.values())
    library = load_library(own)
    assert differing([HostExecutor(q, library=library) for q in qgraphs], datasets, expected) == 0
    if shutil.which("arm-none-eabi-gcc") is None:
        missing("arm-none-eabi-gcc")
    machine = build_machine(own, core_named(CORE))
    assert differing([EmulatedExecutor(q, CORE, machine=machine) for q in qgraphs], datasets, expected) == 0


def synthetic(path: Path, channels: int, seed: int) -> Dataset:
    """Waves and noise in steps of 0.01, with missing samples, a gap of time, a fault and a dead channel."""
    rng = np.random.default_rng(seed)
    rows = FITTED + TESTED
    x = np.sin(np.arange(rows)[:, None] * rng.uniform(0.05, 0.3, channels)) * rng.uniform(1, 50, channels)
    x += rng.normal(0, 0.1, x.shape)
    x[FITTED + 60 : FITTED + 90] *= 4
    x[:, -1] = 7.25 if channels > 2 else x[:, -1]
    known = rng.random(x.shape) > 0.03
    seconds = np.arange(rows) + 500 * (np.arange(rows) > FITTED + 120)
    lines = ["time," + ",".join(f"c{c}" for c in range(channels))]
    lines += [
        f"{t}," + ",".join(f"{v:.2f}" if here else "" for v, here in zip(row, kept, strict=True))
        for t, row, kept in zip(seconds, x, known, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_csv(path, policy=POLICY)


def test_the_c_of_detectors_of_every_width_scores_as_numpy_does(tmp_path: Path) -> None:
    datasets = [synthetic(tmp_path / f"{width}.csv", width, width) for width in WIDTHS]
    assert any(dataset.gap.any() for dataset in datasets)
    assert all((~dataset.present).any() for dataset in datasets)
    qgraphs = [twin(d, FITTED, f"twin{w}", w) for w, d in zip(WIDTHS, datasets, strict=True)]
    check(qgraphs, datasets)


def test_the_c_scores_every_recording_as_numpy_does(shared_data: Path) -> None:
    recordings = read_suite(shared_data).recordings
    assert len(recordings) > 30
    qgraphs, datasets = {}, []
    for number, recording in enumerate(recordings):
        loaded = load(recording)
        part, train_rows = window(loaded.dataset, int(loaded.train.sum()))
        # the recordings of a machine share a detector; single channels are of machines of their own
        machine = recording.dataset, recording.series if part.channels == 1 else ""
        if machine not in qgraphs:
            qgraphs[machine] = twin(part, train_rows, f"twin{number}", number)
        datasets.append((machine, part))
    check([qgraphs[machine] for machine, _ in datasets], [part for _, part in datasets])
