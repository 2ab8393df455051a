"""The reference as an executor: NumPy, every profile."""

from __future__ import annotations

from edge_lstm.executors.protocol import Executor
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
