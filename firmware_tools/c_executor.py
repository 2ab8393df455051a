"""What the host and the emulated executors share: checks, batches of rows, the detector's rows."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_lstm.detection import fixed
from edge_lstm.errors import DataError
from edge_lstm.executors.protocol import Executor
from edge_lstm.fixedpoint import IntArray
from edge_lstm.qgraph import CodeArray, QGraph
from firmware_tools.build import written_rows
from firmware_tools.elf import Image

UNUSED = 0xA5  # what fresh states and stacks are painted with, so that nothing relies on zeros


class CExecutor(Executor):
    """A network's exported C behind its harness; subclasses say how its functions are reached."""

    def __init__(self, name: str, qgraph: QGraph) -> None:
        self.name = name
        self.qgraph = qgraph
        self.profile = qgraph.profile

    @abstractmethod
    def _advance(self, codes: CodeArray) -> CodeArray:
        """Run contiguous codes (calls, rows, features), a row or a window a call.

        Returns (calls, ``written_rows``, outputs).
        """

    @abstractmethod
    def _score(self, raw: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Detect over contiguous rows of raw integers; returns (steps, 3 + features): see harness.h."""

    def run(self, codes: CodeArray) -> CodeArray:
        q = self.qgraph
        rows = self._rows(codes)
        if q.window and len(rows) % q.window:
            raise DataError(
                f"model '{q.name}' takes windows of {q.window} rows, got {len(rows)} rows; give a multiple"
            )
        outputs = self._advance(rows.reshape(-1, q.window or 1, q.features)).reshape(-1, q.outputs)
        every = (written_rows(q) if q.window else q.timesteps) // q.rows
        return outputs[every - 1 :: every]

    def detect(self, raw: npt.NDArray[np.int32]) -> fixed.Detection:
        if self.qgraph.detector is None or not self.qgraph.stream.raw:
            return super().detect(raw)  # which says what is missing
        rows = self._score(self._raw(raw))
        wide: IntArray = rows.astype(np.int64)
        return fixed.Detection(wide[:, 0], wide[:, 1].astype(np.uint8), wide[:, 2], wide[:, 3:])

    def _rows(self, codes: CodeArray) -> CodeArray:
        """Contiguous rows of the network's type; DataError where they are not this network's."""
        q = self.qgraph
        given = np.asarray(codes)
        if given.ndim != 2 or given.shape[1] != q.features or not np.can_cast(given.dtype, q.input.dtype):
            raise DataError(
                f"model '{q.name}': codes are {given.dtype} {given.shape}, "
                f"expected int{q.input.bits} (steps, {q.features})"
            )
        rows: CodeArray = np.ascontiguousarray(given, dtype=q.input.dtype)
        return rows


class Memory(Protocol):
    """An emulated core with an image in its memory."""

    image: Image

    def call(self, function: str, *arguments: int) -> int: ...

    def read(self, address: int, size: int) -> bytes: ...

    def write(self, address: int, content: bytes) -> None: ...


class MachineExecutor(CExecutor):
    """A network whose harness and state lie in the memory of an emulated core."""

    def __init__(self, name: str, qgraph: QGraph, machine: Memory) -> None:
        super().__init__(name, qgraph)
        self._memory = machine
        self._state = machine.image.symbol(f"{qgraph.name}_harness_state")
        machine.write(self._state.address, bytes([UNUSED]) * self._state.size)
        self.reset()

    def _call(self, function: str, *arguments: int) -> None:
        self._memory.call(f"{self.qgraph.name}_harness_{function}", self._state.address, *arguments)

    def reset_network(self) -> None:
        self._call("reset")
