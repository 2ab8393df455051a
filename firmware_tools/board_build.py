"""A network's firmware for a board: compiled, linked, and what it takes of flash, RAM and stack.

Reads a QGraph and a board's record; writes into a folder of the caller; starts the board's compiler.
"""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_lstm.errors import ConfigError, MissingTool, ModelError
from edge_lstm.qgraph import QGraph
from firmware_tools.boards.records import FOLDER, Board
from firmware_tools.build import C_FLAGS, CORE_FLAGS, HARNESS, OPTIMIZE, Compiler, run_compiler
from firmware_tools.firmware import write_firmware
from firmware_tools.stack_bound import stack_bound

GCC = {
    "arm": ("arm-none-eabi-gcc", "gcc-arm-none-eabi"),
    "riscv": ("riscv64-unknown-elf-gcc", "gcc-riscv64-unknown-elf"),
    "avr": ("avr-gcc", "gcc-avr avr-libc"),
}  # toolchain -> command, Debian packages
PARTS = ("model", "runtime", "firmware")
MODEL = "model_"  # how the objects of a model's C begin
UNLOADED = (".debug", ".stab", ".comment", ".note", ".ARM.", ".riscv.", ".eh_frame")  # sections of no memory
STATE = ".bss.kept"  # the section of protocol.c that holds the model's state
# of a firmware's file -> what objcopy makes of the ELF; None: the ELF itself
FORMATS: dict[str, str | None] = {".elf": None, ".hex": "ihex", ".bin": "binary", ".uf2": "binary"}
# https://github.com/microsoft/uf2
UF2_BEGIN, UF2_END, UF2_FAMILY_GIVEN, UF2_BYTES = (0x0A324655, 0x9E5D5157), 0x0AB16F30, 0x2000, 256
AVR_MOST = 32_767  # bytes of one constant
LINE_WAITS = 0xFFFF  # as a record's rx_bytes
SMALL_RING = 4  # where nothing is lost
SUPPORT = HARNESS / "support.c"


@dataclass(frozen=True)
class Part:
    """Bytes of flash and of RAM; initialized variables count in both."""

    flash: int = 0
    ram: int = 0

    def __add__(self, other: Part) -> Part:
        return Part(self.flash + other.flash, self.ram + other.ram)


@dataclass(frozen=True)
class Firmware:
    """A linked firmware.

    parts: by PARTS: the model's C with its constants and state; the runtime with its tables and the
    compiler's library; protocol, serial driver and start-up.  stack: the deepest chain of calls,
    interrupts included, in bytes.
    """

    board: Board
    elf: Path
    parts: dict[str, Part]
    stack: int

    @property
    def total(self) -> Part:
        """Flash and RAM of all parts; RAM without the stack."""
        return sum(self.parts.values(), Part())

    @property
    def problems(self) -> list[str]:
        """Why it does not fit its board, with figures; empty: it fits."""
        needs = {
            "flash": (self.total.flash, self.board.flash.size),
            "RAM with its stack": (self.total.ram + self.stack, self.board.ram.size),
        }
        return [
            f"{what}: {needed:,} bytes needed, {there:,} there, {needed - there:,} too many"
            for what, (needed, there) in needs.items()
            if needed > there
        ]

    def require_fit(self) -> None:
        """ModelError with every figure where it does not fit."""
        if self.problems:
            parts = ", ".join(f"{name} {part.flash:,} + {part.ram:,}" for name, part in self.parts.items())
            raise ModelError(
                f"board '{self.board.name}': the firmware does not fit: {'; '.join(self.problems)}\n"
                f"  bytes of flash + RAM: {parts}; stack {self.stack:,}\n"
                f"  what fits: edge-lstm fit MODEL --board {self.board.name}"
            )


