"""A serial port by its pyserial URL: bytes out, bytes in, and what is wrong with it in one line.

URLs: /dev/ttyACM0, COM3, the path of a pty, socket://HOST:PORT, rfc2217://HOST:PORT.
"""

from __future__ import annotations

import contextlib
import errno
import select
import time
from typing import Any

import serial
from serial.tools import list_ports

from edge_lstm.errors import ConfigError, EdgeLstmError, RuntimeFailure
from firmware_tools.protocol import Splitter, decode

READ_BYTES = 4096
POLL_S = 0.001  # between two looks at a port that cannot be waited for
WRITE_S = 2.0  # a line that takes nothing for so long is lost
REOPEN_S = (0.05, 1.0)  # between two tries to open a lost port: first, longest
SHOWN_BYTES = 40  # of what another firmware says, in a message
GROUP = "dialout"


class PortLost(RuntimeFailure):
    """A port that was open cannot be used any more: unplugged, or the other end is gone."""


class Port:
    """One open port.  Raises ConfigError or RuntimeFailure where it cannot be opened."""

    def __init__(self, url: str, baud: int) -> None:
        self.url, self.baud = url, baud
        self._serial: Any = None
        self.open()

    def open(self) -> None:
        """Open the port, once more if it is open; nobody else may have it."""
        self.close()
        try:
            port: Any = serial.serial_for_url(self.url, baudrate=self.baud, timeout=0, do_not_open=True)
            if not self.url.startswith("rfc2217:"):  # for which pyserial has none
                port.write_timeout = WRITE_S
            if "://" not in self.url:
                port.exclusive = True
            port.open()
        except (OSError, ValueError) as error:
            raise explained(self.url, error) from error
        self._serial = port

    def reopen(self, lost: PortLost, patience_s: float) -> None:
        """Open a lost port, tried until ``patience_s`` have passed; then RuntimeFailure."""
        stop, pause = time.monotonic() + patience_s, REOPEN_S[0]
        while (error := self._refusal()) is not None:
            if time.monotonic() > stop:
                raise RuntimeFailure(f"{lost}; it did not come back: {error}") from error
            time.sleep(pause)
            pause = min(2 * pause, REOPEN_S[1])

    def _refusal(self) -> EdgeLstmError | None:
        try:
            self.open()
        except EdgeLstmError as error:
            return error
        return None

    def write(self, content: bytes) -> None:
        """Hand over ``content``; PortLost where the port is gone."""
        try:
            self._serial.write(content)
        except serial.SerialTimeoutException:
            return  # the line takes nothing: what is lost is sent again
        except (OSError, TypeError, AttributeError) as error:  # pyserial's own when its port has been closed
            raise PortLost(f"port '{self.url}' is lost: {error}") from error

    def read(self, wait_s: float) -> bytes:
        """What has come, after ``wait_s`` at the latest; PortLost where the port is gone."""
        try:
            content = bytes(self._serial.read(READ_BYTES))
            if not content and wait_s > 0:
                self._wait(wait_s)
                content = bytes(self._serial.read(READ_BYTES))
        except (OSError, TypeError, AttributeError) as error:
            raise PortLost(f"port '{self.url}' is lost: {error}") from error
        return content

    def _wait(self, wait_s: float) -> None:
        try:
            select.select([self._serial.fileno()], [], [], wait_s)
        except (OSError, ValueError):  # Windows, rfc2217: no file to wait for
            stop = time.monotonic() + wait_s
            while not self._serial.in_waiting and time.monotonic() < stop:
                time.sleep(POLL_S)

    def close(self) -> None:
        """Give the port back; also where it is lost."""
        if self._serial is not None:
            connection = getattr(self._serial, "_socket", None)  # that pyserial leaves open once it is lost
            with contextlib.suppress(OSError):
                self._serial.close()
            if connection is not None:
                connection.close()
            self._serial = None


def explained(url: str, error: Exception) -> EdgeLstmError:
    """Why ``url`` cannot be opened and what to do."""
    cause = error.__context__ if isinstance(error.__context__, OSError) else error
    number = getattr(error, "errno", None) or getattr(cause, "errno", None)
    if isinstance(error, ValueError):
        return ConfigError(
            f"port '{url}' is none that pyserial knows ({error}); give a device, socket://HOST:PORT or "
            "rfc2217://HOST:PORT"
        )
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO) or "FileNotFoundError" in str(error):
        ports = ", ".join(sorted(port.device for port in list_ports.comports())) or "none"
        return ConfigError(f"port '{url}' does not exist; found: {ports}; is the board plugged in?")
    if number in (errno.EACCES, errno.EPERM):
        return ConfigError(
            f"port '{url}': no permission; the user must be in the group {GROUP}: "
            f"sudo usermod -aG {GROUP} $USER, then log in again"
        )
    if number in (errno.EBUSY, errno.EAGAIN):
        return RuntimeFailure(
            f"port '{url}' is busy: another program has it open, such as a terminal or an IDE's monitor; "
            "close it"
        )
    if number == errno.ECONNREFUSED:
        return ConfigError(f"port '{url}': nobody listens there; start the emulator or the server first")
    return ConfigError(f"port '{url}' cannot be opened: {' '.join(str(error).split())}")


def no_hello(heard: bytes, baud: int) -> str:
    """Why no hello came, by what came in its place."""
    if not heard:
        return (
            "the board is silent; is it powered, is this its port, is the firmware on it (edge-lstm flash)?"
        )
    if any(decode(piece) for piece in Splitter().feed(heard)):
        return "too little of what the board answers is readable; check the cable, or take a lower baud rate"
    printable = sum(32 <= byte < 127 or byte in b"\r\n\t" for byte in heard)
    if 10 * printable >= 9 * len(heard):
        said = heard[:SHOWN_BYTES].decode("ascii", "replace").strip().splitlines() or [""]
        return f"another firmware answers: '{said[0]}'; build and flash this model's (edge-lstm flash)"
    return (
        f"{len(heard)} bytes of noise came and no answer; is {baud} the board's baud rate? "
        "Or another firmware is on it: flash this model's (edge-lstm flash)"
    )
