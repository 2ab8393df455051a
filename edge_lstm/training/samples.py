"""Training windows of one network as starts on a stream, and batches of several networks.

Reads streams in network units; writes float32 arrays (steps, networks, windows, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import frozen
from edge_lstm.datasets.windows import IndexArray
from edge_lstm.errors import DataError, raise_all

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Samples:
    """The windows that one network learns from or is judged by; a window is ``timesteps`` rows from a start.

    inputs: (rows, features).  targets, weights: (rows, outputs), what the network should say at a row and how
    much that counts.  starts: first rows of the windows.  burn_in: first steps of a window without weight.
    Raises DataError for rows that do not fit each other.
    """

    inputs: Float32Array
    targets: Float32Array
    weights: Float32Array
    starts: IndexArray
    timesteps: int
    burn_in: int = 0

    def __post_init__(self) -> None:
        for name in ("inputs", "targets", "weights"):
            object.__setattr__(self, name, frozen(getattr(self, name), np.float32))
        object.__setattr__(self, "starts", frozen(self.starts, np.int64))
        raise_all(DataError, "training windows", self._problems())

    def _problems(self) -> list[str]:
        rows, problems = len(self.inputs), []
        if self.inputs.ndim != 2 or self.targets.ndim != 2 or self.weights.shape != self.targets.shape:
            problems.append(
                f"inputs are {self.inputs.shape}, targets {self.targets.shape} and weights "
                f"{self.weights.shape}; expected (rows, features) and twice (rows, outputs)"
            )
        elif len(self.targets) != rows:
            problems.append(f"{rows} rows of inputs have {len(self.targets)} rows of targets")
        if not len(self.starts):
            problems.append("there are none; give more rows or lower timesteps")
        elif self.starts.min() < 0 or self.starts.max() + self.timesteps > rows:
            problems.append(
                f"the last starts at row {self.starts.max()} and has {self.timesteps} steps, "
                f"but there are {rows} rows"
            )
        return problems

    @property
    def count(self) -> int:
        return len(self.starts)


class Batch(NamedTuple):
    """inputs, targets, weights: (steps, networks, windows, width)."""

    inputs: npt.NDArray[np.generic]
    targets: Float32Array
    weights: Float32Array


def make_batch(samples: Sequence[Samples], chosen: IndexArray) -> Batch:
    """Windows of several networks side by side.  chosen: (networks, windows), -1 for one without weight."""
    rows = [
        s.starts[np.maximum(windows, 0)] + np.arange(s.timesteps)[:, None]
        for s, windows in zip(samples, chosen, strict=True)
    ]
    inputs, targets, weights = (
        np.stack([getattr(s, name)[at] for s, at in zip(samples, rows, strict=True)], axis=1)
        for name in ("inputs", "targets", "weights")
    )
    for network, s in enumerate(samples):
        weights[: s.burn_in, network] = 0.0
    weights[:, chosen < 0] = 0.0
    return Batch(inputs, targets, weights)


def in_order(samples: Sequence[Samples], size: int) -> list[IndexArray]:
    """All windows of all networks, once each, in batches of ``size``; -1 where a network has no more."""
    most = max(s.count for s in samples)
    batches = []
    for start in range(0, most, size):
        numbers = np.arange(start, start + size)
        batches.append(np.stack([np.where(numbers < s.count, numbers, -1) for s in samples]))
    return batches


class Shuffles:
    """Random orders of the windows, each network by its own seed.

    An epoch has ``updates`` batches, or, where that is 0, as many as the network with the most windows fills;
    a network with fewer draws its windows again, in another order.
    """

    def __init__(
        self, samples: Sequence[Samples], batch_size: int, seeds: Sequence[int], updates: int = 0
    ) -> None:
        self._counts = [s.count for s in samples]
        self.size = min(batch_size, max(self._counts))
        self._batches = updates or max(self._counts) // self.size
        self._orders = [np.random.default_rng(seed) for seed in seeds]

    def epoch(self) -> list[IndexArray]:
        """Batches of windows, each (networks, size)."""
        needed = self._batches * self.size
        drawn = []
        for count, order in zip(self._counts, self._orders, strict=True):
            passes = [order.permutation(count) for _ in range(-(-needed // count))]
            drawn.append(np.concatenate(passes)[:needed].reshape(self._batches, self.size))
        return list(np.stack(drawn, axis=1))
