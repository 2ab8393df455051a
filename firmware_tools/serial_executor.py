"""A network on a device behind a serial port; its state outlives cuts, noise and reboots, bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.errors import ConfigError, DataError, Disagreement, RuntimeFailure
from edge_lstm.qgraph import CodeArray, QGraph
from firmware_tools.build import written_rows
from firmware_tools.c_executor import CExecutor
from firmware_tools.firmware import firmware_hash
from firmware_tools.link import Event, Link, LinkOptions, Request, SessionLost
from firmware_tools.protocol import (
    DETECTED_BYTES,
    RAW_BYTES,
    Command,
    Hello,
    Statistics,
    read_statistics,
    restore_request,
    save_request,
)
from firmware_tools.uart import Port

STEPS_BYTES = 4  # of the saved state: steps since the reset
LONGEST_SAVE = 255
ATTEMPTS = 5  # reboots in a row without a step between them
ASK_AGAIN_S = 0.2  # whether the right model is back


def open_serial(name: str, qgraph: QGraph, on_event: Callable[[Event], None] | None = None) -> SerialExecutor:
    """The executor ``serial:URL``, or ``serial:URL@BAUD`` for another speed than 115200 baud."""
    url, _, baud = name.removeprefix("serial:").partition("@")
    if not url or (baud and not baud.isdigit()):
        raise ConfigError(f"executor '{name}' names no port; expected serial:URL or serial:URL@BAUD")
    options = LinkOptions(baud=int(baud)) if baud else None
    return SerialExecutor(qgraph, url, name=name, options=options, on_event=on_event)


class SerialExecutor(CExecutor):
    """One network on the device at ``url``.

    The host saves the device's state every ``snapshot_steps`` and keeps what it sent since; after a reboot it
    restores the one, repeats the other and checks that the same codes come.  events: every interruption;
    on_event is called with each.  Raises ConfigError or RuntimeFailure, in one line, where the port or the
    firmware is not as it must be.
    """

    def __init__(
        self,
        qgraph: QGraph,
        url: str,
        *,
        name: str = "",
        options: LinkOptions | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        super().__init__(name or f"serial:{url}", qgraph)
        self.options = options or LinkOptions()
        self.events: list[Event] = []
        self._on_event = on_event
        self._hash = firmware_hash(qgraph)
        self._saved: bytes | None = None  # None: the state after a reset
        self._journal: list[tuple[Request, bytes]] = []  # since then, with the replies
        self._steps = 0  # calls of the model since the reset
        self.link = Link(Port(url, self.options.baud), self.options, self._report)
        try:
            self.hello = self.link.open()
            problem = self._problem(self.hello)
            if problem:
                raise RuntimeFailure(problem)
            self.reset()
        except BaseException:
            self.link.close()
            raise

    def reset_network(self) -> None:
        self._saved, self._steps = None, 0
        self._journal.clear()
        self._ask([Request(Command.RESET)])

    def statistics(self, *, clear: bool = False) -> Statistics:
        """What the device counted; clear: it counts from 0 again, but for the steps."""
        return read_statistics(self._ask([Request(Command.STATISTICS, bytes([clear]))])[0])

    def echo(self, content: bytes) -> bytes:
        """Send ``content`` there and back; DataError where it is longer than a frame."""
        most = min(self.hello.request, self.hello.reply)
        if len(content) > most:
            raise DataError(f"{self.name}: an echo of {len(content)} bytes, expected {most} at most")
        return self._ask([Request(Command.ECHO, content)])[0]

    def close(self) -> None:
        self.link.close()

    def run_raw(self, raw: npt.NDArray[np.int32]) -> CodeArray:
        """Scale raw integers (steps, features) on the device and run them; returns (steps, outputs).

        A missing one is run as the zero point.  DataError for a model that takes windows or has no scaling.
        """
        if not self.hello.raw:
            raise DataError(
                f"{self.name}: the board scales no raw values for model '{self.qgraph.name}'; give codes"
            )
        return self._sent(Command.RUN_RAW, self._raw(raw)[:, None])[:, 0]

    def _advance(self, codes: CodeArray) -> CodeArray:
        return self._sent(Command.RUN, codes)

    def _sent(self, command: Command, rows: npt.NDArray[np.signedinteger[Any]]) -> CodeArray:
        """Output codes (calls, rows, outputs) of calls of the model with rows (calls, rows, features)."""
        q, hello = self.qgraph, self.hello
        writes = written_rows(q) * q.outputs * q.output.bits // 8
        calls = min(hello.request // rows[:1].nbytes, hello.reply // writes) if len(rows) else 1
        little = rows.astype(rows.dtype.newbyteorder("<"))
        requests = [Request(command, little[at : at + calls].tobytes()) for at in range(0, len(rows), calls)]
        content = b"".join(self._perform(requests, calls, len(rows)))
        dtype = np.dtype(q.output.dtype).newbyteorder("<")
        outputs: CodeArray = np.frombuffer(content, dtype=dtype).astype(q.output.dtype)
        return outputs.reshape(len(rows), written_rows(q), q.outputs)

    def _score(self, raw: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        features = raw.shape[1]
        record = np.dtype(
            [("score", "<i4"), ("alarm", "u1"), ("threshold", "<i4"), ("contributions", "<i4", (features,))]
        )
        row = RAW_BYTES * features
        calls = min(self.hello.request // row, self.hello.reply // (DETECTED_BYTES + 4 * features))
        little = raw.astype("<i4")
        requests = [
            Request(Command.DETECT, little[at : at + calls].tobytes()) for at in range(0, len(raw), calls)
        ]
        found = np.frombuffer(b"".join(self._perform(requests, calls, len(raw))), dtype=record)
        columns = [found["score"], found["alarm"], found["threshold"], *found["contributions"].T]
        rows_of: npt.NDArray[np.int32] = np.stack(columns, axis=1).astype(np.int32)
        return rows_of

    def _perform(self, requests: Sequence[Request], calls: int, total: int) -> list[bytes]:
        """Replies of requests that advance the network by ``calls`` each, ``total`` in all."""
        replies: list[bytes] = []
        every = max(self.options.snapshot_steps // calls, 1)
        end = self._steps + total
        while len(replies) < len(requests):
            due = every - len(self._journal)
            done = self._journaled(requests[len(replies) : len(replies) + due])
            replies += done
            self._steps = min(self._steps + calls * len(done), end)
            if self.qgraph.window:
                self._journal.clear()  # nothing is kept from one window to the next
            elif len(self._journal) >= every:
                self._snapshot()
        return replies

    def _journaled(self, requests: Sequence[Request]) -> list[bytes]:
        """Replies of ``requests``, each performed once whatever happens to the line and the device."""
        first = len(self._journal)
        while (done := len(self._journal) - first) < len(requests):
            rest = requests[done:]
            try:
                for request, reply in zip(rest, self.link.exchange(rest), strict=True):
                    self._journal.append((request, reply))
            except SessionLost as lost:
                self._recover(lost)
        return [reply for _, reply in self._journal[first:]]

    def _ask(self, requests: Sequence[Request]) -> list[bytes]:
        """Replies of requests that may be repeated as a whole."""
        try:
            return list(self.link.exchange(requests))
        except SessionLost as lost:
            self._recover(lost)
            return self._ask(requests)

    def _snapshot(self) -> None:
        """Fetch the state and forget what led to it; Disagreement where a step was lost or done twice."""
        size, most = self.hello.state_bytes, min(self.hello.reply, LONGEST_SAVE)
        parts = [Request(Command.SAVE, save_request(at, min(most, size - at))) for at in range(0, size, most)]
        content = b"".join(self._ask(parts))
        steps = int.from_bytes(content[:STEPS_BYTES], "little")
        if steps != self._steps % (1 << 32):
            raise Disagreement(
                f"{self.name}: the board made {steps} steps since the reset, the host asked for "
                f"{self._steps}; does another program use the port?"
            )
        self._saved = content
        self._journal.clear()

    def _recover(self, lost: SessionLost) -> None:
        """Bring the device to the state after the last reply; reports each reboot once."""
        for _ in range(ATTEMPTS):
            self._open_again(lost)
            try:
                list(self.link.exchange(self._base()))
                again = self.link.exchange([request for request, _ in self._journal])
                for (_, expected), reply in zip(self._journal, again, strict=True):
                    if reply != expected:
                        raise Disagreement(
                            f"{self.name}: steps that were repeated after '{lost}' gave other codes"
                        )
                return
            except SessionLost as another:
                lost = another
        raise RuntimeFailure(
            f"{self.name}: the board starts again and again; look at its power supply and its watchdog"
        )

    def _base(self) -> list[Request]:
        """What sets a device to the state of the last snapshot."""
        if self._saved is None:
            return [Request(Command.RESET)]
        most = self.hello.request - STEPS_BYTES
        return [
            Request(Command.RESTORE, restore_request(at, self._saved[at : at + most]))
            for at in range(0, len(self._saved), most)
        ]

    def _open_again(self, lost: SessionLost) -> None:
        """Open a session with the same model; one that was swapped in is reported, and given time to go."""
        problem = self._problem(self.link.open())
        self._report(Event("model", problem) if problem else Event(lost.kind, str(lost)))
        stop = time.monotonic() + self.options.patience_s
        while problem:
            if time.monotonic() > stop:
                raise RuntimeFailure(problem)
            time.sleep(ASK_AGAIN_S)
            problem = self._problem(self.link.open())

    def _problem(self, hello: Hello) -> str:
        """What is wrong where the device carries another model, '' where it is this one."""
        if hello.hash == self._hash:
            return ""
        return (
            f"{self.name}: the board carries model '{hello.name}' of hash {hello.hash}, expected "
            f"'{self.qgraph.name}' of hash {self._hash}; build and flash this one"
        )

    def _report(self, event: Event) -> None:
        placed = Event(event.kind, event.text, self._steps)
        self.events.append(placed)
        if self._on_event:
            self._on_event(placed)
