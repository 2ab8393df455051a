"""What the host and the emulated executors share: checks, batches of rows, the detector's rows."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import numpy.typing as npt

from edge_lstm.detection import fixed
from edge_lstm.errors import DataError
from edge_lstm.executors.protocol import Executor
from edge_lstm.fixedpoint import IntArray
from edge_lstm.qgraph import Int8Array, QGraph

UNUSED = 0xA5  # what fresh states and stacks are painted with, so that nothing relies on zeros


class CExecutor(Executor):
    """A network's exported C behind its harness; subclasses say how its functions are reached."""

    def __init__(self, name: str, qgraph: QGraph) -> None:
        self.name = name
        self.qgraph = qgraph
        self.profile = qgraph.profile

    @abstractmethod
    def _advance(self, codes: Int8Array) -> Int8Array:
        """Run contiguous codes (steps, features); returns (steps, outputs)."""

    @abstractmethod
    def _score(self, codes: Int8Array, present: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        """Detect over contiguous rows; returns (steps, 3 + features): see harness.h."""

    def run(self, codes: Int8Array) -> Int8Array:
        outputs = self._advance(self._rows(codes))
        every = self.qgraph.timesteps if self.qgraph.last_only else 1
        return outputs[every - 1 :: every]

    def detect(self, codes: Int8Array, present: npt.NDArray[np.bool_]) -> fixed.Detection:
        if self.qgraph.detector is None:
            return super().detect(codes, present)
        if present.shape != codes.shape:
            raise DataError(f"present is {present.shape}, expected {codes.shape}: one flag a code")
        rows = self._score(self._rows(codes), np.ascontiguousarray(present, dtype=np.uint8))
        wide: IntArray = rows.astype(np.int64)
        return fixed.Detection(wide[:, 0], wide[:, 1].astype(np.uint8), wide[:, 2], wide[:, 3:])

    def _rows(self, codes: Int8Array) -> Int8Array:
        """Contiguous int8 rows; DataError where they are not this network's."""
        rows = np.ascontiguousarray(codes, dtype=np.int8)
        if rows.ndim != 2 or rows.shape[1] != self.qgraph.features:
            raise DataError(
                f"model '{self.qgraph.name}': codes are {rows.shape}, "
                f"expected (steps, {self.qgraph.features})"
            )
        return rows
