"""Time of a streaming step on this machine: LiteRT, the C of one stream, the C of many streams at once.

Reads a QGraph; starts a compiler and an interpreter; all are timed in turn, so that ratios are of one time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_lstm.errors import ConfigError
from edge_lstm.executors.refusals import refusal
from edge_lstm.executors.streams import mixed_stream
from edge_lstm.executors.tflite_runtimes import LiteRTExecutor
from edge_lstm.qgraph import CodeArray, QGraph
from firmware_tools.host import HostExecutor

INVOCATIONS = 500  # of LiteRT, a repetition
STEPS = 5000  # of the C of one stream, a repetition


@dataclass(frozen=True)
class Throughput:
    """Seconds of one step of one stream, the best of all repetitions; litert: None where it is not measured.

    batch: None for a network whose streams run one after another.
    """

    model: str
    streams: int
    litert: float | None
    host: float
    batch: float | None

    def ratio(self, seconds: float | None) -> float | None:
        """How many times as fast as LiteRT; None where one of them is missing."""
        return None if self.litert is None or seconds is None else self.litert / seconds

    @property
    def host_ratio(self) -> float | None:
        return self.ratio(self.host)

    @property
    def batch_ratio(self) -> float | None:
        return self.ratio(self.batch)

    def rows(self) -> list[tuple[str, float, float | None]]:
        """(what ran, microseconds of a step of one stream, times as fast as LiteRT) for a table."""
        timed = [
            ("litert", self.litert),
            ("host, one stream", self.host),
            (f"host, {self.streams} streams", self.batch),
        ]
        return [(name, seconds * 1e6, self.ratio(seconds)) for name, seconds in timed if seconds is not None]


def throughput(
    qgraph: QGraph, streams: int = 1000, steps: int = 32, repetitions: int = 7, seed: int = 0
) -> Throughput:
    """Time a streaming network on one core: LiteRT, its C, and its C with ``streams`` of ``steps`` at once.

    LiteRT is timed where it runs the network: setting the input, ``invoke`` and reading the output.
    Raises ConfigError for a network with a window, or for counts below 1.
    """
    if qgraph.window or qgraph.timesteps > 1:
        raise ConfigError(f"model '{qgraph.name}' takes windows; only steps of streaming models are timed")
    for name, count in (("streams", streams), ("steps", steps), ("repetitions", repetitions)):
        if count < 1:
            raise ConfigError(f"{name} is {count}, expected 1 or more")
    codes = mixed_stream(qgraph.features, STEPS, seed, qgraph.input.bits)
    many = np.resize(codes, (streams, steps, qgraph.features))
    executor = HostExecutor(qgraph)
    timed: dict[str, tuple[Callable[[], object], int]] = {"host": (lambda: executor.run(codes), STEPS)}
    if executor.batches:
        executor.load_batch()
        timed["batch"] = (lambda: executor.run_windows(many), streams * steps)
    if refusal("litert", qgraph) is None:
        timed["litert"] = (_litert(qgraph, codes[:INVOCATIONS]), INVOCATIONS)
    best = {name: float("inf") for name in timed}
    for _ in range(repetitions):
        for name, (run, count) in timed.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], (time.perf_counter() - start) / count)
    return Throughput(qgraph.name, streams, best.get("litert"), best["host"], best.get("batch"))


def _litert(qgraph: QGraph, codes: CodeArray) -> Callable[[], object]:
    """One invocation for each row, without the checks and copies of the executor."""
    runtime = LiteRTExecutor(qgraph)
    blocks = [runtime.given(row.reshape(runtime.input_shape)) for row in codes]
    interpreter, target, source = runtime.interpreter, runtime.input_index, runtime.output_index

    def run() -> None:
        for block in blocks:
            interpreter.set_tensor(target, block)
            interpreter.invoke()
            interpreter.get_tensor(source)

    return run
