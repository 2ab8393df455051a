"""build: a model's firmware for a board, as a file for the board's flash tool, with its sizes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from edge_lstm.errors import ConfigError
from edge_lstm.files import write_bytes
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.qgraph import QGraph
from firmware_tools.board_build import FORMATS, Firmware, build_firmware, firmware_content
from firmware_tools.boards.records import Board, find_board


@dataclass(frozen=True)
class Size:
    """One row of the size table, in bytes; flash is None for the stack."""

    what: str
    flash: int | None
    ram: int


@dataclass(frozen=True)
class Built:
    """path: the file.  sizes: model, runtime, firmware, stack.  total, available: bytes of flash and RAM."""

    path: str
    board: str
    title: str
    sizes: tuple[Size, ...]
    total: Size
    available: Size


def build(model: Path, out: Path, board: str, profile: str | None = None, mlperf: bool = False) -> Built:
    """Build the firmware of ``model`` for ``board`` and write it to ``out``.

    board: the name of a known board, or the path of a record NAME.toml.  out: its suffix says the format, one
    of FORMATS.  profile: overrides the file's.  mlperf: the firmware answers MLCommons Tiny's runner
    instead of the other verbs.
    Raises ModelError with every figure where the firmware does not fit (then nothing is written), MissingTool
    without the board's compiler.
    """
    out = Path(out)
    if out.suffix not in FORMATS:
        raise ConfigError(f"-o {out}: expected a name that ends in {', '.join(FORMATS)}")
    record, qgraph = find_board(board), read_tflite(Path(model))
    return build_graph(qgraph.with_profile(profile) if profile else qgraph, out, record, mlperf)


def build_graph(qgraph: QGraph, out: Path, board: Board, mlperf: bool = False) -> Built:
    """Build the firmware of a network that is in memory; see ``build``."""
    with tempfile.TemporaryDirectory(prefix="edge-lstm-") as folder:
        firmware = build_firmware(qgraph, board, Path(folder), mlperf)
        firmware.require_fit()
        write_bytes(out, firmware_content(firmware, out.suffix))
    return Built(
        str(out), board.name, board.title, size_table(firmware),
        Size("total", firmware.total.flash, firmware.total.ram + firmware.stack),
        Size("available", board.flash.size, board.ram.size),
    )  # fmt: skip


def size_table(firmware: Firmware) -> tuple[Size, ...]:
    """What each part takes."""
    parts = [Size(name, part.flash, part.ram) for name, part in firmware.parts.items()]
    return (*parts, Size("stack", None, firmware.stack))
