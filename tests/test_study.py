"""study on series whose facts are known: what it names, what it advises, what it refuses."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import edge_lstm
from edge_lstm.analysis.channels import read_channels
from edge_lstm.analysis.memory import find_season, read_memory
from edge_lstm.analysis.redundancy import read_redundancy
from edge_lstm.cli import main
from edge_lstm.datasets.csv_file import read_csv
from edge_lstm.datasets.policies import Policy
from edge_lstm.errors import ConfigError, DataError
from edge_lstm.verbs.study import Study

ROWS = 1_500
Array = Any


def autoregression(coefficients: list[float], rows: int, seed: int) -> Array:
    rng, x = np.random.default_rng(seed), np.zeros(rows + 100)
    for t in range(len(coefficients), len(x)):
        x[t] = sum(c * x[t - 1 - lag] for lag, c in enumerate(coefficients)) + rng.normal()
    return x[100:]


def write(path: Path, columns: Mapping[str, Any]) -> Path:
    rows = zip(*columns.values(), strict=True)
    text = [",".join(columns), *(",".join("" if c != c else str(c) for c in row) for row in rows)]
    path.write_text("\n".join(text) + "\n")
    return path


def said(result: Study, topic: str) -> str:
    return " ".join(text for name, text in result.advice.sentences if name == topic)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Study]:
    """A recording with one of each defect, and its page."""
    rng = np.random.default_rng(5)
    line = autoregression([1.2, -0.5], ROWS, 1)
    holed = rng.normal(size=ROWS)
    holed[[20, 21, 22, 700]] = np.nan
    time = np.arange(ROWS) * 0.5
    time[300:] += 0.5  # a step of 1 s
    time[900:] += 60  # a gap
    columns = {
        "time_s": time,
        "pump": line,
        "pump copy [V]": 3 - 0.25 * line,
        "still": np.full(ROWS, 4.5),
        "switch": (rng.random(ROWS) < 0.3).astype(int),
        "mode": rng.integers(0, 4, ROWS),
        "litres": np.cumsum(rng.random(ROWS)),
        "noise": holed,
        "label": (np.arange(ROWS) >= 1_400).astype(int),
    }
    folder = tmp_path_factory.mktemp("study")
    path, page = write(folder / "machine.csv", columns), folder / "study.html"
    return path, page, edge_lstm.study(path, page)


def test_rate_irregular_steps_and_gaps_are_counted(machine: tuple[Path, Path, Study]) -> None:
    clock = machine[2].findings.clock
    assert (clock.rate_hz, clock.irregular, clock.gaps, clock.longest_gap_s) == (2.0, 1, 1, 60.5)
    text = said(machine[2], "clock")
    assert "at 2 Hz" in text and "irregular: 1 of 1,499 steps (0.1%)" in text
    assert "Gaps: 1, the longest 1.01 min" in text


def test_every_kind_of_channel_is_named(machine: tuple[Path, Path, Study]) -> None:
    kinds = {channel.name: channel.kind for channel in machine[2].findings.channels}
    assert kinds == {
        "pump": "measurement", "pump copy": "measurement", "still": "constant", "switch": "binary",
        "mode": "states", "litres": "counter", "noise": "measurement",
    }  # fmt: skip
    assert "1 channel is constant: still = 4.5" in said(machine[2], "channels")
    assert "litres only counts up" in said(machine[2], "channels")
    assert machine[2].findings.redundancy.duplicates == {"pump copy": "pump"}
    assert machine[2].advice.dropped == {
        "still": "constant (4.5)", "litres": "counts up", "pump copy": "repeats pump",
    }  # fmt: skip


def test_missing_values_are_counted_with_the_longest_run(machine: tuple[Path, Path, Study]) -> None:
    noise = machine[2].findings.channels[-1]
    assert (noise.missing, noise.longest_missing) == (pytest.approx(4 / ROWS), 3)
    assert "1 of 7 channels (noise): at most 0.27%, in noise, up to 3 rows" in said(machine[2], "missing")


def test_labels_are_counted(machine: tuple[Path, Path, Study]) -> None:
    assert "100 rows (6.67%) in 1 event are labelled" in said(machine[2], "labels")


def test_the_commands_are_ones_and_leave_out_what_is_of_no_use(machine: tuple[Path, Path, Study]) -> None:
    commands = [shlex.split(line) for line in machine[2].advice.commands]
    assert [words[1] for words in commands] == ["train", "quantize", "evaluate"]
    assert commands[0][commands[0].index("--channels") + 1] == "pump,switch,mode,noise"
    for words in commands:
        context = main.make_context("edge-lstm", list(words[1:]), resilient_parsing=True)
        name, command, rest = main.resolve_command(context, list(words[1:]))
        assert command is not None
        command.make_context(str(name), list(rest), parent=context)


def test_the_page_is_whole_and_asks_for_nothing(machine: tuple[Path, Path, Study]) -> None:
    text = machine[1].read_text(encoding="utf-8")
    ids = re.findall(r'<section id="(\w+)"', text)
    assert ids == ["advice", "stream", "steps", "channels", "memory", "correlation", "forecast", "made"]
    assert re.findall(r'<li><a href="#(\w+)"', text) == ids
    assert "http:" not in text and "https:" not in text and "<script" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    found = re.findall(r' id="([^"]+)"', text)
    assert len(found) == len(set(found))


def test_json_has_every_figure_and_is_plain(machine: tuple[Path, Path, Study]) -> None:
    result = CliRunner().invoke(main, ["study", str(machine[0]), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["advice"]["channels"] == ["pump", "switch", "mode", "noise"]
    assert found["findings"]["clock"]["gaps"] == 1
    assert found == json.loads(json.dumps(machine[2].to_json() | {"page": ""}))


def test_the_terminal_shows_tables_advice_and_verdict(tmp_path: Path) -> None:
    path = write(tmp_path / "noise.csv", {"x": np.random.default_rng(3).normal(size=600)})
    result = CliRunner().invoke(main, ["study", str(path), "-o", str(tmp_path / "noise.html")])
    assert result.exit_code == 0, result.output
    assert "white noise in time" in result.stdout and "the rate is not known" in result.stdout
    assert "No LSTM: there is nothing to forecast" in result.stdout
    assert "--method ewma" in result.stdout and (tmp_path / "noise.html").stat().st_size > 10_000


def test_the_partial_autocorrelation_of_an_ar_2_cuts_off_at_2() -> None:
    found = read_memory(autoregression([1.2, -0.5], 4_000, 2))
    assert found.order == 2 and found.verdict == "stationary" and found.season == 0
    assert found.pacf[2] == pytest.approx(-0.5, abs=0.05)  # the last coefficient, by theory


def test_a_season_of_24_is_found_and_no_other() -> None:
    rng, t = np.random.default_rng(4), np.arange(1_200)
    season, strength = find_season(np.sin(2 * np.pi * t / 24) + 0.5 * rng.normal(size=len(t)) + 0.01 * t)
    assert season == 24
    assert strength == pytest.approx(0.5 / (0.5 + 0.25), abs=0.1)  # variance of the sine of both


def test_noise_and_wandering_have_no_season() -> None:
    rng = np.random.default_rng(6)
    for series in (rng.normal(size=2_000), np.cumsum(rng.normal(size=2_000)), np.arange(500.0)):
        assert find_season(series) == (0, 0.0)


def test_a_unit_root_and_a_steady_level_are_told_apart() -> None:
    rng = np.random.default_rng(7)
    assert read_memory(np.cumsum(rng.normal(size=2_000))).verdict == "unit root"
    steady = read_memory(rng.normal(size=2_000))
    assert steady.verdict == "stationary" and steady.order == 0 and (steady.ljung_box_p or 0) > 0.05
    assert read_memory(np.zeros(500)).verdict == "does not change"


def test_a_delayed_channel_is_found_with_its_lag() -> None:
    x = autoregression([0.7], 2_007, 8)
    y = np.random.default_rng(9).normal(size=2_000)
    found = read_redundancy(np.stack([x[7:], x[:-7], y], axis=1), ["early", "late", "other"])
    pair = found.pairs[0]
    assert (pair.first, pair.second, pair.lag) == ("early", "late", 7) and pair.best > 0.95
    assert found.duplicates == {} and len(found.pairs) == 1


def test_dependence_in_a_curve_is_found_where_correlation_is_blind() -> None:
    x = np.random.default_rng(10).normal(size=(1_000, 2))
    found = read_redundancy(np.stack([x[:, 0], x[:, 0] ** 2, x[:, 1]], axis=1), ["x", "square", "other"])
    assert [pair[:2] for pair in found.curved] == [("x", "square")]


def test_an_autoregression_is_given_to_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "ar.csv", {"x": autoregression([1.2, -0.5], 2_000, 11)})
    result = edge_lstm.study(path)
    assert result.advice.model == "line" and "ship an AR(16)" in result.advice.verdict
    assert result.advice.r2 is not None
    # 1 - variance of the noise over that of the series, from the Yule-Walker equations
    assert result.advice.r2[0] == pytest.approx(1 - (1 - 0.5**2) * (1 - 0.8**2), abs=0.04)


def test_a_wandering_level_is_given_to_the_last_value(tmp_path: Path) -> None:
    path = write(tmp_path / "walk.csv", {"x": np.cumsum(np.random.default_rng(12).normal(size=2_000))})
    assert edge_lstm.study(path).advice.model == "last value"


def test_what_a_line_cannot_say_is_given_to_an_lstm(tmp_path: Path) -> None:
    x = np.full(2_000, 0.3)
    for t in range(1, len(x)):
        x[t] = 3.9 * x[t - 1] * (1 - x[t - 1])  # the logistic map: no line forecasts it
    result = edge_lstm.study(write(tmp_path / "map.csv", {"x": x}))
    assert result.advice.model == "lstm" and result.advice.r2 is not None
    assert result.advice.r2[0] < 0.5 < 0.9 < result.advice.r2[1]


def test_nothing_that_changes_is_said_plainly(tmp_path: Path) -> None:
    path = write(tmp_path / "flat.csv", {"x": np.full(50, 2.0), "rows": np.arange(50.0) * 1.5})
    result = edge_lstm.study(path, tmp_path / "flat.html")
    assert result.advice.model == "none" and result.advice.commands == ()
    assert result.advice.verdict.startswith("Nothing to learn")


def test_few_rows_are_said_plainly(tmp_path: Path) -> None:
    path = write(tmp_path / "short.csv", {"x": np.random.default_rng(1).normal(size=30)})
    assert edge_lstm.study(path, tmp_path / "short.html").advice.verdict.startswith("Too few rows")


def test_a_stated_rate_is_used_without_a_clock_and_refused_beside_one(tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=60)
    assert edge_lstm.study(write(tmp_path / "a.csv", {"x": x}), rate_hz=360).findings.clock.rate_hz == 360
    timed = write(tmp_path / "b.csv", {"time_s": np.arange(60) * 0.5, "x": x})
    for path, rate in ((timed, 2.0), (tmp_path / "a.csv", 0.0), (tmp_path / "a.csv", float("inf"))):
        with pytest.raises(ConfigError, match="--rate-hz is .*; it must be above 0, and is for recordings"):
            edge_lstm.study(path, rate_hz=rate)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t,a,b\n0,1,\n1,2,\n2,1,\n3,2,\n", "channel 'b' holds no value at all"),
        ("t,a\n0,1\n1,2,3\n2,3\n3,4\n", "line 3 has 3 fields, expected 2"),
        ("", "the file is empty"),
    ],
)
def test_a_csv_that_cannot_be_used_is_one_line_and_no_page(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    result = CliRunner().invoke(main, ["study", str(path), "-o", str(tmp_path / "page.html")])
    assert result.exit_code == 1 and message in result.stderr and "Traceback" not in result.output
    assert not (tmp_path / "page.html").exists()


def test_a_counter_that_starts_again_is_a_counter_and_a_saw_tooth_of_noise_is_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    path = write(tmp_path / "c.csv", {"count": np.cumsum(rng.random(400)) % 50, "x": rng.normal(size=400)})
    kinds = [channel.kind for channel in read_channels(read_csv(path, policy=Policy()))]
    assert kinds == ["counter", "measurement"]


def test_a_refusing_policy_still_refuses(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", {"a": np.full(50, 2.0), "b": np.random.default_rng(1).normal(size=50)})
    from edge_lstm.verbs.streams import StreamOptions

    with pytest.raises(DataError, match="constant channels: a = 2"):
        edge_lstm.study(path, options=StreamOptions(policy=Policy(constant="refuse")))


def test_a_window_holds_a_season_that_fits_and_no_more_than_a_tenth_of_the_rows(tmp_path: Path) -> None:
    rng, t = np.random.default_rng(13), np.arange(2_000)
    wave = np.sin(2 * np.pi * t / 100) + 0.1 * rng.normal(size=len(t))
    assert edge_lstm.study(write(tmp_path / "long.csv", {"x": wave})).advice.timesteps == 128
    assert edge_lstm.study(write(tmp_path / "short.csv", {"x": wave[:700]})).advice.timesteps == 64
