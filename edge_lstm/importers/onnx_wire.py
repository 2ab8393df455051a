"""The raw reading of protocol buffers, against hostile bytes: claims are bounded before they are believed.

Reads bytes; writes fields by their numbers.  Nothing here knows what ONNX is.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.errors import ModelError

MAX_FIELDS = 200_000  # in all messages of a file that are read
MAX_PACKED_BYTES = 1 << 22  # of a list of integers of variable length
VARINT, BYTES = 0, 2  # kinds of fields
FIXED = {1: 8, 5: 4}  # kind -> bytes
MAX_VARINT = 10  # bytes of an integer of 64 bits

Message = dict[int, list[Any]]


class Reader:
    """Splits messages into fields; the fields of all messages together are bounded."""

    def __init__(self) -> None:
        self.left = MAX_FIELDS

    def message(self, content: memoryview) -> Message:
        """The fields of one message: number -> values in order, an int or a view of the bytes.

        Raises ModelError where the bytes are no message, or hold more fields than are read.
        """
        found: Message = {}
        place, end = 0, len(content)
        while place < end:
            self.left -= 1
            if self.left < 0:
                raise ModelError(f"more than {MAX_FIELDS} fields, expected a small network")
            key, place = varint(content, place)
            kind = key & 7
            value: int | memoryview
            if kind == VARINT:
                value, place = varint(content, place)
            else:
                if kind == BYTES:
                    length, place = varint(content, place)
                elif kind in FIXED:
                    length = FIXED[kind]
                else:
                    raise ModelError(f"a field of kind {kind} at byte {place}, which no field has")
                value, place = content[place : place + length], place + length
            if place > end or key < 8:
                raise ModelError(f"a field without a number, or beyond the end, before byte {place}")
            found.setdefault(key >> 3, []).append(value)
        return found

    def messages(self, values: list[Any]) -> list[Message]:
        return [self.message(view(value)) for value in values]


def varint(content: memoryview, place: int) -> tuple[int, int]:
    """The unsigned integer of variable length at ``place``, and the place after it."""
    if place < len(content) and content[place] < 128:  # most integers
        return content[place], place + 1
    value = shift = 0
    for number in range(place, min(place + MAX_VARINT, len(content))):
        byte = content[number]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, number + 1
        shift += 7
    raise ModelError(f"an integer without end at byte {place}")


def view(value: Any) -> memoryview:
    """The value of a field of bytes."""
    if not isinstance(value, memoryview):
        raise ModelError(f"the number {value}, expected text, numbers or a message")
    return value


def signed(value: int) -> int:
    """A 64-bit integer in two's complement."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def number(message: Message, field: int, default: int = 0) -> int:
    """The last integer of a field."""
    value = message.get(field, [default])[-1]
    if not isinstance(value, int):
        raise ModelError(f"bytes in field {field}, expected an integer")
    return signed(value)


def text(message: Message, field: int) -> str:
    """The last text of a field, "" without one."""
    return as_text(message[field][-1]) if field in message else ""


def as_text(value: Any) -> str:
    try:
        return bytes(view(value)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError("a name that is no UTF-8 text") from error


def real(message: Message, field: int) -> float:
    """The last float of a field, 0 without one."""
    values = message.get(field)
    if values is None:
        return 0.0
    if len(view(values[-1])) != 4:
        raise ModelError(f"{len(values[-1])} bytes in field {field}, expected a float of 4")
    return float(struct.unpack("<f", values[-1])[0])


def integers(values: list[Any]) -> npt.NDArray[np.int64]:
    """The integers of a repeated field, packed or one by one."""
    packed = [value for value in values if not isinstance(value, int)]
    if len(packed) == 1 == len(values):
        return _unpacked(packed[0])
    if packed:
        raise ModelError("a list of integers in several pieces")
    return np.array([signed(value) for value in values], dtype=np.int64)


def _unpacked(content: memoryview) -> npt.NDArray[np.int64]:
    if len(content) > MAX_PACKED_BYTES:
        raise ModelError(f"{len(content)} bytes of integers, at most {MAX_PACKED_BYTES} are read")
    data = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(data < 128)
    if data.size == 0:
        return np.zeros(0, np.int64)
    if ends.size == 0 or ends[-1] != data.size - 1:
        raise ModelError("a list of integers without end")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > MAX_VARINT:
        raise ModelError("an integer without end in a list")
    shifts = 7 * (np.arange(data.size) - np.repeat(starts, lengths)).astype(np.uint64)
    pieces = (data & 127).astype(np.uint64) << shifts
    return np.add.reduceat(pieces, starts).view(np.int64)


def reals(values: list[Any], dtype: str) -> npt.NDArray[Any]:
    """The floats of a repeated field, packed or one by one.  dtype: "<f4" or "<f8"."""
    size = np.dtype(dtype).itemsize
    content = view(values[0]) if len(values) == 1 else b"".join(view(value) for value in values)
    if len(content) % size:
        raise ModelError(f"{len(content)} bytes of floats, expected a multiple of {size}")
    return np.frombuffer(content, dtype)
