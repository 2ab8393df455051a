"""boards: what firmware can be built for, and how each board is proven."""

from __future__ import annotations

from dataclasses import dataclass

from firmware_tools.board_executor import executor_name
from firmware_tools.boards.records import PROOFS, known_boards


@dataclass(frozen=True)
class BoardRow:
    """One board.  flash, ram: bytes that a firmware may use.  proven: a word of ``Boards.proofs``.
    on: its name in --on, '' where it has no emulator.  flash_tool: the program that writes a firmware to it.
    """

    name: str
    title: str
    core: str
    flash: int
    ram: int
    baud: int
    proven: str
    on: str
    flash_tool: str
    note: str


@dataclass(frozen=True)
class Boards:
    """boards: emulated ones first.  proofs: what the words in ``proven`` mean."""

    boards: tuple[BoardRow, ...]
    proofs: dict[str, str]


def boards() -> Boards:
    """The boards of this package; a record of one's own is given by its path where a board is asked for."""
    rows = tuple(
        BoardRow(
            board.name, board.title, board.core, board.flash.size, board.ram.size, board.baud, board.proven,
            executor_name(board) if board.emulator else "", board.flash_tool, board.note,
        )
        for board in known_boards().values()
    )  # fmt: skip
    return Boards(rows, dict(PROOFS))
