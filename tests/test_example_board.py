"""The page that adds a board is followed step by step: its files are written, its commands run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, missing
from edge_lstm.emit.tflite_model import emit_tflite
from firmware_tools.boards.records import read_board
from random_models import random_qgraph

PAGE = (ROOT / "examples" / "05_your_own_board.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
TOOLS = ("arm-none-eabi-gcc", "qemu-system-arm")


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder after every block of the page, and what each block that runs has printed."""
    for tool in TOOLS:
        if shutil.which(tool) is None:
            missing(tool)
    folder = tmp_path_factory.mktemp("own_board")
    model = emit_tflite(random_qgraph(3, layers=1, units=12, features=4, dense=True))
    (folder / "pump.tflite").write_bytes(model)
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    printed = {}
    for language, file, text in BLOCKS:
        if file:
            (folder / file).write_text(text, encoding="utf-8")
        if language in ("sh", "python"):
            command = [sys.executable, file] if language == "python" else ["sh", "-e", "-c", text]
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
            printed[language] = done.stdout
    return folder, printed


def test_the_page_has_a_record_a_driver_commands_and_a_proof() -> None:
    assert [(language, file) for language, file, _ in BLOCKS] == [
        ("toml", "lm3s6965.toml"), ("c", "pl011.c"), ("sh", ""), ("python", "prove.py"),
    ]  # fmt: skip


def test_the_page_builds_a_firmware_and_says_what_it_takes(followed: tuple[Path, dict[str, str]]) -> None:
    folder, printed = followed
    assert (folder / "pump.elf").read_bytes()[:4] == b"\x7fELF"
    for word in ("TI Stellaris LM3S6965", "model", "runtime", "stack", "largest that fits 16,384 bytes"):
        assert word in printed["sh"]


def test_the_board_of_the_page_computes_every_code(followed: tuple[Path, dict[str, str]]) -> None:
    assert followed[1]["python"].startswith("0 codes of 1000 steps differ; the stack was ")


def test_the_drivers_of_the_page_are_warning_free(followed: tuple[Path, dict[str, str]]) -> None:
    board = read_board(followed[0] / "lm3s6965.toml")
    flags = ("-std=c99", "-ffreestanding", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
    defines = [f"-D{name}={value}ul" for name, value in board.defines]
    done = subprocess.run(
        ["arm-none-eabi-gcc", *board.flags, *flags, *defines, "-DUART_BAUD=115200ul",
         "-DPORT_CLOCK_HZ=12000000ul", "-I", str(ROOT / "firmware_tools" / "boards"), "-c", "pl011.c",
         "-o", os.devnull],
        cwd=followed[0], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
