"""A linked ELF: what to load where, its symbols and the size of each section.  Reads with pyelftools."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edge_lstm.errors import RuntimeFailure
from edge_lstm.optional import require


@dataclass(frozen=True)
class Symbol:
    """One function or object.  address: without the Thumb bit."""

    name: str
    address: int
    size: int
    function: bool


@dataclass(frozen=True)
class Image:
    """segments: (address, bytes) to load.  symbols: of functions and objects, by address.
    sections: name -> bytes of memory.
    """

    segments: tuple[tuple[int, bytes], ...]
    symbols: tuple[Symbol, ...]
    sections: dict[str, int]

    @cached_property
    def _by_name(self) -> dict[str, Symbol]:
        return {symbol.name: symbol for symbol in self.symbols}

    def symbol(self, name: str) -> Symbol:
        """The symbol ``name``; RuntimeFailure where the image has none."""
        if name not in self._by_name:
            raise RuntimeFailure(
                f"the linked image has no symbol '{name}'; if the C was edited, export it again"
            )
        return self._by_name[name]

    def function_at(self, address: int) -> str:
        """The name of the function that holds ``address``, or 'no function'."""
        for symbol in self.symbols:
            if symbol.function and symbol.address <= address < symbol.address + symbol.size:
                return symbol.name
        return "no function"


def read_image(path: Path) -> Image:
    """Read a linked ELF of an Arm core."""
    elffile = require("elftools.elf.elffile", "emulator")
    with Path(path).open("rb") as stream:
        elf = elffile.ELFFile(stream)
        segments = tuple(
            (int(segment["p_vaddr"]), bytes(segment.data()))
            for segment in elf.iter_segments("PT_LOAD")
            if segment["p_filesz"]
        )
        sections = {
            section.name: int(section["sh_size"])
            for section in elf.iter_sections()
            if section["sh_flags"] & 2  # SHF_ALLOC
        }
        symbols = []
        for entry in elf.get_section_by_name(".symtab").iter_symbols():
            kind = entry["st_info"]["type"]
            if kind in ("STT_FUNC", "STT_OBJECT"):
                address = int(entry["st_value"]) & (~1 if kind == "STT_FUNC" else ~0)
                symbols.append(Symbol(entry.name, address, int(entry["st_size"]), kind == "STT_FUNC"))
    return Image(segments, tuple(sorted(symbols, key=lambda symbol: symbol.address)), sections)
