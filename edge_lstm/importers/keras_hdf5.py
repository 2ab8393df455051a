"""HDF5 as Keras writes it (superblock 0, groups of symbol tables, plain arrays), read as bytes.

The HDF5 library may end or hang the process on a damaged file; here every offset, size and count of the file
is checked before it is used.  Reads the bytes of a file; writes attributes and arrays.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

SIGNATURE = b"\x89HDF\r\n\x1a\n"
UNDEFINED = (1 << 64) - 1
MAX_STEPS = 200_000  # structures read in all: no file of a small network has so many
MAX_BYTES = 1 << 26  # of one value
MAX_RANK = 32
MAX_NAME = 4096
DATASPACE, DATATYPE, EXTERNAL, LAYOUT, ATTRIBUTE, CONTINUATION, SYMBOLS = 1, 3, 7, 8, 12, 16, 17
NEWER = {2: "links", 6: "links", 21: "attributes"}  # messages of the newer file format
INTEGER, FLOAT, STRING, VARIABLE = 0, 1, 3, 9
IEEE = {
    2: (10, 5, 0, 10),
    4: (23, 8, 0, 23),
    8: (52, 11, 0, 52),
}  # exponent at, its bits, mantissa at, its bits


class Hdf5Error(ValueError):
    """What is wrong with an HDF5 file, in words."""


class Message(NamedTuple):
    """One message of an object header: the bytes at start .. start + size of the file."""

    kind: int
    start: int
    size: int
    shared: bool


@dataclass
class Hdf5:
    """The bytes of a file and what was read of them so far."""

    content: bytes
    steps: int = 0
    heaps: dict[int, dict[int, tuple[int, int]]] = field(default_factory=dict)

    def take(self, start: int, size: int) -> bytes:
        """``size`` bytes at ``start``; every call and every 4 KiB of it count towards MAX_STEPS."""
        if not 0 <= start <= start + size <= len(self.content):
            raise Hdf5Error(
                f"it needs bytes {start} .. {start + size} of {len(self.content)}; it is cut or damaged"
            )
        self.steps += 1 + (size >> 12)
        if self.steps > MAX_STEPS:
            raise Hdf5Error("its structures never end")
        return self.content[start : start + size]

    def unpack(self, layout: str, start: int) -> tuple[Any, ...]:
        """Little-endian values at ``start``."""
        return struct.unpack("<" + layout, self.take(start, struct.calcsize("<" + layout)))

    def signed(self, signature: bytes, start: int) -> None:
        found = self.take(start, len(signature))
        if found != signature:
            raise Hdf5Error(f"at byte {start} it has {found!r}, expected {signature!r}")

    @cached_property
    def root(self) -> Node:
        """The root group.  Raises Hdf5Error for another file or the newer file format."""
        self.signed(SIGNATURE, 0)
        if self.take(8, 1) != b"\0":
            raise Hdf5Error(
                f"it is of HDF5's newer format {self.take(8, 1)[0]}; open it in Keras and save it again"
            )
        sizes, base = self.unpack("BB", 13), self.unpack("Q", 24)
        if sizes != (8, 8) or base != (0,):
            raise Hdf5Error(
                f"its addresses have {sizes[0]} and {sizes[1]} bytes from {base[0]}, expected 8, 8 from 0"
            )
        return Node(self, "", *self.unpack("Q", 64))

    def heap_object(self, address: int, index: int) -> bytes:
        """A value that is stored in a global heap."""
        if address not in self.heaps:
            self.heaps[address] = self._heap(address)
        if index not in self.heaps[address]:
            raise Hdf5Error(f"its heap at byte {address} has no object {index}")
        return self.take(*self.heaps[address][index])

    def _heap(self, address: int) -> dict[int, tuple[int, int]]:
        self.signed(b"GCOL", address)
        (size,) = self.unpack("Q", address + 8)
        self.take(address, size)
        found: dict[int, tuple[int, int]] = {}
        at, end = address + 16, address + size
        while at + 16 <= end:
            index, length = self.unpack("H6xQ", at)
            if index == 0:  # the free space at the end
                break
            found[index] = (at + 16, length)
            at += 16 + (length + 7) // 8 * 8
        return found


@dataclass(frozen=True)
class Node:
    """A group or an array of the file."""

    file: Hdf5
    name: str
    address: int

    @cached_property
    def messages(self) -> tuple[Message, ...]:
        version, _, _, _, size = self.file.unpack("BBHII", self.address)
        if version != 1:
            where = self.name or "its root"
            raise Hdf5Error(
                f"{where} is damaged or of HDF5's newer format; open it in Keras and save it again"
            )
        found: list[Message] = []
        blocks = [(self.address + 16, size)]
        for start, length in blocks:  # grows while it is read
            at, end = start, start + length
            while at + 8 <= end:
                kind, count, flags = self.file.unpack("HHB", at)
                found.append(Message(kind, at + 8, count, bool(flags & 2)))
                if kind == CONTINUATION:
                    blocks.append(self.file.unpack("QQ", at + 8))
                at += 8 + count
        return tuple(found)

    def one(self, kind: int, what: str) -> Message:
        found = [message for message in self.messages if message.kind == kind]
        if len(found) != 1 or found[0].shared:
            raise Hdf5Error(f"{self.name or 'its root'} is no {what}")
        return found[0]

    @cached_property
    def members(self) -> Mapping[str, Node | None]:
        """What a group holds, None for a link that may lead out of the file; raises for an array."""
        newer = [NEWER[message.kind] for message in self.messages if message.kind in NEWER]
        if newer:
            raise Hdf5Error(
                f"{self.name or 'its root'} stores {newer[0]} in HDF5's newer format; open it in Keras and "
                "save it again"
            )
        tree, heap = self.file.unpack("QQ", self.one(SYMBOLS, "group").start)
        self.file.signed(b"HEAP", heap)
        size, _, names = self.file.unpack("QQQ", heap + 8)
        text = self.file.take(names, size)
        found: dict[str, Node | None] = {}
        seen, trees = {tree}, [tree]
        for node in trees:  # grows while it is read
            for child, level in self._children(node):
                if child in seen:
                    raise Hdf5Error(f"the tree of {self.name or 'its root'} is a circle")
                seen.add(child)
                if level:
                    trees.append(child)
                else:
                    found.update(self._symbols(child, text))
        return found

    def _children(self, address: int) -> list[tuple[int, int]]:
        self.file.signed(b"TREE", address)
        _, level, count = self.file.unpack("BBH", address + 4)
        return [(*self.file.unpack("Q", address + 32 + 16 * index), level) for index in range(count)]

    def _symbols(self, address: int, text: bytes) -> dict[str, Node | None]:
        self.file.signed(b"SNOD", address)
        (count,) = self.file.unpack("H", address + 6)
        found: dict[str, Node | None] = {}
        for index in range(count):
            at, header, cache = self.file.unpack("QQI", address + 8 + 40 * index)
            name = text[at : at + MAX_NAME].split(b"\0")[0].decode("utf-8", "replace")
            found[name] = None if cache == 2 else Node(self.file, f"{self.name}/{name}".lstrip("/"), header)
        return found

    def open(self, path: str) -> Node:
        """The member at ``path``; raises Hdf5Error where it is missing or a link."""
        node = self
        for part in path.split("/"):
            if part not in node.members:
                raise Hdf5Error(f"it has no {f'{node.name}/{part}'.lstrip('/')}")
            member = node.members[part]
            if member is None:
                raise Hdf5Error(f"{node.name}/{part} is a link")
            node = member
        return node

    @cached_property
    def attributes(self) -> Mapping[str, Attribute]:
        found: dict[str, Attribute] = {}
        for message in self.messages:
            if message.kind == ATTRIBUTE:
                attribute = self._attribute(message)
                found[attribute.name] = attribute
        return found

    def _attribute(self, message: Message) -> Attribute:
        version, flags, *sizes = self.file.unpack("BBHHH", message.start)
        if version not in (1, 2, 3) or (version > 1 and flags & 3) or message.shared:
            raise Hdf5Error(f"an attribute of {self.name or 'its root'} is of an unknown version")
        at, places = message.start + (9 if version == 3 else 8), []
        for size in sizes:
            places.append(at)
            at += (size + 7) // 8 * 8 if version == 1 else size
        name = self.file.take(places[0], sizes[0]).split(b"\0")[0].decode("utf-8", "replace")
        return Attribute(self.file, name, Type.read(self.file, places[1]), shape(self.file, places[2]), at)

    @cached_property
    def array_shape(self) -> tuple[int, ...]:
        """Of an array."""
        return shape(self.file, self.one(DATASPACE, "array").start)

    def array(self) -> np.ndarray[Any, Any]:
        """The numbers of an array.  Raises Hdf5Error where they are no numbers, not all here or too many."""
        kind = Type.read(self.file, self.one(DATATYPE, "array").start)
        if any(message.kind == EXTERNAL for message in self.messages):
            raise Hdf5Error(f"{self.name} lies in another file")
        layout = self.one(LAYOUT, "array")
        version, storage = self.file.unpack("BB", layout.start)
        if version not in (3, 4) or storage not in (0, 1):
            raise Hdf5Error(f"{self.name} is stored in pieces or compressed, expected one plain block")
        size = kind.bytes_of(self.array_shape, self.name)
        if storage == 0:
            start, stored = layout.start + 4, self.file.unpack("H", layout.start + 2)[0]
        else:
            start, stored = self.file.unpack("QQ", layout.start + 2)
        if stored < size or start == UNDEFINED:
            raise Hdf5Error(f"{self.name} has {stored} bytes, expected {size}")
        return np.frombuffer(self.file.take(start, size), kind.numpy(self.name)).reshape(self.array_shape)


@dataclass(frozen=True)
class Type:
    """A datatype: its class, the bits that describe it, bytes of a value, and where it stands in the file."""

    file: Hdf5
    kind: int
    bits: int
    size: int
    start: int

    @staticmethod
    def read(file: Hdf5, start: int) -> Type:
        head, low, high, size = file.unpack("BHBI", start)
        return Type(file, head & 15, low | high << 16, size, start)

    def bytes_of(self, dims: tuple[int, ...], name: str) -> int:
        size = math.prod(dims) * self.size
        if size > MAX_BYTES:
            raise Hdf5Error(f"{name} is {dims}, {size} bytes, expected an array of a small network")
        return size

    def numpy(self, name: str) -> np.dtype[Any]:
        order = ">" if self.bits & 1 else "<"
        if self.kind == INTEGER and self.size in (1, 2, 4, 8):
            return np.dtype(f"{order}{'i' if self.bits & 8 else 'u'}{self.size}")
        if (
            self.kind == FLOAT
            and self.size in IEEE
            and self.file.unpack("4x4B", self.start + 8) == IEEE[self.size]
        ):
            return np.dtype(f"{order}f{self.size}")
        raise Hdf5Error(f"{name} holds values of type {self.kind} with {self.size} bytes, expected floats")


@dataclass(frozen=True)
class Attribute:
    """A named value of a group or an array."""

    file: Hdf5
    name: str
    type: Type
    dims: tuple[int, ...]
    start: int

    def texts(self) -> list[str]:
        """The strings that it holds; [] where it holds none.  Raises Hdf5Error for anything but strings."""
        size = self.type.bytes_of(self.dims, self.name)
        if size == 0:
            return []
        data, width = self.file.take(self.start, size), self.type.size
        if self.type.kind == STRING:
            parts = [data[at : at + width].split(b"\0")[0] for at in range(0, size, width)]
        elif self.type.kind == VARIABLE and self.type.bits & 15 == 1 and width == 16:
            parts = []
            for at in range(0, size, width):
                length, address, index = struct.unpack("<IQI", data[at : at + width])
                parts.append(self.file.heap_object(address, index)[:length] if length else b"")
        else:
            raise Hdf5Error(f"its attribute {self.name} holds no text")
        return [part.decode("utf-8", "replace") for part in parts]


def shape(file: Hdf5, start: int) -> tuple[int, ...]:
    """The sizes of a dataspace; () for one value."""
    version, rank, _, kind = file.unpack("BBBB", start)
    if version not in (1, 2) or rank > MAX_RANK:
        raise Hdf5Error(f"a dataspace of version {version} has rank {rank}")
    if version == 2 and kind == 2:  # no value at all
        return (0,)
    return file.unpack(f"{rank}Q", start + (8 if version == 1 else 4))


def texts_of(node: Node, name: str) -> list[str]:
    """The strings of an attribute, which Keras cuts into NAME0, NAME1 ... where they are long; [] without."""
    if name in node.attributes:
        return node.attributes[name].texts()
    texts: list[str] = []
    number = 0
    while f"{name}{number}" in node.attributes:
        texts += node.attributes[f"{name}{number}"].texts()
        number += 1
    return texts
