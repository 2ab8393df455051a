"""evaluate --suite: the detector in all its forms, and every simple method, on a folder of recordings.

Protocol: one setting for all, no test labels, several seeds.  Networks of one width train side by side.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import edge_lstm
from edge_lstm.datasets.dataset import Dataset
from edge_lstm.datasets.suite import Recording, faulty_channels, load, read_suite
from edge_lstm.detection.fit import DetectorConfig
from edge_lstm.errors import EdgeLstmError
from edge_lstm.evaluation.metrics_channels import hit_rates
from edge_lstm.evaluation.metrics_summary import Result, Summary, summarize
from edge_lstm.graph import Graph
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.training.config import FinetuneConfig, PruneConfig, TrainConfig
from edge_lstm.training.finetune import finetune_many
from edge_lstm.training.fit import Task, fit_many, fresh_graph
from edge_lstm.training.prepare import Prepared, prepare
from edge_lstm.training.prune import prune_many
from edge_lstm.verbs.evaluate import Method, baseline_methods, float_method, int8_method, linear_method
from edge_lstm.verbs.quantize import quantize_rows
from edge_lstm.verbs.streams import Rows, network_rows

TRAINED_SHARE = 0.8  # of the rows before train_end; the others choose the epoch
INT8, INT4 = QuantizeConfig(), QuantizeConfig(profile="native", weights="int4")
INT8_LSTM = "LSTM int8"
NETWORKS = {
    "LSTM float": None, "LSTM int8": INT8, "LSTM int8 QAT": INT8, "LSTM int4": INT4, "LSTM int4 QAT": INT4,
    "LSTM int8, half the units": INT8,
}  # fmt: skip


@dataclass(frozen=True)
class SuiteConfig:
    """One setting for all recordings.  seeds: of the networks.  limit: recordings a data set, 0 for all."""

    seeds: tuple[int, ...] = (0, 1, 2)
    train: TrainConfig = field(default_factory=TrainConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    prune: PruneConfig = field(default_factory=PruneConfig)
    limit: int = 0


@dataclass(frozen=True)
class SuiteEvaluation:
    """summaries: by method, see ``metrics_summary``.  results: the figures that they come from, by method."""

    summaries: dict[str, Summary]
    results: dict[str, list[Result]]
    notes: tuple[str, ...]
    seconds: float

    @property
    def verdict(self) -> str:
        """Whether the int8 LSTM leads every simple method in the means, and which one is best."""
        lstm = self.summaries[INT8_LSTM].mean
        sentences = []
        for figure, title in (("vus_pr", "VUS-PR"), ("event_f1", "event F1")):
            simple = {n: s.mean[figure] or 0.0 for n, s in self.summaries.items() if n not in NETWORKS}
            best = max(simple, key=simple.__getitem__)
            leads = (lstm[figure] or 0.0) > simple[best]
            place = "above" if leads else "not above"
            sentences.append(f"{title} {lstm[figure] or 0.0:.3f} is {place} {best}'s {simple[best]:.3f}")
        return f"{INT8_LSTM}: {'; '.join(sentences)}."

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "methods": {name: asdict(summary) for name, summary in self.summaries.items()},
            "series": {name: [asdict(result) for result in found] for name, found in self.results.items()},
            "verdict": self.verdict,
            "notes": list(self.notes),
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True, eq=False)
class Item:
    """A recording that is loaded: its rows in network units and what its networks learn."""

    recording: Recording
    rows: Rows
    prepared: Prepared

    @property
    def calibration(self) -> Any:
        return self.rows.x[self.rows.learn & self.rows.present.any(axis=1)]


class Store:
    """Results in a file of JSON lines, so that a suite that was interrupted goes on."""

    def __init__(self, path: Path | None, key: str) -> None:
        self.path, self.key = path, key
        self.known: dict[tuple[str, str, str, int], dict[str, Any]] = {}
        if path is not None and path.exists():
            text = path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]
            if whole != text:  # torn while it was written
                path.write_text(whole, encoding="utf-8")
            for entry in map(json.loads, whole.splitlines()):
                if entry["key"] == key:
                    where = (entry["dataset"], entry["series"], entry["method"], entry["seed"])
                    self.known[where] = entry["figures"]

    def add(self, recording: Recording, method: str, seed: int, figures: dict[str, Any]) -> None:
        """Keep and write one result."""
        self.known[recording.dataset, recording.series, method, seed] = figures
        if self.path is not None:
            entry = {
                "key": self.key, "dataset": recording.dataset, "series": recording.series,
                "method": method, "seed": seed, "figures": figures,
            }  # fmt: skip
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def has(self, recording: Recording, methods: Sequence[str], seeds: Sequence[int]) -> bool:
        """Whether nothing is left to do for a recording."""
        place = recording.dataset, recording.series
        return all((*place, method, seed) in self.known for method in methods for seed in seeds)


def figures_of(method: Method, rows: Rows, recording: Recording) -> dict[str, Any]:
    """All that is judged of one method on the test rows of a recording."""
    assert method.alarms is not None
    figures = method.alarms.to_dict()
    events = faulty_channels(recording, rows.x.shape[1])
    if events and method.detection.contributions.shape == rows.x.shape:
        rates = hit_rates(method.detection.contributions[rows.test], events)
        figures |= {"hit_rate_100": rates.at_100, "hit_rate_150": rates.at_150}
    return figures


def evaluate_suite(
    folder: Path,
    config: SuiteConfig | None = None,
    store: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> SuiteEvaluation:
    """Every network and every simple method on the recordings of ``folder`` (see ``datasets.suite``).

    store: a file of results that is read first and written on, so that an interrupted run continues.
    progress: called with (recordings and networks done, all, what is at work and what time is left).
    """
    config, start = config or SuiteConfig(), time.monotonic()
    suite = read_suite(folder)
    key = hashlib.sha256(repr((edge_lstm.__version__, config)).encode()).hexdigest()[:16]
    results, clock = Store(store, key), _Clock(progress, start)
    recordings = _limited(suite.recordings, config.limit)
    notes = list(suite.notes)
    todo = [r for r in recordings if not results.has(r, list(NETWORKS), config.seeds)]
    plain = [r for r in recordings if not results.has(r, ["linear"], (0,))]
    clock.total = len(recordings) * (1 + len(NETWORKS))
    clock.step(clock.total - len(plain) - len(todo) * len(NETWORKS), "reading")
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for recording, found, problem in pool.map(partial(_baselines, config), plain):
            notes += [problem] if problem else []
            for method, figures in found.items():
                results.add(recording, method, 0, figures)
            clock.step(1, f"simple methods: {recording.dataset} {recording.series}")
        for group in _groups(todo, config):
            for method, graphs in _networks(group, config):
                jobs = [(config, method, item.recording, g) for item, g in zip(group, graphs, strict=True)]
                for recording, figures_by_seed in pool.map(_score, jobs):
                    for seed, figures in zip(config.seeds, figures_by_seed, strict=True):
                        results.add(recording, method, seed, figures)
                    clock.step(1, f"{method}: {recording.dataset} {recording.series}")
    by_method: dict[str, list[Result]] = {}
    for (dataset, series, method, seed), figures in results.known.items():
        by_method.setdefault(method, []).append(Result(dataset, series, seed, figures))
    summaries = {method: summarize(found) for method, found in by_method.items()}
    return SuiteEvaluation(summaries, by_method, tuple(notes), time.monotonic() - start)


class _Clock:
    """Counts what is done and says what time is left, as far as the work so far tells."""

    def __init__(self, progress: Callable[[int, int, str], None] | None, start: float) -> None:
        self.total = self.done = self.before = 0
        self._progress, self._start = progress, start

    def step(self, count: int, what: str) -> None:
        self.done += count
        if what == "reading":
            self.before = self.done
        if self._progress is not None:
            took = time.monotonic() - self._start
            worked = self.done - self.before
            left = (
                f", about {took / worked * (self.total - self.done) / 60:.0f} minutes left" if worked else ""
            )
            self._progress(self.done, self.total, what + left)


def _limited(recordings: Sequence[Recording], limit: int) -> list[Recording]:
    kept: dict[str, list[Recording]] = {}
    for recording in recordings:
        kept.setdefault(recording.dataset, []).append(recording)
    return [r for found in kept.values() for r in (found[:limit] if limit else found)]


def item_of(recording: Recording, config: SuiteConfig) -> Item:
    """Load a recording and prepare what its networks learn."""
    dataset, train = _split(recording, config)
    prepared = prepare(dataset, train)
    return Item(recording, network_rows(dataset, prepared.stream, train), prepared)


def _split(recording: Recording, config: SuiteConfig) -> tuple[Dataset, TrainConfig]:
    """A recording; its rows before ``train_end`` are cut into training and validation."""
    loaded = load(recording)
    share = int(loaded.train.sum()) / loaded.dataset.rows
    train = replace(
        config.train, train_fraction=TRAINED_SHARE * share, validation_fraction=(1 - TRAINED_SHARE) * share
    )
    return loaded.dataset, train


def _groups(recordings: Sequence[Recording], config: SuiteConfig) -> Iterator[list[Item]]:
    """Recordings of one width, which train side by side."""
    items: dict[tuple[int, int], list[Item]] = {}
    for recording in recordings:
        try:
            item = item_of(recording, config)
        except EdgeLstmError:
            continue  # told with the simple methods
        items.setdefault((item.rows.x.shape[1], item.prepared.train.timesteps), []).append(item)
    yield from items.values()


def _networks(group: list[Item], config: SuiteConfig) -> Iterator[tuple[str, list[list[Graph]]]]:
    """Each kind of network with, for each recording, one float Graph a seed."""
    tasks = [
        Task(
            _fresh(replace(config.train, seed=seed), item),
            item.prepared.train, item.prepared.validation, seed,
        )
        for item in group
        for seed in config.seeds
    ]  # fmt: skip
    calibrations = [item.calibration for item in group for _ in config.seeds]
    graphs = [result.graph for result in fit_many(tasks, config.train)]
    trained = [replace(task, graph=graph) for task, graph in zip(tasks, graphs, strict=True)]
    for method, quantizer in NETWORKS.items():
        if method.endswith("QAT"):
            assert quantizer is not None
            found = finetune_many(trained, calibrations, quantizer, config.finetune, config.train)
            graphs = [result.graph for result in found]
        elif "half" in method:
            graphs = [result.graph for result in prune_many(trained, config.prune, config.train)]
        else:
            graphs = [task.graph for task in trained]
        seeds = len(config.seeds)
        yield method, [graphs[at : at + seeds] for at in range(0, len(graphs), seeds)]


def _fresh(config: TrainConfig, item: Item) -> Graph:
    prepared = item.prepared
    return fresh_graph(config, prepared.stream, item.rows.x.shape[1], "suite", prepared.predictor)


def _score(job: tuple[SuiteConfig, str, Recording, list[Graph]]) -> tuple[Recording, list[dict[str, Any]]]:
    """The figures of one recording's networks, one a seed."""
    config, method, recording, graphs = job
    dataset, train = _split(recording, config)
    rows = network_rows(dataset, graphs[0].stream, train)
    quantizer, found = NETWORKS[method], []
    for graph in graphs:
        if quantizer is None:
            judged = float_method(graph, rows, config.detector)
        else:
            qgraph, _ = quantize_rows(graph, rows, quantizer, config.detector)
            judged = int8_method(qgraph, rows)
        found.append(figures_of(judged, rows, recording))
    return recording, found


def _baselines(config: SuiteConfig, recording: Recording) -> tuple[Recording, dict[str, dict[str, Any]], str]:
    """The figures of the simple methods; a method that cannot learn from the recording has none.

    Also why the recording is left out, "" where it is not.
    """
    try:
        item = item_of(recording, config)
    except EdgeLstmError as error:
        return recording, {}, f"{recording.dataset} {recording.series}: left out: {error}"
    methods = {"linear": linear_method(item.prepared.predictor, item.rows, config.detector)}
    methods |= baseline_methods(item.rows, config.detector)
    figures = {_short(name): figures_of(m, item.rows, recording) for name, m in methods.items()}
    return recording, figures, ""


def _short(name: str) -> str:
    """The method without what it chose for one recording: "AR(16)" and "VAR(5)" are one method."""
    return "AR or VAR" if "AR(" in name else name.split(" (")[0]
