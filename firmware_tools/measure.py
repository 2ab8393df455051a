"""What a network costs on a core: counted instructions and their phases, linked sizes, painted stack.

Reads a QGraph and a stream of codes; builds one image; writes nothing.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.errors import ConfigError, DataError
from edge_lstm.optional import require
from edge_lstm.qgraph import CodeArray, QGraph
from edge_lstm.scaling import scaling_of
from firmware_tools.build import build_core, compile_flags, find_compiler, write_sources
from firmware_tools.c_executor import UNUSED
from firmware_tools.cores import core_named
from firmware_tools.elf import Image, read_image
from firmware_tools.emulator import BUFFER, STACK, STACK_BYTES, Machine
from firmware_tools.phases import PhaseMap, PhaseTally, instruction_offsets, read_phases


@dataclass(frozen=True)
class Measurement:
    """instructions_per_step, detect_instructions_per_step: mean, min and max over the stream, from the first
    instruction of NAME_step or NAME_detect to its return; the latter includes a step, None: not asked for.
    A network with a window has no step: instructions_per_step are those of NAME_window, a whole window.

    code_bytes: the model's and the runtime's functions and what they need of the compiler's library.
    table_bytes: the runtime's constants.  weight_bytes: the model's constants.  ram_bytes: the state struct
    and every other variable.  stack_bytes: deepest use below the caller's stack pointer.
    phases: mean instructions of each phase, see phases.py; of a call with its detector where that is counted,
    None where phases cannot be told apart.
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
    phases: dict[str, float] | None = None


def measure(
    qgraph: QGraph,
    core_name: str,
    codes: CodeArray,
    *,
    what: str = "step",
    c_dir: Path | None = None,
    optimize: str = "speed",
) -> Measurement:
    """Run ``codes`` (steps, features) one row, or one whole window, at a time from reset and count.

    what: "step" for the network alone, "detect" for the network and its detector.
    c_dir: a folder of exported C to compile instead of a fresh export.  optimize: one of build.OPTIMIZE.
    """
    calls = calls_of(qgraph, codes, what)
    core, detect = core_named(core_name), what == "detect"
    compiler = find_compiler(core, optimize)
    with tempfile.TemporaryDirectory(prefix="edge-lstm-") as name:
        folder = Path(name)
        sources = write_sources([qgraph], folder, detect=detect, c_dir=c_dir)
        linked = build_core(core, sources, folder, compiler)
        machine, phase_map = Machine(read_image(linked), core), read_phases(linked)
    paint_stack(machine)
    step, phases = _count_calls(machine, qgraph.name, "window" if qgraph.window else "step", calls, phase_map)
    detected = None
    if detect:
        detected, phases = _count_calls(machine, qgraph.name, "detect", raw_of(qgraph, calls), phase_map)
    return Measurement(
        instructions_per_step=spread(step),
        detect_instructions_per_step=spread(detected) if detected else None,
        **image_bytes(machine.image),
        stack_bytes=stack_depth(machine),
        compiler=compiler.name,
        flags=compile_flags(compiler),
        phases={phase: count / len(calls) for phase, count in phases.items()},
    )


def calls_of(qgraph: QGraph, codes: CodeArray, what: str) -> CodeArray:
    """Codes (calls, rows, features) of a stream (steps, features); refuses what cannot be measured."""
    if what not in ("step", "detect"):
        raise ConfigError(f"what is '{what}', expected 'step' or 'detect'")
    if what == "detect" and qgraph.detector is None:
        raise DataError(f"model '{qgraph.name}' carries no detector; quantize it with --data")
    rows = np.ascontiguousarray(codes, dtype=qgraph.input.dtype)
    height = qgraph.window or 1
    if rows.ndim != 2 or rows.shape[1] != qgraph.features or len(rows) < height:
        raise DataError(f"codes are {rows.shape}, expected ({height} or more steps, {qgraph.features})")
    return rows[: len(rows) // height * height].reshape(-1, height, qgraph.features)


def raw_of(qgraph: QGraph, codes: CodeArray) -> npt.NDArray[np.int32]:
    """Raw integers of the sensors that become ``codes`` (..., features), for the detector."""
    scaling = scaling_of(qgraph.stream, qgraph.input)
    if scaling is None:
        raise DataError(
            f"model '{qgraph.name}' does not state the resolution of its channels; quantize it again "
            "with --data"
        )
    return scaling.counts(codes)


def image_bytes(image: Image) -> dict[str, int]:
    """code, table, weight and RAM bytes of a linked image; see core.ld for what lies in each section."""
    sections = image.sections
    return {
        "code_bytes": sections.get(".code", 0),
        "table_bytes": sections.get(".tables", 0),
        "weight_bytes": sections.get(".weights", 0),
        "ram_bytes": sum(sections.get(name, 0) for name in (".state", ".data", ".bss")),
    }


def spread(counts: list[int]) -> dict[str, float]:
    """Mean, min and max of the counts of several calls."""
    return {"mean": float(np.mean(counts)), "min": min(counts), "max": max(counts)}


def _count_calls(
    machine: Machine,
    name: str,
    function: str,
    calls: npt.NDArray[np.signedinteger[Any]],
    phase_map: PhaseMap,
) -> tuple[list[int], dict[str, int]]:
    """Instructions of each call of ``NAME_step``, ``NAME_detect`` or ``NAME_window``, from reset; those of
    each phase over all calls.

    calls: codes, or the detector's raw integers (calls, rows, features).
    """
    state = machine.image.symbol(f"{name}_harness_state").address
    x, rest = BUFFER, BUFFER + -(-calls[0].nbytes // 8) * 8
    machine.call(f"{name}_harness_reset", state)
    functions = {symbol.address for symbol in machine.image.symbols if symbol.function}
    counts, tally = [], PhaseTally(phase_map, functions, machine.read)
    with InstructionCounter(machine, tally) as counter:
        for codes in calls:
            machine.write(x, codes.tobytes())
            counter.instructions = 0
            tally.begin()
            machine.call(f"{name}_{function}", state, x, rest)
            counts.append(counter.instructions)
    return counts, tally.counts()


class InstructionCounter:
    """Counts the instructions that a machine executes while the context is open.

    One hook a basic block, with the block's number of instructions counted once; an instruction that an IT
    block skips counts as issued, as it does in the core's pipeline.  tally: is told of every block.
    """

    def __init__(self, machine: Machine, tally: PhaseTally | None = None) -> None:
        self.machine = machine
        self.instructions = 0
        self._tally = tally
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
        if self._tally is not None:
            self._tally.enter(address, size)


def thumb_instructions(code: bytes) -> int:
    """Number of Thumb instructions in straight-line ``code``."""
    return len(instruction_offsets(code))


def paint_stack(machine: Machine) -> None:
    """Fill the stack, so that ``stack_depth`` sees what is used."""
    machine.write(STACK, bytes([UNUSED]) * STACK_BYTES)


def stack_depth(machine: Machine) -> int:
    """Deepest use since ``paint_stack`` in bytes, whole words."""
    used = machine.read(STACK, STACK_BYTES).lstrip(bytes([UNUSED]))
    return -(-len(used) // 4) * 4
