"""A line that damages, cuts and swaps: every code is right, every step is made once, all is reported once.

LINK_STEPS sets the steps of the long run; the full one: LINK_STEPS=100000 pytest -s tests/test_link_faults.py
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.errors import Disagreement, RuntimeFailure
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.executors.streams import mixed_stream
from edge_lstm.qgraph import QGraph
from faulty_line import FaultyLine
from firmware_process import process_of
from firmware_tools.host import HostExecutor
from firmware_tools.link import LinkOptions
from firmware_tools.posix import build_process
from firmware_tools.serial_executor import SerialExecutor
from random_models import random_codes, random_present, random_qgraph, random_raw

STEPS = int(os.environ.get("LINK_STEPS", "6000"))
ACTIONS = ("cut", "half", "reboot", "unplug", "swap")
EVENTS = {
    "cut": "silent",
    "reboot": "reboot",
    "unplug": "port",
    "swap": "model",
}  # a half frame is sent again
OPTIONS = LinkOptions(timeout_s=0.02, silence_s=0.3, patience_s=20.0, snapshot_steps=512)
OFTEN = replace(OPTIONS, snapshot_steps=100)  # where the device starts again often


@pytest.fixture(scope="module")
def qgraph() -> QGraph:
    return random_qgraph(1, layers=2, units=6, features=5, detector=True)


@pytest.fixture(scope="module")
def program(qgraph: QGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return process_of(qgraph, tmp_path_factory.mktemp("firmware"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The firmware of a model with the same shape."""
    return build_process(random_qgraph(2, layers=2, units=6, features=5), tmp_path_factory.mktemp("other"))


def reported(executor: SerialExecutor) -> Counter[str]:
    return Counter(event.kind for event in executor.events)


def interruptions(line: FaultyLine) -> Counter[str]:
    return Counter({EVENTS[action]: line.done[action] for action in EVENTS if line.done[action]})


def test_no_code_is_wrong_and_no_step_lost_or_done_twice(
    qgraph: QGraph, program: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = mixed_stream(qgraph.features, STEPS, 1)
    expected = HostExecutor(qgraph).run(codes)
    every = 5000 if STEPS <= 10_000 else 15_000
    with (
        FaultyLine(program, rate=1e-3, every=every, actions=ACTIONS, other=other, cut_s=0.4, seed=1) as line,
        SerialExecutor(qgraph, line.url, options=OPTIONS) as executor,
    ):
        outputs = executor.run(codes)
        line.calm()
        executor.echo(b"")  # what happened after the last step is noticed by this
        assert np.array_equal(outputs, expected)
        assert executor.statistics().steps == STEPS
        assert reported(executor) == interruptions(line)
        assert min(line.done[fault] for fault in (*ACTIONS, "flip", "drop", "insert", "duplicate")) >= 2
        assert executor.link.counts.repeated > 0
        with capsys.disabled():
            print(f"\n{STEPS} steps; faults {dict(line.done)}; events {dict(reported(executor))}; "
                  f"{executor.link.counts}")  # fmt: skip


def test_scores_and_alarms_outlive_faults(qgraph: QGraph, program: Path) -> None:
    present = random_present(2, 1200, 5)
    present[300:600] = True
    raw = random_raw(qgraph, 2, 1200, present)
    with NumpyExecutor(qgraph) as reference:
        expected = reference.detect(raw)
    with (
        FaultyLine(program, rate=1e-3, every=6000, actions=("reboot",), seed=2) as line,
        SerialExecutor(qgraph, line.url, options=OFTEN) as executor,
    ):
        found = executor.detect(raw)
        line.calm()
        executor.echo(b"")
        for attribute in ("score", "alarm", "threshold", "contributions"):
            assert np.array_equal(getattr(found, attribute), getattr(expected, attribute)), attribute
        assert reported(executor) == interruptions(line)
        assert line.done["reboot"] >= 2


def test_the_state_goes_on_from_call_to_call_through_reboots(qgraph: QGraph, program: Path) -> None:
    codes = random_codes(3, 2000, 5)
    expected = NumpyExecutor(qgraph).run(codes)
    with (
        FaultyLine(program, every=2000, actions=("reboot",)) as line,
        SerialExecutor(qgraph, line.url, options=OFTEN) as executor,
    ):
        outputs = [executor.run(codes[at : at + 25]) for at in range(0, 2000, 25)]
        assert np.array_equal(np.concatenate(outputs), expected)
        assert line.done["reboot"] >= 5
        executor.reset()
        assert np.array_equal(executor.run(codes[:25]), expected[:25])


def test_a_board_that_starts_again_and_again_is_given_up(qgraph: QGraph, program: Path) -> None:
    with FaultyLine(program) as line, SerialExecutor(qgraph, line.url, options=OPTIONS) as executor:
        executor.run(random_codes(1, 200, 5))
        line.every, line.actions = 400, ["reboot"]
        with pytest.raises(RuntimeFailure, match="starts again and again; look at its power supply"):
            executor.run(random_codes(1, 200, 5))


def test_another_model_that_stays_is_an_error_with_both_hashes(
    qgraph: QGraph, program: Path, other: Path
) -> None:
    options = LinkOptions(timeout_s=0.02, patience_s=0.5)
    with (
        FaultyLine(program, every=500, actions=("swap",), other=other, cut_s=60) as line,
        SerialExecutor(qgraph, line.url, options=options) as executor,
    ):
        with pytest.raises(
            RuntimeFailure, match=r"'random_2' of hash (\w{16}), expected 'random_1' of hash \w{16}"
        ):
            executor.run(random_codes(1, 400, 5))
        assert reported(executor) == {"model": 1}


def test_codes_that_differ_when_steps_are_repeated_are_an_error(qgraph: QGraph, program: Path) -> None:
    with FaultyLine(program) as line, SerialExecutor(qgraph, line.url, options=OPTIONS) as executor:
        executor.run(random_codes(1, 40, 5))
        request, reply = executor._journal[2]
        executor._journal[2] = (request, bytes(byte ^ 1 for byte in reply))
        line.once("reboot")
        with pytest.raises(Disagreement, match="steps that were repeated after .* gave other codes"):
            executor.echo(b"")
