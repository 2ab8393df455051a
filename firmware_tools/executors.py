"""One name, one executor: everything that ``--on`` accepts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from edge_lstm.errors import ConfigError
from edge_lstm.executors.protocol import Executor
from edge_lstm.qgraph import QGraph

if TYPE_CHECKING:
    from firmware_tools.link import Event

CORES = ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33")
QEMU_CORES = ("cortex-m55",)
COMPILED = ("host", *CORES, *QEMU_CORES)
NAMES = ("numpy", "litert", "tflite-runtime", "tflm", *COMPILED)
DEVICES = ("posix", "riscv32")
DEVICE_KINDS = ("serial:", "qemu:", "avr:")  # followed by a port, a board, an MCU
CHOICES = f"{', '.join((*NAMES, *DEVICES))}, serial:PORT, qemu:BOARD, avr:MCU"


def is_device(name: str) -> bool:
    """Whether ``name`` is of firmware behind a serial line."""
    return name in DEVICES or name.startswith(DEVICE_KINDS)


def is_compiled(name: str) -> bool:
    """Whether ``name`` runs the C, with its detector."""
    return name in COMPILED or is_device(name)


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
    if name in QEMU_CORES:
        from firmware_tools.qemu import QemuExecutor

        return QemuExecutor(qgraph, name, c_dir=c_dir)
    if is_device(name):
        return _open_device(name, qgraph)
    raise ConfigError(f"executor '{name}' is unknown; choose from {CHOICES}")


def _open_device(name: str, qgraph: QGraph) -> Executor:
    """Every interruption of the line becomes a warning of the log."""
    if name.startswith("serial:"):
        from firmware_tools.serial_executor import open_serial

        return open_serial(name, qgraph, _log)
    if name == "posix":
        from firmware_tools.posix import PosixExecutor

        return PosixExecutor(qgraph, on_event=_log)
    from firmware_tools.board_executor import BoardExecutor

    return BoardExecutor(qgraph, name, on_event=_log)


def _log(event: Event) -> None:
    logging.getLogger("edge_lstm").warning("edge-lstm: %s", event.text)
