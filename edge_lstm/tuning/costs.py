"""What a network costs on a board: linked bytes and counted instructions; and the limits on them."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from edge_lstm.errors import ConfigError, raise_all
from edge_lstm.executors.streams import mixed_stream
from edge_lstm.graph import Dense, Graph, Lstm, Stream
from edge_lstm.predictor import LinearPredictor
from edge_lstm.qgraph import QGraph
from firmware_tools import qemu
from firmware_tools.board_build import build_firmware
from firmware_tools.boards.records import Board
from firmware_tools.executors import CORES, QEMU_CORES
from firmware_tools.measure import measure

COUNTED_STEPS = 64


@dataclass(frozen=True)
class Costs:
    """flash, ram: bytes of the linked firmware, ram with its stack.

    instructions: most for one sample, from raw integers to the alarm, over COUNTED_STEPS samples.
    network: those of them that are the network's; both None where the core's are not counted.
    """

    flash: int
    ram: int
    instructions: int | None
    network: int | None

    def __le__(self, other: Costs) -> bool:
        """Whether nothing costs more."""
        return (
            self.flash <= other.flash
            and self.ram <= other.ram
            and (self.instructions or 0) <= (other.instructions or 0)
        )


@dataclass(frozen=True)
class Limits:
    """Most bytes of flash and RAM and most instructions of one sample; None: no limit."""

    flash: int | None = None
    ram: int | None = None
    instructions: int | None = None

    def __post_init__(self) -> None:
        problems = [
            f"--{name} is {value}, expected 1 or more"
            for name, value in asdict(self).items()
            if value is not None and value < 1
        ]
        raise_all(ConfigError, "limits", problems)

    def excess(self, costs: Costs) -> dict[str, float]:
        """By limit, how much more than it is needed, as a share of it; 0 or less: it is kept."""
        found = {}
        for field in fields(self):
            limit, needed = getattr(self, field.name), getattr(costs, field.name)
            if limit is not None and needed is not None:
                found[field.name] = needed / limit - 1
        return found

    def of_board(self, board: Board) -> Limits:
        """These limits, and the sizes of the board's memories where there are none or larger ones."""
        return replace(
            self,
            flash=min(self.flash or board.flash.size, board.flash.size),
            ram=min(self.ram or board.ram.size, board.ram.size),
        )


def counted_core(board: Board) -> str | None:
    """The emulated core that counts the board's instructions, None where there is none."""
    name = board.core.lower().rstrip("+")
    return name if name in (*CORES, *QEMU_CORES) else None


def measure_costs(qgraph: QGraph, board: Board) -> Costs:
    """Link the firmware and run the C on the emulated core; MissingTool without compiler or emulator."""
    with tempfile.TemporaryDirectory(prefix="edge-lstm-") as folder:
        firmware = build_firmware(qgraph, board, Path(folder))
    flash, ram = firmware.total.flash, firmware.total.ram + firmware.stack
    core = counted_core(board)
    if core is None:
        return Costs(flash, ram, None, None)
    run = qemu.measure if core in QEMU_CORES else measure
    counted = run(qgraph, core, mixed_stream(qgraph.features, COUNTED_STEPS, 0), what="detect")
    assert counted.detect_instructions_per_step is not None
    return Costs(
        flash,
        ram,
        int(counted.detect_instructions_per_step["max"]),
        int(counted.instructions_per_step["max"]),
    )


def untrained(units: tuple[int, ...], stream: Stream, predictor: LinearPredictor | None, name: str) -> Graph:
    """A network of these sizes with random weights: it costs what the trained one will."""
    rng, width = np.random.default_rng(0), len(stream.channels)
    layers: list[Lstm | Dense] = []
    for index, size in enumerate(units, start=1):
        shapes = (width, 4 * size), (size, 4 * size), (4 * size,)
        kernel, recurrent, bias = (rng.uniform(-0.3, 0.3, shape).astype(np.float32) for shape in shapes)
        layers.append(Lstm(f"lstm_{index}", kernel, recurrent, bias))
        width = size
    outputs = len(stream.channels)
    head = rng.uniform(-0.3, 0.3, (width, outputs)).astype(np.float32)
    layers.append(Dense("dense", head, np.zeros(outputs, np.float32)))
    return Graph(name, tuple(layers), stream, {}, predictor=predictor)
