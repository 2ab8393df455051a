"""Recordings as networks meet them: read, scaled, held where missing, cut at gaps.

Reads CSVs and models; used by every verb that takes ``--data``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edge_lstm.arrays import FloatArray, hold_since_gap
from edge_lstm.datasets.clock import is_clock, with_clock
from edge_lstm.datasets.csv_file import read_csv
from edge_lstm.datasets.dataset import BoolArray, Dataset
from edge_lstm.datasets.policies import Policy
from edge_lstm.datasets.resolution import with_resolution
from edge_lstm.detection import fixed, floating
from edge_lstm.errors import ModelError
from edge_lstm.executors.protocol import Executor, hold
from edge_lstm.fixedpoint import IntArray
from edge_lstm.graph import Graph, Stream
from edge_lstm.importers.any_model import read_float
from edge_lstm.qgraph import CodeArray, QGraph
from edge_lstm.reference import floating as real_network
from edge_lstm.scaling import QScaling, counts_of, scaling_of
from edge_lstm.training.config import TrainConfig

D = TypeVar("D", fixed.Detection, floating.FloatDetection)

RECOVERY_ROWS = 32  # after a labelled fault: the sensors jump back and the network's state recovers


@dataclass(frozen=True)
class StreamOptions:
    """Which columns of a CSV are what (None: found by itself), and what is done about its defects."""

    time: str | None = None
    channels: tuple[str, ...] | None = None
    label: str | None = None
    policy: Policy = field(default_factory=Policy)

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "channels": None if self.channels is None else list(self.channels)}


def read_stream(path: Path, options: StreamOptions, stream: Stream | None = None) -> Dataset:
    """Read a CSV; with the ``stream`` of a model its channels are taken by name, constant or not.

    The time of day is made from the stamps where the model has it as a channel.  A model that someone else
    made names no channels: it gets the CSV's, in their order.
    """
    if stream is None:
        return read_csv(
            path, time=options.time, channels=options.channels, label=options.label, policy=options.policy
        )
    expected = len(stream.channels)
    sensors = tuple(channel.name for channel in stream.channels if not is_clock(channel))
    channels = options.channels or (sensors if is_described(stream) else None)
    policy = replace(options.policy, constant="keep")
    dataset = read_csv(path, time=options.time, channels=channels, label=options.label, policy=policy)
    dataset = with_clock(dataset) if len(sensors) < expected else dataset
    if dataset.channels != expected:
        raise ModelError(
            f"the model has {expected} channels ({', '.join(stream.names)}), {path} gives {dataset.channels} "
            f"({', '.join(dataset.names)}); name one column for each with --channels, in that order"
        )
    return dataset


def is_described(stream: Stream) -> bool:
    """Whether a model's file names its channels."""
    return stream.names != Stream.unnamed(len(stream.channels)).names


def adopt(stream: Stream, dataset: Dataset) -> Stream:
    """The stream of a model; one that names no channels gets the recording's names and units."""
    if is_described(stream):
        return stream
    channels = tuple(
        replace(channel, name=name, unit=unit)
        for channel, name, unit in zip(stream.channels, dataset.names, dataset.units, strict=True)
    )
    return Stream(channels, dataset.period_s)


def read_graph(path: Path) -> Graph:
    """A float model of any kind that is read here."""
    return read_float(Path(path))


def train_config(made: Mapping[str, Any]) -> TrainConfig:
    """The options a model was trained with; the defaults for a model that someone else made."""
    return TrainConfig.from_mapping(made.get("train", {}))


@dataclass(frozen=True, eq=False)
class Rows:
    """A recording in network units.

    x: (steps, channels), missing values held (0 before the first after a gap).  present: same shape, bool.
    learn: bool (steps,), normal rows before the test part, not right after a fault or a gap.
    test: bool (steps,).  scored: bool (channels,), those that are no context.
    """

    dataset: Dataset
    x: FloatArray
    present: BoolArray
    learn: BoolArray
    test: BoolArray
    scored: BoolArray

    @property
    def gap(self) -> BoolArray:
        return self.dataset.gap

    def first(self, count: int) -> Rows:
        """The first ``count`` rows."""
        parts = self.x[:count], self.present[:count], self.learn[:count], self.test[:count]
        return Rows(self.dataset.slice(0, count), *parts, self.scored)

    @property
    def segments(self) -> list[slice]:
        """Parts between gaps; a device is reset at the start of each."""
        edges = [0, *np.flatnonzero(self.gap).tolist(), len(self.x)]
        return [slice(a, b) for a, b in pairwise(edges)]


def network_rows(dataset: Dataset, stream: Stream, config: TrainConfig) -> Rows:
    """Scale a recording for a network and mark the rows that may be learnt from."""
    scaled = np.nan_to_num(stream.to_network(dataset.values))
    row = np.arange(dataset.rows)[:, None]
    x = hold_since_gap(scaled, dataset.present, dataset.gap)
    test = row[:, 0] >= round(dataset.rows * (config.train_fraction + config.validation_fraction))
    fault = np.maximum.accumulate(np.where(dataset.normal, -RECOVERY_ROWS - 1, row[:, 0]))
    recovering = row[:, 0] - fault <= RECOVERY_ROWS
    learn = dataset.normal & ~recovering & ~dataset.gap & ~test
    return Rows(dataset, x, dataset.present, learn, test, stream.scored)


def float_forecasts(graph: Graph, rows: Rows) -> FloatArray:
    """Outputs (steps, channels) of the float network after each row, reset at gaps; rows without data: 0."""
    outputs = np.zeros_like(rows.x)
    for part in rows.segments:
        taken = np.flatnonzero(rows.present[part].any(axis=1)) + part.start
        outputs[taken] = real_network.run(graph, rows.x[taken][None])[0][0]
    return outputs


def scaling_for(qgraph: QGraph, rows: Rows) -> QScaling:
    """How raw integers become codes; a channel that states no resolution has that of the recording."""
    scaling = scaling_of(with_resolution(qgraph.stream, rows.dataset.values), qgraph.input)
    assert scaling is not None
    return scaling


def fine_of(scaling: QScaling, rows: Rows) -> IntArray:
    """The recording as fine codes (steps, channels), scaled as on the device, missing values held."""
    fine = scaling.fine(counts_of(Stream(scaling.channels), rows.dataset.values))
    start = np.full(fine.shape[1], scaling.start)
    return np.concatenate([hold(fine[part], rows.present[part], start) for part in rows.segments])


def codes_of(qgraph: QGraph, rows: Rows) -> CodeArray:
    """The recording as the network's input codes, scaled as on the device, missing values held."""
    scaling = scaling_for(qgraph, rows)
    return scaling.narrow(fine_of(scaling, rows))


def int8_forecasts(executor: Executor, codes: CodeArray, rows: Rows) -> CodeArray:
    """Output codes (steps, channels) after each row, reset at gaps; rows without data: the zero point."""
    output = executor.qgraph.output
    outputs: CodeArray = np.full(codes.shape, output.zero_point, dtype=output.dtype)
    parts = [np.flatnonzero(rows.present[part].any(axis=1)) + part.start for part in rows.segments]
    taken = [part for part in parts if len(part)]
    for part, found in zip(taken, executor.run_streams([codes[part] for part in taken]), strict=True):
        outputs[part] = found
    return outputs


def join(parts: Sequence[D]) -> D:
    """Detections of consecutive parts of a stream as one."""
    kind = type(parts[0])
    return kind(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(kind)))
