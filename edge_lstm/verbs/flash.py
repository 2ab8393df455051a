"""flash: a model's firmware onto a board, by the board's own tool."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edge_lstm.errors import ConfigError, MissingTool, RuntimeFailure
from edge_lstm.verbs.build import Built, build
from firmware_tools.boards.records import Board, find_board

FILE = re.compile(r"\{file(\.\w+)\}")
LAST_LINES = 3  # of a tool's output, in a message


@dataclass(frozen=True)
class Flashed:
    """command: that was run, as one line."""

    built: Built
    command: str


def flash(model: Path, board: str, port: str | None = None, profile: str | None = None) -> Flashed:
    """Build the firmware of ``model`` for ``board`` and write it with the board's tool.

    port: for tools that need one.  profile: overrides the file's.  Raises ConfigError where the record has
    no tool or the port is missing, MissingTool where the tool is not installed, RuntimeFailure with the
    tool's last words where it fails.
    """
    record = find_board(board)
    _check(record, port)
    with tempfile.TemporaryDirectory(prefix="edge-lstm-") as folder:
        suffixes = FILE.findall(" ".join(record.flash_command))
        file = Path(folder) / f"firmware{suffixes[0]}"
        built = build(model, file, board, profile)
        command = [_filled(word, file, port) for word in record.flash_command]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        except OSError as error:
            raise RuntimeFailure(f"{command[0]} cannot be started: {error.strerror}") from error
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-LAST_LINES:]
        raise RuntimeFailure(
            f"{' '.join(command)} failed: {' / '.join(last) or f'exit status {done.returncode}'}; "
            "is the board connected, and is the port free?"
        )
    return Flashed(built, " ".join(command))


def _check(board: Board, port: str | None) -> None:
    """Everything that can be known before the firmware is built."""
    words = " ".join(board.flash_command)
    if not words:
        raise ConfigError(
            f"board '{board.name}': its record names no flash_command; write the file of 'edge-lstm build' "
            "with the maker's own tool"
        )
    if not FILE.search(words):
        raise ConfigError(
            f"board '{board.name}': its flash_command names no file, expected a word {{file.hex}}"
        )
    if "{port}" in words and port is None:
        raise ConfigError(f"board '{board.name}': {board.flash_tool} needs --port, such as /dev/ttyACM0")
    if shutil.which(board.flash_tool) is None:
        raise MissingTool(
            f"{board.flash_tool} is not installed; it writes firmware to the board '{board.name}'"
        )


def _filled(word: str, file: Path, port: str | None) -> str:
    return FILE.sub(str(file), word).replace("{port}", port or "")
