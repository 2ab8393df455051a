"""What every executor promises: codes in, codes out, state kept from one call to the next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from types import TracebackType
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edge_lstm.detection import fixed
from edge_lstm.errors import ConfigError, DataError
from edge_lstm.fixedpoint import IntArray
from edge_lstm.qgraph import CodeArray, QGraph
from edge_lstm.scaling import QScaling, scaling_of

E = TypeVar("E", bound="Executor")


class Executor(ABC):
    """One runtime with one network loaded, in reset state.

    name: as on the command line (``--on``).  profile: the numerics profile whose codes it must return.
    """

    name: str
    profile: str
    qgraph: QGraph
    _scored: tuple[IntArray, fixed.DetectorState] | None = None

    @abstractmethod
    def reset_network(self) -> None:
        """Return the network to its state after power-on."""

    def reset(self) -> None:
        """Return network and detector to their state after power-on."""
        self._scored = None
        self.reset_network()

    @abstractmethod
    def run(self, codes: CodeArray) -> CodeArray:
        """Advance one stream by codes (steps, features) from the current state.

        codes: int8, or int16 where the network's input has 16 bits.  Returns the codes that the model's file
        returns: (steps, outputs), or with ``last_only`` one row for every ``timesteps`` rows.  Call with a
        whole number of the model's ``timesteps``.  A network with a window starts each of them from reset
        and returns its ``rows`` for each.
        """

    def save(self) -> bytes:
        """The state of network and detector between two rows; ConfigError where the runtime keeps it."""
        raise ConfigError(f"executor '{self.name}' keeps its state to itself; choose numpy or host")

    def restore(self, state: bytes) -> None:
        """Go on from what ``save`` of the same model on the same executor returned, else DataError."""
        raise ConfigError(f"executor '{self.name}' keeps its state to itself; choose numpy or host")

    def step(self, x: CodeArray) -> CodeArray:
        """Advance by one row of codes (features,); returns (outputs,).  For streaming models."""
        outputs: CodeArray = self.run(np.asarray(x, dtype=self.qgraph.input.dtype)[None])[0]
        return outputs

    def run_windows(self, codes: CodeArray) -> CodeArray:
        """Run codes (windows, steps, features), each window from reset; returns (windows, rows, outputs)."""
        return np.stack(self.run_streams(list(codes)))

    def run_streams(self, streams: Sequence[CodeArray]) -> list[CodeArray]:
        """Run streams of codes (steps, features) of any lengths, each from reset; returns their outputs."""
        results = []
        for codes in streams:
            self.reset()
            results.append(self.run(codes))
        return results

    @cached_property
    def scaling(self) -> QScaling:
        """How the network's raw integers become codes; DataError where its channels do not say."""
        scaling = scaling_of(self.qgraph.stream, self.qgraph.input)
        if scaling is None:
            raise DataError(
                f"model '{self.qgraph.name}' does not state the resolution of its channels, which scales raw "
                "values; quantize it again with --data"
            )
        return scaling

    def detect(self, raw: npt.NDArray[np.int32]) -> fixed.Detection:
        """Score raw integers (steps, channels) of the sensors from the current state; fixed.MISSING: none.

        Here the runtime computes the forecasts and NumPy the score; executors that carry the
        detector themselves override this.  A stream is scored by ``detect`` alone: ``run`` between
        two calls would advance the network without the detector.
        """
        detector = self.qgraph.detector
        if detector is None:
            raise DataError(f"model '{self.qgraph.name}' carries no detector; quantize it with --data")
        raw = self._raw(raw)
        present = raw != fixed.MISSING
        last, state = self._scored or begin(detector)
        fine = hold(self.scaling.fine(raw), present, last)
        rows = present.any(axis=1)
        forecast = np.zeros(fine.shape, dtype=np.int64)
        if rows.any():
            forecast[rows] = self.run(self.scaling.narrow(fine[rows]))
        detection, state = fixed.detect(detector, fine, forecast, present, state)
        self._scored = (fine[-1] if len(fine) else last, state)
        return detection

    def _raw(self, raw: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Contiguous rows of raw integers; DataError where they are not this network's."""
        q, given = self.qgraph, np.asarray(raw)
        if given.ndim != 2 or given.shape[1] != q.features or not np.can_cast(given.dtype, np.int32):
            raise DataError(
                f"model '{q.name}': raw values are {given.dtype} {given.shape}, "
                f"expected int32 (steps, {q.features})"
            )
        return np.ascontiguousarray(given, dtype=np.int32)

    def close(self) -> None:
        """Release what the executor holds; nothing by default."""
        return

    def __enter__(self: E) -> E:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def begin(detector: fixed.QDetector) -> tuple[IntArray, fixed.DetectorState]:
    """The fine codes held before the first row, and the detector's state after power-on."""
    return np.full(detector.channels, detector.start), fixed.reset(detector)


def hold(fine: IntArray, present: npt.NDArray[np.bool_], before: IntArray) -> IntArray:
    """Replace each missing fine code by the last present one of its channel; ``before`` where there is none.

    fine, present: (steps, channels).  before: (channels,), the codes held when the stream begins.
    """
    rows = np.where(present, np.arange(len(fine))[:, None], -1)
    last: IntArray = np.maximum.accumulate(rows, axis=0)
    held = np.take_along_axis(fine, np.maximum(last, 0), axis=0)
    return np.where(last < 0, before, held)
