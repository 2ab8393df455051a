"""Executors on a firmware process, over its pty.

LINK_STEPS sets the steps of the long run; the full one: LINK_STEPS=1000000 pytest tests/test_uart.py -k long
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import missing
from edge_lstm.errors import ConfigError, DataError, Disagreement, RuntimeFailure
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.executors.protocol import Executor
from edge_lstm.executors.streams import mixed_stream
from edge_lstm.graph import Stream
from edge_lstm.qgraph import QGraph
from firmware_process import QUICK, process_of, small_network
from firmware_tools.host import HostExecutor
from firmware_tools.link import LinkOptions, Request, steps_per_second
from firmware_tools.posix import PosixExecutor, Process
from firmware_tools.protocol import REFUSAL, REPLY, Command, Frame, encode
from firmware_tools.serial_executor import SerialExecutor, open_serial
from random_lstms import alone, random_lstm
from random_models import random_codes, random_present, random_qgraph, random_raw
from test_c_windows import bidirectional

STEPS = int(os.environ.get("LINK_STEPS", "20000"))


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


def test_a_long_stream_over_a_pty_loses_nothing(
    qgraph: QGraph, process: Process, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = mixed_stream(qgraph.features, STEPS, 1)
    expected = HostExecutor(qgraph).run(codes)
    with SerialExecutor(qgraph, process.url) as executor:
        counts = executor.link.counts
        before, start = counts.bytes_out, time.monotonic()
        outputs = executor.run(codes)
        rate = STEPS / (time.monotonic() - start)
        assert np.array_equal(outputs, expected)
        assert executor.statistics().steps == STEPS
        assert (executor.events, counts.refused, counts.damaged) == ([], 0, 0)
        bytes_a_step = (counts.bytes_out - before) / STEPS
        limits = ", ".join(f"{baud}: {steps_per_second(bytes_a_step, baud):.0f}" for baud in (115200, 921600))
        with capsys.disabled():
            print(f"\n{STEPS} steps, {bytes_a_step:.2f} bytes a step, {rate:.0f} steps/s; a line at {limits}")


def test_several_frames_are_on_their_way_at_a_time(qgraph: QGraph, process: Process) -> None:
    """A host that hears no answer has sent as many requests as the device keeps replies."""
    with SerialExecutor(qgraph, process.url) as executor:
        written: list[bytes] = []
        port = executor.link.port
        port.write, port.read = written.append, lambda wait_s: b""  # type: ignore[method-assign,assignment]
        pending = executor.link.exchange([Request(Command.ECHO, b"x")] * 9)
        executor.link.options = LinkOptions(timeout_s=60, patience_s=0)
        with pytest.raises(RuntimeFailure):
            next(pending)
        assert len(written) == executor.hello.slots == 3
        del port.write, port.read


@pytest.mark.parametrize("kind", ["int16", "window", "two layers"])
def test_every_kind_of_network_returns_the_reference_codes(kind: str) -> None:
    if shutil.which("cc") is None:
        missing("cc")
    qgraph = {
        "int16": lambda: alone(random_lstm(2, bits=16, units=5), "wide", "tflm"),
        "window": bidirectional,
        "two layers": lambda: random_qgraph(9, layers=2, units=7, features=60),
    }[kind]()
    codes = mixed_stream(qgraph.features, 5 * (qgraph.window or 40), 2, qgraph.input.bits)
    expected = NumpyExecutor(qgraph).run(codes)
    with PosixExecutor(qgraph, options=LinkOptions(snapshot_steps=16)) as executor:
        assert np.array_equal(executor.run(codes), expected)
        assert executor.run(codes[:0]).shape == expected[:0].shape
        executor.reset()
        assert np.array_equal(executor.run(codes), expected)


def test_scores_alarms_and_contributions_are_the_reference_s(qgraph: QGraph, process: Process) -> None:
    present = random_present(2, 400, 4)
    present[100:250] = True
    raw = random_raw(qgraph, 2, 400, present)
    reference: Executor = NumpyExecutor(qgraph)
    with SerialExecutor(qgraph, process.url) as executor:
        for part in (slice(0, 1), slice(1, 1), slice(1, 180), slice(180, 400)):
            found = executor.detect(raw[part])
            expected = reference.detect(raw[part])
            for attribute in ("score", "alarm", "threshold", "contributions"):
                assert np.array_equal(getattr(found, attribute), getattr(expected, attribute)), attribute
        assert executor.statistics().saturated == executor.scaling.saturated(raw) > 0


def test_raw_values_are_scaled_on_the_device(qgraph: QGraph, process: Process) -> None:
    raw = random_raw(qgraph, 4, 100, random_present(4, 100, 4))
    with SerialExecutor(qgraph, process.url) as executor:
        found = executor.run_raw(raw)
        assert np.array_equal(found, NumpyExecutor(qgraph).run(executor.scaling.codes(raw)))
        with pytest.raises(DataError, match=r"raw values are int32 \(2, 3\), expected int32 \(steps, 4\)"):
            executor.run_raw(raw[:2, :3])
    plain = replace(qgraph, stream=Stream.unnamed(4))
    with PosixExecutor(plain) as executor, pytest.raises(DataError, match="the board scales no raw values"):
        executor.run_raw(raw)


def test_what_a_device_says_of_itself(qgraph: QGraph, process: Process) -> None:
    with SerialExecutor(qgraph, process.url) as executor:
        assert (executor.hello.name, executor.hello.clock_hz) == (qgraph.name, 1_000_000_000)
        assert "profile tflm" in executor.hello.build
        assert executor.echo(b"a\0b") == b"a\0b"
        with pytest.raises(DataError, match="an echo of 49 bytes, expected 48 at most"):
            executor.echo(bytes(49))
        executor.run(random_codes(1, 30, 4))
        assert executor.statistics(clear=True).timed == 30
        assert (executor.statistics().timed, executor.statistics().steps) == (0, 30)


def test_a_session_that_was_used_before_is_not_taken(
    qgraph: QGraph, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = random_codes(8, 30, 4)
    expected = NumpyExecutor(qgraph).run(codes)
    monkeypatch.setattr("firmware_tools.link.random.randrange", lambda *_: 41)
    for session in (42, 43):
        with SerialExecutor(qgraph, process.url) as executor:
            assert executor.link._session == session
            assert np.array_equal(executor.run(codes), expected)
            assert executor.events == []
            executor.link._session = 41


def test_a_port_is_named_with_its_speed(qgraph: QGraph, process: Process) -> None:
    with open_serial(f"serial:{process.url}@921600", qgraph) as executor:
        assert (executor.name, executor.options.baud) == (f"serial:{process.url}@921600", 921600)
    with open_serial(f"serial:{process.url}", qgraph) as executor:
        assert executor.options.baud == 115200
    for name in ("serial:", "serial:@9600", "serial:COM3@fast"):
        with pytest.raises(ConfigError, match=f"executor '{name}' names no port; expected serial:URL or"):
            open_serial(name, qgraph)


def test_a_slow_board_is_not_asked_again_and_again(qgraph: QGraph, process: Process) -> None:
    options = LinkOptions(timeout_s=0.02)
    with SerialExecutor(qgraph, process.url, options=options) as executor:
        read = executor.link.port.read

        held: list[tuple[float, bytes]] = []

        def late(wait_s: float) -> bytes:
            """Answers reach the host after 50 ms."""
            if content := read(min(wait_s, 0.002)):
                held.append((time.monotonic() + 0.05, content))
            return held.pop(0)[1] if held and held[0][0] <= time.monotonic() else b""

        executor.link.port.read = late  # type: ignore[method-assign]
        for _ in range(20):
            executor.echo(b"")
        before = executor.link.counts.repeated
        for _ in range(10):
            executor.echo(b"")
        assert executor.link.counts.repeated == before > 0


@pytest.mark.parametrize("snapshot_steps", [64, 4096])
def test_a_second_host_is_noticed_and_the_state_restored(
    qgraph: QGraph, process: Process, snapshot_steps: int
) -> None:
    codes = random_codes(4, 300, 4)
    expected = NumpyExecutor(qgraph).run(codes)
    with SerialExecutor(qgraph, process.url, options=LinkOptions(snapshot_steps=snapshot_steps)) as executor:
        first = executor.run(codes[:100])
        os.write(process._terminal, b"\0" + encode(Frame(Command.HELLO, 0, 7, 0, b"\0")))
        second = executor.run(codes[100:])
        assert np.array_equal(np.concatenate([first, second]), expected)
        assert [(event.kind, event.step) for event in executor.events] == [("session", 100)]
        assert "another program opened a session" in executor.events[0].text


def test_an_answer_of_another_session_or_request_is_passed_over(qgraph: QGraph, process: Process) -> None:
    with SerialExecutor(qgraph, process.url) as executor:
        read, session, sequence = executor.link.port.read, executor.link._session, executor.link._next
        strays = [
            Frame(Command.ECHO | REPLY, executor.link._index % 256, session ^ 1, sequence, b"wrong"),
            Frame(Command.ECHO | REPLY, executor.link._index % 256, session, sequence - 1, b"wrong"),
            Frame(Command.RUN | REPLY, executor.link._index % 256, session, sequence, b"wrong"),
            Frame(REFUSAL, 0, session ^ 1, sequence, struct.pack("<BHHI", 2, 0, 0, 0)),
            Frame(REFUSAL, 0, session, sequence, b"short"),
        ]
        came = [b"".join(map(encode, strays))]
        executor.link.port.read = lambda wait_s: came.pop() if came else read(wait_s)  # type: ignore[method-assign]
        assert executor.echo(b"right") == b"right"
        assert executor.events == []


def test_steps_that_the_host_did_not_ask_for_are_an_error(qgraph: QGraph, process: Process) -> None:
    with SerialExecutor(qgraph, process.url, options=LinkOptions(snapshot_steps=20)) as executor:
        list(executor.link.exchange([Request(Command.RUN, bytes(4))]))
        with pytest.raises(Disagreement, match="made 13 steps since the reset, the host asked for 12; does"):
            executor.run(random_codes(1, 40, 4))


def test_a_board_that_pauses_is_reported_once_and_goes_on(qgraph: QGraph, process: Process) -> None:
    codes = random_codes(5, 3000, 4)
    expected = NumpyExecutor(qgraph).run(codes)
    options = LinkOptions(timeout_s=0.05, silence_s=0.2)
    seen = []
    with SerialExecutor(qgraph, process.url, options=options, on_event=seen.append) as executor:
        executor.run(codes[:1000])
        process._process.send_signal(signal.SIGSTOP)
        threading.Timer(0.6, process._process.send_signal, [signal.SIGCONT]).start()
        assert np.array_equal(executor.run(codes[1000:]), expected[1000:])
        assert [(event.kind, event.step) for event in seen] == [("silent", 1000)]
        assert seen == executor.events


def test_a_board_that_stops_for_good_is_given_up(qgraph: QGraph, process: Process) -> None:
    with SerialExecutor(qgraph, process.url, options=QUICK) as executor:
        process._process.send_signal(signal.SIGSTOP)
        with pytest.raises(
            RuntimeFailure, match=r"the board is silent for 0.5 s; is it powered, and does its"
        ):
            executor.run(random_codes(1, 10, 4))


def test_a_line_on_which_nothing_comes_through_is_given_up(qgraph: QGraph, process: Process) -> None:
    with SerialExecutor(qgraph, process.url, options=QUICK) as executor:
        port = executor.link.port
        write = port.write
        port.write = lambda content: write(content.replace(b"\x02", b"\x03"))  # type: ignore[method-assign]
        with pytest.raises(RuntimeFailure, match=r"no request came through in 0.5 s; check the cable"):
            list(executor.link.exchange([Request(Command.ECHO, b"\2")]))


def test_a_request_that_the_firmware_refuses_is_an_error(qgraph: QGraph, process: Process) -> None:
    expected = r"refuses a request of 3 bytes \(RUN\); build and flash it"
    with SerialExecutor(qgraph, process.url) as executor, pytest.raises(RuntimeFailure, match=expected):
        list(executor.link.exchange([Request(Command.RUN, bytes(3))]))
