"""Sockets and RFC 2217, and what a user reads when a port or a board is not right."""

from __future__ import annotations

import errno
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import serial
from serial import rfc2217

from edge_lstm.errors import ConfigError, EdgeLstmError, RuntimeFailure
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.qgraph import QGraph
from firmware_process import QUICK, process_of, small_network
from firmware_tools.posix import Process
from firmware_tools.protocol import REPLY, Command, Frame, encode
from firmware_tools.serial_executor import SerialExecutor
from firmware_tools.uart import Port, explained
from random_models import random_codes, random_qgraph


@pytest.fixture(scope="module")
def qgraph() -> QGraph:
    return small_network()


@pytest.fixture(scope="module")
def program(qgraph: QGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return process_of(qgraph, tmp_path_factory.mktemp("firmware"))


@pytest.fixture
def process(program: Path) -> Iterator[Process]:
    started = Process(program)
    yield started
    started.close()


@contextmanager
def serving(answer: bytes | None = b"", process: Process | None = None) -> Iterator[str]:
    """A socket:// URL where any byte gets ``answer``, or an rfc2217:// one that leads to ``process``."""
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    left = threading.Event()

    def talk() -> None:
        with suppress(OSError):
            client, _ = server.accept()
            with client:
                if process is not None:
                    telnet(client, process.url, left)
                while client.recv(4096):
                    client.sendall(answer or b"")

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    try:
        yield f"{'socket' if process is None else 'rfc2217'}://127.0.0.1:{port}"
    finally:
        left.set()
        server.close()
        thread.join()


class Client:
    """What pyserial's PortManager writes to."""

    def __init__(self, client: socket.socket) -> None:
        self.write = client.sendall


def telnet(client: socket.socket, url: str, left: threading.Event) -> None:
    """Serve the port ``url`` by RFC 2217 until the client has ``left``."""
    with serial.serial_for_url(url, timeout=0) as port:
        manager = rfc2217.PortManager(port, Client(client))
        client.settimeout(0.005)
        while not left.is_set():
            with suppress(TimeoutError):
                port.write(b"".join(manager.filter(client.recv(4096))))
            client.sendall(b"".join(manager.escape(port.read(4096))))


@pytest.mark.filterwarnings("ignore:set.* is deprecated:DeprecationWarning")  # pyserial's own
def test_rfc2217_leads_to_a_board_elsewhere(
    qgraph: QGraph, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a pty has no modem lines
    for line in ("cts", "dsr", "ri", "cd"):
        monkeypatch.setattr(serial.Serial, line, property(lambda self: False))
    for line in ("dtr", "rts"):
        monkeypatch.setattr(serial.Serial, f"_update_{line}_state", lambda self: None)
    codes = random_codes(6, 120, 4)
    with serving(process=process) as url, SerialExecutor(qgraph, url) as executor:
        assert np.array_equal(executor.run(codes), NumpyExecutor(qgraph).run(codes))


# what a user reads


def message(qgraph: QGraph, url: str) -> str:
    """The error that an executor at ``url`` raises; one line."""
    with pytest.raises(EdgeLstmError) as caught:
        SerialExecutor(qgraph, url, options=QUICK)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_no_such_port(qgraph: QGraph) -> None:
    assert "port '/dev/ttyNONE9' does not exist; found: " in message(qgraph, "/dev/ttyNONE9")


def test_a_port_that_another_program_has_open(qgraph: QGraph, process: Process) -> None:
    port = Port(process.url, 115200)
    assert "is busy: another program has it open, such as a terminal" in message(qgraph, process.url)
    port.close()


@pytest.mark.parametrize(
    "number, kind, expected",
    [
        (errno.EACCES, ConfigError, "no permission; the user must be in the group dialout: sudo usermod -aG"),
        (errno.EPERM, ConfigError, "no permission; the user must be in the group dialout"),
        (errno.EBUSY, RuntimeFailure, "is busy: another program has it open"),
        (errno.EIO, ConfigError, "cannot be opened: .*could not open port"),
    ],
)
def test_what_the_system_says_of_a_port(number: int, kind: type[EdgeLstmError], expected: str) -> None:
    error = explained("/dev/ttyACM0", serial.SerialException(number, "could not open port"))
    assert type(error) is kind
    with pytest.raises(kind, match=f"port '/dev/ttyACM0'.* {expected}"):
        raise error


def test_nobody_listens(qgraph: QGraph) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "nobody listens there; start the emulator or the server first" in message(
        qgraph, f"socket://127.0.0.1:{port}"
    )


def test_a_url_that_is_none(qgraph: QGraph) -> None:
    assert "is none that pyserial knows" in message(qgraph, "carrier-pigeon://loft")


def test_a_silent_board(qgraph: QGraph) -> None:
    with serving(b"") as url:
        assert "the board is silent; is it powered, is this its port, is the firmware on it" in message(
            qgraph, url
        )


def test_a_wrong_baud_rate(qgraph: QGraph) -> None:
    with serving(random.Random(1).randbytes(60)) as url:
        assert "bytes of noise came and no answer; is 115200 the board's baud rate?" in message(qgraph, url)


def test_another_firmware(qgraph: QGraph) -> None:
    with serving(b"Hello from Arduino, t=21.5\r\n") as url:
        assert "another firmware answers: 'Hello from Arduino, t=21.5'; build and flash" in message(
            qgraph, url
        )


def test_a_line_of_which_little_is_readable(qgraph: QGraph) -> None:
    with serving(encode(Frame(Command.ECHO | REPLY, 0, 1, 1)) + b"\x07\x99") as url:
        assert "too little of what the board answers is readable; check the cable" in message(qgraph, url)


def test_another_version_of_the_protocol(
    qgraph: QGraph, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firmware_tools.link.VERSION", 3)
    assert "speaks version 2 of the protocol, expected 3; build and flash it again" in message(
        qgraph, process.url
    )


def test_another_model(process: Process) -> None:
    other = random_qgraph(2, layers=1, units=6, features=4, detector=True)
    text = message(other, process.url)
    assert "carries model 'random_1' of hash " in text
    assert ", expected 'random_2' of hash " in text


def test_a_port_that_is_lost_and_does_not_come_back(qgraph: QGraph, program: Path) -> None:
    process = Process(program)
    executor = SerialExecutor(qgraph, process.url, options=QUICK)
    process.close()
    with pytest.raises(RuntimeFailure, match="is lost: .*; it did not come back: port '.*' does not exist"):
        executor.run(random_codes(1, 10, 4))
    assert [event.kind for event in executor.events] == ["port"]
    executor.close()
