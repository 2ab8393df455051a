"""Firmware on boards: every emulated board against the reference over its serial line; tools, ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from board_networks import medium, require, require_board, small
from conftest import ROOT
from edge_lstm.errors import ConfigError, MissingTool, RuntimeFailure
from edge_lstm.executors.numpy_executor import NumpyExecutor
from firmware_tools import pipes
from firmware_tools.board_build import Firmware, build_firmware
from firmware_tools.board_executor import BoardExecutor, board_of, executor_names
from firmware_tools.boards.records import find_board
from firmware_tools.elf import read_image
from firmware_tools.serial_executor import SerialExecutor
from random_models import random_codes, random_present, random_raw

STEPS = 1000
DETECTED = 60


@pytest.fixture(scope="module")
def an386(tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    """One firmware that several tests look at."""
    require_board(find_board("mps2-an386"))
    return build_firmware(medium(), find_board("mps2-an386"), tmp_path_factory.mktemp("an386"))


# codes, scores and stack on every emulated board


@pytest.mark.parametrize("name", executor_names())
def test_a_board_computes_every_code_and_score_of_the_reference(name: str) -> None:
    board = board_of(name)
    require_board(board, emulator=True)
    network = small() if board.toolchain == "avr" else medium()
    codes = random_codes(1, STEPS, network.features)
    with BoardExecutor(network, name) as executor, NumpyExecutor(network) as reference:
        found, expected = executor.run(codes), reference.run(codes)
        assert (found != expected).sum() == 0
        assert np.unique(found).size > 20
        used = executor.statistics().stack_bytes
        assert 60 < used <= executor.firmware.stack
        assert executor.events == []


@pytest.mark.parametrize("name", ["qemu:microbit", "riscv32", "avr:atmega328p"])
def test_a_board_detects_as_the_reference(name: str) -> None:
    require_board(board_of(name), emulator=True)
    network = small()
    raw = random_raw(network, 2, DETECTED, random_present(2, DETECTED, 3))
    with BoardExecutor(network, name) as executor, NumpyExecutor(network) as reference:
        found, expected = executor.detect(raw), reference.detect(raw)
    assert (found.score == expected.score).all()
    assert (found.alarm == expected.alarm).all()
    assert (found.contributions == expected.contributions).all()


def test_names_of_executors_name_boards() -> None:
    assert set(executor_names()) >= {
        "qemu:mps2-an385", "qemu:mps2-an386", "qemu:mps2-an500", "qemu:mps2-an505", "qemu:mps3-an547",
        "qemu:microbit", "riscv32", "avr:atmega328p", "avr:atmega2560",
    }  # fmt: skip
    assert board_of("avr:atmega2560").name == "arduino-mega"
    assert board_of(f"qemu:{ROOT}/firmware_tools/boards/microbit.toml").core == "Cortex-M0"
    with pytest.raises(ConfigError, match=r"executor 'qemu:z80' is unknown; choose from .*riscv32"):
        board_of("qemu:z80")


# tools and ends


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("mps2-an386", "gcc-arm-none-eabi"),
        ("riscv32", "gcc-riscv64-unknown-elf"),
        ("arduino-uno", "gcc-avr avr-libc"),
    ],
)
def test_a_missing_compiler_is_named_with_its_package(
    name: str, packages: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match=f"apt install {packages}"):
        build_firmware(small(), find_board(name), tmp_path)


@pytest.mark.parametrize(
    ("name", "package"), [("mps2-an386", "qemu-system-arm"), ("riscv32", "qemu-system-misc")]
)
def test_a_missing_emulator_is_named_with_its_package(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match=f"apt install {package} "):
        pipes.start_board(find_board(name), tmp_path / "fw.elf")


def test_a_missing_simavr_is_named_with_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("cc")
    source = tmp_path / "simavr_bridge.c"
    source.write_text("#include <simavr/not_there.h>\n", encoding="utf-8")
    monkeypatch.setattr(pipes, "BRIDGE", source)
    with pytest.raises(MissingTool, match="apt install libsimavr-dev libelf-dev"):
        pipes._bridge(tmp_path)


def test_an_emulator_that_refuses_its_arguments_is_quoted(an386: Firmware) -> None:
    require("qemu-system-arm")
    board = replace(an386.board, emulator=("qemu-system-arm", "-M", "no-such-machine"))
    with pytest.raises(
        RuntimeFailure,
        match="emulator of board 'mps2-an386' has ended with status 1: .*unsupported machine type",
    ):
        pipes.start_board(board, an386.elf)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text(encoding="utf-8")


def test_an_emulator_ends_with_its_pipe(an386: Firmware) -> None:
    require("qemu-system-arm")
    with pipes.start_board(an386.board, an386.elf) as pipe:
        assert pipe.alive
        process = pipe._process.pid
    assert not alive(process)


def test_an_emulator_ends_when_its_program_is_killed(an386: Firmware) -> None:
    require("qemu-system-arm")
    program = (
        "import sys, time; from pathlib import Path; from firmware_tools import pipes;"
        "from firmware_tools.boards.records import find_board;"
        "pipe = pipes.start_board(find_board('mps2-an386'), Path(sys.argv[1]));"
        "print(pipe._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(an386.elf)], stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as parent:
        assert parent.stdout is not None
        process = int(parent.stdout.readline())
        assert alive(process)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    stop = time.monotonic() + 5
    while alive(process) and time.monotonic() < stop:
        time.sleep(0.01)
    assert not alive(process)


def test_boots_of_one_image_have_different_identities(an386: Firmware) -> None:
    require("qemu-system-arm")
    found = []
    for _ in range(2):
        with (
            pipes.start_board(an386.board, an386.elf) as pipe,
            SerialExecutor(medium(), pipe.url) as executor,
        ):
            found.append(executor.hello.boot_id)
    assert found[0] != found[1]
    assert read_image(an386.elf).symbol("port_seed").size == 4
