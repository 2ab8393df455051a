"""evaluate --suite: the detector in all its forms, and every simple method, on a folder of recordings.

Protocol: one setting for all, no test labels, several seeds.  Networks of one width train side by side in
this process, while others beside it score those that are trained.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import edge_lstm
from edge_lstm.datasets.suite import Recording, read_suite
from edge_lstm.errors import DataError, EdgeLstmError
from edge_lstm.evaluation.metrics_summary import Result, summarize
from edge_lstm.verbs.suite_clock import SCORE, SIMPLE, TRAIN, Clock, Progress
from edge_lstm.verbs.suite_costs import score_s, simple_s, train_s
from edge_lstm.verbs.suite_networks import NETWORKS, Item, SuiteConfig, groups, item_of, networks
from edge_lstm.verbs.suite_result import SuiteEvaluation
from edge_lstm.verbs.suite_score import LINEAR, Job, Scored, score_networks, score_simple
from edge_lstm.verbs.suite_store import Store


def evaluate_suite(
    folder: Path,
    config: SuiteConfig | None = None,
    store: Path | None = None,
    progress: Progress | None = None,
) -> SuiteEvaluation:
    """Every network and every simple method on the recordings of ``folder`` (see ``datasets.suite``).

    store: a file of results that is read first and written on, so that an interrupted run continues.
    progress: see ``suite_clock.Clock``.  Raises DataError where no recording can be used.
    """
    config, start = config or SuiteConfig(), time.monotonic()
    suite = read_suite(folder)
    key = hashlib.sha256(repr((edge_lstm.__version__, config)).encode()).hexdigest()[:16]
    results, cores = Store(store, key), os.cpu_count() or 1
    recordings = _limited(suite.recordings, config.limit)
    run = _Run(config, results, Clock(cores, cores, progress), list(suite.notes))
    run.load(recordings)
    if run.simple or run.trained:
        with _processes(cores) as pool:
            run.work(pool)
    by_method = results.results(recordings)
    if not by_method:
        raise DataError(f"{folder}: no recording can be used: {'; '.join(run.notes)}")
    summaries = {method: summarize(by_method[method]) for method in _in_order(by_method)}
    seconds = time.monotonic() - start
    return SuiteEvaluation(str(folder), config.seeds, summaries, by_method, tuple(run.notes), seconds)


@contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Processes for scoring; what has not begun is dropped where the suite is interrupted."""
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


@dataclass
class _Run:
    """simple, trained: recordings whose simple methods, or networks, are not in the store yet."""

    config: SuiteConfig
    results: Store
    clock: Clock
    notes: list[str]
    simple: list[Item] = field(default_factory=list)
    trained: list[list[Item]] = field(default_factory=list)
    waiting: dict[Future[Scored], tuple[str, float, str]] = field(default_factory=dict)

    def load(self, recordings: Sequence[Recording]) -> None:
        """Read the recordings of which results are missing, and plan the work."""
        config, trained = self.config, []
        for recording in recordings:
            simple = not self.results.has(recording, [LINEAR], (0,))
            networks_too = not self.results.has(recording, list(NETWORKS), config.seeds)
            if not (simple or networks_too):
                continue
            self.clock.show(f"reading {_name(recording)}")
            try:
                item = item_of(recording, config)
            except EdgeLstmError as error:
                self.notes.append(f"{_name(recording)}: left out: {error}")
                continue
            self.simple += [item] if simple else []
            trained += [item] if networks_too else []
        self.trained = groups(trained, len(config.seeds))
        for item in self.simple:
            self.clock.plan(SIMPLE, simple_s(item))
        for group in self.trained:
            for method in NETWORKS:
                self.clock.plan(TRAIN, train_s(method, group, config))
                self.clock.plan(SCORE, sum(score_s(method, item, config) for item in group))

    def work(self, pool: ProcessPoolExecutor) -> None:
        """Train here, score there."""
        for item in sorted(self.simple, key=lambda item: -item.cells):
            future = pool.submit(score_simple, item.recording, self.config)
            self.waiting[future] = SIMPLE, simple_s(item), f"simple methods: {_name(item.recording)}"
        for group in self.trained:
            self._train(pool, group)
        self._collect(last=True)

    def _train(self, pool: ProcessPoolExecutor, group: list[Item]) -> None:
        names = _names(group)
        methods = iter(NETWORKS)
        ready = networks(group, self.config, lambda *at: self._report(f"training {names}: {at[2]}"))
        for method in methods:
            self.clock.begin(TRAIN, train_s(method, group, self.config))
            self._report(f"training {method}: {names}")
            _, trained = next(ready)
            self.clock.end()
            for item, own in zip(group, trained, strict=True):
                job = Job(item.recording, self.config, method, own)
                expected = score_s(method, item, self.config)
                self.waiting[pool.submit(score_networks, job)] = (
                    SCORE,
                    expected,
                    f"{method}: {_name(item.recording)}",
                )

    def _report(self, what: str) -> None:
        """Keep what is scored by now, and say what is at work."""
        self._collect()
        self.clock.show(what)

    def _collect(self, last: bool = False) -> None:
        """Store the results that are there; ``last``: wait for all."""
        while self.waiting:
            done, _ = wait(self.waiting, None if last else 0, FIRST_COMPLETED)
            for future in done:
                lane, expected, what = self.waiting.pop(future)
                scored = future.result()
                for (method, seed), figures in scored.figures.items():
                    self.results.add(scored.recording, method, seed, figures)
                self.notes += scored.notes
                self.clock.finish(lane, expected, scored.seconds)
                self.clock.show(what)
            if not last:
                return


def _name(recording: Recording) -> str:
    return f"{recording.dataset} {recording.series}"


def _names(group: Sequence[Item]) -> str:
    """Data sets of a group and how many networks."""
    return ", ".join(dict.fromkeys(item.recording.dataset for item in group))


def _in_order(by_method: dict[str, list[Result]]) -> list[str]:
    """Networks first, in the order of their table, then the simple methods."""
    return [*(n for n in NETWORKS if n in by_method), *(n for n in by_method if n not in NETWORKS)]


def _limited(recordings: Sequence[Recording], limit: int) -> list[Recording]:
    kept: dict[str, list[Recording]] = {}
    for recording in recordings:
        kept.setdefault(recording.dataset, []).append(recording)
    return [r for found in kept.values() for r in (found[:limit] if limit else found)]
