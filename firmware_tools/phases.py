"""The phases of a step: which instructions belong to the gates, the activations, the update and so on.

Reads the debug information of a linked ELF; the runtime's functions are inlined into the network, so that an
address alone does not tell.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edge_lstm.optional import require

OTHER = "other"
PHASES = ("gates", "activations", "update", "head", "scoring", OTHER)
# first letters of a function of the runtime -> the phase of all that it does
PHASE_OF = {
    "elstm_gate_": "gates",
    "elstm_combine_": "gates",
    "elstm_native_gate": "gates",
    "elstm_four_": "gates",
    "elstm_variant_sums": "gates",
    "elstm_variant_gate": "gates",
    "elstm_sigmoid": "activations",
    "elstm_tanh": "activations",
    "elstm_interpolate": "activations",
    "elstm_update_": "update",
    "elstm_hidden": "update",
    "elstm_project": "update",
    "elstm_dense": "head",
    "elstm_detector_": "scoring",
}
FUNCTIONS = ("DW_TAG_subprogram", "DW_TAG_inlined_subroutine")


def phase_of(function: str) -> str | None:
    """The phase of a function of the runtime, None where it depends on who calls it."""
    return next((phase for start, phase in PHASE_OF.items() if function.startswith(start)), None)


@dataclass(frozen=True)
class PhaseMap:
    """ranges: (first address, address behind the last, phase), by address, without overlap.

    An address has the phase of the outermost function around it that has one.
    """

    ranges: tuple[tuple[int, int, str], ...]

    @cached_property
    def _starts(self) -> list[int]:
        return [start for start, _, _ in self.ranges]

    def at(self, address: int) -> str | None:
        """The phase of the instruction at ``address``, None where no function around it has one."""
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address >= self.ranges[index][1]:
            return None
        return self.ranges[index][2]


def read_phases(path: Path) -> PhaseMap:
    """Read an ELF that was compiled with -g; code without debug information has no phase."""
    elffile = require("elftools.elf.elffile", "emulator")
    found: list[tuple[int, int, str]] = []
    with Path(path).open("rb") as stream:
        elf = elffile.ELFFile(stream)
        code = elf.get_section_by_name(".code")
        first, end = code["sh_addr"], code["sh_addr"] + code["sh_size"]
        dwarf = elf.get_dwarf_info()
        for unit in dwarf.iter_CUs():
            top = unit.get_top_DIE()
            if str(_attribute(top, "DW_AT_name")).endswith(".c"):
                found += _phased(top, dwarf.range_lists())
    # what the linker dropped lies at address 0
    return PhaseMap(tuple(sorted(entry for entry in found if first <= entry[0] < end)))


def _phased(die: Any, range_lists: Any) -> Iterator[tuple[int, int, str]]:
    """The ranges below an entry of the debug information, down to the outermost functions with a phase."""
    for child in die.iter_children():
        phase = phase_of(_name(child)) if child.tag in FUNCTIONS else None
        if phase is None:
            yield from _phased(child, range_lists)
        else:
            yield from ((start, end, phase) for start, end in _ranges(child, range_lists))


def _attribute(die: Any, name: str) -> Any:
    """The value of an attribute, text decoded; None where there is none."""
    found = die.attributes.get(name)
    value = None if found is None else found.value
    return value.decode() if isinstance(value, bytes) else value


def _name(die: Any) -> str:
    """The name of a function, of an inlined or a partial one that of the function in the source."""
    while "DW_AT_abstract_origin" in die.attributes:
        die = die.get_DIE_from_attribute("DW_AT_abstract_origin")
    return str(_attribute(die, "DW_AT_name"))


def _ranges(die: Any, range_lists: Any) -> Iterator[tuple[int, int]]:
    """The addresses of a function's instructions; a function that only exists inlined has none."""
    low, high, listed = (_attribute(die, f"DW_AT_{kind}") for kind in ("low_pc", "high_pc", "ranges"))
    if listed is not None:
        base = _attribute(die.cu.get_top_DIE(), "DW_AT_low_pc") or 0
        for entry in range_lists.get_range_list_at_offset(listed, cu=die.cu):
            if hasattr(entry, "base_address"):
                base = entry.base_address
            else:
                moved = 0 if entry.is_absolute else base
                yield moved + entry.begin_offset, moved + entry.end_offset
    elif low is not None and high is not None:
        absolute = die.attributes["DW_AT_high_pc"].form.startswith("DW_FORM_addr")
        yield low, high if absolute else low + high


class PhaseTally:
    """Counts executed instructions by phase, told of each basic block when it is entered.

    What a function executes has the phase of the instruction that called it, where that has one: a
    requantization that is not inlined belongs to the gates when they call it.
    functions: where functions begin.  read: ``(address, size)`` -> bytes of code.
    """

    def __init__(
        self, phase_map: PhaseMap, functions: Collection[int], read: Callable[[int, int], bytes]
    ) -> None:
        self._phase_map = phase_map
        self._functions = functions
        self._read = read
        self._entered: Counter[tuple[int, int, str | None]] = Counter()
        self._links: dict[tuple[int, int], bool] = {}  # block -> whether it ends with a BL or BLX
        self.begin()

    def begin(self) -> None:
        """Forget where the last call from outside ended; what is counted stays."""
        self._calls: list[tuple[int, str | None]] = [(0, None)]  # under way: where they return, phase
        self._last: tuple[int, bool, str | None] | None = None  # block: its end, whether it links, phase

    def enter(self, address: int, size: int) -> None:
        """Count the block; blocks come in the order of execution."""
        if self._last is not None and address in self._functions:  # M0 also jumps far with BL
            end, links, phase = self._last
            if links:
                self._calls.append((end, phase))
            else:
                self._calls[-1] = (self._calls[-1][0], phase)  # a jump in place of a call and a return
        while self._calls[-1][0] == address:
            self._calls.pop()
        caller = self._calls[-1][1]
        self._entered[address, size, caller] += 1
        block, end = (address, size), address + size
        if block not in self._links:
            self._links[block] = ends_with_link(self._read(address, size))
        self._last = (end, self._links[block], caller or self._phase_map.at(end - 2))

    def counts(self) -> dict[str, int]:
        """Instructions of each of PHASES so far."""
        found = dict.fromkeys(PHASES, 0)
        for (address, size, caller), times in self._entered.items():
            for offset in instruction_offsets(self._read(address, size)):
                found[caller or self._phase_map.at(address + offset) or OTHER] += times
        return found


def instruction_offsets(code: bytes) -> list[int]:
    """Where the Thumb instructions of ``code`` begin: 4 bytes where the top bits say so, else 2."""
    offsets, at = [], 0
    while at < len(code):
        offsets.append(at)
        at += 4 if code[at + 1] >> 3 in (0b11101, 0b11110, 0b11111) else 2
    return offsets


def ends_with_link(code: bytes) -> bool:
    """Whether the last instruction is BL or BLX."""
    last = code[instruction_offsets(code)[-1] :]
    first, second = int.from_bytes(last[:2], "little"), int.from_bytes(last[2:], "little")
    return (first >> 11 == 0b11110 and second >> 12 in (0b1101, 0b1111)) or first & 0xFF87 == 0x4780
