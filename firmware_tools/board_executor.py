"""A network in the firmware of an emulated board: built, started, and spoken to over its serial line.

Reads a QGraph; starts a compiler and an emulator.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from edge_lstm.errors import ConfigError
from edge_lstm.qgraph import QGraph
from firmware_tools.board_build import build_firmware
from firmware_tools.boards.records import Board, find_board, known_boards
from firmware_tools.link import Event, LinkOptions
from firmware_tools.pipes import SIMAVR, start_board
from firmware_tools.serial_executor import SerialExecutor

RISCV = "riscv32"


def executor_names() -> tuple[str, ...]:
    """Names of the executors on emulated boards: qemu:BOARD, riscv32, avr:MCU."""
    return tuple(executor_name(board) for board in known_boards().values() if board.emulator)


def executor_name(board: Board) -> str:
    """The name of the executor on a board that has an emulator."""
    if board.emulator[0] == SIMAVR:
        return f"avr:{board.emulator[1]}"
    return board.name if board.name == RISCV else f"qemu:{board.name}"


def board_of(name: str) -> Board:
    """The board of an executor's name; ConfigError for a name that there is none of.

    qemu: takes the path of a record as well: qemu:FOLDER/NAME.toml.
    """
    kind, _, which = name.partition(":")
    if kind == "qemu" and which.endswith(".toml"):
        return find_board(which)
    for board in known_boards().values():
        if board.emulator and executor_name(board) == name:
            return board
    raise ConfigError(f"executor '{name}' is unknown; choose from {', '.join(executor_names())}")


class BoardExecutor(SerialExecutor):
    """One network on an emulated board; see ``board_of`` for names.

    Raises MissingTool without compiler or emulator, ModelError with figures where the model does not fit.
    """

    def __init__(
        self,
        qgraph: QGraph,
        name: str,
        *,
        options: LinkOptions | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        board = board_of(name)
        with tempfile.TemporaryDirectory(prefix="edge-lstm-") as folder:
            self.firmware = build_firmware(qgraph, board, Path(folder))
            self.firmware.require_fit()
            self.pipe = start_board(board, self.firmware.elf)
        try:
            super().__init__(qgraph, self.pipe.url, name=name, options=options, on_event=on_event)
        except BaseException:
            self.pipe.close()
            raise

    def close(self) -> None:
        super().close()
        self.pipe.close()
