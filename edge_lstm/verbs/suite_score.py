"""Scoring of a suite's recordings, one job a recording and method, in processes of their own.

Reads recordings and networks; writes the figures of their test rows.  Integer networks run as their own C.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from edge_lstm.datasets.dataset import Dataset
from edge_lstm.datasets.suite import Recording, faulty_channels
from edge_lstm.errors import EdgeLstmError, MissingTool
from edge_lstm.evaluation.metrics_channels import hit_rates
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.executors.protocol import Executor
from edge_lstm.graph import Stream
from edge_lstm.training.config import TrainConfig
from edge_lstm.verbs.detectors import with_detector
from edge_lstm.verbs.evaluate import Method, baseline_methods, float_method, int8_method, linear_method
from edge_lstm.verbs.streams import Rows, network_rows
from edge_lstm.verbs.suite_networks import Network, SuiteConfig, item_of, split
from firmware_tools.host import HostExecutor, load_library, native_compiler

LINEAR = "linear"  # the detector without its network


@dataclass
class Scored:
    """figures: of each (method, seed).  notes: what was left out, and why.  seconds: that it took."""

    recording: Recording
    figures: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def leave_out(self, what: str, why: object) -> None:
        self.notes.append(f"{self.recording.dataset} {self.recording.series}: {what} is left out: {why}")


def score_simple(recording: Recording, config: SuiteConfig) -> Scored:
    """The simple methods; one that cannot learn from the recording has no figures."""
    start, found, notes = time.monotonic(), Scored(recording), list[str]()
    item = item_of(recording, config)
    methods = baseline_methods(item.rows, config.detector, notes)
    try:
        methods[LINEAR] = linear_method(item.prepared.predictor, item.rows, config.detector)
    except EdgeLstmError as error:
        found.leave_out(LINEAR, error)
    for name, method in methods.items():
        found.figures[_short(name), 0] = figures_of(method, item.rows, recording)
    found.notes += [f"{recording.dataset} {recording.series}: {note}" for note in notes]
    found.seconds = time.monotonic() - start
    return found


@dataclass(frozen=True, eq=False)
class Job:
    """The networks of one kind, ``method``, on one recording, one a seed."""

    recording: Recording
    config: SuiteConfig
    method: str
    networks: Sequence[Network]


def score_networks(job: Job) -> Scored:
    """The figures of each seed; a network that has no detector has none."""
    start, found = time.monotonic(), Scored(job.recording)
    rows = _rows(job.recording, job.config, job.networks[0].graph.stream)
    with ExitStack() as stack:
        executors = _executors(job.networks, stack)
        for seed, network, executor in zip(job.config.seeds, job.networks, executors, strict=True):
            _judge(job, seed, network, executor, rows, found)
    found.seconds = time.monotonic() - start
    return found


def _judge(
    job: Job, seed: int, network: Network, executor: Executor | None, rows: Rows, found: Scored
) -> None:
    try:
        if network.qgraph is None:
            judged = float_method(network.graph, rows, job.config.detector)
        else:
            detecting = with_detector(network.qgraph, network.graph, rows, job.config.detector, executor)
            judged = int8_method(detecting, rows, executor)
    except EdgeLstmError as error:
        found.leave_out(f"{job.method} (seed {seed})", error)
    else:
        found.figures[job.method, seed] = figures_of(judged, rows, job.recording)


def _executors(networks: Sequence[Network], stack: ExitStack) -> list[Executor | None]:
    """One for each integer network: its C where there is a compiler, else NumPy, which takes longer."""
    qgraphs = [network.qgraph for network in networks if network.qgraph is not None]
    if not qgraphs:
        return [None] * len(networks)
    try:
        library = load_library(qgraphs, compiler=native_compiler())
    except MissingTool:
        return [NumpyExecutor(qgraph) for qgraph in qgraphs]
    return [stack.enter_context(HostExecutor(qgraph, library=library)) for qgraph in qgraphs]


def _rows(recording: Recording, config: SuiteConfig, stream: Stream) -> Rows:
    dataset, train = _loaded(recording, config)
    return network_rows(dataset, stream, train)


@lru_cache(maxsize=4)
def _loaded(recording: Recording, config: SuiteConfig) -> tuple[Dataset, TrainConfig]:
    return split(recording, config)


def figures_of(method: Method, rows: Rows, recording: Recording) -> dict[str, Any]:
    """All that is judged of one method on the test rows of a recording."""
    assert method.alarms is not None
    figures = method.alarms.to_dict()
    events = faulty_channels(recording, rows.x.shape[1])
    if events and method.detection.contributions.shape == rows.x.shape:
        rates = hit_rates(method.detection.contributions[rows.test], events)
        figures |= {"hit_rate_100": rates.at_100, "hit_rate_150": rates.at_150}
    return figures


def _short(name: str) -> str:
    """The method without what it chose for one recording: "AR(16)" and "VAR(5)" are one method."""
    return "AR or VAR" if "AR(" in name else name.split(" (")[0]
