"""The firmware that answers the commands of MLCommons Tiny's runner."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from conftest import missing
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.qgraph import QGraph
from firmware_tools.board_build import build_firmware
from firmware_tools.boards.records import find_board
from firmware_tools.posix import build_process
from random_models import random_codes, random_qgraph

STRICT = ("-Wall", "-Wextra", "-Wconversion", "-Werror", "-fsanitize=address,undefined")
MODEL = random_qgraph(7, layers=1, units=5, features=3)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        missing("gcc")
    return build_process(MODEL, tmp_path_factory.mktemp("mlperf"), STRICT, mlperf=True)


def answers(program: Path, *commands: str) -> list[str]:
    """The lines that it writes, each command answered by some that end with m-ready."""
    written = "".join(f"{command}%" for command in commands).encode()
    done = subprocess.run([program], input=written, capture_output=True, timeout=20, check=True)
    head, *parts = done.stdout.decode("ascii").split("m-ready\r\n")
    assert head == "m-init-done\r\n" and len(parts) == len(commands) + 1 and parts[-1] == ""
    return parts[:-1]


def test_name_and_profile_tell_the_model(program: Path) -> None:
    name, profile, nonsense = answers(program, "name", "profile", "nonsense 3")
    assert name == "m-name-dut-[random_7]\r\n"
    assert profile == "m-profile-[ULPMark for tinyML Firmware V0.0.1]\r\nm-model-[random_7]\r\n"
    assert nonsense == "e-[Unknown command: nonsense]\r\n"


def expected_results(qgraph: QGraph, row: np.ndarray) -> list[float]:
    codes = NumpyExecutor(qgraph).run(row[None])[0].astype(float)
    real = (codes - qgraph.output.zero_point) * round(qgraph.output.scale * 1e9) * 1e-9
    return [round(value, 6) for value in real.tolist()]


def test_an_inference_gives_the_reference_and_may_be_repeated(program: Path) -> None:
    for row in random_codes(3, 4, 3):
        load, data, shown, first, again = answers(
            program, "db load 3", f"db {row.tobytes().hex()}", "db print", "infer 2 1", "results"
        )
        assert (load, data) == ("m-[Expecting 3 bytes]\r\n", "m-load-done\r\n")
        assert shown == f"m-buffer-{'-'.join(f'{byte:02x}' for byte in row.tobytes())}\r\n"
        pattern = (
            r"m-warmup-start-1\r\nm-warmup-done\r\nm-infer-start-2\r\nm-lap-us-(\d+)\r\nm-lap-us-(\d+)\r\n"
            r"m-infer-done\r\nm-results-\[(.*)\]\r\n"
        )
        match = re.fullmatch(pattern, first)
        assert match is not None, first
        assert int(match[1]) <= int(match[2])
        assert again == f"m-results-[{match[3]}]\r\n"
        found = [float(value) for value in match[3].split(",")]
        assert np.abs(np.array(found) - expected_results(MODEL, row)).max() < 1.5e-6


def test_a_wrong_load_is_refused_and_the_next_one_works(program: Path) -> None:
    size, odd, digit, sub, count, good = answers(
        program, "db load 4", "db 012", "db zz", "db", "infer 0", "db load 3"
    )
    assert size == "e-[This model takes 3 bytes]\r\n"
    assert odd == "e-[Insufficent number of hex digits]\r\n"
    assert digit == "" and sub == "e-[Command 'db' requires a subcommand]\r\n"
    assert count == "e-[Inference iterations must be >0]\r\n" and good == "m-[Expecting 3 bytes]\r\n"
    _, bad = answers(program, "db load 3", "db zz")
    assert bad == "e-[Invalid hex digit]\r\n"


def test_random_bytes_stop_nothing(program: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, 200_000).astype(np.uint8).tobytes() + b"%name%"
    done = subprocess.run([program], input=noise, capture_output=True, timeout=60, check=True)
    assert done.stdout.endswith(b"m-name-dut-[random_7]\r\nm-ready\r\n")


def test_it_is_built_for_a_board(tmp_path: Path) -> None:
    if shutil.which("arm-none-eabi-gcc") is None:
        missing("arm-none-eabi-gcc")
    firmware = build_firmware(MODEL, find_board("mps2-an386"), tmp_path, mlperf=True)
    assert firmware.problems == [] and 1000 < firmware.parts["firmware"].flash < 8000
