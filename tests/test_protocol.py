"""The device's side of the protocol, byte by byte: protocol.c as a process against protocol.py.

FUZZ_BYTES sets the bytes of each fuzz; for ten minutes:
FUZZ_BYTES=400000000 pytest tests/test_protocol.py -k whatever
"""

from __future__ import annotations

import os
import random
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import missing
from edge_lstm.errors import ConfigError
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.graph import Stream
from edge_lstm.qgraph import QGraph
from firmware_tools.build import HARNESS, host_compilers, run_compiler
from firmware_tools.firmware import write_firmware
from firmware_tools.posix import build_process
from firmware_tools.protocol import (
    REFUSAL,
    REPLY,
    VERSION,
    Command,
    Frame,
    Reason,
    Refusal,
    Splitter,
    decode,
    encode,
    frame_bytes,
    read_hello,
    read_refusal,
    read_statistics,
    restore_request,
    save_request,
)
from random_lstms import alone, random_lstm
from random_models import (
    random_codes,
    random_present,
    random_qgraph,
    random_raw,
    random_wide_qgraph,
    scaling_for,
    with_random_resolution,
)
from test_c_code import WARNINGS, renamed
from test_c_windows import bidirectional

SESSION = 0x1234
SLOTS = 3
SANITIZE = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
FUZZ_BYTES, FUZZ_CHUNK = int(os.environ.get("FUZZ_BYTES", "1000000")), 20_000


