"""The host's side of PROTOCOL.md: every request is performed once and every reply arrives, in order.

Reads and writes a Port; repeats what is lost, waits for a line that is cut, opens a lost port again.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from edge_lstm.errors import RuntimeFailure
from firmware_tools.protocol import (
    END,
    REFUSAL,
    REPLY,
    VERSION,
    Command,
    Frame,
    Hello,
    Reason,
    Refusal,
    Splitter,
    decode,
    encode,
    frame_bytes,
    read_hello,
    read_refusal,
)
from firmware_tools.uart import Port, PortLost, no_hello

SEQUENCES = 1 << 16
TAGS = 1 << 8
LONGEST_WAIT_S = 2.0
BITS_A_BYTE = 10  # 8N1
HELLO_BITS = 1000  # both ways
READ_LIMIT = 4096  # bytes of what is no hello that are looked at


@dataclass(frozen=True)
class LinkOptions:
    """timeout_s: without an answer before a request is sent again, beside its time on the line; it doubles.

    silence_s: without an answer before this is reported.  patience_s: before the link gives up.
    snapshot_steps: after how many steps the host saves the device's state.
    """

    baud: int = 115200
    timeout_s: float = 0.25
    silence_s: float = 1.0
    patience_s: float = 10.0
    snapshot_steps: int = 4096


@dataclass(frozen=True)
class Event:
    """One interruption.  kind: silent, port, reboot, session or model.  step: steps done since the reset."""

    kind: str
    text: str
    step: int = 0


@dataclass
class Counts:
    """sent: frames, of which ``repeated`` again.  refused: by the device.  damaged: unreadable answers."""

    sent: int = 0
    repeated: int = 0
    refused: int = 0
    damaged: int = 0
    bytes_out: int = 0
    bytes_in: int = 0


class Request(NamedTuple):
    """One command with its payload."""

    command: Command
    payload: bytes = b""


@dataclass
class Pending:
    """A request on its way.  index: of its last transmission.  size: bytes on the line.

    sent: when each transmission was handed over.
    """

    request: Request
    sequence: int
    index: int = -1
    size: int = 0
    reply: bytes | None = None
    sent: dict[int, float] = field(default_factory=dict)


class SessionLost(Exception):
    """The device does not know the session: it was started again, or another program opened one."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Link:
    """One session with one device.  report: called once for every interruption."""

    def __init__(self, port: Port, options: LinkOptions, report: Callable[[Event], None]) -> None:
        self.port, self.options, self._report = port, options, report
        self.counts = Counts()
        self.hello: Hello | None = None
        self._session = random.randrange(1, SEQUENCES)  # noqa: S311 - only unlike the last one
        self._next = 0  # sequence number
        self._index = 0  # of the next transmission
        self._heard = -1  # transmission that was answered last
        self._splitter = Splitter()
        self._alive = self._moved = time.monotonic()  # when a frame was read last, when a reply was new
        self._deadline = 0.0
        self._attempts = 0
        self._typical_s = 0.0  # from a transmission to its answer, smoothed
        self._silent = False

    def open(self) -> Hello:
        """Begin a session; returns what the device says of itself.

        Raises RuntimeFailure where it says nothing, or nothing that can be understood.
        """
        hello = self._begin()
        while hello.stored:  # another program has used this session
            hello = self._begin()
        name, build = (self._ask(part).decode("utf-8", "replace") for part in (1, 2))
        self.hello = replace(hello, name=name, build=build)
        return self.hello

    def _begin(self) -> Hello:
        """The facts of the device, with the next session open on it."""
        self._session = self._session % (SEQUENCES - 1) + 1
        self._next, self._alive, self._silent = 0, time.monotonic(), False
        facts = self._ask(0)
        hello = read_hello(facts)
        if hello is None or hello.version != VERSION:
            version = facts[0] if facts else "?"
            raise RuntimeFailure(
                f"{self.port.url}: the firmware speaks version {version} of the protocol, "
                f"expected {VERSION}; build and flash it again"
            )
        return hello

    def exchange(self, requests: Iterable[Request]) -> Iterator[bytes]:
        """Yield the reply of each request in order; several are on their way at a time.

        Raises SessionLost where the device was started again; RuntimeFailure where it is silent for too long
        or refuses a request for good.
        """
        pending: deque[Pending] = deque()
        source = iter(requests)
        upcoming = next(source, None)
        self._alive = self._moved = time.monotonic()
        self._attempts = 0
        while upcoming is not None or pending:
            while upcoming is not None and self._has_room(pending, upcoming):
                pending.append(Pending(upcoming, self._next))
                self._next = (self._next + 1) % SEQUENCES
                self._transmit(pending[-1])
                upcoming = next(source, None)
            self._listen(pending)
            while pending and pending[0].reply is not None:
                yield pending.popleft().reply or b""

    def close(self) -> None:
        """Give the port back."""
        self.port.close()

    def _has_room(self, pending: deque[Pending], request: Request) -> bool:
        """Whether the device keeps one more request while it performs the first."""
        if not pending or self.hello is None:
            return not pending
        ahead = sum(one.size for one in list(pending)[1:]) + frame_bytes(len(request.payload))
        return len(pending) < self.hello.slots and ahead <= self.hello.rx_bytes

    def _transmit(self, pending: Pending) -> None:
        command, payload = pending.request
        content = encode(Frame(command, self._index % TAGS, self._session, pending.sequence, payload))
        self.counts.sent += 1
        self.counts.repeated += pending.index >= 0
        pending.index, pending.size = self._index, len(content)
        self._index += 1
        self._write(content)
        pending.sent[pending.index] = time.monotonic()
        self._deadline = time.monotonic() + self._timeout(len(content))

    def _timeout(self, size: int) -> float:
        """Seconds to wait for the answers to all that is on its way."""
        window = self.hello.slots if self.hello else 1
        line_s = 2 * window * size * BITS_A_BYTE / self.port.baud
        return line_s + 2 * self._typical_s + self._pause(self._attempts)

    def _pause(self, attempts: int) -> float:
        return min(self.options.timeout_s * 2.0**attempts, LONGEST_WAIT_S)

    def _listen(self, pending: deque[Pending]) -> None:
        """Wait for answers and take them; after the timeout send again all that is unanswered."""
        for frame in self._frames():
            self._take(frame, pending)
        unanswered = [one for one in pending if one.reply is None]
        if unanswered and time.monotonic() >= self._deadline:
            self._attempts += 1
            self._write(END)  # ends what a damaged frame left behind
            self._heard = self._index - 1
            for one in unanswered:
                self._transmit(one)

    def _frames(self) -> list[Frame | None]:
        """What comes until the deadline, None for a damaged frame; RuntimeFailure after ``patience_s``."""
        content = self._read(self._deadline - time.monotonic())
        self.counts.bytes_in += len(content)
        frames = [decode(piece) for piece in self._splitter.feed(content)]
        now = time.monotonic()
        if any(frame is not None for frame in frames):
            self._alive, self._attempts, self._silent = now, 0, False
        elif now - self._alive > self.options.silence_s + 2 * self._typical_s and not self._silent:
            self._silent = True
            self._report(Event("silent", f"{self.port.url}: no answer for {self.options.silence_s:g} s"))
        if now - self._moved > self.options.patience_s:
            raise RuntimeFailure(f"{self.port.url}: {self._why_stuck()}")
        return frames

    def _why_stuck(self) -> str:
        waited_s = self.options.patience_s
        if time.monotonic() - self._alive > self.options.silence_s:
            return f"the board is silent for {waited_s:g} s; is it powered, and does its program still run?"
        return f"no request came through in {waited_s:g} s; check the cable, or take a lower baud rate"

    def _take(self, frame: Frame | None, pending: deque[Pending]) -> None:
        """Store a reply; send again what was lost before it.

        Answers come in the order of the requests: what was sent before an answered one and has no answer is
        lost.  A damaged frame is taken for the answer to the next one.
        """
        index = self._answered(frame, pending)
        if index is None:
            return
        self._heard = index
        for one in pending:
            if one.reply is None and one.index <= index:
                self._transmit(one)

    def _answered(self, frame: Frame | None, pending: deque[Pending]) -> int | None:
        """The transmission that ``frame`` answers; None where it belongs to none of this session."""
        if frame is None:
            self.counts.damaged += 1
            return self._heard + 1
        if frame.command == REFUSAL:
            return self._refused(frame, read_refusal(frame.payload), pending)
        if frame.session != self._session:
            return None
        for one in pending:
            if one.sequence == frame.sequence and frame.command == one.request.command | REPLY:
                self._moved = time.monotonic()
                one.reply = frame.payload
                index = self._sent_as(frame.tag)
                self._typical_s += (self._moved - one.sent.get(index, self._moved) - self._typical_s) / 8
                self._deadline = self._moved + self._timeout(one.size)
                return index
        return None

    def _sent_as(self, tag: int) -> int:
        """The last transmission with ``tag``."""
        last = self._index - 1
        return last - (last - tag) % TAGS

    def _refused(self, frame: Frame, refusal: Refusal | None, pending: deque[Pending]) -> int | None:
        if refusal is None or (refusal.reason != Reason.BAD_FRAME and frame.session != self._session):
            return None
        self.counts.refused += 1
        if refusal.session != self._session:
            if refusal.session:
                raise SessionLost("session", f"{self.port.url}: another program opened a session")
            raise SessionLost("reboot", f"{self.port.url}: the board was started again")
        if refusal.reason == Reason.BAD_FRAME:
            return self._heard + 1
        if refusal.reason == Reason.BAD_COMMAND:
            raise RuntimeFailure(
                f"{self.port.url}: the firmware refuses a request of {len(pending[0].request.payload)} bytes "
                f"({pending[0].request.command.name}); build and flash it again"
            )
        if refusal.next not in [one.sequence for one in pending]:
            raise SessionLost("session", f"{self.port.url}: the board is at another place of the session")
        return self._sent_as(frame.tag)

    def _ask(self, part: int) -> bytes:
        """A part of hello; RuntimeFailure with a guess at the reason where there is none."""
        heard, start = bytearray(), time.monotonic()
        attempts = 0
        while time.monotonic() - start < self.options.patience_s:
            frame = Frame(Command.HELLO, self._index % TAGS, self._session, part, bytes([part]))
            self._index += 1
            self._write(END + encode(frame))
            deadline = time.monotonic() + self._pause(attempts) + HELLO_BITS / self.port.baud
            attempts += 1
            while (left := deadline - time.monotonic()) > 0:
                content = self._read(left)
                self.counts.bytes_in += len(content)
                heard += content[: READ_LIMIT - len(heard)]
                for answer in map(decode, self._splitter.feed(content)):
                    if answer is not None and _is_hello(answer, self._session, part):
                        self._heard = self._index - 1
                        return answer.payload
        raise RuntimeFailure(f"{self.port.url}: {no_hello(bytes(heard), self.port.baud)}")

    def _write(self, content: bytes) -> None:
        self.counts.bytes_out += len(content)
        try:
            self.port.write(content)
        except PortLost as lost:
            self._reopen(lost)

    def _read(self, wait_s: float) -> bytes:
        try:
            return self.port.read(wait_s)
        except PortLost as lost:
            self._reopen(lost)
            return b""

    def _reopen(self, lost: PortLost) -> None:
        """Open a lost port again; reported once."""
        if not self._silent:
            self._report(Event("port", str(lost)))
        self._silent = True
        self.port.reopen(lost, self.options.patience_s)
        self._deadline = 0.0  # send again at once
        self._splitter = Splitter()


def _is_hello(frame: Frame, session: int, part: int) -> bool:
    same = (frame.session, frame.sequence) == (session, part)
    return same and frame.command == Command.HELLO | REPLY


def steps_per_second(bytes_a_step: float, baud: int) -> float:
    """What a line of ``baud``, 8N1, carries at most in its busier direction."""
    return baud / BITS_A_BYTE / bytes_a_step