def board_compiler(board: Board) -> Compiler:
    """The compiler of a board's toolchain; MissingTool with the package that brings it."""
    if not board.toolchain:
        raise ConfigError(f"board '{board.name}' is not built here: {board.note}")
    command, packages = GCC[board.toolchain]
    if shutil.which(command) is None:
        raise MissingTool(
            f"{command} is not on PATH; it builds the firmware for {board.title}.\n"
            f"Debian/Ubuntu: apt install {packages}"
        )
    return Compiler(command, (command,), (*board.flags, OPTIMIZE["size"]), _link_flags(board))


def _link_flags(board: Board) -> tuple[str, ...]:
    """Where flash, data and stack lie."""
    top = board.ram.origin + board.ram.size
    if board.toolchain == "avr":
        symbols = {"stack_limit": "_end", "stack_top": hex(top)}
        placed = (f"-Wl,--defsym={name}={value}" for name, value in symbols.items())
        return (*placed, "-Wl,--noinhibit-exec")  # what is too large is measured all the same
    symbols = {
        "flash_origin": hex(board.flash.origin),
        "ram_origin": hex(board.ram.origin),
        "ram_bytes": hex(board.ram.size),
    }
    defined = (f"-Wl,--defsym={name}={value}" for name, value in symbols.items())
    return ("-nostdlib", "-Wl,-e,board_reset", "-T", str(FOLDER / "image.ld"), *defined, "-lgcc")


def board_flags(board: Board) -> tuple[str, ...]:
    """The flags of every C file of a board's firmware, beside the compiler's own."""
    defines = {
        "PORT_CLOCK_HZ": board.clock_hz,
        "PORT_RX_BYTES": board.rx_bytes,
        "RING_BYTES": SMALL_RING if board.rx_bytes == LINE_WAITS else board.rx_bytes,
        "UART_BAUD": board.baud,
    } | dict(board.defines)
    unsigned = (f"-D{name}={value}ul" for name, value in defines.items())
    # avr-libc has a string.h and a start-up of its own
    include = () if board.toolchain == "avr" else ("-I", str(HARNESS / "include"))
    return (
        *C_FLAGS,
        *CORE_FLAGS,
        "-fstack-usage",
        *unsigned,
        "-I",
        str(HARNESS),
        "-I",
        str(FOLDER),
        *include,
    )


def compile_board(
    board: Board, sources: Sequence[Path], include: Path, folder: Path, prefix: str = ""
) -> list[Path]:
    """Compile C files for ``board``; returns the objects in ``folder``, PREFIX + the file's name."""
    compiler = board_compiler(board)
    flags = [*compiler.flags, *board_flags(board), "-I", str(include), "-c"]
    objects = []
    for source in sources:
        target = folder / f"{prefix}{source.stem}.o"
        no_loops = ("-fno-builtin", "-fno-tree-loop-distribute-patterns") if source == SUPPORT else ()
        run_compiler(compiler, [*flags, *no_loops, str(source), "-o", str(target)])
        objects.append(target)
    return objects


def link_objects(board: Board, objects: Sequence[Path], folder: Path) -> Firmware:
    """Link objects, which lie beside their .su files; objects of models are named model_*.o."""
    compiler = board_compiler(board)
    elf, sections = folder / f"{board.name}.elf", folder / f"{board.name}.map"
    linked = ["-Wl,--gc-sections", f"-Wl,-Map={sections}", *map(str, objects), *compiler.link_flags]
    run_compiler(compiler, [*compiler.flags, *linked, "-o", str(elf)])
    frames = [path.with_suffix(".su") for path in objects]
    return Firmware(
        board,
        elf,
        read_map(sections, board),
        stack_bound(elf, frames, compiler.name, "-mfloat-abi=hard" in board.flags),
    )


CONTRIBUTION = re.compile(  # section, address, size, object
    r"^ (\*fill\*|[.\w]\S*)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)(?: (\S+))?$", re.MULTILINE
)


