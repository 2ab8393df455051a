"""The exported C on a Cortex-M55 in QEMU: codes, counted instructions, linked sizes.

Reads a QGraph; starts a compiler once and one QEMU that serves requests over pipes: see harness/qemu.c.
"""

from __future__ import annotations

import os
import selectors
import shutil
import struct
import subprocess
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from edge_lstm.errors import ConfigError, DataError, MissingTool, RuntimeFailure
from edge_lstm.qgraph import CodeArray, QGraph
from firmware_tools.build import (
    HARNESS,
    Compiler,
    build_core,
    compile_flags,
    find_compiler,
    write_sources,
    written_rows,
)
from firmware_tools.c_executor import UNUSED, MachineExecutor
from firmware_tools.cores import Core
from firmware_tools.elf import Image, read_image
from firmware_tools.measure import Measurement, calls_of, image_bytes, raw_of, spread

QEMU = "qemu-system-arm"
CORTEX_M55 = Core(
    "cortex-m55",
    ("-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"),
    ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m55+mve"),
    "",
)
CORES = {CORTEX_M55.name: CORTEX_M55}
# an instruction takes 2**6 ns, a tick of the timer 31.25 ns: ticks tell instructions apart
MACHINE = (
    "-M", "mps3-an547", "-icount", "shift=6", "-semihosting-config", "enable=on,target=native",
    "-display", "none", "-serial", "none", "-monitor", "none",
)  # fmt: skip
TICKS_AN_INSTRUCTION = 64 / 31.25
STACK, STACK_BYTES = 0x30000000, 64 * 1024  # of the calls; nothing lies below
ARGUMENT_BYTES = 8  # of the stack's top: the fifth argument, aligned
BUFFER, BUFFER_BYTES = 0x70000000, 64 << 20
READ, WRITE, CALL = 0, 1, 2  # kinds of requests
RETURNED = 0x600D  # status of a call
CALL_LIMIT_S = 120.0  # of one call; the longest batch takes about a second


class QemuMachine:
    """One core in QEMU with an image loaded; calls its functions by the Arm procedure call standard.

    limit_s: how long a request may take.  After a fault, or a call that did not return, every request raises
    RuntimeFailure.
    """

    def __init__(self, path: Path, core: Core) -> None:
        self.image: Image = read_image(path)
        self.core = core
        self.limit_s = CALL_LIMIT_S
        pipe = subprocess.PIPE
        command = [QEMU, *MACHINE, "-kernel", str(path)]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
        self._input = cast("IO[bytes]", self._process.stdin)
        self._output = cast("IO[bytes]", self._process.stdout)
        self.close = weakref.finalize(self, _stop, self._process)
        self._overhead = 0
        self._overhead = self.count("qemu_nothing") - 1  # that function is one instruction

    def call(self, function: str, *arguments: int) -> int:
        """Call ``function`` with up to five 32-bit arguments; returns its 32-bit result.

        Raises RuntimeFailure, naming where, on a fault or when it does not return.
        """
        return self._call(function, arguments)[0]

    def count(self, function: str, *arguments: int) -> int:
        """As ``call``; returns the number of instructions from its first one to its return, below 2**31."""
        return round(self._call(function, arguments)[1] / TICKS_AN_INSTRUCTION) - self._overhead

    def _call(self, function: str, arguments: Sequence[int]) -> tuple[int, int]:
        """The result of ``function`` and the ticks that it took."""
        self._request(function, CALL, self.image.symbol(function).address | 1, 0, *arguments)
        status, result, ticks = struct.unpack("<3I", self._receive(function, 12))
        if status != RETURNED:
            self.close()
            what = f"a fault with status 0x{ticks:x} at pc 0x{result:08x} in {self.image.function_at(result)}"
            raise self._failure(function, what)
        return result, ticks

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes of memory."""
        self._request("read", READ, address, size)
        return self._receive("read", size)

    def write(self, address: int, content: bytes) -> None:
        """Set memory."""
        self._request("write", WRITE, address, len(content))
        self._send("write", content)

    def _request(self, what: str, kind: int, address: int, size: int, *arguments: int) -> None:
        words = (*arguments, 0, 0, 0, 0, 0)[:5]
        self._send(what, struct.pack("<8I", kind, address, size, *words))

    def _send(self, what: str, content: bytes) -> None:
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[self._input.write(rest) :]
        except (OSError, ValueError) as error:  # QEMU has ended, or was closed here
            raise self._stopped(what) from error

    def _receive(self, what: str, size: int) -> bytes:
        """The next ``size`` bytes that the machine sends; kills it when they do not come in time."""
        found, deadline = bytearray(), time.monotonic() + self.limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            while len(found) < size:
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    self.close()
                    raise self._failure(what, f"it did not return within {self.limit_s:g} s")
                content = os.read(self._output.fileno(), size - len(found))
                if not content:
                    raise self._stopped(what)
                found += content
        return bytes(found)

    def _stopped(self, what: str) -> RuntimeFailure:
        """The failure of a request to a machine that has ended, with what QEMU wrote at its end."""
        self._process.kill()
        written = self._process.communicate()[1].decode(errors="replace") if self.close.alive else ""
        return self._failure(what, ": ".join(["the machine has stopped", *written.splitlines()[:1]]))

    def _failure(self, function: str, what: str) -> RuntimeFailure:
        return RuntimeFailure(
            f"{self.core.name}: call of {function} failed: {what}. If the C was edited, export it again"
        )


def require_qemu(core: Core) -> None:
    """Raise MissingTool where QEMU is not on PATH."""
    if shutil.which(QEMU) is None:
        raise MissingTool(
            f"{QEMU} is not on PATH; it runs the C for {core.name}.\n"
            "Debian/Ubuntu: apt install qemu-system-arm   macOS: brew install qemu"
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def core_named(name: str) -> Core:
    """The record of a core that QEMU emulates; ConfigError for a name that there is none of."""
    if name not in CORES:
        raise ConfigError(f"core '{name}' is unknown to QEMU; choose one of {', '.join(CORES)}")
    return CORES[name]


def compiler_of(core: Core, optimize: str = "speed") -> Compiler:
    """The best compiler for ``core``, linking for QEMU's memory; MissingTool where there is none."""
    compiler = find_compiler(core, optimize)
    scripts = {str(HARNESS / "core.ld"): str(HARNESS / "qemu.ld")}
    return replace(compiler, link_flags=tuple(scripts.get(flag, flag) for flag in compiler.link_flags))


