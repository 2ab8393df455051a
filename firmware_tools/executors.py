"""One name, one executor: everything that ``--on`` accepts."""

from __future__ import annotations

from pathlib import Path

from edge_lstm.errors import ConfigError
from edge_lstm.executors.protocol import Executor
from edge_lstm.qgraph import QGraph

CORES = ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33")
COMPILED = ("host", *CORES)
NAMES = ("numpy", "litert", "tflite-runtime", "tflm", *COMPILED)


def open_executor(
    name: str, qgraph: QGraph, model: bytes | None = None, c_dir: Path | None = None
) -> Executor:
    """Load ``qgraph`` into the executor ``name``, in reset state.

    model: the .tflite file's own bytes, for the runtimes that interpret it (None: written from the QGraph).
    c_dir: a folder with exported C, compiled instead of fresh C by host and the cores.
    """
    if name == "numpy":
        from edge_lstm.executors.numpy_executor import NumpyExecutor

        return NumpyExecutor(qgraph)
    if name in ("litert", "tflite-runtime", "tflm"):
        from edge_lstm.executors.tflite_runtimes import open_runtime

        return open_runtime(name, qgraph, model)
    if name == "host":
        from firmware_tools.host import HostExecutor

        return HostExecutor(qgraph, c_dir=c_dir)
    if name in CORES:
        from firmware_tools.emulator import EmulatedExecutor

        return EmulatedExecutor(qgraph, name, c_dir=c_dir)
    raise ConfigError(f"executor '{name}' is unknown; choose from {', '.join(NAMES)}")
