"""What runs a firmware on this machine, and the URL of its serial line.

Starts QEMU or simavr; each ends with its Pipe, or with this process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from edge_lstm.errors import ConfigError, MissingTool, RuntimeFailure
from firmware_tools.boards.records import FOLDER, Board
from firmware_tools.build import find_host_compiler, run_compiler
from firmware_tools.elf import read_image

SIMAVR = "simavr"  # as the first word of a record's emulator
PACKAGES = {"qemu-system-arm": "qemu-system-arm", "qemu-system-riscv32": "qemu-system-misc"}
BRIDGE = FOLDER / "simavr_bridge.c"
RAM_MASK = 0xFFFF  # an AVR's ELF adds 0x800000 to addresses of RAM
LEAST_DESCRIPTOR = 10  # of the socket that a program inherits; a shell uses those below
# An instruction is 64 ns of the machine's time: its timers count alike on every run.  Without it QEMU 7.2 was
# seen to leave interrupts of a Cortex-M pending for ever, on a busy machine.
CLOCK = "shift=6,sleep=on"
START_S = 0.1  # an emulator that refuses its arguments has ended by then
# The shell becomes the program; what it leaves behind kills that when standard input ends without a word.
LIFELINE = 'exec 3<&0 </dev/null; (read word <&3 || kill -9 $$) >/dev/null 2>&1 & exec "$@" 3<&-'


class Pipe:
    """A running firmware.  url: of its serial line, for pyserial.  It ends with ``close`` or as a context."""

    def __init__(
        self,
        name: str,
        url: str,
        arguments: Sequence[str],
        line: int,
        folder: tempfile.TemporaryDirectory[str],
    ) -> None:
        """Start a program that inherits the descriptor ``line``; ``folder`` holds its files."""
        self.name, self.url = name, url
        self._errors = Path(folder.name) / "errors"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", LIFELINE, "sh", *arguments],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, pass_fds=(line,), bufsize=0,
            )  # fmt: skip
        self.close = weakref.finalize(self, _stop, self._process, folder)

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def check(self, wait_s: float = 0.0) -> None:
        """RuntimeFailure with its last words where it has ended, or ends within ``wait_s``."""
        with suppress(subprocess.TimeoutExpired):
            status = self._process.wait(wait_s)
            lines = self._errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            words = f": {lines[0]}" if lines else ""
            raise RuntimeFailure(f"{self.name} has ended with status {status}{words}")


def _stop(process: subprocess.Popen[bytes], folder: tempfile.TemporaryDirectory[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.write(b"\n")  # the word that ends the lifeline
    process.stdin.close()
    folder.cleanup()


def start_board(board: Board, elf: Path) -> Pipe:
    """Run ``elf`` in the emulator of ``board``; its serial line takes one client at a time.

    Raises MissingTool with the package of the emulator, ConfigError for a board without one.
    """
    emulator = _emulator(board)
    address = read_image(elf).symbol("port_seed").address
    seed = secrets.randbits(31)  # boots of one image differ
    folder = tempfile.TemporaryDirectory(prefix="edge-lstm-", ignore_cleanup_errors=True)
    image = Path(shutil.copy(elf, folder.name))
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = fcntl.fcntl(server, fcntl.F_DUPFD, LEAST_DESCRIPTOR)
        try:
            if emulator[0] == SIMAVR:
                server.setblocking(False)
                bridge, mcu = _bridge(Path(folder.name)), emulator[1]
                words = (bridge, mcu, board.clock_hz, image, line, address & RAM_MASK, seed)
                arguments = [str(word) for word in words]
            else:
                arguments = [*emulator, *_qemu_arguments(image, line, address, seed)]
            url = f"socket://127.0.0.1:{server.getsockname()[1]}"
            pipe = Pipe(f"the emulator of board '{board.name}'", url, arguments, line, folder)
        finally:
            os.close(line)
    try:
        pipe.check(START_S)
    except RuntimeFailure:
        pipe.close()
        raise
    return pipe


def _emulator(board: Board) -> tuple[str, ...]:
    """The command of a board's emulator, which is there."""
    if not board.emulator:
        raise ConfigError(f"board '{board.name}' has no emulator; connect it and use --on serial:PORT")
    command = board.emulator[0]
    if command == SIMAVR:
        return board.emulator
    if shutil.which(command) is None:
        package = PACKAGES.get(command, command)
        raise MissingTool(
            f"{command} is not on PATH; it emulates {board.title}.\n"
            f"Debian/Ubuntu: apt install {package}   macOS: brew install qemu"
        )
    return board.emulator


def _qemu_arguments(elf: Path, line: int, seed_address: int, seed: int) -> list[str]:
    return [
        "-display", "none", "-monitor", "none", "-icount", CLOCK,
        "-chardev", f"socket,id=line,fd={line},server=on,wait=off,nodelay=on", "-serial", "chardev:line",
        "-device", f"loader,addr={seed_address},data={seed},data-len=4", "-kernel", str(elf),
    ]  # fmt: skip


def _bridge(folder: Path) -> Path:
    """Compile what connects simavr to a socket; MissingTool where its library is not installed."""
    program = folder / "simavr_bridge"
    try:
        run_compiler(find_host_compiler(), ["-O2", str(BRIDGE), "-o", str(program), "-lsimavr"])
    except RuntimeFailure as error:
        if "simavr" not in str(error).replace(BRIDGE.name, ""):
            raise
        raise MissingTool(
            "simavr's library is not installed; it emulates AVR boards.\n"
            "Debian/Ubuntu: apt install libsimavr-dev libelf-dev"
        ) from error
    return program
