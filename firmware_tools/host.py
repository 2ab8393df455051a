"""The exported C on this machine: compiled once, loaded into the process.

Reads a QGraph; starts a compiler; then codes in, codes out.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_lstm.emit.c_batch import batches, emit_batch
from edge_lstm.emit.c_code import runtime_text
from edge_lstm.errors import DataError, RuntimeFailure
from edge_lstm.lower import lower
from edge_lstm.qgraph import CodeArray, QGraph
from firmware_tools.build import (
    Compiler,
    Sources,
    build_host,
    find_host_compiler,
    write_sources,
    written_rows,
)
from firmware_tools.c_executor import UNUSED, CExecutor

ALIGNMENT = 64  # bytes of the widest vector
BATCH_STEPS = 1 << 20  # of all streams: from here on it pays to compile the C for many streams
# for this machine's processor; with vectors as wide as its own, which compilers avoid
NATIVE_FLAGS = (("-march=native", "-mprefer-vector-width=512"), ("-march=native",))
BATCH_RUNTIME = ("elstm_batch.h", "elstm_lanes.h")


class HostExecutor(CExecutor):
    """One network in C on this machine.

    c_dir: a folder of exported C to compile instead of a fresh export.  library: one from ``load_library``
    that holds this network, to share one compilation between networks.
    """

    def __init__(
        self, qgraph: QGraph, c_dir: Path | None = None, *, library: ctypes.CDLL | None = None
    ) -> None:
        super().__init__("host", qgraph)
        self._c_dir = c_dir
        self._library = library or load_library([qgraph], c_dir=c_dir, compiler=native_compiler())
        self._batch_library = self._library if hasattr(self._library, f"{qgraph.name}_run_streams") else None
        self._state = _aligned(self._library, f"{qgraph.name}_harness_state_bytes")
        self.reset()

    def _call(self, function: str, *arguments: object) -> None:
        self._library[f"{self.qgraph.name}_harness_{function}"](_pointer(self._state), *arguments)

    def reset_network(self) -> None:
        self._call("reset")

    def save(self) -> bytes:
        return self._state.tobytes()

    def restore(self, state: bytes) -> None:
        if len(state) != self._state.size:
            raise DataError(
                f"a state of model '{self.qgraph.name}' has {len(state)} bytes, expected {self._state.size}; "
                "was it saved by another executor?"
            )
        self._state[:] = np.frombuffer(state, dtype=np.uint8)

    def run_windows(self, codes: CodeArray) -> CodeArray:
        """Run codes (windows, steps, features), each from reset: many streams at a time where it pays."""
        q = self.qgraph
        if codes.ndim != 3 or not self._pays(codes.size // q.features):
            return super().run_windows(codes)
        rows = self._rows(codes.reshape(-1, codes.shape[2]))
        library = self.load_batch()
        state = _aligned(library, f"{q.name}_streams_bytes")
        outputs: CodeArray = np.empty((*codes.shape[:2], q.outputs), dtype=q.output.dtype)
        counts = (ctypes.c_uint32(count) for count in codes.shape[:2])
        library[f"{q.name}_run_streams"](_pointer(state), _pointer(rows), _pointer(outputs), *counts)
        self.reset()
        every = q.timesteps // q.rows
        return outputs[:, every - 1 :: every]

    def run_streams(self, streams: Sequence[CodeArray]) -> list[CodeArray]:
        """Run streams of any lengths, each from reset: those of similar length at a time where it pays.

        A shorter stream is continued with zeros, and what they give is left out.
        """
        if not self._pays(sum(map(len, streams))):
            return super().run_streams(streams)
        self.load_batch()
        results: dict[int, CodeArray] = {}
        left = sorted(range(len(streams)), key=lambda index: len(streams[index]))
        while left:
            longest = len(streams[left[-1]])
            group = [index for index in left if 2 * len(streams[index]) >= longest]
            left = left[: len(left) - len(group)]
            padded = np.zeros((len(group), longest, self.qgraph.features), dtype=self.qgraph.input.dtype)
            for row, index in zip(padded, group, strict=True):
                row[: len(streams[index])] = self._rows(streams[index])
            for outputs, index in zip(self.run_windows(padded), group, strict=True):
                results[index] = outputs[: len(streams[index]) * len(outputs) // max(longest, 1)]
        return [results[index] for index in range(len(streams))]

    def _pays(self, steps: int) -> bool:
        """Whether to run ``steps`` of all streams at a time: the C for it is there, or worth compiling."""
        return self.batches and (self._batch_library is not None or steps >= BATCH_STEPS)

    @cached_property
    def batches(self) -> bool:
        """Whether its C can run many streams at once."""
        return batches(lower(self.qgraph))

    def load_batch(self) -> ctypes.CDLL:
        """The C for many streams of a network that ``batches``, compiled by the first call."""
        if self._batch_library is None:
            compiler = native_compiler("-O3")
            self._batch_library = load_library(
                [self.qgraph], c_dir=self._c_dir, compiler=compiler, streams=True
            )
        return self._batch_library

    def _advance(self, codes: CodeArray) -> CodeArray:
        q = self.qgraph
        outputs: CodeArray = np.empty((len(codes), written_rows(q), q.outputs), dtype=q.output.dtype)
        self._call("run", _pointer(codes), _pointer(outputs), ctypes.c_uint32(len(codes)))
        return outputs

    def _score(self, raw: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        rows = np.empty((len(raw), 3 + self.qgraph.features), dtype=np.int32)
        self._call("detect", _pointer(raw), _pointer(rows), ctypes.c_uint32(len(raw)))
        return rows


def native_compiler(*flags: str) -> Compiler:
    """The best compiler of this machine with ``flags`` and those for its own processor."""
    compiler = find_host_compiler()
    return replace(compiler, flags=(*compiler.flags, *flags, *native_flags(compiler.command)))


@cache
def native_flags(command: tuple[str, ...]) -> tuple[str, ...]:
    """The first of ``NATIVE_FLAGS`` that a compiler takes; none for one that takes or can do nothing."""
    for flags in NATIVE_FLAGS:
        probe = [*command, *flags, "-E", "-x", "c", "-"]
        try:
            done = subprocess.run(probe, input=b"", capture_output=True, check=False)
        except OSError:
            break
        if done.returncode == 0:
            return flags
    return ()


def load_library(
    qgraphs: Sequence[QGraph],
    *,
    c_dir: Path | None = None,
    compiler: Compiler | None = None,
    streams: bool = False,
) -> ctypes.CDLL:
    """Compile ``qgraphs``, or the exported C in ``c_dir``, and load the result into this process.

    streams: with the functions that run many streams at once, of the networks that have them.
    """
    with tempfile.TemporaryDirectory(prefix="edge-lstm-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        sources = write_sources(qgraphs, folder, c_dir=c_dir)
        if streams:
            sources = write_batch(qgraphs, sources, folder)
        library = build_host(sources, folder, compiler)
        try:
            return ctypes.CDLL(str(library))
        except OSError as error:
            raise RuntimeFailure(
                f"the compiled model cannot be loaded: {error}; does $CC compile for another machine?"
            ) from error


def write_batch(qgraphs: Sequence[QGraph], sources: Sources, folder: Path) -> Sources:
    """Write C for many streams into ``folder``; it takes the place of each model's own, which it includes."""
    for file in BATCH_RUNTIME:
        (folder / file).write_text(runtime_text(file), encoding="utf-8")
    batched = {}
    for program in map(lower, qgraphs):
        if batches(program):
            batched[program.name] = folder / f"{program.name}_streams.c"
            batched[program.name].write_text(emit_batch(program), encoding="utf-8")
    return replace(sources, models=tuple(batched.get(path.stem, path) for path in sources.models))


def _aligned(library: ctypes.CDLL, symbol: str) -> npt.NDArray[np.uint8]:
    """Garbage of as many bytes as the library's variable ``symbol`` says."""
    size = ctypes.c_uint32.in_dll(library, symbol).value
    memory = np.full(size + ALIGNMENT, UNUSED, dtype=np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]


def _pointer(array: npt.NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
