"""The reference as an executor: NumPy, either profile."""

from __future__ import annotations

from edge_lstm.executors.protocol import Executor
from edge_lstm.lower import lower
from edge_lstm.qgraph import Int8Array, QGraph
from edge_lstm.reference import integer


class NumpyExecutor(Executor):
    """The integer reference, row by row."""

    name = "numpy"

    def __init__(self, qgraph: QGraph) -> None:
        self.qgraph = qgraph
        self.profile = qgraph.profile
        self.program = lower(qgraph)
        self.reset()

    def reset_network(self) -> None:
        self.state = integer.reset(self.program)

    def run(self, codes: Int8Array) -> Int8Array:
        outputs, self.state = integer.run(self.program, codes[None], self.state)
        every = self.qgraph.timesteps if self.qgraph.last_only else 1
        return outputs[0, every - 1 :: every]
