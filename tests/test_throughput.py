"""Timing a step on this machine: what is timed, and that the figures fit one another; no figure is judged."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest

from conftest import missing
from edge_lstm.errors import ConfigError
from edge_lstm.qgraph import QGraph
from firmware_tools.throughput import Throughput, throughput
from random_lstms import alone, random_lstm
from random_models import random_qgraph

SMALL = {"streams": 20, "steps": 3, "repetitions": 2}
PLAIN = random_qgraph(3, layers=1, units=4, features=3)


def test_a_plain_network_is_timed_in_all_three_ways() -> None:
    if find_spec("ai_edge_litert") is None:
        missing("ai_edge_litert")
    found = throughput(PLAIN, **SMALL)
    assert found.litert is not None and found.batch is not None
    assert min(found.litert, found.host, found.batch) > 0
    assert (found.host_ratio, found.batch_ratio) == (found.litert / found.host, found.litert / found.batch)
    assert [name for name, *_ in found.rows()] == ["litert", "host, one stream", "host, 20 streams"]
    assert all(microseconds > 0 for _, microseconds, _ in found.rows())
    assert found.rows()[0][2] == 1


def test_what_cannot_run_is_left_out() -> None:
    found = throughput(alone(random_lstm(2, bits=16, units=5), "wide", "tflm"), **SMALL)
    assert found.batch is None and found.batch_ratio is None and found.host > 0
    without = Throughput("m", 2, None, 2e-6, 1e-6)
    assert without.rows() == [("host, one stream", 2.0, None), ("host, 2 streams", 1.0, None)]


@pytest.mark.parametrize(
    ("qgraph", "options", "message"),
    [
        (
            replace(PLAIN, timesteps=4, window=4),
            {},
            "takes windows; only steps of streaming models are timed",
        ),
        (PLAIN, {"streams": 0}, "streams is 0, expected 1 or more"),
        (PLAIN, {"steps": 0}, "steps is 0, expected 1 or more"),
        (PLAIN, {"repetitions": -1}, "repetitions is -1, expected 1 or more"),
    ],
)
def test_what_cannot_be_timed_is_refused(qgraph: QGraph, options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        throughput(qgraph, **options)
