"""The deepest stack of a linked firmware: frames that the compiler states, along the calls in its code.

Reads an ELF through the toolchain's objdump and the .su files of its objects.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from edge_lstm.errors import RuntimeFailure

LIBRARY_FRAME = 48  # bytes, of a function of the compiler's library and all that it calls: nobody states them
EXCEPTION_FRAME = {"arm": 36, "riscv": 0, "avr": 0}  # what the core pushes itself; on AVR the frame holds it
FLOAT_FRAME = 108  # where the core pushes its vector registers too
ENTRIES = ("board_reset", "board_start", "main")
HANDLERS = re.compile(r"\w+_interrupt|__vector_\d+")
HEADER = re.compile(r"^[0-9a-f]+ <([^>+]+)>:$")
# of a branch, jump or call, whose names begin so on every core here; loads name addresses too
TARGET = re.compile(r"^ *[0-9a-f]+:\s+[bcjr]\S*\s.*<([^>+]+)>")


def stack_bound(elf: Path, frames: Iterable[Path], compiler: str, hard_float: bool = False) -> int:
    """Bytes of the deepest chain of calls from the start, and of the deepest interrupt on top of it.

    frames: the objects' .su files.  compiler: the gcc of the toolchain.  hard_float: exceptions save vectors.
    Interrupts do not interrupt one another.  Raises RuntimeFailure where functions call themselves.
    """
    calls, known = read_calls(elf, compiler.replace("gcc", "objdump")), read_frames(frames)
    depths: dict[str, int] = {}
    starts = [deepest(entry, calls, known, depths) for entry in ENTRIES if entry in calls]
    handlers = [deepest(name, calls, known, depths) for name in calls if HANDLERS.fullmatch(name)]
    toolchain = {"arm-none-eabi-gcc": "arm", "avr-gcc": "avr"}.get(compiler, "riscv")
    pushed = FLOAT_FRAME if hard_float else EXCEPTION_FRAME[toolchain]
    return max(starts, default=0) + (max(handlers) + pushed if handlers else 0)


def read_frames(paths: Iterable[Path]) -> dict[str, int]:
    """Bytes that each function pushes; of functions with one name the largest."""
    found: dict[str, int] = {}
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            place, size, _ = line.split("\t")
            name = _plain(place.rsplit(":", 1)[1])
            found[name] = max(found.get(name, 0), int(size))
    return found


def read_calls(elf: Path, objdump: str) -> dict[str, set[str]]:
    """The functions that each function branches to, calls and jumps alike."""
    done = subprocess.run(
        [objdump, "-d", "--no-show-raw-insn", str(elf)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeFailure(f"{objdump} cannot read {elf.name}: {done.stderr.strip()}; install it again")
    calls: dict[str, set[str]] = {}
    here = ""
    for line in done.stdout.splitlines():
        header = HEADER.match(line)
        if header:
            here = _plain(header[1])
            calls.setdefault(here, set())
            continue
        target = TARGET.match(line)
        if target and here and _plain(target[1]) != here:
            calls[here].add(_plain(target[1]))
    return calls


def deepest(
    name: str, calls: Mapping[str, set[str]], frames: Mapping[str, int], depths: dict[str, int]
) -> int:
    """Bytes of the deepest chain of calls from ``name``; ``depths`` keeps what is known."""
    if name not in frames:
        return LIBRARY_FRAME
    if name not in depths:
        depths[name] = -1  # on the way
        below = [deepest(each, calls, frames, depths) for each in calls.get(name, ())]
        if -1 in below:
            raise RuntimeFailure(f"the stack of the firmware has no bound: {name} calls itself")
        depths[name] = frames[name] + max(below, default=0)
    return depths[name]


def _plain(name: str) -> str:
    """A function's name without what the compiler appends to its clones."""
    return name.split(".")[0]
