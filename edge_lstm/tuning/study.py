"""The study: trials in an Optuna storage that several processes share, each point tried once.

Reads and writes the storage; what a trial does is the caller's.
"""

from __future__ import annotations

import json
import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_lstm.errors import ConfigError, EdgeLstmError
from edge_lstm.optional import require
from edge_lstm.tuning.space import Choice, Params, name_of, points, size

SAMPLERS = ("tpe", "nsga2", "random", "grid")
OBJECTIVES = ("quality", "instructions", "flash", "ram")
JOURNAL = "study.journal"
TRIES = 200  # draws of a point that was not tried yet, before the first one of the grid is taken
SETTING, PROCESS, PROBLEM = "setting", "process", "problem"  # attributes in the storage
RACED, RACED_FROM = 6, 4  # trials before one can be given up, and the first epoch at which

Study = Any  # of Optuna, which is an extra
Trial = Any
Choices = Mapping[str, tuple[Choice, ...]]


class Hopeless(Exception):
    """A trial ends early: it breaks a limit, or trains worse than trials that cost no more."""


@dataclass(frozen=True)
class StudyConfig:
    """How a study searches.

    folder: of its files.  storage: an Optuna URL, '' for a journal in the folder.  name: in the storage.
    sampler: one of SAMPLERS.  objectives: some of OBJECTIVES.  trials: to end with, earlier ones included.
    seconds: to end after, 0 for no end.  seed: of the sampler.  setting: JSON; two calls must agree in it.
    """

    folder: Path
    storage: str
    name: str
    sampler: str
    objectives: tuple[str, ...]
    trials: int
    seconds: float
    seed: int
    setting: str


def optuna() -> Any:
    """The package, without its messages."""
    found = require("optuna", "tune")
    found.logging.set_verbosity(found.logging.ERROR)
    return found


def open_study(config: StudyConfig) -> Study:
    """Create or continue the study; ConfigError for a storage that cannot be used or another setting."""
    package = optuna()
    storage = _storage(config)
    directions = ["maximize" if name == "quality" else "minimize" for name in config.objectives]
    study = package.create_study(
        storage=storage, study_name=config.name, directions=directions, load_if_exists=True
    )
    seed = config.seed + 7919 * len(study.get_trials(deepcopy=False))
    study.sampler = _sampler(config.sampler, seed)
    known = study.user_attrs.get(SETTING)
    if known is None:
        study.set_user_attr(SETTING, config.setting)
    elif known != config.setting:
        raise ConfigError(_difference(config, json.loads(known), json.loads(config.setting)))
    return study


def _difference(config: StudyConfig, known: dict[str, Any], asked: dict[str, Any]) -> str:
    names = [name for name in {**known, **asked} if known.get(name) != asked.get(name)]
    return (
        f"study '{config.name}' in {config.storage or config.folder} was begun with other options "
        f"({', '.join(names)}); repeat them, or choose another -o or --study"
    )


def _storage(config: StudyConfig) -> Any:
    package = optuna()
    if config.storage and "://" not in config.storage:
        raise ConfigError(
            f"--storage is '{config.storage}', expected an Optuna URL such as sqlite:///tune.db"
        )
    if not config.storage:
        path = config.folder / JOURNAL
        journal = require("optuna.storages.journal", "tune")
        lock = journal.JournalFileOpenLock(str(path))
        with _held(lock):
            _cut_torn_line(path)
        return package.storages.JournalStorage(journal.JournalFileBackend(str(path), lock))
    try:
        return package.storages.get_storage(config.storage)
    except Exception as error:  # whatever the driver of the database raises
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"--storage {config.storage}: it cannot be opened ({reason})") from error


def _cut_torn_line(path: Path) -> None:
    """A process that was killed while it wrote leaves half a line, which no one could read past."""
    if path.exists():
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            path.write_bytes(whole)


def _sampler(name: str, seed: int) -> Any:
    samplers = optuna().samplers
    if name == "tpe":
        return samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=12, constant_liar=True)
    if name == "nsga2":
        return samplers.NSGAIISampler(seed=seed, population_size=16)
    return samplers.RandomSampler(seed=seed)


