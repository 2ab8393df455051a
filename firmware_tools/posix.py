"""The firmware as a process of this machine, behind a pty: all that a board does, without one.

Reads a QGraph; starts a compiler and the process.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import tty
from collections.abc import Callable
from pathlib import Path

from edge_lstm.qgraph import QGraph
from firmware_tools.build import C_FLAGS, HARNESS, Compiler, find_host_compiler, run_compiler
from firmware_tools.firmware import write_firmware
from firmware_tools.link import Event, LinkOptions
from firmware_tools.serial_executor import SerialExecutor

FLAGS = (*C_FLAGS, "-O2", "-DPORT_CLOCK_HZ=1000000000u", "-DPORT_RX_BYTES=2048")  # a pty keeps 4095 bytes


def build_process(
    qgraph: QGraph,
    folder: Path,
    flags: tuple[str, ...] = (),
    compiler: Compiler | None = None,
    mlperf: bool = False,
) -> Path:
    """Build the firmware of ``qgraph`` for this machine; returns the program in ``folder``."""
    firmware = write_firmware(qgraph, folder, mlperf)
    program = folder / "firmware"
    files = [*map(str, firmware.sources), str(HARNESS / "posix_port.c")]
    arguments = [*FLAGS, *flags, "-I", str(firmware.include), *files, "-o", str(program)]
    run_compiler(compiler or find_host_compiler(), arguments)
    return program


class Process:
    """A running firmware; ``url``: the pty that it speaks on.  It ends with this process at the latest."""

    def __init__(self, program: Path) -> None:
        master, self._terminal = os.openpty()
        tty.setraw(self._terminal)
        self.url = os.ttyname(self._terminal)
        self._process = subprocess.Popen([str(program)], stdin=master, stdout=master)
        os.close(master)  # the terminal stays open, so that the line survives its clients

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)


class PosixExecutor(SerialExecutor):
    """One network in a firmware process, through its pty."""

    def __init__(
        self,
        qgraph: QGraph,
        *,
        flags: tuple[str, ...] = (),
        options: LinkOptions | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        with tempfile.TemporaryDirectory(prefix="edge-lstm-") as folder:
            self._process = Process(build_process(qgraph, Path(folder), flags))
        try:
            super().__init__(qgraph, self._process.url, name="posix", options=options, on_event=on_event)
        except BaseException:
            self._process.close()
            raise

    def close(self) -> None:
        super().close()
        self._process.close()
