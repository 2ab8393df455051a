"""``edge-lstm features``: the example on a bearing, rows that networks take, one line for every bad input."""

from __future__ import annotations

import csv
import ctypes
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

from conftest import ROOT
from edge_lstm.cli import main
from edge_lstm.datasets.csv_file import read_csv
from edge_lstm.datasets.policies import Policy
from edge_lstm.datasets.resolution import with_resolution
from edge_lstm.detection.fixed import MISSING
from edge_lstm.extraction.config import FeatureConfig
from edge_lstm.extraction.fixed import quantize_features
from edge_lstm.graph import Channel, Stream
from edge_lstm.scaling import counts_of
from edge_lstm.verbs.features import features
from firmware_tools.build import Sources, build_host
from test_cli import refused
from test_features_c import harness_of, run_host

EXAMPLE = ROOT / "examples" / "features.toml"
RATE, HOP = 12_000, 1200
FAULT = 20  # the row in which the bearing's fault begins


def edge_lstm(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def bearing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 s of a shaft at 29 Hz; from row 20 on the outer ring rings at 3 kHz, 107 times a second."""
    rng, count = np.random.default_rng(11), 40 * HOP
    t = np.arange(count) / RATE
    x = 1 + 0.05 * np.sin(2 * np.pi * 29 * t) + rng.normal(0, 0.02, count)
    ring = 0.3 * np.exp(-np.arange(60) / 12) * np.sin(2 * np.pi * 3000 * np.arange(60) / RATE)
    for start in range(FAULT * HOP, count - 60, RATE // 107):
        x[start : start + 60] += ring
    path = tmp_path_factory.mktemp("bearing") / "bearing.csv"
    lines = ["time,ax [g],temperature [C],fault"]
    for index in range(count):
        warm = f"{41 + t[index]:.2f}" if index % 3000 == 7 else ""
        lines.append(f"{t[index]:.6f},{x[index]:.5f},{warm},{int(index >= FAULT * HOP)}")
    path.write_text("\n".join(lines) + "\n")
    return path


def read_rows(path: Path) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Header and cells of a rows file without its stamps; empty cells as MISSING."""
    with path.open() as stream:
        header, *lines = csv.reader(stream)
    return header[1:], np.array([[int(cell) if cell else MISSING for cell in line[1:]] for line in lines])


def test_the_example_finds_a_bearings_fault_and_its_c_computes_the_same_rows(
    bearing: Path, tmp_path: Path
) -> None:
    out, folder = tmp_path / "rows.csv", tmp_path / "c"
    result = edge_lstm("features", bearing, "--config", EXAMPLE, "-o", out, "--c", folder)
    assert result.exit_code == 0, result.output
    assert "40 rows of 10 columns from 48,000 samples" in result.output
    assert "column 'temperature_difference_10' is 100 in every row" in result.output
    header, rows = read_rows(out)
    assert header[0] == "ax_rms" and header[5] == "ax_band_2000_4000" and header[-1] == "label"
    column = {name: rows[:, index].astype(np.float64) for index, name in enumerate(header)}
    assert column["label"].tolist() == [0.0] * FAULT + [1.0] * FAULT
    for name, factor in (("ax_kurtosis", 2.0), ("ax_crest", 1.2), ("ax_band_2000_4000", 1.5)):
        assert column[name][FAULT:].min() > factor * column[name][:FAULT].max(), name
    assert abs(column["ax_rms"][FAULT:].mean() / column["ax_rms"][:FAULT].mean() - 1) < 0.01

    config = FeatureConfig.from_mapping(_toml(EXAMPLE))
    dataset = read_csv(bearing, channels=["ax", "temperature"])
    x = np.rint(dataset.values[:, :1] / 0.000488).astype(np.int64)
    warm = np.where(dataset.present[:, 1:], np.rint(np.nan_to_num(dataset.values[:, 1:]) * 100), MISSING)
    stage = quantize_features(config)
    (folder / "edge_harness.c").write_text(harness_of(stage))
    sources = Sources(
        (folder / "bearing_features.c",),
        (folder / "elstm_features.c",),
        folder / "edge_harness.c",
        folder,
        "",
    )
    library = ctypes.CDLL(str(build_host(sources, tmp_path)))
    assert (run_host(library, stage, (x, warm.astype(np.int64))) == rows[:, :-1]).all()


def _toml(path: Path) -> dict[str, object]:
    from edge_lstm.cli.config import read_toml

    return read_toml(path)


def test_the_rows_of_the_file_are_the_raw_integers_of_the_network(bearing: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    assert edge_lstm("features", bearing, "--config", EXAMPLE, "-o", out).exit_code == 0
    _, rows = read_rows(out)
    dataset = read_csv(out, policy=Policy(constant="keep"))
    assert dataset.label is not None and dataset.period_s == pytest.approx(HOP / RATE)
    stream = Stream(tuple(Channel(name, "", 0.0, 1.0) for name in dataset.names), dataset.period_s)
    stream = with_resolution(stream, dataset.values)
    assert (counts_of(stream, dataset.values) == rows[:, :-1]).all()


def small(tmp_path: Path, text: str = "") -> Path:
    """A stage of 4 samples a row, of a fast and a slow channel at 10 Hz."""
    path = tmp_path / "small.toml"
    path.write_text(
        text
        or 'name = "small"\nrate_hz = 10\nhop = 4\n[fast.a]\nfeatures = ["value", "mean"]\n'
        '[slow.t]\nfeatures = ["value", "lag(1)"]\n'
    )
    return path


def samples(change: Callable[[list[list[str]]], None] | None = None, start: str = "") -> str:
    """20 samples of a (0, 1, 2 ...) and t (every third sample); label 1 in sample 9."""
    rows = [[f"{i / 10:g}", str(i), str(100 + i) if i % 3 == 0 else "", str(int(i == 9))] for i in range(20)]
    if start:
        for i, row in enumerate(rows):
            row[0] = f"2026-01-01T00:00:{i // 10:02d}.{i % 10}00"
    if change:
        change(rows)
    return "\n".join(["time,a,t,label", *(",".join(row) for row in rows)]) + "\n"


def test_a_row_has_the_stamp_of_its_last_sample_and_the_label_of_any(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text(samples(start="2026"))
    result = features(
        tmp_path / "s.csv", FeatureConfig.from_mapping(_toml(small(tmp_path))), tmp_path / "r.csv"
    )
    assert (result.rows, result.left_over, result.segments) == (5, 0, 1)
    lines = (tmp_path / "r.csv").read_text().splitlines()
    assert lines[0] == "time,a_value,a_mean,t_value,t_lag_1,label"
    assert lines[1] == "2026-01-01T00:00:00.300000,3,24,103,,0"
    assert lines[3] == "2026-01-01T00:00:01.100000,11,152,109,106,1"


def test_the_stage_starts_again_where_time_was_interrupted(tmp_path: Path) -> None:
    def later(rows: list[list[str]]) -> None:
        for row in rows[10:]:
            row[0] = f"{float(row[0]) + 60:g}"

    (tmp_path / "s.csv").write_text(samples(later))
    arguments = (tmp_path / "s.csv", "--config", small(tmp_path), "-o", tmp_path / "r.csv", "--json")
    found = json.loads(edge_lstm("features", *arguments).stdout)
    assert (found["rows"], found["segments"], found["left_over"]) == (4, 2, 4)
    header, rows = read_rows(tmp_path / "r.csv")
    assert rows[:, header.index("a_value")].tolist() == [3, 7, 13, 17]
    assert rows[:, header.index("t_lag_1")].tolist() == [MISSING, 103, MISSING, 112]


def cell(row: int, column: int, text: str) -> Callable[[list[list[str]]], None]:
    def change(rows: list[list[str]]) -> None:
        rows[row][column] = text

    return change


def slower(rows: list[list[str]]) -> None:
    for row in rows:
        row[0] = f"{2 * float(row[0]):g}"


BAD_SAMPLES = {
    "no sample": (samples(cell(6, 1, "")), "1 of 20 samples are empty, the first is in sample 7"),
    "a fraction": (samples(cell(2, 1, "2.5")), "'a' holds 2.5 in sample 3, expected raw integers"),
    "beyond int16": (samples(cell(5, 1, "-32769")), "'a' holds -32769 in sample 6, which is no int16"),
    "beyond int32": (samples(cell(3, 2, "-2147483648")), "'t' holds -2.14748e+09 in sample 4, which is no"),
    "another rate": (samples(slower), "0.2 s apart, 5 a second, but rate_hz is 10"),
    "text": (samples(cell(4, 1, "high")), "'high'"),
    "a stamp twice": (samples(cell(4, 0, "0.3")), "duplicate stamps: 1 rows"),
    "no such column": (samples().replace("time,a", "time,b"), "there is no channel column 'a'"),
}


@pytest.mark.parametrize("kind", BAD_SAMPLES)
def test_bad_samples_give_one_line_and_no_file(kind: str, tmp_path: Path) -> None:
    text, expected = BAD_SAMPLES[kind]
    (tmp_path / "s.csv").write_text(text)
    config = small(tmp_path)
    result = edge_lstm(
        "features", tmp_path / "s.csv", "--config", config, "-o", tmp_path / "r.csv", "--c", tmp_path / "c"
    )
    assert "\n" not in refused(result, "s.csv", expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.csv", "small.toml"]


def test_bad_configurations_and_places_give_one_line_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text(samples())

    def run(config: Path, out: Path = tmp_path / "r.csv") -> Result:
        return edge_lstm("features", tmp_path / "s.csv", "--config", config, "-o", out)

    good = small(tmp_path).read_text()
    refused(run(tmp_path / "none.toml"), "none.toml", "existing TOML file")
    refused(run(small(tmp_path, "name = ")), "not a TOML file")
    refused(run(small(tmp_path, good.replace("mean", "meen"))), "small.toml", "did you mean 'mean'?")
    refused(run(small(tmp_path, good.replace("hop = 4", "hop = 40"))), "20 samples fill no row of 40")
    refused(run(small(tmp_path, good.replace('"mean"', '"band(0.001, 0.002)"'))), "cannot be filtered")
    refused(run(small(tmp_path), tmp_path / "no" / "r.csv"), "create the folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.csv", "small.toml"]


def test_progress_reaches_the_number_of_samples(bearing: Path, tmp_path: Path) -> None:
    config = FeatureConfig.from_mapping(_toml(EXAMPLE))
    reports: list[tuple[int, int, str]] = []
    features(bearing, config, tmp_path / "r.csv", on_progress=lambda *report: reports.append(report))
    assert len(reports) == 3 and reports[-1] == (48_000, 48_000, "samples")
