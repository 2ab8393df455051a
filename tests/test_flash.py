"""flash: the board's own tool is called with the right file, and what can go wrong is said first."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from conftest import missing
from edge_lstm.cli import main
from edge_lstm.errors import ConfigError, MissingTool
from edge_lstm.verbs.flash import FILE, flash
from firmware_tools.boards.records import known_boards


def tool(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program ``name`` on PATH."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_the_tool_gets_the_firmware_in_its_format_and_the_port(
    pump_tflite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("avr-gcc") is None:
        missing("avr-gcc")
    log = tmp_path / "log"
    tool(tmp_path, "avrdude", f'for word; do echo "$word"; done > {log}', monkeypatch)
    done = CliRunner().invoke(
        main, ["flash", str(pump_tflite), "--board", "arduino-mega", "--port", "/dev/ttyACM7"]
    )
    assert done.exit_code == 0, done.output
    words = log.read_text().splitlines()
    assert words[:7] == ["-p", "m2560", "-c", "wiring", "-P", "/dev/ttyACM7", "-D"]
    assert words[8].startswith("flash:w:") and words[8].endswith("firmware.hex:i")
    assert "avrdude -p m2560" in done.output


def test_a_failing_tool_is_quoted(pump_tflite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("avr-gcc") is None:
        missing("avr-gcc")
    tool(tmp_path, "avrdude", "echo one >&2; echo 'not in sync' >&2; exit 1", monkeypatch)
    done = CliRunner().invoke(main, ["flash", str(pump_tflite), "--board", "arduino-mega", "--port", "P"])
    assert done.exit_code == 1
    assert "failed: one / not in sync; is the board connected" in done.output


def test_what_is_missing_is_said_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = tmp_path / "no.tflite"
    with pytest.raises(ConfigError, match="'esp32-s3': its record names no flash_command"):
        flash(nothing, "esp32-s3")
    with pytest.raises(ConfigError, match="'arduino-uno': avrdude needs --port"):
        flash(nothing, "arduino-uno")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match="st-flash is not installed; it writes firmware to the"):
        flash(nothing, "nucleo-f446re")


def test_every_command_of_the_records_names_one_file() -> None:
    commands = [board.flash_command for board in known_boards().values() if board.flash_command]
    assert len(commands) >= 6
    for command in commands:
        assert len(FILE.findall(" ".join(command))) == 1