def build_machine(
    qgraphs: Sequence[QGraph],
    core: Core,
    *,
    detect: bool = True,
    c_dir: Path | None = None,
    compiler: Compiler | None = None,
) -> QemuMachine:
    """Compile and link ``qgraphs``, or the exported C in ``c_dir``, and start QEMU with the image."""
    require_qemu(core)
    with tempfile.TemporaryDirectory(prefix="edge-lstm-") as name:
        folder = Path(name)
        sources = write_sources(qgraphs, folder, detect=detect, c_dir=c_dir)
        runtime = (*sources.runtime, HARNESS / "qemu.c")
        sources = replace(sources, runtime=runtime, entry="qemu_start")
        image = build_core(core, sources, folder, compiler or compiler_of(core))
        return QemuMachine(image, core)


class QemuExecutor(MachineExecutor):
    """One network in C on a core in QEMU; ``name`` is the core's.

    c_dir: a folder of exported C to compile instead of a fresh export.  machine: one from ``build_machine``
    that holds this network, to share one image between networks.
    """

    def __init__(
        self,
        qgraph: QGraph,
        core_name: str = CORTEX_M55.name,
        c_dir: Path | None = None,
        *,
        machine: QemuMachine | None = None,
    ) -> None:
        self.machine = machine or build_machine([qgraph], core_named(core_name), c_dir=c_dir)
        super().__init__(core_name, qgraph, self.machine)

    def _send(self, *arrays: npt.NDArray[np.generic], result_bytes: int) -> list[int]:
        """Write arrays one behind another; returns their addresses and that of a result behind them."""
        places = [BUFFER]
        for array in arrays:
            places.append(places[-1] + -(-array.nbytes // 8) * 8)
        if places[-1] + result_bytes > BUFFER + BUFFER_BYTES:
            raise DataError(
                f"model '{self.qgraph.name}': {len(arrays[0])} rows and their outputs do not fit the "
                f"{BUFFER_BYTES} bytes of memory for them; run fewer at a time, or on host"
            )
        for place, array in zip(places, arrays, strict=False):
            self.machine.write(place, array.tobytes())
        return places

    def _advance(self, codes: CodeArray) -> CodeArray:
        q = self.qgraph
        outputs: CodeArray = np.empty((len(codes), written_rows(q), q.outputs), dtype=q.output.dtype)
        x, y = self._send(codes, result_bytes=outputs.nbytes)
        self._call("run", x, y, len(codes))
        outputs[:] = np.frombuffer(self.machine.read(y, outputs.nbytes), outputs.dtype).reshape(outputs.shape)
        return outputs

    def _score(self, raw: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        rows = np.empty((len(raw), 3 + raw.shape[1]), dtype="<i4")
        x, scores = self._send(raw, result_bytes=rows.nbytes)
        self._call("detect", x, scores, len(raw))
        rows[:] = np.frombuffer(self.machine.read(scores, rows.nbytes), rows.dtype).reshape(rows.shape)
        return rows


def measure(
    qgraph: QGraph,
    core_name: str,
    codes: CodeArray,
    *,
    what: str = "step",
    c_dir: Path | None = None,
    optimize: str = "speed",
) -> Measurement:
    """As ``firmware_tools.measure.measure``, on a core in QEMU and without phases."""
    calls = calls_of(qgraph, codes, what)
    raw = raw_of(qgraph, calls) if what == "detect" else None
    core = core_named(core_name)
    compiler = compiler_of(core, optimize)
    machine = build_machine([qgraph], core, detect=what == "detect", c_dir=c_dir, compiler=compiler)
    machine.write(STACK, bytes([UNUSED]) * STACK_BYTES)
    step = _counts(machine, qgraph.name, "window" if qgraph.window else "step", calls)
    detected = _counts(machine, qgraph.name, "detect", raw) if raw is not None else None
    used = machine.read(STACK, STACK_BYTES - ARGUMENT_BYTES).lstrip(bytes([UNUSED]))
    machine.close()
    return Measurement(
        instructions_per_step=spread(step),
        detect_instructions_per_step=spread(detected) if detected else None,
        **image_bytes(machine.image),
        stack_bytes=-(-len(used) // 4) * 4,
        compiler=compiler.name,
        flags=compile_flags(compiler),
        phases=None,
    )


def _counts(
    machine: QemuMachine, name: str, function: str, calls: npt.NDArray[np.signedinteger[Any]]
) -> list[int]:
    """Instructions of each call of ``NAME_step``, ``NAME_detect`` or ``NAME_window``, from reset."""
    state = machine.image.symbol(f"{name}_harness_state").address
    machine.call(f"{name}_harness_reset", state)
    rest = BUFFER + -(-calls[0].nbytes // 8) * 8
    counts = []
    for codes in calls:
        machine.write(BUFFER, codes.tobytes())
        counts.append(machine.count(f"{name}_{function}", state, BUFFER, rest))
    return counts
