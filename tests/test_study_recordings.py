"""study on other people's recordings: it names what their READMEs state, in time; the README's picture."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import edge_lstm
from edge_lstm.reporting import study_plots
from edge_lstm.reporting.study import stream_data

LIMIT_S = 30  # of one core
FACTS = [
    ("skab/valve1_0.csv", None, ["1,147 rows at 1 Hz", "stamps are irregular: 53 of 1,146", "1 to 2 s"]),
    (
        "gecco2018/water_quality.csv.gz",
        None,
        ["139,566 rows, one in 1 min", "missing in 9 of 9 channels", "1,726 rows", "51 events"],
    ),
    (
        "smd/machine-1-7.csv.gz",
        1 / 60,
        ["one in 1 min", "4 channels are constant: m7 = 0, m26 = 0, m36 = 0, m37 = 0", "13 events"],
    ),
    (
        "nab/realKnownCause_machine_temperature_system_failure.csv",
        None,
        ["22,695 rows, one in 5 min", "goes back by one hour in line 10151", "4 events"],
    ),
    ("ecg/rec100_10min.csv.gz", 360.0, ["216,000 rows at 360 Hz over 10 min", "cuts off at lag"]),
    ("ucr/500_UCR_Anomaly_robotDOG1.csv", None, ["rate is not known", "season of 240 rows", "1 event"]),
    ("tep/d00_te.csv", 1 / 180, ["one in 3 min", "xmv7 repeats xmeas12", "50 of 52 channels"]),
]


@pytest.mark.parametrize(("name", "rate_hz", "facts"), FACTS, ids=lambda value: str(value).split("/")[0])
def test_the_advice_names_what_the_recordings_readme_states(
    name: str, rate_hz: float | None, facts: list[str], shared_data: Path, tmp_path: Path
) -> None:
    start = time.process_time()
    result = edge_lstm.study(shared_data / name, tmp_path / "study.html", rate_hz)
    assert time.process_time() - start < LIMIT_S
    said = "\n".join([*(text for _, text in result.advice.sentences), *result.notes])
    assert [fact for fact in facts if fact not in said] == [], said
    page = (tmp_path / "study.html").read_text(encoding="utf-8")
    assert all(text.partition("'")[0].partition("<")[0] in page for _, text in result.advice.sentences)


def test_the_picture_of_the_readme_is_drawn(pump_csv: Path, picture: Callable[[str], Path]) -> None:
    result = edge_lstm.study(pump_csv)
    path = picture("study.png")
    data = stream_data("pump", result.dataset)
    study_plots.draw_overview(data, [result.findings.memory[name] for name in result.dataset.names], path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size < 150_000
