"""The reference as an executor: NumPy, every profile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from edge_lstm.errors import DataError
from edge_lstm.executors.protocol import Executor, begin
from edge_lstm.fixedpoint import IntArray
from edge_lstm.lower import lower
from edge_lstm.qgraph import CodeArray, QGraph
from edge_lstm.reference import integer


class NumpyExecutor(Executor):
    """The integer reference."""

    name = "numpy"

    def __init__(self, qgraph: QGraph) -> None:
        self.qgraph = qgraph
        self.profile = qgraph.profile
        self.program = lower(qgraph)
        self.reset()

    def reset_network(self) -> None:
        self.state = integer.reset(self.program)

    def run(self, codes: CodeArray) -> CodeArray:
        q = self.qgraph
        if q.window:
            windows = codes.reshape(-1, q.window, q.features)
            return integer.run(self.program, windows)[0].reshape(-1, q.outputs)
        outputs, self.state = integer.run(self.program, codes[None], self.state)
        every = q.timesteps if q.last_only else 1
        return outputs[0, every - 1 :: every]

    def save(self) -> bytes:
        return np.concatenate([np.zeros(0, dtype=np.int64), *_integers(self._kept())]).tobytes()

    def restore(self, state: bytes) -> None:
        self.reset()
        kept = self._kept()
        expected = 8 * sum(part.size for part in _integers(kept))
        if len(state) != expected:
            raise DataError(
                f"a state of model '{self.qgraph.name}' has {len(state)} bytes, expected {expected}; "
                "was it saved by another executor?"
            )
        self.state, self._scored = _rebuilt(kept, iter(np.frombuffer(state, dtype=np.int64)))

    def _kept(self) -> tuple[Any, Any]:
        """All that lasts from one row to the next: trees of integers."""
        detector = self.qgraph.detector
        return self.state, None if detector is None else self._scored or begin(detector)


def _integers(tree: Any) -> Iterator[IntArray]:
    """The integers of tuples, data classes and arrays, in order."""
    if is_dataclass(tree):
        tree = tuple(getattr(tree, field.name) for field in fields(tree))
    if isinstance(tree, tuple):
        for part in tree:
            yield from _integers(part)
    elif tree is not None:
        yield np.ravel(tree).astype(np.int64)


def _rebuilt(tree: Any, integers: Iterator[Any]) -> Any:
    """The same tree with other integers."""
    if is_dataclass(tree):
        changed = {field.name: _rebuilt(getattr(tree, field.name), integers) for field in fields(tree)}
        return replace(tree, **changed)  # type: ignore[type-var]
    if isinstance(tree, tuple):
        return tuple(_rebuilt(part, integers) for part in tree)
    if isinstance(tree, np.ndarray):
        return np.array([next(integers) for _ in range(tree.size)], dtype=np.int64).reshape(tree.shape)
    return None if tree is None else int(next(integers))
