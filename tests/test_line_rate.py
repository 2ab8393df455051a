"""Requests are pipelined: the speed of the line is the limit, not the way there and back.

Time is simulated.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import missing
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.qgraph import QGraph
from firmware_tools.link import BITS_A_BYTE, steps_per_second
from firmware_tools.posix import Process, build_process
from firmware_tools.serial_executor import SerialExecutor
from firmware_tools.uart import Port
from random_models import random_codes, random_qgraph

STEPS = 3000
ANSWER_S = 5.0  # that a process may take, in real time


class Wire:
    """A line of ``baud`` each way that delays all by ``latency_s``; the device answers at once."""

    def __init__(self, port: Port, baud: int, latency_s: float) -> None:
        self.now, self._baud, self._latency_s = 0.0, baud, latency_s
        self._free = {"out": 0.0, "in": 0.0}
        self._out: list[tuple[float, bytes]] = []
        self._in: list[tuple[float, bytes]] = []
        self._read: Callable[[float], bytes] = port.read
        self._write: Callable[[bytes], None] = port.write

    def _arrives(self, way: str, content: bytes) -> float:
        start = max(self.now, self._free[way])
        self._free[way] = start + len(content) * BITS_A_BYTE / self._baud
        return self._free[way] + self._latency_s

    def write(self, content: bytes) -> None:
        self._out.append((self._arrives("out", content), content))

    def read(self, wait_s: float) -> bytes:
        """Go on to what arrives next at the host, by ``wait_s`` at most."""
        end = self.now + max(wait_s, 0)
        while True:
            due = min([*self._out[:1], *self._in[:1]], default=(end + 1, b""))
            if due[0] > end:
                self.now = end
                return b""
            self.now = max(self.now, due[0])
            if self._in and due is self._in[0]:
                return self._in.pop(0)[1]
            self._write(self._out.pop(0)[1])
            answer = b""
            while not answer.endswith(b"\0"):
                came = self._read(ANSWER_S)
                assert came
                answer += came
            self._in.append((self._arrives("in", answer), answer))


@pytest.fixture(scope="module")
def qgraph() -> QGraph:
    return random_qgraph(1, layers=1, units=6, features=4, detector=True)


@pytest.fixture(scope="module")
def process(qgraph: QGraph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    if shutil.which("cc") is None:
        missing("cc")
    started = Process(build_process(qgraph, tmp_path_factory.mktemp("firmware")))
    yield started
    started.close()


@pytest.mark.parametrize(
    "baud, latency_s, slots, least",
    [
        (115200, 0.0, 3, 0.97),
        (921600, 0.0, 3, 0.97),
        (115200, 0.002, 3, 0.97),  # USB
        (115200, 0.0, 1, 0.0),
    ],
)
def test_the_line_is_the_limit(
    qgraph: QGraph,
    process: Process,
    baud: int,
    latency_s: float,
    slots: int,
    least: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes = random_codes(1, STEPS, 4)
    with SerialExecutor(qgraph, process.url) as executor:
        executor.link.hello = replace(executor.hello, slots=slots)
        port, counts = executor.link.port, executor.link.counts
        wire = Wire(port, baud, latency_s)
        monkeypatch.setattr("firmware_tools.link.time", SimpleNamespace(monotonic=lambda: wire.now))
        port.baud, port.write, port.read = baud, wire.write, wire.read  # type: ignore[method-assign]
        before = counts.bytes_out
        outputs = executor.run(codes)
        limit = steps_per_second((counts.bytes_out - before) / STEPS, baud)
        assert np.array_equal(outputs, NumpyExecutor(qgraph).run(codes))
        assert counts.repeated == 0
        used = STEPS / wire.now / limit
        assert least < used <= 1
        assert (used > 0.6) == (slots > 1)
