"""The networks of a suite: trained side by side in groups of one width, pruned, trained on in integers.

Reads recordings; writes, for each kind of network, one a recording and seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from edge_lstm.arrays import FloatArray
from edge_lstm.datasets.dataset import Dataset
from edge_lstm.datasets.resolution import with_resolution
from edge_lstm.datasets.suite import Recording, load
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.detection.fit import MIN_ROWS
from edge_lstm.errors import DataError
from edge_lstm.graph import Graph
from edge_lstm.qgraph import QGraph
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.training.calibration import quantize_many
from edge_lstm.training.config import FinetuneConfig, PruneConfig, TrainConfig
from edge_lstm.training.finetune import finetune_many
from edge_lstm.training.fit import Task, fit_many, fresh_graph
from edge_lstm.training.prepare import Prepared, prepare
from edge_lstm.training.prune import prune_many
from edge_lstm.verbs.streams import Rows, network_rows

TRAINED_SHARE = 0.8  # of the rows before train_end; the others choose the epoch
GROUP_STEPS = 1 << 20  # of calibration, of all networks of a group: bounds the memory, not the result
INT8, INT16X8 = QuantizeConfig(), QuantizeConfig(scheme="int16x8")
INT4 = QuantizeConfig(profile="native", weights="int4")

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network; qgraph: None where it is judged in float."""

    graph: Graph
    qgraph: QGraph | None


@dataclass(frozen=True)
class Kind:
    """quantizer: None for float.  change: how its weights are made, by "train" or from the trained ones by
    "finetune" or "prune"; "" keeps those."""

    quantizer: QuantizeConfig | None
    change: str = ""


NETWORKS = {
    "LSTM float": Kind(None, "train"),
    "LSTM int8": Kind(INT8),
    "LSTM int8 QAT": Kind(INT8, "finetune"),
    "LSTM int16x8": Kind(INT16X8),
    "LSTM int4": Kind(INT4),
    "LSTM int4 QAT": Kind(INT4, "finetune"),
    "LSTM int8, half the units": Kind(INT8, "prune"),
}


@dataclass(frozen=True)
class SuiteConfig:
    """One setting for all recordings.  seeds: of the networks.  limit: recordings a data set, 0 for all."""

    seeds: tuple[int, ...] = (0, 1, 2)
    train: TrainConfig = field(default_factory=TrainConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    prune: PruneConfig = field(default_factory=PruneConfig)
    limit: int = 0


@dataclass(frozen=True, eq=False)
class Item:
    """A recording that is loaded: its rows in network units and what its networks learn."""

    recording: Recording
    rows: Rows
    prepared: Prepared

    @property
    def calibration(self) -> FloatArray:
        return self.rows.x[self.rows.learn & self.rows.present.any(axis=1)]

    @property
    def width(self) -> int:
        return len(self.rows.dataset.names)

    @property
    def cells(self) -> int:
        """Rows times channels."""
        return int(self.rows.x.size)


def item_of(recording: Recording, config: SuiteConfig) -> Item:
    """Load a recording and prepare what its networks learn; raises DataError where it cannot be used."""
    dataset, train = split(recording, config)
    prepared = prepare(dataset, train)
    item = Item(recording, network_rows(dataset, prepared.stream, train), prepared)
    found, needed = len(item.calibration), MIN_ROWS + max(config.detector.warmup, prepared.predictor.lags)
    if found < needed:
        raise DataError(
            f"{found} normal rows before train_end, expected {needed} or more, of which a detector learns"
        )
    return item


def split(recording: Recording, config: SuiteConfig) -> tuple[Dataset, TrainConfig]:
    """A recording; its rows before ``train_end`` are cut into training and validation."""
    loaded = load(recording)
    share = int(loaded.train.sum()) / loaded.dataset.rows
    train = replace(
        config.train, train_fraction=TRAINED_SHARE * share, validation_fraction=(1 - TRAINED_SHARE) * share
    )
    return loaded.dataset, train


def groups(items: Sequence[Item], seeds: int) -> list[list[Item]]:
    """Recordings of one width, which train side by side; those of similar length where they are many."""
    found: dict[tuple[int, int], list[list[Item]]] = {}
    for item in sorted(items, key=lambda item: len(item.calibration)):
        parts = found.setdefault((item.width, item.prepared.train.timesteps), [[]])
        if (len(parts[-1]) + 1) * seeds * len(item.calibration) > GROUP_STEPS and parts[-1]:
            parts.append([])
        parts[-1].append(item)
    return [part for parts in found.values() for part in parts]


def networks(
    group: Sequence[Item], config: SuiteConfig, progress: Progress | None = None
) -> Iterator[tuple[str, list[list[Network]]]]:
    """Each kind of network with, for each recording, one a seed."""
    tasks = [
        Task(
            _fresh(replace(config.train, seed=seed), item),
            item.prepared.train, item.prepared.validation, seed,
        )
        for item in group
        for seed in config.seeds
    ]  # fmt: skip
    calibrations = [item.calibration for item in group for _ in config.seeds]
    graphs = [result.graph for result in fit_many(tasks, config.train, progress)]
    trained = [replace(task, graph=graph) for task, graph in zip(tasks, graphs, strict=True)]
    for method, kind in NETWORKS.items():
        graphs = _changed(kind, trained, calibrations, config, progress)
        qgraphs: Sequence[QGraph | None] = [None] * len(graphs)
        if kind.quantizer is not None:
            qgraphs = quantize_many(graphs, calibrations, kind.quantizer)
        found, seeds = [*map(Network, graphs, qgraphs)], len(config.seeds)
        yield method, [found[at : at + seeds] for at in range(0, len(found), seeds)]


def _changed(
    kind: Kind,
    trained: Sequence[Task],
    calibrations: Sequence[FloatArray],
    config: SuiteConfig,
    progress: Progress | None,
) -> list[Graph]:
    """The trained networks, or what pruning or training in integers makes of them."""
    if kind.change == "finetune":
        assert kind.quantizer is not None
        tuned = finetune_many(trained, calibrations, kind.quantizer, config.finetune, config.train, progress)
        return [result.graph for result in tuned]
    if kind.change == "prune":
        return [result.graph for result in prune_many(trained, config.prune, config.train, progress)]
    return [task.graph for task in trained]


def _fresh(config: TrainConfig, item: Item) -> Graph:
    """An untrained network; its channels state the resolution that the recording has before the test."""
    prepared, rows = item.prepared, item.rows
    stream = with_resolution(prepared.stream, rows.dataset.values[~rows.test])
    return fresh_graph(config, stream, item.width, f"seed{config.seed}", prepared.predictor)
