"""fit: which boards take a model, and the most units that a board or a limit takes; by linking."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.errors import ConfigError, MissingTool, ModelError
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.qgraph import QDense, QGraph, QLayer, QLstm, QNativeLstm
from firmware_tools.board_build import Firmware, board_compiler, build_firmware
from firmware_tools.boards.records import Board, Memory, find_board, known_boards

DEFAULT_BOARD = "mps2-an386"  # the core that limits without a board are tried on
MOST_UNITS = 512  # of the first LSTM; no larger network is linked

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class BoardFit:
    """One board.  flash, ram: bytes that the firmware takes, ram with its stack; None: it was not built.

    fits: None where it was not built; why: the reason, or what does not fit.
    """

    board: str
    core: str
    fits: bool | None
    flash: int | None
    flash_size: int
    ram: int | None
    ram_size: int
    why: str


@dataclass(frozen=True)
class Largest:
    """units: of every LSTM, for the most that fit; () if not even one unit fits.  limited: MOST_UNITS fit.

    board: whose core and limits; flash, ram: bytes taken, ram with its stack.
    """

    board: str
    flash_size: int
    ram_size: int
    units: tuple[int, ...]
    limited: bool
    flash: int
    ram: int


@dataclass(frozen=True)
class Fit:
    """boards: every board, or the one asked for.  largest: None where none was asked for."""

    model: str
    units: tuple[int, ...]
    boards: tuple[BoardFit, ...]
    largest: Largest | None


def fit(
    model: Path,
    board: str | None = None,
    flash: int | None = None,
    ram: int | None = None,
    profile: str | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Link the firmware of ``model`` for every known board, or search the most units for one.

    board: a name or the path of a record.  flash, ram: bytes, in place of the board's (without a board: on a
    Cortex-M4).  With any of them the answer is about that board alone, with ``largest``: networks with the
    layers of the model and other numbers of units, all LSTMs in proportion.
    """
    qgraph = read_tflite(Path(model))
    return fit_graph(qgraph.with_profile(profile) if profile else qgraph, board, flash, ram, progress)


