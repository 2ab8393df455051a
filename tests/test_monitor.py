"""monitor: rows to an executor one by one, what it shows, and what it records."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edge_lstm.cli import main
from edge_lstm.cli.monitor import live_table
from edge_lstm.errors import ConfigError
from edge_lstm.verbs.detect import detect
from edge_lstm.verbs.monitor import Sample, monitor


def test_every_row_is_reported_as_detect_finds_it(pump_tflite: Path, pump_csv: Path, tmp_path: Path) -> None:
    samples: list[Sample] = []
    out = tmp_path / "rows.csv"
    result = monitor(pump_tflite, pump_csv, "numpy", out=out, on_sample=samples.append)
    expected = detect(pump_tflite, pump_csv, out=tmp_path / "detect.csv")
    assert result.rows == len(samples) == expected.rows
    assert [sample.alarm for sample in samples] == [bool(alarm) for alarm in expected.detection.alarm]
    assert result.alarms == (np.diff(expected.detection.alarm.astype(int), prepend=0) == 1).sum()
    with out.open() as rows, (tmp_path / "detect.csv").open() as others:
        for row, other in zip(csv.DictReader(rows), csv.DictReader(others), strict=True):
            assert {key: row[key] for key in other} == other
    for sample in samples[-50:]:
        assert sample.score == 0 or abs(sum(sample.contributions.values()) - 1) < 1e-9
    assert not list(tmp_path.glob(".*.tmp"))


def test_what_was_recorded_until_it_was_ended_is_kept(
    pump_tflite: Path, pump_csv: Path, tmp_path: Path
) -> None:
    def end(sample: Sample) -> None:
        if sample.row == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        monitor(pump_tflite, pump_csv, "numpy", out=tmp_path / "rows.csv", on_sample=end)
    assert (tmp_path / "rows.csv").read_text().count("\n") == 11


def test_a_rate_below_zero_is_refused(pump_tflite: Path, pump_csv: Path) -> None:
    with pytest.raises(ConfigError, match="rate is -1, expected rows a second"):
        monitor(pump_tflite, pump_csv, "numpy", rate=-1)


def test_without_a_terminal_an_alarm_is_one_line_and_json_is_one_a_row(
    pump_tflite: Path, pump_csv: Path
) -> None:
    command = ["monitor", str(pump_tflite), str(pump_csv), "--on", "numpy"]
    shown = CliRunner().invoke(main, command)
    assert shown.exit_code == 0, shown.output
    *lines, last = shown.output.splitlines()
    alarms = [line for line in lines if "  ALARM  score " in line]
    assert last.endswith(f", {len(alarms)} alarms") and " rows on numpy in " in last
    rows = CliRunner().invoke(main, [*command, "--json"]).output.splitlines()
    assert json.loads(rows[0]).keys() == Sample.__dataclass_fields__.keys()
    neither = CliRunner().invoke(main, command[:3])
    assert neither.exit_code == 1 and "give --port with the board's serial port" in neither.output


def test_the_live_view_shows_missing_values_and_a_score_beyond_its_threshold() -> None:
    from rich.console import Console

    sample = Sample(
        3, "12:00", {"flow": None, "level": 2.5}, 9.0, 3.0, True, {"flow": 0.0, "level": 1.0}, 40, 12
    )
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(live_table(sample))
    text = console.export_text()
    assert "ALARM" in text and "missing" in text and "9.00" in text and "of 3.00" in text
    assert "12 values so far outside the calibrated range" in text
