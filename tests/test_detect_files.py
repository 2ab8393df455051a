"""detect over several recordings: each as if it were alone, one line each, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_lstm.cli import main
from edge_lstm.verbs.detect import detect, detect_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pump_csv: Path) -> Path:
    """Three parts of the pump's recording, and a file that is no CSV."""
    folder = tmp_path_factory.mktemp("recordings")
    head, *lines = pump_csv.read_text().splitlines()
    size = len(lines) // 3
    for part, name in enumerate(("b.csv", "a.csv", "c.csv")):
        rows = lines[part * size : (part + 1) * size - 10 * part]
        (folder / name).write_text("\n".join([head, *rows]) + "\n")
    (folder / "notes.txt").write_text("not a recording\n")
    return folder


def edge_lstm(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("on", ["numpy", "host"])
def test_each_file_of_a_folder_is_scored_as_if_it_were_alone(
    on: str, folder: Path, pump_tflite: Path
) -> None:
    found = list(detect_files(pump_tflite, [folder], on))
    assert [file.name for file, _ in found] == ["a.csv", "b.csv", "c.csv"]
    for file, detected in found:
        alone = detect(pump_tflite, file)
        assert detected.rows == alone.rows and detected.executor == on
        assert detected.events == alone.events
        assert (detected.detection.score == alone.detection.score).all()
        assert (detected.detection.alarm == alone.detection.alarm).all()
    assert any(detected.events for _, detected in found)


def test_several_files_print_a_line_each_in_the_order_given(folder: Path, pump_tflite: Path) -> None:
    files = [folder / "c.csv", folder / "a.csv"]
    text = edge_lstm("detect", pump_tflite, *files)
    assert text.exit_code == 0, text.output
    lines = text.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == list(map(str, files))
    found = [detected for _, detected in detect_files(pump_tflite, files)]
    for line, detected in zip(lines, found, strict=True):
        assert f"{detected.rows:,} rows on numpy: {len(detected.events)} alarms" in line


def test_a_folder_gives_a_json_line_for_each_file(folder: Path, pump_tflite: Path) -> None:
    result = edge_lstm("detect", pump_tflite, folder, "--json")
    assert result.exit_code == 0, result.output
    entries = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(entry["file"]).name for entry in entries] == ["a.csv", "b.csv", "c.csv"]
    for entry, (_, detected) in zip(entries, detect_files(pump_tflite, [folder]), strict=True):
        assert entry["rows"] == detected.rows
        assert entry["alarm_rows"] == int(detected.detection.alarm.sum())
        assert entry["events"] == [event.to_dict() for event in detected.events]


def test_a_folder_without_csvs_and_out_for_several_files_are_refused(
    tmp_path: Path, folder: Path, pump_tflite: Path
) -> None:
    empty = edge_lstm("detect", pump_tflite, tmp_path)
    assert empty.exit_code == 1 and f"folder '{tmp_path}' has no .csv file" in empty.output
    several = edge_lstm("detect", pump_tflite, folder, "-o", tmp_path / "scores.csv")
    assert several.exit_code == 1 and "--out takes the rows of one CSV" in several.output
