"""The boards: one TOML record each, beside the C that starts them.

Reads boards/*.toml of this package, or a record of the user's own.
"""

from __future__ import annotations

import sys
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from edge_lstm.errors import ConfigError, raise_all

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent
MEMORY = {"origin": int, "size": int}
TOOLCHAINS = ("arm", "riscv", "avr")
PROOFS = {
    "emulated": "its firmware runs in an emulator, over its serial line",
    "built": "its firmware is compiled and linked for its memory; never run",
    "exported": "the C is exported for the maker's own tools, which no package here brings",
}


@dataclass(frozen=True)
class Memory:
    """origin: the address.  size: in bytes, all that a firmware may use."""

    origin: int
    size: int


@dataclass(frozen=True)
class Board:
    """One board; the keys of its record.

    name: the file's.  title: in words.  core: its name in the trade.  proven: one of PROOFS.
    toolchain: one of TOOLCHAINS, '' where proven is 'exported'.  flags: of the compiler.  defines: of the
    board's C.  sources: that C, beside the record or in this package's folder.  flash, ram: tables of
    origin and size.  clock_hz: of port_cycles.  baud: of the serial line.  rx_bytes: how many bytes it
    keeps while nobody reads; 65535: the line itself waits.  emulator: qemu-system-... with its machine, or
    simavr with its MCU; pipes.py adds the serial line and the firmware.  flash_command: writes
    a firmware to the board; its words may hold {port} and the file as {file.hex}, {file.bin}, {file.elf} or
    {file.uf2}.  uf2_family: of its .uf2 files, 0: it takes none.  note: what else one must know.
    folder: where the record lies.
    """

    name: str
    title: str
    core: str
    proven: str
    flash: Memory
    ram: Memory
    clock_hz: int
    baud: int = 115200
    rx_bytes: int = 64
    toolchain: str = ""
    flags: tuple[str, ...] = ()
    defines: tuple[tuple[str, int], ...] = ()
    sources: tuple[str, ...] = ()
    emulator: tuple[str, ...] = ()
    flash_command: tuple[str, ...] = ()
    uf2_family: int = 0
    note: str = ""
    folder: Path = FOLDER

    @property
    def flash_tool(self) -> str:
        """The program that writes a firmware to the board; '' where none is known."""
        return self.flash_command[0] if self.flash_command else ""

    def source_paths(self) -> tuple[Path, ...]:
        """The C files; ConfigError for one that lies neither beside the record nor in this package."""
        found = []
        for name in self.sources:
            places = [folder / name for folder in (self.folder, FOLDER) if (folder / name).is_file()]
            if not places:
                raise ConfigError(f"board '{self.name}': {name} is neither in {self.folder} nor in {FOLDER}")
            found.append(places[0])
        return tuple(found)


def read_board(path: Path) -> Board:
    """Read one record; ConfigError with everything that is wrong in it."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"board record {path} cannot be read: {error}") from error
    known = {field.name: field for field in fields(Board) if field.name not in ("name", "folder")}
    problems = [f"'{key}' is unknown; the keys are {', '.join(known)}" for key in values if key not in known]
    problems += [
        f"'{key}' is missing"
        for key, field in known.items()
        if field.default is MISSING and key not in values
    ]
    read: dict[str, Any] = {}
    for key in known.keys() & values.keys():
        try:
            read[key] = _value(key, values[key])
        except ValueError as error:  # noqa: PERF203 - every problem of a record at once
            problems.append(f"'{key}' is {values[key]!r}, expected {error}")
    raise_all(ConfigError, f"board record {path}", sorted(problems))
    return Board(name=path.stem, folder=path.parent, **read)


def _value(key: str, value: Any) -> Any:
    """A value of a record as the field holds it; an error that says what was expected."""
    if key in ("flash", "ram"):
        if not isinstance(value, dict) or {key: type(each) for key, each in value.items()} != MEMORY:
            raise ValueError("{ origin = ADDRESS, size = BYTES }")
        return Memory(**value)
    if key == "defines":
        if not isinstance(value, dict) or not all(isinstance(each, int) for each in value.values()):
            raise ValueError("a table NAME = INTEGER")
        return tuple(value.items())
    if key in ("flags", "sources", "emulator", "flash_command"):
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise ValueError("a list of strings")
        return tuple(value)
    kind = int if key in ("clock_hz", "baud", "rx_bytes", "uf2_family") else str
    if not isinstance(value, kind):
        raise ValueError("an integer" if kind is int else "a string")
    choices = {"proven": tuple(PROOFS), "toolchain": TOOLCHAINS}.get(key)
    if choices and value not in choices:
        raise ValueError(f"one of {', '.join(choices)}")
    return value


@cache
def known_boards() -> dict[str, Board]:
    """The boards of this package by name: emulated ones first."""
    order = tuple(PROOFS)
    boards = [read_board(path) for path in sorted(FOLDER.glob("*.toml"))]
    return {board.name: board for board in sorted(boards, key=lambda board: order.index(board.proven))}


def find_board(name: str) -> Board:
    """A known board by name, or the record in a file NAME.toml; ConfigError for neither."""
    if name.endswith(".toml"):
        return read_board(Path(name))
    boards = known_boards()
    if name not in boards:
        raise ConfigError(
            f"board '{name}' is unknown; choose one of {', '.join(boards)}, "
            "or give the path of a record NAME.toml"
        )
    return boards[name]
