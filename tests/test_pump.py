"""The synthetic pump: the same file for the same seed, real dynamics, faults where the labels say."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT
from edge_lstm.datasets import Dataset, Pump, fit_scaler, make_pump, read_csv, split, write_pump
from edge_lstm.datasets.pump import CHANNELS, DECIMALS, KINDS, NAMES, UNITS
from edge_lstm.errors import ConfigError, OutputError

ROWS = 20_000
SEEDS = (0, 7, 2**31)
DIGEST = "4b3105f0ada0916e6a6c438d25ceed7417329f8989843f5c20dfe24bbdef9897"


@pytest.fixture(scope="module", params=SEEDS)
def pump(request: pytest.FixtureRequest) -> Pump:
    return make_pump(ROWS, request.param)


def test_the_written_file_reads_back_as_the_pump(tmp_path: Path) -> None:
    path = tmp_path / "pump.csv"
    written = write_pump(path, 3000, 1)
    lines = path.read_text().splitlines()
    assert (
        lines[0] == "time,vibration [mm/s],pressure [bar],flow [l/min],current [A],temperature [degC],label"
    )
    assert len(lines) == 3001 and lines[1].startswith("2026-01-05T06:00:00,")
    for cell, decimals in zip(lines[1].split(",")[1:-1], DECIMALS, strict=True):
        assert len(cell.split(".")[1]) == decimals
    data, expected = read_csv(path), written.dataset()
    for name in Dataset.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(data, name), getattr(expected, name), err_msg=name)


def test_the_default_file_is_the_same_on_every_machine(tmp_path: Path) -> None:
    """The digest changes with the simulation only: then the figures in the README change too."""
    write_pump(tmp_path / "pump.csv", 2000, 7)
    assert hashlib.sha256((tmp_path / "pump.csv").read_bytes()).hexdigest() == DIGEST


def test_the_same_seed_gives_the_same_pump_and_another_seed_another() -> None:
    first, second, other = make_pump(2500, 3), make_pump(2500, 3), make_pump(2500, 4)
    assert (first.values == second.values).all() and first.faults == second.faults
    assert (first.healthy != other.healthy).any(axis=0).all() and first.faults != other.faults


def test_labels_are_the_union_of_the_faults(pump: Pump) -> None:
    expected = np.zeros(ROWS, np.uint8)
    for fault in pump.faults:
        expected[fault.start : fault.stop] = 1
    assert (pump.label == expected).all()
    assert (pump.values == pump.healthy)[pump.label == 0].all()


def test_each_fault_changes_its_channel_and_no_other(pump: Pump) -> None:
    spread = pump.healthy.std(axis=0)
    for fault in pump.faults:
        part, channel = slice(fault.start, fault.stop), NAMES.index(fault.channel)
        change = np.abs(pump.values[part] - pump.healthy[part]) / spread
        # a sensor that sticks while the load is calm is the hardest
        assert change[:, channel].max() > (0.4 if fault.kind == "stuck" else 1.0), fault
        assert (change[:, channel] > 0).mean() > 0.8, fault
        assert (np.delete(change, channel, axis=1) == 0).all(), fault


def test_each_kind_of_fault_looks_like_its_name(pump: Pump) -> None:
    for fault in pump.faults:
        part, channel = slice(fault.start, fault.stop), NAMES.index(fault.channel)
        seen, true = pump.values[part, channel], pump.healthy[part, channel]
        change, half = np.abs(seen - true), (fault.stop - fault.start) // 2
        if fault.kind == "stuck":
            assert (seen == seen[0]).all()
        elif fault.kind == "level_shift":
            assert np.ptp(seen - true) < 1e-9 + 2 * 10.0 ** -DECIMALS[channel]
        elif fault.kind == "drift":
            assert np.polyfit(np.arange(len(change)), change, 1)[0] > 0
            assert np.corrcoef(np.arange(len(change)), change)[0, 1] > 0.99
        elif fault.kind == "spike":
            assert change[::5].min() > 2 * change[3::5].max()
        elif fault.kind == "bearing_tone":
            assert change[half:].mean() > 1.5 * change[:half].mean() and (seen - true).mean() > 0
        else:
            history = np.lib.stride_tricks.sliding_window_view(pump.healthy[:, channel], len(seen))
            assert (history == seen).all(axis=1).any()


@pytest.mark.parametrize("rows", [2000, 2500, 5000, 9400, 14_000, 20_000, 60_000])
def test_all_kinds_appear_late_apart_and_in_four_to_eight_percent_of_the_rows(rows: int) -> None:
    for seed in range(3):
        pump = make_pump(rows, seed)
        assert {fault.kind for fault in pump.faults} == set(KINDS)
        assert 0.04 <= pump.label.mean() <= 0.08
        assert pump.faults[0].start >= 0.6 * rows and pump.faults[-1].stop <= rows
        for fault in pump.faults:
            assert 10 <= fault.stop - fault.start <= 150
            assert NAMES.index(fault.channel) in CHANNELS.get(fault.kind, range(5))
        for before, after in zip(pump.faults[:-1], pump.faults[1:], strict=True):
            assert after.start - before.stop >= 20
    assert len(make_pump(60_000).faults) > len(make_pump(20_000).faults) > len(make_pump(2000).faults)


def test_validation_and_test_parts_of_the_default_have_faults_and_the_training_part_none() -> None:
    parts = split(make_pump().dataset())
    assert parts.train.normal.all()
    assert not parts.validation.normal.all() and not parts.test.normal.all()


def test_readings_are_those_of_a_pump(pump: Pump) -> None:
    low, high = pump.healthy.min(axis=0), pump.healthy.max(axis=0)
    assert (low > (0.5, 1.0, 60, 2.5, 20)).all() and (high < (4, 5, 260, 10, 45)).all()
    assert (pump.values >= 0).all() and UNITS == ("mm/s", "bar", "l/min", "A", "degC")
    correlation = np.corrcoef(pump.healthy.T)
    flow, current, vibration = (NAMES.index(name) for name in ("flow", "current", "vibration"))
    assert correlation[flow, current] > 0.6 and correlation[vibration, flow] > 0.2
    assert (np.ptp(pump.healthy[: ROWS // 2], axis=0) > 3 * pump.healthy.std(axis=0)).all()


def test_a_forecaster_with_memory_beats_persistence_on_every_channel(pump: Pump) -> None:
    """A vector autoregression of order 5 by least squares, on rows with no fault within five rows."""
    parts = split(pump.dataset())
    stream = fit_scaler(parts.train)
    train, test = stream.to_network(parts.train.values), stream.to_network(parts.test.values)
    coefficients = np.linalg.lstsq(lagged(train), train[5:], rcond=None)[0]
    clean = np.lib.stride_tricks.sliding_window_view(parts.test.normal, 6).all(axis=1)
    target = test[5:][clean]
    autoregression = r2(target, (lagged(test) @ coefficients)[clean])
    persistence = r2(target, test[4:-1][clean])
    assert (autoregression > 0.75).all()
    assert (1 - autoregression < 0.7 * (1 - persistence)).all()
    assert (persistence < 0.9).sum() >= 3


def lagged(x: np.ndarray) -> np.ndarray:
    """Five rows before each row from 5 on, and a constant 1."""
    before = np.hstack([x[4 - lag : len(x) - 1 - lag] for lag in range(5)])
    return np.hstack([before, np.ones((len(before), 1))])


def r2(target: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    return 1 - ((target - forecast) ** 2).mean(axis=0) / target.var(axis=0)


def test_too_few_rows_and_a_negative_seed_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pump: 1999 rows asked for, expected at least 2000: six kinds"):
        write_pump(tmp_path / "pump.csv", rows=1999)
    with pytest.raises(ConfigError, match=r"(?s)2 problems.*seed -1, expected 0 or more"):
        make_pump(0, -1)
    with pytest.raises(OutputError, match="cannot write"):
        write_pump(tmp_path / "absent" / "pump.csv", rows=2000)
    assert list(tmp_path.iterdir()) == []


def test_the_pump_needs_numpy_only() -> None:
    program = (
        "import sys\nfor name in ('pandas', 'sklearn', 'scipy'): sys.modules[name] = None\n"
        "from edge_lstm.datasets import make_pump\nprint(len(make_pump(2000).faults))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout.strip() == "6"
