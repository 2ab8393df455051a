"""The exported C on an emulated Cortex-M: compiled, linked and run in unicorn, function by function.

Reads a QGraph; starts a compiler once; then codes in, codes out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.errors import DataError, RuntimeFailure
from edge_lstm.optional import require
from edge_lstm.qgraph import CodeArray, QGraph
from firmware_tools.build import Compiler, build_core, write_sources, written_rows
from firmware_tools.c_executor import MachineExecutor
from firmware_tools.cores import Core, core_named
from firmware_tools.elf import Image, read_image

PAGE = 4096
STOP = 0x0F000000  # calls return here; a page of its own, so that nothing else reaches it
STACK, STACK_BYTES = 0x30000000, 64 * 1024
BUFFER, BUFFER_BYTES = 0x40000000, 4 << 20
CALL_LIMIT_S = 120.0  # of one call; the longest batch takes about a second


class Machine:
    """One emulated core with an image loaded; calls its functions by the Arm procedure call standard."""

    def __init__(self, image: Image, core: Core) -> None:
        self.image = image
        self.core = core
        self._unicorn = require("unicorn", "emulator")
        self._arm: Any = require("unicorn.arm_const", "emulator")
        self.uc: Any = self._unicorn.Uc(
            self._unicorn.UC_ARCH_ARM, self._unicorn.UC_MODE_THUMB | self._unicorn.UC_MODE_MCLASS
        )
        self.uc.ctl_set_cpu_model(getattr(self._arm, core.unicorn_model))
        self._map()

    def _map(self) -> None:
        """Map the image, its states, the stack and the buffers; all else faults when touched."""
        code = self._unicorn.UC_PROT_READ | self._unicorn.UC_PROT_EXEC
        data = self._unicorn.UC_PROT_READ | self._unicorn.UC_PROT_WRITE
        start = min(address for address, _ in self.image.segments)
        end = max(address + len(content) for address, content in self.image.segments)
        self.uc.mem_map(start, -(-(end - start) // PAGE) * PAGE, code)
        for address, content in self.image.segments:
            self.uc.mem_write(address, content)
        self.uc.mem_map(STOP, PAGE, code)
        states = sum(self.image.sections.get(name, 0) for name in (".data", ".state", ".bss"))
        self.uc.mem_map(0x20000000, -(-max(states, 1) // PAGE) * PAGE, data)
        self.uc.mem_map(STACK, STACK_BYTES, data)
        self.uc.mem_map(BUFFER, BUFFER_BYTES, data)

    def call(self, function: str, *arguments: int) -> int:
        """Call ``function`` with 32-bit arguments; returns its 32-bit result.

        Raises RuntimeFailure, naming where, on a fault or when it does not return.
        """
        arm, address = self._arm, self.image.symbol(function).address
        registers = (arm.UC_ARM_REG_R0, arm.UC_ARM_REG_R1, arm.UC_ARM_REG_R2, arm.UC_ARM_REG_R3)
        for register, value in zip(registers, arguments, strict=False):
            self.uc.reg_write(register, value)
        stack = STACK + STACK_BYTES - 8 * -(-max(len(arguments) - 4, 0) // 2)  # 8-byte aligned
        for index, value in enumerate(arguments[4:]):
            self.write(stack + 4 * index, value.to_bytes(4, "little"))
        self.uc.reg_write(arm.UC_ARM_REG_SP, stack)
        self.uc.reg_write(arm.UC_ARM_REG_LR, STOP | 1)
        try:
            self.uc.emu_start(address | 1, STOP, timeout=int(CALL_LIMIT_S * 1e6))
        except self._unicorn.UcError as error:
            raise self._failure(function, str(error)) from error
        if self.uc.reg_read(arm.UC_ARM_REG_PC) & ~1 != STOP:
            raise self._failure(function, f"it did not return within {CALL_LIMIT_S:.0f} s")
        return int(self.uc.reg_read(arm.UC_ARM_REG_R0))

    def _failure(self, function: str, what: str) -> RuntimeFailure:
        pc = int(self.uc.reg_read(self._arm.UC_ARM_REG_PC))
        return RuntimeFailure(
            f"{self.core.name}: call of {function} failed: {what}; pc 0x{pc:08x} in "
            f"{self.image.function_at(pc)}. If the C was edited, export it again"
        )

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes of memory."""
        return bytes(self.uc.mem_read(address, size))

    def write(self, address: int, content: bytes) -> None:
        """Set memory."""
        self.uc.mem_write(address, content)


def build_machine(
    qgraphs: Sequence[QGraph],
    core: Core,
    *,
    detect: bool = True,
    c_dir: Path | None = None,
    compiler: Compiler | None = None,
) -> Machine:
    """Compile and link ``qgraphs``, or the exported C in ``c_dir``, and load the image."""
    with tempfile.TemporaryDirectory(prefix="edge-lstm-") as name:
        folder = Path(name)
        sources = write_sources(qgraphs, folder, detect=detect, c_dir=c_dir)
        image = read_image(build_core(core, sources, folder, compiler))
    return Machine(image, core)


class EmulatedExecutor(MachineExecutor):
    """One network in C on an emulated core; ``name`` is the core's.

    c_dir: a folder of exported C to compile instead of a fresh export.  machine: one from ``build_machine``
    that holds this network, to share one image between networks.
    """

    def __init__(
        self, qgraph: QGraph, core_name: str, c_dir: Path | None = None, *, machine: Machine | None = None
    ) -> None:
        self.machine = machine or build_machine([qgraph], core_named(core_name), c_dir=c_dir)
        super().__init__(core_name, qgraph, self.machine)

    def _advance(self, codes: CodeArray) -> CodeArray:
        q = self.qgraph
        outputs = np.empty((len(codes), written_rows(q), q.outputs), dtype=q.output.dtype)
        each = sum(array.itemsize * array.shape[1] * array.shape[2] for array in (codes, outputs))
        chunk = (BUFFER_BYTES - 1) // each
        if not chunk:
            raise DataError(
                f"model '{q.name}': {len(codes[0])} rows and their outputs take {each} bytes, fewer than "
                f"{BUFFER_BYTES} fit an emulated core; run it on host"
            )
        for at in range(0, len(codes), chunk):
            calls, written = codes[at : at + chunk], outputs[at : at + chunk]
            y = BUFFER + calls.nbytes + calls.nbytes % 2  # aligned
            self.machine.write(BUFFER, calls.tobytes())
            self._call("run", BUFFER, y, len(calls))
            result = self.machine.read(y, written.nbytes)
            written[:] = np.frombuffer(result, dtype=q.output.dtype).reshape(written.shape)
        return outputs

    def _score(self, raw: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        width = 3 + raw.shape[1]
        chunk = BUFFER_BYTES // (raw.itemsize * (raw.shape[1] + width))
        found = [np.empty((0, width), dtype=np.int32)]
        for at in range(0, len(raw), chunk):
            rows = raw[at : at + chunk]
            scores = BUFFER + rows.nbytes
            self.machine.write(BUFFER, rows.tobytes())
            self._call("detect", BUFFER, scores, len(rows))
            result = self.machine.read(scores, rows.itemsize * len(rows) * width)
            found.append(np.frombuffer(result, dtype="<i4").reshape(-1, width))
        return np.concatenate(found)
