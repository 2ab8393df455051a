"""What a network costs on a core: counted instructions, linked sizes, painted stack.

Reads a QGraph and a stream of codes; builds one image; writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.errors import ConfigError, DataError
from edge_lstm.optional import require
from edge_lstm.qgraph import CodeArray, QGraph
from firmware_tools.build import compile_flags, find_compiler
from firmware_tools.c_executor import UNUSED
from firmware_tools.cores import core_named
from firmware_tools.elf import Image
from firmware_tools.emulator import BUFFER, STACK, STACK_BYTES, Machine, build_machine


@dataclass(frozen=True)
class Measurement:
    """instructions_per_step, detect_instructions_per_step: mean, min and max over the stream, from the first
    instruction of NAME_step or NAME_detect to its return; the latter includes a step, None: not asked for.
    A network with a window has no step: instructions_per_step are those of NAME_window, a whole window.

    code_bytes: the model's and the runtime's functions and what they need of the compiler's library.
    table_bytes: the runtime's constants.  weight_bytes: the model's constants.  ram_bytes: the state struct
    and every other variable.  stack_bytes: deepest use below the caller's stack pointer.
    """

    instructions_per_step: dict[str, float]
    detect_instructions_per_step: dict[str, float] | None
    code_bytes: int
    table_bytes: int
    weight_bytes: int
    ram_bytes: int
    stack_bytes: int
    compiler: str
    flags: tuple[str, ...]


def measure(
    qgraph: QGraph, core_name: str, codes: CodeArray, *, what: str = "step", c_dir: Path | None = None
) -> Measurement:
    """Run ``codes`` (steps, features) one row, or one whole window, at a time from reset and count.

    what: "step" for the network alone, "detect" for the network and its detector.
    c_dir: a folder of exported C to compile instead of a fresh export.
    """
    if what not in ("step", "detect"):
        raise ConfigError(f"what is '{what}', expected 'step' or 'detect'")
    if what == "detect" and qgraph.detector is None:
        raise DataError(f"model '{qgraph.name}' carries no detector; quantize it with --data")
    rows = np.ascontiguousarray(codes, dtype=qgraph.input.dtype)
    height = qgraph.window or 1
    if rows.ndim != 2 or rows.shape[1] != qgraph.features or len(rows) < height:
        raise DataError(f"codes are {rows.shape}, expected ({height} or more steps, {qgraph.features})")
    core = core_named(core_name)
    compiler = find_compiler(core)
    detect = what == "detect"
    machine = build_machine([qgraph], core, detect=detect, c_dir=c_dir, compiler=compiler)
    paint_stack(machine)
    calls = rows[: len(rows) // height * height].reshape(-1, height, qgraph.features)
    step = _count_calls(machine, qgraph.name, "window" if qgraph.window else "step", calls)
    detected = _count_calls(machine, qgraph.name, "detect", calls) if detect else None
    return Measurement(
        instructions_per_step=_spread(step),
        detect_instructions_per_step=_spread(detected) if detected else None,
        **image_bytes(machine.image),
        stack_bytes=stack_depth(machine),
        compiler=compiler.name,
        flags=compile_flags(compiler),
    )


def image_bytes(image: Image) -> dict[str, int]:
    """code, table, weight and RAM bytes of a linked image; see core.ld for what lies in each section."""
    sections = image.sections
    return {
        "code_bytes": sections.get(".code", 0),
        "table_bytes": sections.get(".tables", 0),
        "weight_bytes": sections.get(".weights", 0),
        "ram_bytes": sum(sections.get(name, 0) for name in (".state", ".data", ".bss")),
    }


def _spread(counts: list[int]) -> dict[str, float]:
    return {"mean": float(np.mean(counts)), "min": min(counts), "max": max(counts)}


def _count_calls(machine: Machine, name: str, function: str, calls: CodeArray) -> list[int]:
    """Instructions of each call of ``NAME_step``, ``NAME_detect`` or ``NAME_window``, from reset.

    calls: codes (calls, rows, features).
    """
    state = machine.image.symbol(f"{name}_harness_state").address
    x, rest = BUFFER, BUFFER + -(-calls[0].nbytes // 8) * 8
    machine.call(f"{name}_harness_reset", state)
    # step, window: x, y; detect: x, present (null: all), score
    arguments = (x, 0, rest) if function == "detect" else (x, rest)
    counts = []
    with InstructionCounter(machine) as counter:
        for codes in calls:
            machine.write(x, codes.tobytes())
            counter.instructions = 0
            machine.call(f"{name}_{function}", state, *arguments)
            counts.append(counter.instructions)
    return counts


class InstructionCounter:
    """Counts the instructions that a machine executes while the context is open.

    One hook a basic block, with the block's number of instructions counted once; an instruction that an IT
    block skips counts as issued, as it does in the core's pipeline.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.instructions = 0
        self._lengths: dict[tuple[int, int], int] = {}
        self._hook: Any = None

    def __enter__(self) -> InstructionCounter:
        block = require("unicorn", "emulator").UC_HOOK_BLOCK
        self._hook = self.machine.uc.hook_add(block, self._on_block)
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.uc.hook_del(self._hook)

    def _on_block(self, _uc: Any, address: int, size: int, _data: Any) -> None:
        key = (address, size)
        if key not in self._lengths:
            self._lengths[key] = thumb_instructions(self.machine.read(address, size))
        self.instructions += self._lengths[key]


def thumb_instructions(code: bytes) -> int:
    """Number of Thumb instructions in straight-line ``code``: 4 bytes where the top bits say so, else 2."""
    at = count = 0
    while at < len(code):
        at += 4 if code[at + 1] >> 3 in (0b11101, 0b11110, 0b11111) else 2
        count += 1
    return count


def paint_stack(machine: Machine) -> None:
    """Fill the stack, so that ``stack_depth`` sees what is used."""
    machine.write(STACK, bytes([UNUSED]) * STACK_BYTES)


def stack_depth(machine: Machine) -> int:
    """Deepest use since ``paint_stack`` in bytes, whole words."""
    used = machine.read(STACK, STACK_BYTES).lstrip(bytes([UNUSED]))
    return -(-len(used) // 4) * 4