def read_map(path: Path, board: Board) -> dict[str, Part]:
    """Bytes by part from a GNU linker's map: every input section, by the object that it is from."""
    text = path.read_text(encoding="utf-8", errors="replace")
    text = text[text.index("Linker script and memory map") :]
    text = re.sub(r"^( [.\w]\S*)\n\s+(0x)", r"\1 \2", text, flags=re.MULTILINE)  # long names break their line
    parts = dict.fromkeys(PARTS, Part())
    low, high = board.ram.origin, board.ram.origin + (1 << 24)
    for section, address, size, place in CONTRIBUTION.findall(text):
        if not int(size, 16) or section.startswith(UNLOADED):
            continue
        count, ram = int(size, 16), low <= int(address, 16) < high
        stored = not ram or section.startswith((".data", ".sdata", ".rodata"))
        name = Path(place).name
        part = "model" if name.startswith(MODEL) or section == STATE else "firmware"
        if name.startswith("elstm") or "libgcc" in place:
            part = "runtime"
        parts[part] += Part(count if stored else 0, count if ram else 0)
    return parts


def build_firmware(qgraph: QGraph, board: Board, folder: Path, mlperf: bool = False) -> Firmware:
    """Write the C of ``qgraph`` and of the firmware into ``folder``, compile it and link it for ``board``.

    mlperf: see ``write_firmware``.
    Whether it fits is another question: see Firmware.problems.  Raises MissingTool without the compiler.
    """
    board_compiler(board)
    if board.toolchain == "avr":
        _refuse_large_constants(qgraph, board)
    written = write_firmware(qgraph, folder, mlperf)
    model = [path for path in written.sources if path.stem == qgraph.name]
    others = [path for path in written.sources if path.stem != qgraph.name]
    support = () if board.toolchain == "avr" else (SUPPORT,)
    objects = [
        *compile_board(board, model, written.include, folder, MODEL),
        *compile_board(board, (*others, *board.source_paths(), *support), written.include, folder),
    ]
    return link_objects(board, objects, folder)


def _refuse_large_constants(qgraph: QGraph, board: Board) -> None:
    """ModelError where a constant is larger than an AVR's 16-bit integers count."""
    sizes = [getattr(layer, "kernel", np.empty(0)).size for layer in qgraph.layers]
    sizes += [getattr(layer, "recurrent_kernel", np.empty(0)).size for layer in qgraph.layers]
    if sum(sizes) > AVR_MOST:
        raise ModelError(
            f"board '{board.name}': the firmware does not fit: {sum(sizes):,} bytes of weights, "
            f"and no more than {AVR_MOST:,} can be counted there; RAM is {board.ram.size:,}"
        )


def firmware_content(firmware: Firmware, suffix: str) -> bytes:
    """The bytes of a file of the format that ``suffix``, one of FORMATS, names."""
    kind = FORMATS[suffix]
    if kind is None:
        return firmware.elf.read_bytes()
    target = firmware.elf.with_suffix(suffix)
    compiler = board_compiler(firmware.board).name
    objcopy = Compiler("objcopy", (compiler.replace("gcc", "objcopy"),))
    run_compiler(objcopy, ["-O", kind, str(firmware.elf), str(target)])
    if suffix == ".uf2":
        return uf2_blocks(target.read_bytes(), firmware.board)
    return target.read_bytes()


def uf2_blocks(content: bytes, board: Board) -> bytes:
    """Flash content as UF2: blocks of 512 bytes, each with 256 of it and their address."""
    if not board.uf2_family:
        raise ConfigError(f"board '{board.name}' takes no .uf2; write .elf, .hex or .bin")
    chunks = [
        content[at : at + UF2_BYTES].ljust(UF2_BYTES, b"\0") for at in range(0, len(content), UF2_BYTES)
    ]
    blocks = []
    for index, chunk in enumerate(chunks):
        address = board.flash.origin + index * UF2_BYTES
        head = struct.pack(
            "<8I", *UF2_BEGIN, UF2_FAMILY_GIVEN, address, UF2_BYTES, index, len(chunks), board.uf2_family
        )
        blocks.append(head + chunk.ljust(476, b"\0") + struct.pack("<I", UF2_END))
    return b"".join(blocks)
