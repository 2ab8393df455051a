"""The frames of PROTOCOL.md: bytes to requests and replies and back.  No I/O."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

VERSION = 2
HASH_BYTES = 8  # of a program's sha256, in hello
RAW_BYTES = 4  # of a raw integer
DETECTED_BYTES = 9  # of a detected row before its contributions: score, alarm, threshold
END = b"\0"
BLOCK = 254  # bytes that a COBS code can count
LONGEST_FRAME = 1 << 17  # bytes without an end of frame that are kept

_HEADER = struct.Struct("<BBHH")
_CRC = struct.Struct("<I")
_FACTS = struct.Struct("<BBBBHHHHBBBHHHIII")
_REFUSAL = struct.Struct("<BHHI")
_STATISTICS = struct.Struct("<QIIIIIIH")
_OFFSET = struct.Struct("<I")


class Command(IntEnum):
    """What a request asks for."""

    HELLO = 1
    RESET = 2
    RUN = 3
    DETECT = 4
    RUN_RAW = 5
    SAVE = 6
    RESTORE = 7
    STATISTICS = 8
    ECHO = 9


REPLY, REFUSAL = 0x80, 0xFF  # in the command of an answer


class Reason(IntEnum):
    """Why a request was not performed."""

    BAD_FRAME = 1
    BAD_SESSION = 2
    BAD_ORDER = 3
    BAD_COMMAND = 4


@dataclass(frozen=True)
class Frame:
    """command: of a request, or of an answer with REPLY set.  tag: 0 .. 255.  session, sequence: 16 bits."""

    command: int
    tag: int
    session: int
    sequence: int
    payload: bytes = b""


@dataclass(frozen=True)
class Refusal:
    """session: that is open on the device, 0 for none.  next: sequence number that it expects."""

    reason: int
    session: int
    next: int
    boot_id: int


@dataclass(frozen=True)
class Hello:
    """What a device says of itself.  window: 0 for a stream.  request, reply: bytes of the longest payloads.
    raw, detector: 1 where it takes rows of raw integers, where it scores them.

    slots: requests that may be on their way.  stored: replies of this session, 0 where it begins.
    rx_bytes: bytes that it keeps while it computes.
    state_bytes: of the saved state.  clock_hz: of its cycles, 0 if unknown.  hash: 16 hexadecimal digits.
    """

    version: int
    slots: int
    input_bits: int
    output_bits: int
    features: int
    outputs: int
    window: int
    written_rows: int
    raw: int
    detector: int
    stored: int
    request: int
    reply: int
    rx_bytes: int
    state_bytes: int
    clock_hz: int
    boot_id: int
    hash: str = ""
    name: str = ""
    build: str = ""


@dataclass(frozen=True)
class Statistics:
    """cycles: of ``timed`` calls of the model in all; least and most of one.  steps: calls since the reset.

    bad_frames: that the device could not read.  saturated: values that the detector was given since the reset
    outside the range of the codes.  stack_bytes: the deepest use, 0 if unknown.
    """

    cycles: int
    least: int
    most: int
    timed: int
    steps: int
    bad_frames: int
    saturated: int
    stack_bytes: int

    @property
    def mean(self) -> float:
        """Cycles a call; 0 before the first."""
        return self.cycles / self.timed if self.timed else 0.0


def encode(frame: Frame) -> bytes:
    """The bytes of ``frame`` on the line, with the zero that ends it."""
    body = _HEADER.pack(frame.command, frame.tag, frame.session, frame.sequence) + frame.payload
    return _stuff(body + _CRC.pack(zlib.crc32(body))) + END


def frame_bytes(payload: int) -> int:
    """The most that a frame with a payload of so many bytes takes on the line."""
    body = _HEADER.size + payload + _CRC.size
    return body + body // BLOCK + 1 + len(END)


def decode(content: bytes) -> Frame | None:
    """The frame of the bytes between two zeros; None where they are damaged."""
    body = _unstuff(content)
    if body is None or len(body) < _HEADER.size + _CRC.size:
        return None
    if _CRC.unpack_from(body, len(body) - _CRC.size)[0] != zlib.crc32(body[: -_CRC.size]):
        return None
    command, tag, session, sequence = _HEADER.unpack_from(body)
    return Frame(command, tag, session, sequence, body[_HEADER.size : -_CRC.size])


def _stuff(body: bytes) -> bytes:
    """COBS: ``body`` without zeros, one byte longer for every 254 begun."""
    out = bytearray()
    parts = body.split(END)
    for index, part in enumerate(parts):
        while len(part) >= BLOCK:
            out += b"\xff" + part[:BLOCK]
            part = part[BLOCK:]
            if not part and index == len(parts) - 1:
                return bytes(out)
        out.append(len(part) + 1)
        out += part
    return bytes(out)


def _unstuff(content: bytes) -> bytes | None:
    out = bytearray()
    at, end = 0, len(content)
    while at < end:
        code = content[at]
        stop = at + code
        if stop > end or code == 0:
            return None
        out += content[at + 1 : stop]
        at = stop
        if code != BLOCK + 1 and at < end:
            out.append(0)
    return bytes(out)


class Splitter:
    """Bytes as they come -> what stands between zeros; what begins before the first zero counts too."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, content: bytes) -> Iterator[bytes]:
        """The contents of the frames that ``content`` ends; empty ones are left out."""
        self._rest += content
        if END not in content:
            del self._rest[:-LONGEST_FRAME]
            return
        *whole, rest = bytes(self._rest).split(END)
        self._rest = bytearray(rest)
        yield from filter(None, whole)


def read_hello(payload: bytes) -> Hello | None:
    """The facts of a hello; None where they have another form."""
    if len(payload) != _FACTS.size + HASH_BYTES:
        return None
    return replace(Hello(*_FACTS.unpack(payload[:-HASH_BYTES])), hash=payload[-HASH_BYTES:].hex())


def read_refusal(payload: bytes) -> Refusal | None:
    """What a refusal says; None where it is none."""
    return Refusal(*_REFUSAL.unpack(payload)) if len(payload) == _REFUSAL.size else None


def read_statistics(payload: bytes) -> Statistics:
    """What the device counted; struct.error where it is another record."""
    return Statistics(*_STATISTICS.unpack(payload))


def save_request(offset: int, count: int) -> bytes:
    """The payload that asks for ``count`` bytes of the saved state, at most 255."""
    return _OFFSET.pack(offset) + bytes([count])


def restore_request(offset: int, content: bytes) -> bytes:
    """The payload that sets a part of the saved state."""
    return _OFFSET.pack(offset) + content