def fit_graph(
    qgraph: QGraph,
    board: str | None = None,
    flash: int | None = None,
    ram: int | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Fit a network that is in memory; see ``fit``."""
    if board is None and flash is None and ram is None:
        return Fit(qgraph.name, units_of(qgraph), tuple(_all_boards(qgraph, progress)), None)
    asked = _limited(find_board(board or DEFAULT_BOARD), flash, ram)
    board_compiler(asked)
    row = _board_fit(qgraph, asked)
    return Fit(qgraph.name, units_of(qgraph), (row,), _largest(qgraph, asked, progress))


def _limited(board: Board, flash: int | None, ram: int | None) -> Board:
    """The board with other sizes of its memories."""
    for name, size in (("--flash", flash), ("--ram", ram)):
        if size is not None and size < 1:
            raise ConfigError(f"{name} is {size}, expected 1 byte or more")
    flash_size = board.flash.size if flash is None else flash
    ram_size = board.ram.size if ram is None else ram
    return replace(
        board, flash=Memory(board.flash.origin, flash_size), ram=Memory(board.ram.origin, ram_size)
    )


def _all_boards(qgraph: QGraph, progress: Progress | None) -> list[BoardFit]:
    boards, rows = known_boards().values(), []
    for index, board in enumerate(boards):
        if progress:
            progress(index, len(boards), board.name)
        rows.append(_board_fit(qgraph, board))
    return rows


def _board_fit(qgraph: QGraph, board: Board) -> BoardFit:
    row = BoardFit(board.name, board.core, None, None, board.flash.size, None, board.ram.size, "")
    try:
        firmware = _link(qgraph, board)
    except ModelError as error:
        return replace(row, fits=False, why=str(error))
    except (MissingTool, ConfigError) as error:
        return replace(row, why=str(error).splitlines()[0])
    problems = firmware.problems
    return replace(
        row, fits=not problems, flash=firmware.total.flash, ram=firmware.total.ram + firmware.stack,
        why="; ".join(problems),
    )  # fmt: skip


def _link(qgraph: QGraph, board: Board) -> Firmware:
    with tempfile.TemporaryDirectory(prefix="edge-lstm-") as folder:
        return build_firmware(qgraph, board, Path(folder))


def _fitting(qgraph: QGraph, board: Board) -> Firmware | None:
    """The firmware, None where it does not fit or the model is none that C can compute."""
    try:
        firmware = _link(qgraph, board)
    except ModelError:
        return None
    return None if firmware.problems else firmware


def _largest(qgraph: QGraph, board: Board, progress: Progress | None) -> Largest:
    """The most units of the first LSTM, by bisection: flash and RAM grow with the units."""
    refuse_other_shapes(qgraph)
    low, high = 0, _too_many(qgraph, board)
    best: tuple[QGraph, Firmware] | None = None
    turns = high.bit_length()
    for turn in range(turns + 1):
        if high - low <= 1:
            break
        middle = (low + high) // 2
        if progress:
            progress(turn, turns, f"{middle} units")
        tried = resized(qgraph, middle)
        found = _fitting(tried, board)
        if found is None:
            high = middle
        else:
            low, best = middle, (tried, found)
    sizes = (board.name, board.flash.size, board.ram.size)
    if best is None:
        return Largest(*sizes, (), False, 0, 0)
    tried, firmware = best
    return Largest(
        *sizes, units_of(tried), low == MOST_UNITS, firmware.total.flash, firmware.total.ram + firmware.stack
    )


def _too_many(qgraph: QGraph, board: Board) -> int:
    """A number of units whose weights alone fill the flash, or MOST_UNITS + 1."""
    low, high = 0, MOST_UNITS + 1
    while high - low > 1:
        middle = (low + high) // 2
        if _weights(resized(qgraph, middle)) > board.flash.size:
            high = middle
        else:
            low = middle
    return high


def _weights(qgraph: QGraph) -> int:
    """Least bytes of the weights; stored with fewer bits they may take half."""
    arrays = [
        array
        for layer in qgraph.layers
        for array in (getattr(layer, "kernel", None), getattr(layer, "recurrent_kernel", None))
        if array is not None
    ]
    return sum(np.count_nonzero(array) for array in arrays) // 2


def units_of(qgraph: QGraph) -> tuple[int, ...]:
    """The units of every LSTM."""
    return tuple(layer.units for layer in qgraph.layers if isinstance(layer, (QLstm, QNativeLstm)))


def refuse_other_shapes(qgraph: QGraph) -> None:
    """ConfigError where the network is not a chain of plain LSTM and dense layers."""
    other = [
        f"'{layer.name}' ({type(layer).__name__[1:].lower()})"
        for layer in qgraph.layers
        if not isinstance(layer, (QLstm, QNativeLstm, QDense))
        or (isinstance(layer, QLstm) and layer.variant is not None)
    ]
    if other or not units_of(qgraph) or qgraph.sources != tuple((i - 1,) for i in range(len(qgraph.layers))):
        raise ConfigError(
            f"model '{qgraph.name}': units can be searched for a chain of plain LSTM and dense layers only"
            + (f"; it has {', '.join(other)}" if other else "")
        )


def resized(qgraph: QGraph, units: int) -> QGraph:
    """The network with ``units`` units in its first LSTM and the others in proportion; weights repeat."""
    first = units_of(qgraph)[0]
    layers: list[QLayer] = []
    width = qgraph.features
    for layer in qgraph.layers:
        changed, width = _resized_layer(layer, width, units, first)
        layers.append(changed)
    return replace(qgraph, layers=tuple(layers))


def _resized_layer(layer: Any, width: int, units: int, first: int) -> tuple[QLayer, int]:
    """A layer that reads ``width`` values, and how many it writes."""
    if isinstance(layer, QDense):
        return replace(layer, kernel=_repeated(layer.kernel, 1, width)), layer.outputs
    own = max(round(layer.units * units / first), 1)
    arrays = {
        "kernel": _repeated(_repeated(layer.kernel, 1, own), 2, width),
        "recurrent_kernel": _repeated(_repeated(layer.recurrent_kernel, 1, own), 2, own),
        "bias": _repeated(layer.bias, 1, own),
    }
    if isinstance(layer, QNativeLstm):
        arrays["row_scales"] = _repeated(layer.row_scales, 1, own)
    return replace(layer, **arrays), own


def _repeated(array: npt.NDArray[Any], axis: int, size: int) -> npt.NDArray[Any]:
    """``array`` with ``size`` entries along ``axis``, from the start again where it ends."""
    taken: npt.NDArray[Any] = np.take(array, np.arange(size) % array.shape[axis], axis=axis)
    return taken
