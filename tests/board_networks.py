"""Networks for the tests of boards, and what those tests need on the machine."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

from conftest import missing
from edge_lstm.qgraph import QGraph
from firmware_tools import board_build, pipes
from firmware_tools.boards.records import Board
from random_models import random_qgraph


def require(*commands: str) -> None:
    for command in commands:
        if shutil.which(command) is None:
            missing(command)


def require_board(board: Board, emulator: bool = False) -> None:
    """Skip, or fail in CI, without the compiler of ``board`` and, where asked for, its emulator."""
    require(board_build.GCC[board.toolchain][0])
    if emulator and board.emulator[0] != pipes.SIMAVR:
        require(board.emulator[0])
    if emulator and board.emulator[0] == pipes.SIMAVR and not Path("/usr/include/simavr").is_dir():
        missing("libsimavr-dev")


@cache
def small() -> QGraph:
    """A detector that fits the smallest board."""
    return random_qgraph(9, layers=1, units=6, features=3, detector=True)


@cache
def medium() -> QGraph:
    """Two layers of odd sizes with a head."""
    return random_qgraph(41, layers=2, units=13, features=7, dense=True)
