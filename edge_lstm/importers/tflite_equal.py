"""Whether two .tflite files hold the same, however their bytes are laid out.

Versions of the flatbuffers package place the same tables at other offsets; every field of the schema is
compared, with no code for any of them.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any, NamedTuple

import tflite

UNIONS = {"BuiltinOptions": tflite.BuiltinOptions, "BuiltinOptions2": tflite.BuiltinOptions2}
DERIVED = ("Length", "AsNumpy", "IsNone")  # accessors of a vector beside the one of its entries


class _Field(NamedTuple):
    """One field of a table.  slot: its place in a vtable.  numbers: whether a vector holds numbers."""

    name: str
    slot: int
    vector: bool
    numbers: bool


def same_content(found: bytes, expected: bytes) -> bool:
    """Compare two files.  expected: our own, which bounds how far ``found`` is read.

    Raises what the flatbuffers package does where an offset of ``found`` leaves it.
    """
    return found == expected or _same(tflite.Model.GetRootAs(found, 0), tflite.Model.GetRootAs(expected, 0))


class _Probe:
    """A table that has no field, and remembers which one was asked for."""

    slot = 0

    def Offset(self, place: int) -> int:  # noqa: N802, as the flatbuffers package calls it
        self.slot = (place - 4) // 2
        return 0


@cache
def _fields(table: Any) -> tuple[_Field, ...]:
    names = {name for name in dir(table) if name[0].isupper()}
    names -= {name for name in names if name.startswith("GetRootAs") or name.endswith("BufferHasIdentifier")}
    vectors = {name for name in names if f"{name}Length" in names}
    names -= {f"{vector}{word}" for vector in vectors for word in DERIVED} | {"Init"}
    fields, empty = [], table()
    for name in sorted(names):
        empty._tab = probe = _Probe()
        getattr(empty, f"{name}Length" if name in vectors else name)()
        fields.append(_Field(name, probe.slot, name in vectors, hasattr(table, f"{name}AsNumpy")))
    return tuple(fields)


def _present(table: Any) -> set[int]:
    """The slots of the fields that a table has."""
    content, place = table._tab.Bytes, table._tab.Pos
    vtable = place - struct.unpack_from("<i", content, place)[0]
    count = max(struct.unpack_from("<H", content, vtable)[0] - 4, 0) // 2
    slots = struct.unpack_from(f"<{count}H", content, vtable + 4)
    return {slot for slot, offset in enumerate(slots) if offset}


def _same(found: Any, expected: Any) -> bool:
    """Compare two tables of one type, or two values."""
    if not hasattr(expected, "Init"):
        return bool(found == expected)
    if type(found) is not type(expected):
        return False
    present = _present(found) | _present(expected)
    kind: Any = type(expected)
    return all(
        _same_vector(found, expected, field) if field.vector else _same_field(found, expected, field.name)
        for field in _fields(kind)
        if field.slot in present
    )


def _same_vector(found: Any, expected: Any, field: _Field) -> bool:
    count = getattr(expected, f"{field.name}Length")()
    if getattr(found, f"{field.name}Length")() != count:
        return False
    if field.numbers:
        one, other = (getattr(table, f"{field.name}AsNumpy")() for table in (found, expected))
        return bool(count == 0 or one.tobytes() == other.tobytes())
    one, other = (getattr(table, field.name) for table in (found, expected))
    return all(_same(one(index), other(index)) for index in range(count))


def _same_field(found: Any, expected: Any, name: str) -> bool:
    pair = [getattr(table, name)() for table in (found, expected)]
    if name not in UNIONS or None in pair:
        return _same(*pair)
    tables = [_options(name, getattr(expected, f"{name}Type")()) for _ in pair]
    for table, union in zip(tables, pair, strict=True):
        table.Init(union.Bytes, union.Pos)
    return _same(*tables)


def _options(union: str, number: int) -> Any:
    """An empty table of the type that ``number`` stands for."""
    [kind] = [name for name, value in vars(UNIONS[union]).items() if value == number and name.isidentifier()]
    return getattr(tflite, kind)()