class Device:
    """A firmware process on pipes."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen(
            [str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        self._splitter = Splitter()

    def send(self, content: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(content)

    def answers(self) -> Iterator[Frame]:
        assert self.process.stdout is not None
        while content := self.process.stdout.read(1 << 16):
            for piece in self._splitter.feed(content):
                answer = decode(piece)
                assert answer is not None, piece
                yield answer
        self.process.wait()
        assert self.process.stderr is not None
        raise AssertionError(f"the firmware ended: {self.process.stderr.read().decode()}")

    def ask(self, command: int, sequence: int, payload: bytes = b"", session: int = SESSION) -> Frame:
        self.send(encode(Frame(command, 7, session, sequence, payload)))
        return next(self.answers())

    def refusal(self, command: int, sequence: int, payload: bytes = b"", session: int = SESSION) -> Refusal:
        answer = self.ask(command, sequence, payload, session)
        assert answer.command == REFUSAL
        refusal = read_refusal(answer.payload)
        assert refusal is not None
        return refusal

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def qgraph() -> QGraph:
    return random_qgraph(1, layers=1, units=5, features=3, detector=True)


@pytest.fixture(scope="module")
def program(qgraph: QGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        missing("cc")
    return build_process(qgraph, tmp_path_factory.mktemp("firmware"), SANITIZE)


@pytest.fixture
def device(program: Path) -> Iterator[Device]:
    """A device in a session."""
    opened = Device(program)
    opened.ask(Command.HELLO, 0)
    yield opened
    opened.close()


def steps(device: Device, sequence: int) -> int:
    return read_statistics(device.ask(Command.STATISTICS, sequence).payload).steps


# frames


def test_a_frame_by_hand() -> None:
    body = bytes([9, 0, 0x34, 0x12, 0, 0, 5])
    crc = struct.pack("<I", zlib.crc32(body))
    assert 0 not in crc
    expected = bytes([2, 9, 3, 0x34, 0x12, 1, 6, 5]) + crc + b"\0"
    assert encode(Frame(9, 0, 0x1234, 0, b"\5")) == expected


@pytest.mark.parametrize("length", [0, 1, 40, 242, 243, 244, 245, 253, 254, 255, 498, 508, 509, 600])
@pytest.mark.parametrize("kind", ["zeros", "ones", "mixed", "zero last"])
def test_a_frame_of_any_bytes_is_read_back_and_holds_no_zero(length: int, kind: str) -> None:
    rng = random.Random(length)
    payload = {
        "zeros": bytes(length),
        "ones": b"\1" * length,
        "mixed": bytes(rng.choice((0, 255, rng.randrange(256))) for _ in range(length)),
        "zero last": (b"\xff" * length + b"\0")[1:] if length else b"",
    }[kind]
    frame = Frame(9, 200, 65535, 513, payload)
    content = encode(frame)
    assert content.index(0) == len(content) - 1
    assert len(content) <= frame_bytes(length)
    assert decode(content[:-1]) == frame


def test_every_damaged_bit_and_every_shortened_frame_is_noticed() -> None:
    content = encode(Frame(3, 1, 2, 3, bytes(range(20))))[:-1]
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        assert decode(bytes(damaged)) is None
    assert all(decode(content[:length]) is None for length in range(len(content)))


def test_a_stream_is_split_wherever_it_is_cut() -> None:
    frames = [Frame(9, tag, 1, tag, bytes(tag)) for tag in range(5)]
    stream = b"\0\0" + b"\0".join(encode(frame) for frame in frames)
    splitter = Splitter()
    found = [decode(piece) for byte in stream for piece in splitter.feed(bytes([byte]))]
    assert found == frames


# the device


def test_hello_says_what_is_on_the_device(device: Device, qgraph: QGraph) -> None:
    hello = read_hello(device.ask(Command.HELLO, 0, b"\0").payload)
    assert hello is not None
    assert (hello.version, hello.slots, hello.request, hello.reply) == (VERSION, SLOTS, 48, 48)
    assert (hello.features, hello.outputs, hello.input_bits, hello.output_bits) == (3, 3, 8, 8)
    assert (hello.window, hello.written_rows, hello.stored) == (0, 1, 0)
    assert (hello.raw, hello.detector) == (1, 1)
    assert device.ask(Command.HELLO, 1, b"\1").payload.decode() == qgraph.name
    assert "profile tflm" in device.ask(Command.HELLO, 2, b"\2").payload.decode()


def test_other_weights_have_another_hash(program: Path, tmp_path: Path) -> None:
    hashes = {
        (write_firmware(random_qgraph(seed, features=3), tmp_path).include / "firmware_model.h").read_text()
        for seed in (1, 2)
    }
    assert len({re.search(r"MODEL_HASH \{(.*)\}", text).group(1) for text in hashes}) == 2  # type: ignore[union-attr]


def test_a_repeated_request_gets_the_stored_reply_and_makes_no_step(device: Device, qgraph: QGraph) -> None:
    codes = random_codes(3, SLOTS, 3)
    expected = NumpyExecutor(qgraph).run(codes)
    first = [device.ask(Command.RUN, row, codes[row].tobytes()) for row in range(SLOTS)]
    again = [device.ask(Command.RUN, row, codes[row].tobytes()) for row in range(SLOTS)]
    assert first == again
    assert [answer.payload for answer in first] == [row.tobytes() for row in expected]
    assert steps(device, SLOTS) == SLOTS


def test_more_than_the_kept_replies_back_and_ahead_is_refused(device: Device) -> None:
    for sequence in range(SLOTS + 1):
        device.ask(Command.RUN, sequence, bytes(3))
    for sequence in (0, SLOTS + 2, 65535):
        refusal = device.refusal(Command.RUN, sequence, bytes(3))
        assert (refusal.reason, refusal.next) == (Reason.BAD_ORDER, SLOTS + 1)
    assert steps(device, SLOTS + 1) == SLOTS + 1


def test_sequence_numbers_go_on_after_65535(device: Device) -> None:
    for start in range(0, 65536 + 64, 64):
        frames = [Frame(Command.ECHO, 0, SESSION, number % 65536, b"") for number in range(start, start + 64)]
        device.send(b"".join(map(encode, frames)))
        found = device.answers()
        assert [next(found).sequence for _ in frames] == [frame.sequence for frame in frames]
    assert device.ask(Command.ECHO, 63, b"") == Frame(Command.ECHO | REPLY, 7, SESSION, 63, b"")


def test_no_reply_of_an_earlier_session_is_given(device: Device) -> None:
    device.ask(Command.RUN, 0, bytes(3))
    device.ask(Command.HELLO, 0, session=99)
    assert device.refusal(Command.RUN, 1, bytes(3)).reason == Reason.BAD_SESSION
    assert device.refusal(Command.RUN, 65535, bytes(3), session=99).reason == Reason.BAD_ORDER
    device.ask(Command.HELLO, 0, session=99)  # once more: the session goes on
    assert device.ask(Command.RUN, 0, bytes(3), session=99).sequence == 0
    hello = read_hello(device.ask(Command.HELLO, 0, session=99).payload)
    assert hello is not None and hello.stored == 1
    assert device.refusal(Command.RUN, 7, bytes(3), session=99).next == 1


def test_a_device_that_started_again_knows_no_session(program: Path) -> None:
    device = Device(program)
    refusal = device.refusal(Command.RUN, 0, bytes(3))
    assert (refusal.reason, refusal.session, refusal.boot_id) == (
        Reason.BAD_SESSION, 0, device.process.pid,
    )  # fmt: skip
    assert device.refusal(Command.RUN, 0, bytes(3), session=0).reason == Reason.BAD_SESSION
    device.close()


@pytest.mark.parametrize(
    "command, payload",
    [
        (Command.RUN, b""),
        (Command.RUN, bytes(4)),
        (Command.DETECT, b""),
        (Command.DETECT, bytes(4)),
        (Command.DETECT, bytes(36)),  # three rows of 21 bytes are no reply of 48
        (Command.RUN_RAW, b""),
        (Command.RUN_RAW, bytes(3)),
        (Command.SAVE, save_request(0, 49)),
        (Command.SAVE, save_request(1 << 31, 1)),
        (Command.SAVE, b""),
        (Command.RESTORE, b"123"),
        (Command.RESTORE, restore_request(1 << 31, b"1")),
        (Command.RESTORE, restore_request(0xFFFFFFFF, b"12")),
        (77, b""),
        (0, b""),
    ],
)
def test_a_request_that_cannot_be_performed_changes_nothing(
    device: Device, command: int, payload: bytes
) -> None:
    refusal = device.refusal(command, 0, payload)
    assert (refusal.reason, refusal.next) == (Reason.BAD_COMMAND, 0)
    assert device.ask(Command.ECHO, 0, b"x").payload == b"x"


def test_a_part_of_the_state_that_ends_behind_it_is_not_restored(device: Device) -> None:
    hello = read_hello(device.ask(Command.HELLO, 0, b"\0").payload)
    assert hello is not None
    refusal = device.refusal(Command.RESTORE, 0, restore_request(hello.state_bytes - 43, bytes(44)))
    assert (refusal.reason, refusal.next) == (Reason.BAD_COMMAND, 0)


def test_no_damaged_frame_is_performed(device: Device) -> None:
    content = encode(Frame(Command.RUN, 1, SESSION, 0, bytes(6)))
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        device.send(bytes(damaged) + b"\0")
        assert next(device.answers()).command == REFUSAL
    answers = device.answers()
    device.send(encode(Frame(Command.STATISTICS, 99, SESSION, 0)))
    last = next(answer for answer in answers if answer.tag == 99)
    assert read_statistics(last.payload).steps == 0


def test_a_frame_that_is_too_long_is_refused(device: Device) -> None:
    assert device.ask(Command.ECHO, 0, bytes(48)).payload == bytes(48)
    assert device.refusal(Command.ECHO, 1, bytes(49)).reason == Reason.BAD_FRAME
    assert device.refusal(Command.ECHO, 1, b"\1" * 70000).reason == Reason.BAD_FRAME


def test_state_is_saved_and_restored_with_its_steps(device: Device, qgraph: QGraph) -> None:
    codes = random_codes(4, 20, 3)
    expected = NumpyExecutor(qgraph).run(codes)
    hello = read_hello(device.ask(Command.HELLO, 0, b"\0").payload)
    assert hello is not None
    device.ask(Command.RUN, 0, codes[:10].tobytes())
    parts = range(0, hello.state_bytes, 40)
    saved = [
        device.ask(Command.SAVE, 1 + index, save_request(at, min(40, hello.state_bytes - at))).payload
        for index, at in enumerate(parts)
    ]
    sequence = 1 + len(saved)
    device.ask(Command.RUN, sequence, codes[3:6].tobytes())
    device.ask(Command.RESET, sequence + 1)
    assert steps(device, sequence + 2) == 0
    for index, at in enumerate(parts):
        device.ask(Command.RESTORE, sequence + 3 + index, restore_request(at, saved[index]))
    sequence += 3 + len(saved)
    assert steps(device, sequence) == 10
    answer = device.ask(Command.RUN, sequence + 1, codes[10:].tobytes())
    assert np.array_equal(np.frombuffer(answer.payload, np.int8).reshape(-1, 3), expected[10:])


def test_the_forecasts_of_the_rows_to_come_are_saved_and_restored(tmp_path: Path) -> None:
    qgraph = random_wide_qgraph(2, "tflm")  # of 16 bits, 3 rows ahead
    raw = random_raw(qgraph, 7, 40, random_present(7, 40, 3))
    expected = NumpyExecutor(qgraph).detect(raw)
    device = Device(build_process(qgraph, tmp_path, SANITIZE))
    hello = read_hello(device.ask(Command.HELLO, 0, b"\0").payload)
    assert hello is not None
    requests = [(Command.DETECT, raw[row].tobytes()) for row in range(30)]
    parts = [(at, min(40, hello.state_bytes - at)) for at in range(0, hello.state_bytes, 40)]
    requests += [(Command.SAVE, save_request(*part)) for part in parts]
    requests += [(Command.DETECT, raw[3].tobytes()), (Command.RESET, b"")]
    replies = [device.ask(command, n, content).payload for n, (command, content) in enumerate(requests)]
    saved = replies[30 : 30 + len(parts)]
    requests = [
        (Command.RESTORE, restore_request(at, part)) for (at, _), part in zip(parts, saved, strict=True)
    ]
    requests += [(Command.DETECT, raw[row].tobytes()) for row in range(30, 40)]
    further = [device.ask(c, len(replies) + n, content).payload for n, (c, content) in enumerate(requests)]
    statistics = device.ask(Command.STATISTICS, len(replies) + len(further)).payload
    device.close()
    assert read_statistics(statistics).saturated == scaling_for(qgraph).saturated(raw) > 0
    scores = [int.from_bytes(reply[:4], "little") for reply in (*replies[:30], *further[-10:])]
    assert scores == expected.score.tolist()
    assert len(set(scores[30:])) > 5


def test_statistics_count_calls_and_frames(device: Device) -> None:
    device.ask(Command.RUN, 0, bytes(9))
    device.send(b"noise\0")
    next(device.answers())
    found = read_statistics(device.ask(Command.STATISTICS, 1, b"\1").payload)
    assert (found.timed, found.steps, found.bad_frames) == (3, 3, 1)
    assert 0 < found.least <= found.mean <= found.most <= found.cycles
    cleared = read_statistics(device.ask(Command.STATISTICS, 2).payload)
    assert (cleared.timed, cleared.steps, cleared.bad_frames, cleared.cycles, cleared.mean) == (0, 3, 0, 0, 0)


def test_raw_rows_are_scaled_and_run_and_a_missing_value_is_the_zero_point(
    device: Device, qgraph: QGraph
) -> None:
    raw = random_raw(qgraph, 6, 40, random_present(6, 40, 3))
    expected = NumpyExecutor(qgraph).run(scaling_for(qgraph).codes(raw))
    found = b"".join(
        device.ask(Command.RUN_RAW, sequence, raw[4 * sequence : 4 * sequence + 4].tobytes()).payload
        for sequence in range(10)
    )
    assert np.array_equal(np.frombuffer(found, np.int8).reshape(-1, 3), expected)


def test_statistics_count_saturated_values_until_the_reset(device: Device, qgraph: QGraph) -> None:
    raw = random_raw(qgraph, 8, 20, random_present(8, 20, 3))
    raw[5, 1] = raw[9, 2] = 2**31 - 1
    for row in range(20):
        device.ask(Command.DETECT, row, raw[row].tobytes())
    saturated = scaling_for(qgraph).saturated(raw)
    assert read_statistics(device.ask(Command.STATISTICS, 20, b"\1").payload).saturated == saturated > 0
    assert read_statistics(device.ask(Command.STATISTICS, 21).payload).saturated == saturated
    device.ask(Command.RESET, 22)
    assert read_statistics(device.ask(Command.STATISTICS, 23).payload).saturated == 0


@pytest.mark.parametrize("kind", ["no resolution", "window"])
def test_a_model_that_scales_no_rows_refuses_them(kind: str, qgraph: QGraph, tmp_path: Path) -> None:
    window = with_random_resolution(bidirectional(), 1)
    plain = replace(qgraph, stream=Stream.unnamed(3)) if kind == "no resolution" else window
    device = Device(build_process(plain, tmp_path, SANITIZE))
    hello = read_hello(device.ask(Command.HELLO, 0, b"\0").payload)
    assert hello is not None and (hello.raw, hello.detector) == (0, 0)
    for command in (Command.DETECT, Command.RUN_RAW):
        assert device.refusal(command, 0, bytes(12)).reason == Reason.BAD_COMMAND
    device.close()


def test_long_payloads_cross_in_blocks(qgraph: QGraph, tmp_path: Path) -> None:
    program = build_process(qgraph, tmp_path, (*SANITIZE, "-DPROTOCOL_PAYLOAD=900", "-DPROTOCOL_SLOTS=1"))
    device = Device(program)
    device.ask(Command.HELLO, 0)
    payloads = [
        bytes([value]) * length
        for length in (0, 243, 244, 245, 254, 255, 500, 508, 509, 900)
        for value in (0, 1, 255)
    ]
    for sequence, payload in enumerate(payloads):
        assert device.ask(Command.ECHO, sequence, payload).payload == payload
    device.close()


FUZZED = [*set(Command) - {Command.HELLO, Command.RESTORE}, 0, 77, 255]


def random_request(rng: random.Random) -> bytes:
    """A sound frame; without RESTORE, which takes what SAVE gave and nothing else."""
    payload = rng.randbytes(rng.randrange(60))
    return encode(Frame(rng.choice(FUZZED), 0, SESSION, rng.randrange(64), payload))


@pytest.mark.parametrize("kind", ["bytes", "zeros", "frames"])
def test_whatever_comes_the_next_good_frame_is_answered(device: Device, kind: str) -> None:
    """The firmware runs under sanitizers, which end it at the first fault."""
    rng = random.Random(kind)
    for number in range(FUZZ_BYTES // FUZZ_CHUNK):
        if kind == "frames":
            content = b"".join(random_request(rng) for _ in range(FUZZ_CHUNK // 40))
        else:
            content = rng.randbytes(FUZZ_CHUNK)
            if kind == "zeros":
                content = bytes(byte if byte > 40 else byte % 4 for byte in content)
        session = number % 0xFFFF + 1
        device.send(content + b"\0" + encode(Frame(Command.HELLO, 9, session, 0, b"\0")))
        answer = next(one for one in device.answers() if one.command == Command.HELLO | REPLY)
        assert (answer.session, read_hello(answer.payload) is not None) == (session, True)
        device.ask(Command.HELLO, 0)


def test_a_model_with_the_name_of_a_file_of_the_firmware_is_refused(qgraph: QGraph, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'protocol' has the name of a file of the firmware; rename"):
        write_firmware(renamed(qgraph, "protocol"), tmp_path)


@pytest.mark.parametrize("kind", ["detector", "int16", "window"])
def test_every_kind_of_model_compiles_without_a_warning(kind: str, qgraph: QGraph, tmp_path: Path) -> None:
    kinds = {
        "detector": lambda: qgraph,
        "int16": lambda: alone(random_lstm(2, bits=16, units=5), "wide", "tflm"),
        "window": bidirectional,
    }
    include = write_firmware(kinds[kind](), tmp_path).include
    files = [include / "protocol.c", include / "firmware.c", HARNESS / "posix_port.c"]
    for compiler in host_compilers():
        for file in files:
            run_compiler(
                compiler, [*WARNINGS, "-c", "-I", str(include), str(file), "-o", str(include / "checked.o")]
            )


CORES = {
    "cortex-m4": ("arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb"),
    "cortex-m0": ("arm-none-eabi-gcc", "-mcpu=cortex-m0", "-mthumb"),
    "atmega2560": ("avr-gcc", "-mmcu=atmega2560"),
}


@pytest.mark.parametrize("core", CORES)
def test_protocol_and_main_loop_are_small_beside_the_model(core: str, qgraph: QGraph, tmp_path: Path) -> None:
    """Flash under 4 kB and RAM under 300 bytes, without a model's; clean under every warning."""
    command = CORES[core]
    if shutil.which(command[0]) is None:
        missing(command[0])
    write_firmware(qgraph, tmp_path)
    flash = ram = 0
    for file in ("protocol", "firmware"):
        output = tmp_path / f"{file}.o"
        arguments = ["-Os", "-ffreestanding", "-I", str(tmp_path), "-c", str(tmp_path / f"{file}.c"), "-o"]
        if core.startswith("cortex"):
            arguments = ["-I", str(HARNESS / "include"), *arguments]
        subprocess.run([*command, *WARNINGS, *arguments, str(output)], check=True)
        tool = command[0].replace("gcc", "size")
        sizes = subprocess.run([tool, str(output)], capture_output=True, text=True, check=True)
        text, data, bss = map(int, sizes.stdout.splitlines()[1].split()[:3])
        flash, ram = flash + text + data, ram + data + bss
        symbols = subprocess.run(
            [command[0].replace("gcc", "nm"), "-S", str(output)], capture_output=True, text=True, check=True
        ).stdout
        ram -= sum(int(line.split()[1], 16) - 4 for line in symbols.splitlines() if line.endswith(" kept"))
    assert flash < 4096
    assert ram < 300