@contextmanager
def _held(lock: Any) -> Iterator[None]:
    """One of Optuna's locks; that of a process that was killed is broken after 30 s."""
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _asking(config: StudyConfig) -> Any:
    """Lets one process of this folder at a time draw a point."""
    journal = require("optuna.storages.journal", "tune")
    return _held(journal.JournalFileOpenLock(str(config.folder / "ask")))


def finished(study: Study) -> list[Any]:
    """Trials that count: measured, given up, or failed for a stated reason."""
    states = optuna().trial.TrialState
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state in (states.COMPLETE, states.PRUNED) or PROBLEM in trial.user_attrs
    ]


def _at_work(study: Study) -> list[Any]:
    states = optuna().trial.TrialState
    return list(study.get_trials(deepcopy=False, states=(states.RUNNING,)))


def revive(study: Study) -> int:
    """Trials of processes of this machine that are gone are tried again; returns how many."""
    states, gone = optuna().trial.TrialState, 0
    for trial in _at_work(study):
        host, _, pid = str(trial.user_attrs.get(PROCESS, "")).rpartition(":")
        if host == socket.gethostname() and not _alive(int(pid)):
            study.tell(trial.number, state=states.FAIL)
            study.enqueue_trial(trial.params)
            gone += 1
    return gone


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def next_trial(study: Study, choices: Choices, config: StudyConfig) -> Trial | None:
    """A running trial of a point that no other has; None where all trials are begun or none is left."""
    states = optuna().trial.TrialState
    with _asking(config):
        while True:
            tried = finished(study) + _at_work(study)
            seen = {name_of(trial.params) for trial in tried}
            if len(tried) >= config.trials or len(seen) >= size(choices):
                return None
            if config.sampler == "grid":
                study.enqueue_trial(points(choices, seen)[0])
            trial = study.ask()
            trial.set_user_attr(PROCESS, f"{socket.gethostname()}:{os.getpid()}")
            params = {name: trial.suggest_categorical(name, values) for name, values in choices.items()}
            if name_of(params) not in seen:
                return trial
            study.tell(trial, state=states.FAIL)
            study.enqueue_trial(_unseen(choices, seen, random.Random(len(tried))))  # noqa: S311


def _unseen(choices: Choices, seen: set[str], rng: random.Random) -> Params:
    """A point that was not tried, drawn at random."""
    for _ in range(TRIES):
        point = {name: rng.choice(values) for name, values in choices.items()}
        if name_of(point) not in seen:
            return point
    return points(choices, seen)[0]


def work(
    study: Study,
    choices: Choices,
    config: StudyConfig,
    objective: Callable[[Trial], Sequence[float]],
    told: Callable[[], None] = lambda: None,
) -> None:
    """Try points until enough are tried, the time is up or none is left.

    objective: the values of a trial in the order of ``config.objectives``; it raises Hopeless to give up,
    and a stated failure (EdgeLstmError) is written down.  told: called after each trial.
    """
    states, start = optuna().trial.TrialState, time.monotonic()
    while not (config.seconds and time.monotonic() - start > config.seconds):
        trial = next_trial(study, choices, config)
        if trial is None:
            return
        try:
            study.tell(trial, list(objective(trial)))
        except Hopeless:
            study.tell(trial, state=states.PRUNED)
        except EdgeLstmError as error:
            trial.set_user_attr(PROBLEM, str(error))
            study.tell(trial, state=states.FAIL)
        except BaseException:
            study.tell(trial, state=states.FAIL)
            study.enqueue_trial(trial.params)
            raise
        told()


class Race:
    """Gives up a training that Optuna's median rule finds worse than those of ``rivals``.

    rivals: for each of them the validation losses by epoch.
    """

    def __init__(self, rivals: Sequence[Sequence[float]]) -> None:
        package = optuna()
        pruner = package.pruners.MedianPruner(n_startup_trials=RACED, n_warmup_steps=RACED_FROM)
        self._study = package.create_study(pruner=pruner)
        for losses in rivals:
            self._study.add_trial(
                package.trial.create_trial(value=min(losses), intermediate_values=dict(enumerate(losses)))
            )
        self._trial = self._study.ask()
        self.losses: list[float] = []

    def report(self, loss: float) -> None:
        """The next epoch's loss; raises Hopeless."""
        self._trial.report(loss, len(self.losses))
        self.losses.append(loss)
        if self._trial.should_prune():
            raise Hopeless
