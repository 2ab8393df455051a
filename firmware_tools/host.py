"""The exported C on this machine: compiled once, loaded into the process.

Reads a QGraph; starts a compiler; then codes in, codes out.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_lstm.errors import RuntimeFailure
from edge_lstm.qgraph import CodeArray, Int8Array, QGraph
from firmware_tools.build import Compiler, build_host, write_sources, written_rows
from firmware_tools.c_executor import UNUSED, CExecutor


class HostExecutor(CExecutor):
    """One network in C on this machine.

    c_dir: a folder of exported C to compile instead of a fresh export.  library: one from ``load_library``
    that holds this network, to share one compilation between networks.
    """

    def __init__(
        self, qgraph: QGraph, c_dir: Path | None = None, *, library: ctypes.CDLL | None = None
    ) -> None:
        super().__init__("host", qgraph)
        self._library = library or load_library([qgraph], c_dir=c_dir)
        size = ctypes.c_uint32.in_dll(self._library, f"{qgraph.name}_harness_state_bytes").value
        self._state = (ctypes.c_int64 * -(-size // 8))()  # int64: aligned for every member
        ctypes.memset(self._state, UNUSED, size)
        self.reset()

    def _call(self, function: str, *arguments: object) -> None:
        self._library[f"{self.qgraph.name}_harness_{function}"](self._state, *arguments)

    def reset_network(self) -> None:
        self._call("reset")

    def _advance(self, codes: CodeArray) -> CodeArray:
        q = self.qgraph
        outputs: CodeArray = np.empty((len(codes), written_rows(q), q.outputs), dtype=q.output.dtype)
        self._call("run", _pointer(codes), _pointer(outputs), ctypes.c_uint32(len(codes)))
        return outputs

    def _score(self, codes: Int8Array, present: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        rows = np.empty((len(codes), 3 + self.qgraph.features), dtype=np.int32)
        self._call("detect", _pointer(codes), _pointer(present), _pointer(rows), ctypes.c_uint32(len(codes)))
        return rows


def load_library(
    qgraphs: Sequence[QGraph], *, c_dir: Path | None = None, compiler: Compiler | None = None
) -> ctypes.CDLL:
    """Compile ``qgraphs``, or the exported C in ``c_dir``, and load the result into this process."""
    with tempfile.TemporaryDirectory(prefix="edge-lstm-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        sources = write_sources(qgraphs, folder, c_dir=c_dir)
        library = build_host(sources, folder, compiler)
        try:
            return ctypes.CDLL(str(library))
        except OSError as error:
            raise RuntimeFailure(
                f"the compiled model cannot be loaded: {error}; does $CC compile for another machine?"
            ) from error


def _pointer(array: npt.NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
