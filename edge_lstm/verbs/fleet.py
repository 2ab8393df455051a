"""fleet: one int8 detector for each asset of a manifest, trained in batches on Ray."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import edge_lstm
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.errors import ConfigError, raise_all
from edge_lstm.files import make_folder, write_text
from edge_lstm.graph import Graph
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.registry.record import parent_record
from edge_lstm.reporting.fleet import FleetPage, render_fleet
from edge_lstm.training.config import LSTM, TrainConfig
from edge_lstm.training.fit import training_config
from edge_lstm.verbs.fleet_batch import Job
from edge_lstm.verbs.fleet_manifest import Asset, Results, read_manifest
from edge_lstm.verbs.fleet_pool import run_batches, session
from edge_lstm.verbs.streams import StreamOptions, read_graph

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class FleetConfig:
    """How a fleet is worked through.  Also the help of the command line: a sentence a field.

    batch: assets that train side by side in one program.
    workers: processes on this machine; 0: one for each core.
    steps: rows on which each model's C must compute the codes of the reference.
    base_epochs: epochs of an asset, at most, where --base gives the network to start from.
    """

    batch: int = 16
    workers: int = 0
    steps: int = 256
    base_epochs: int = 10

    def __post_init__(self) -> None:
        """Raises ConfigError that lists every option out of its range."""
        low = {"batch": 1, "workers": 0, "steps": 1, "base_epochs": 1}
        problems = [
            f"{name} is {getattr(self, name)}, expected {least} or more"
            for name, least in low.items()
            if getattr(self, name) < least
        ]
        raise_all(ConfigError, "fleet options", problems)


@dataclass(frozen=True)
class Fleet:
    """results: plain values of each asset in the manifest's order; ``error`` is None where all went well.

    done_before: assets whose results were there already.  seconds: of the others, all together.
    """

    manifest: str
    folder: str
    results: tuple[dict[str, Any], ...]
    done_before: int
    seconds: float
    workers: int

    @property
    def failed(self) -> int:
        return sum(result["error"] is not None for result in self.results)

    @property
    def seconds_each(self) -> float | None:
        """Seconds an asset that was worked on; None where there was none."""
        worked = len(self.results) - self.done_before
        return self.seconds / worked if worked else None

    @property
    def page(self) -> str:
        return str(Path(self.folder) / "fleet.html")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "manifest": self.manifest,
            "folder": self.folder,
            "assets": len(self.results),
            "failed": self.failed,
            "done_before": self.done_before,
            "seconds": self.seconds,
            "seconds_each": self.seconds_each,
            "page": self.page,
            "results": list(self.results),
        }


def fleet(
    manifest: Path,
    out: Path,
    config: FleetConfig | None = None,
    train: TrainConfig | None = None,
    quantizer: QuantizeConfig | None = None,
    detector: DetectorConfig | None = None,
    options: StreamOptions | None = None,
    base: Path | None = None,
    address: str | None = None,
    progress: Progress | None = None,
) -> Fleet:
    """Train, quantize, verify and judge a network for each asset of ``manifest``; write them to ``out``.

    base: a .keras file of this toolkit to start each network from; its options hold, ``train`` must be None.
    address: of a Ray cluster that shares these files; None: this machine.
    An asset that fails stops no other.  The same call goes on with what is left.  Raises DataError for a
    manifest that cannot be used.
    """
    config, start = config or FleetConfig(), time.monotonic()
    if address is not None:  # its machines have working folders of their own
        manifest, out = Path(manifest).resolve(), Path(out).resolve()
    assets, job = read_manifest(Path(manifest)), _job(out, config, train, base)
    job = replace(
        job, quantize=quantizer or job.quantize, detector=detector or job.detector,
        options=options or job.options,
    )  # fmt: skip
    job = replace(job, settings=_settings(job))
    store = Results(make_folder(Path(out)) / "fleet.jsonl")
    left = [asset for asset in assets if not store.has(asset, job.settings, job.folder)]
    before, cores = len(assets) - len(left), os.cpu_count() or 1
    workers = config.workers or cores
    show: Progress = progress or (lambda done, total, text: None)
    show(before, len(assets), "start Ray")
    if left:
        with session(workers, address) as ray:
            done, threads = before, max(1, cores // workers)
            for found in run_batches(ray, _batches(left, config.batch), job, threads):
                store.add(found)
                done += len(found)
                show(done, len(assets), "train")
    results = tuple(store.known[asset.name] for asset in assets)
    made = Fleet(str(manifest), str(out), results, before, time.monotonic() - start, workers)
    write_text(Path(made.page), render_fleet(FleetPage(Path(manifest).stem, results, made.seconds_each)))
    return made


def _job(out: Path, config: FleetConfig, train: TrainConfig | None, base: Path | None) -> Job:
    """What is done to each asset; ConfigError for options that do not go together."""
    graph = None if base is None else read_graph(Path(base))
    if graph is not None:
        if train is not None:
            raise ConfigError("--base brings its own options of training; leave out those of train")
        own = training_config(graph, TrainConfig().seed)
        train = replace(own, epochs=config.base_epochs)
    train = train or TrainConfig()
    if train.method != LSTM:
        raise ConfigError(f"method is {train.method}, expected {LSTM}: a fleet is of networks")
    parent = None if base is None else parent_record(base)
    return Job(
        Path(out), "", train, QuantizeConfig(), DetectorConfig(), StreamOptions(), graph, config.steps, parent
    )


def _settings(job: Job) -> str:
    """What every result depends on, as a hash."""
    weights = b"" if job.base is None else _bytes(job.base)
    told = repr((edge_lstm.__version__, job.train, job.quantize, job.detector, job.options, job.steps))
    return hashlib.sha256(told.encode() + weights).hexdigest()


def _bytes(graph: Graph) -> bytes:
    return repr(graph.made).encode() + b"".join(
        getattr(layer, name).tobytes()
        for layer in graph.layers
        for name in ("kernel", "recurrent_kernel", "bias")
        if hasattr(layer, name)
    )


def _batches(assets: Sequence[Asset], size: int) -> Iterator[Sequence[Asset]]:
    return (assets[at : at + size] for at in range(0, len(assets), size))
