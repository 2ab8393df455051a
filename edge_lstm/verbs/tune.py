"""tune: search networks that keep a board's limits; leaves the Pareto front as table, page and models."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.datasets.dataset import Dataset
from edge_lstm.errors import ConfigError, RuntimeFailure, raise_all
from edge_lstm.files import make_folder, write_bytes, write_text
from edge_lstm.reporting.front import FrontPage, Point, draw_front, render_front
from edge_lstm.training.config import TrainConfig
from edge_lstm.tuning import space
from edge_lstm.tuning.costs import Limits, counted_core
from edge_lstm.tuning.space import SearchSpace
from edge_lstm.tuning.study import (
    OBJECTIVES,
    PROBLEM,
    SAMPLERS,
    Study,
    StudyConfig,
    finished,
    open_study,
    optuna,
    revive,
    work,
)
from edge_lstm.verbs.fit import DEFAULT_BOARD
from edge_lstm.verbs.streams import StreamOptions, read_stream
from edge_lstm.verbs.tune_trial import COSTS, FIGURES, Job, Searcher
from firmware_tools.board_build import board_compiler
from firmware_tools.boards.records import Board, find_board

Progress = Callable[[int, int, str], None]
MODELS = ("model.keras", "model.tflite")
POLL_S = 0.5
SEED_STEP = 104_729  # between the samplers of two workers


@dataclass(frozen=True)
class TuneConfig:
    """How to search.  Also the help of the command line: a sentence a field.

    trials: that the study shall have when it ends, those of earlier calls included.
    timeout: seconds after which no trial begins; 0 for none.
    workers: processes that share the study.
    sampler: tpe, nsga2, random or grid.
    objectives: some of quality (most), instructions, flash and ram (least).
    storage: Optuna URL, as sqlite:///tune.db, which machines may share; by default a file in the folder.
    study: name of the study in the storage.
    epochs: of training, at most; half as many after pruning.
    drop_inputs: also try networks that read, and watch, fewer channels; needs labelled faults.
    seed: of the sampler and of the networks.
    """

    trials: int = 60
    timeout: int = 0
    workers: int = 1
    sampler: str = "tpe"
    objectives: tuple[str, ...] = ("quality", "instructions")
    storage: str = ""
    study: str = "tune"
    epochs: int = 20
    drop_inputs: bool = False
    seed: int = 7

    def __post_init__(self) -> None:
        """Raises ConfigError that lists every option out of its range."""
        problems = [
            f"{name} is {getattr(self, name)}, expected {low} or more"
            for name, low in (("trials", 1), ("timeout", 0), ("workers", 1), ("epochs", 1), ("seed", 0))
            if getattr(self, name) < low
        ]
        if self.sampler not in SAMPLERS:
            problems.append(f"sampler is '{self.sampler}', expected one of {', '.join(SAMPLERS)}")
        unknown = [name for name in self.objectives if name not in OBJECTIVES]
        if unknown or "quality" not in self.objectives or len(set(self.objectives)) < len(self.objectives):
            problems.append(
                f"objectives are {', '.join(self.objectives)}, expected quality and others of "
                f"{', '.join(OBJECTIVES[1:])}, each once"
            )
        raise_all(ConfigError, "search options", problems)


@dataclass(frozen=True)
class Tuned:
    """front: the points that no other beats in all objectives, least instructions first.

    counts: trials measured, rejected (a limit), given_up (in training) and failed.  judged: what quality is.
    """

    folder: str
    board: str
    limits: Limits
    objectives: tuple[str, ...]
    judged: str
    front: tuple[Point, ...]
    counts: dict[str, int]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return found | {"limits": asdict(self.limits), "front": [asdict(point) for point in self.front]}


def tune(
    data: Path,
    out: Path,
    search: SearchSpace | None = None,
    config: TuneConfig | None = None,
    board: str | None = None,
    limits: Limits | None = None,
    options: StreamOptions | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Search networks for the CSV ``data`` and write the best into the folder ``out``.

    board: a name or the path of a record; its memories are limits too.  Without one the costs are those of a
    Cortex-M4 with memory in plenty.  A study that is in the folder, or in the storage, is continued.
    The first trial is the default network, where the search space has it.
    Leaves front.csv, front.html, front.png and for each point N/model.keras and N/model.tflite.
    """
    config = config or TuneConfig()
    target = find_board(board or DEFAULT_BOARD)
    board_compiler(target)
    options = options or StreamOptions()
    dataset = read_stream(Path(data), options)
    job = _job(
        Path(data),
        Path(out),
        dataset,
        search or SearchSpace(),
        config,
        board or DEFAULT_BOARD,
        limits,
        options,
    )
    how = _study_config(job, config, target)
    make_folder(job.folder)
    study = open_study(how)
    default = space.default_point(job.choices)
    if default and not study.get_trials(deepcopy=False):
        study.enqueue_trial(default)
    revived = revive(study)
    notes = list(dataset.notes) + ([f"{revived} interrupted trials are tried again"] if revived else [])
    _search(job, how, study, config.workers, progress, notes)
    return _finish(job, study, target, notes)


def _job(
    data: Path, out: Path, dataset: Dataset, search: SearchSpace, config: TuneConfig, name: str,
    limits: Limits | None, options: StreamOptions,
) -> Job:  # fmt: skip
    """What is searched, as far as the recording and the board allow."""
    board, train = find_board(name), TrainConfig(epochs=config.epochs, seed=config.seed)
    labelled, problems = _labelled(dataset, train), []
    asked = limits or Limits()
    if counted_core(board) is None and (asked.instructions or "instructions" in config.objectives):
        problems.append(
            f"no emulated core counts the instructions of board '{board.name}' ({board.core}); leave out "
            "--instructions and choose --objectives quality,flash,ram"
        )
    if config.drop_inputs and not labelled:
        problems.append("--drop-inputs needs labelled faults in the validation rows, which here are none")
    raise_all(ConfigError, "search", problems)
    choices = (search if labelled else space.without_labels(search)).choices()
    if config.drop_inputs:
        choices |= {space.INPUT + name: (True, False) for name in dataset.names}
    return Job(
        data, options, dataset.names, train, asked.of_board(board), name,
        choices, config.objectives, labelled, out,
    )  # fmt: skip


def _labelled(dataset: Dataset, train: TrainConfig) -> bool:
    """Whether validation rows hold faults and normal rows."""
    if dataset.label is None:
        return False
    first = round(dataset.rows * train.train_fraction)
    last = round(dataset.rows * (train.train_fraction + train.validation_fraction))
    return 0 < int(np.count_nonzero(dataset.label[first:last])) < last - first


def _study_config(job: Job, config: TuneConfig, board: Board) -> StudyConfig:
    """The setting is what trials depend on: two calls that differ in it cannot share a study."""
    setting = {
        "data": hashlib.sha256(job.data.read_bytes()).hexdigest()[:16],
        "board": board.name,
        "limits": asdict(job.limits),
        "objectives": list(config.objectives),
        "epochs": config.epochs,
        "seed": config.seed,
        "search space": {name: list(choices) for name, choices in job.choices.items()},
    }
    return StudyConfig(
        job.folder, config.storage, config.study, config.sampler, config.objectives, config.trials,
        float(config.timeout), config.seed, json.dumps(setting, sort_keys=True),
    )  # fmt: skip


def _search(
    job: Job, how: StudyConfig, study: Study, workers: int, progress: Progress | None, notes: list[str]
) -> None:
    """Run trials here, or in processes that share the storage."""

    def told() -> None:
        if progress:
            done = finished(study)
            progress(len(done), how.trials, f"{_counts(done)['measured']} measured")

    told()
    if workers == 1:
        work(study, job.choices, how, Searcher(job, study), told)
        return
    context = get_context("spawn")
    processes: list[BaseProcess] = [
        context.Process(target=_worker, args=(job, replace(how, seed=how.seed + SEED_STEP * number)))
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        while any(process.is_alive() for process in processes):
            told()
            time.sleep(POLL_S)
    except BaseException:  # what they were at is tried again by the next call
        for process in processes:
            process.terminate()
        raise
    finally:
        for process in processes:
            process.join()
    lost = sum(1 for process in processes if process.exitcode)
    if lost == workers:
        raise RuntimeFailure("every worker process ended early; run it with --workers 1 to see why")
    if lost:
        notes.append(f"{lost} of {workers} worker processes ended early")


def _worker(job: Job, how: StudyConfig) -> None:
    """One process; Ctrl-C ends it quietly."""
    try:
        study = open_study(how)
        work(study, job.choices, how, Searcher(job, study))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _counts(trials: list[Any]) -> dict[str, int]:
    counts = {"measured": 0, "rejected": 0, "given_up": 0, "failed": 0}
    states = optuna().trial.TrialState
    for trial in trials:
        if PROBLEM in trial.user_attrs:
            counts["failed"] += 1
        elif trial.state == states.COMPLETE:
            counts["measured"] += 1
        else:
            kept = all(share <= 0 for share in trial.constraints.values())
            counts["given_up" if kept else "rejected"] += 1
    return counts


def _finish(job: Job, study: Study, board: Board, notes: list[str]) -> Tuned:
    """Write the front; drop the models of points that are not on it."""
    trials = finished(study)
    best = {trial.number for trial in study.best_trials} if trials else set()
    measured = [_point(trial) for trial in trials if FIGURES in trial.user_attrs]
    order = sorted(measured, key=lambda point: (point.instructions or point.flash, point.flash))
    front = tuple(point for point in order if point.trial in best)
    for point in measured:
        if point.trial not in best:
            _drop(job.folder / str(point.trial))
    elsewhere = [str(p.trial) for p in front if not (job.folder / str(p.trial) / MODELS[0]).exists()]
    if elsewhere:
        notes.append(f"models of trials {', '.join(elsewhere)} lie where another machine searched")
    problems = {str(t.user_attrs[PROBLEM]).splitlines()[0] for t in trials if PROBLEM in t.user_attrs}
    notes += [f"failed trials: {problem}" for problem in sorted(problems)]
    judged = (
        "mean of VUS-PR and event F1 on the labelled validation rows" if job.labelled
        else "R2 of the forecast on the normal validation rows"
    )  # fmt: skip
    result = Tuned(
        str(job.folder), board.name, job.limits, job.objectives, judged, front, _counts(trials), tuple(notes)
    )
    _write(result, measured, board)
    return result


def _point(trial: Any) -> Point:
    """A measured trial as a row of the table."""
    attributes = trial.user_attrs
    costs, figures = attributes[COSTS], attributes[FIGURES]
    return Point(trial.number, figures["quality"], **costs, figures=figures, params=dict(trial.params))


def _drop(folder: Path) -> None:
    for name in MODELS:
        (folder / name).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _write(result: Tuned, measured: list[Point], board: Board) -> None:
    folder = Path(result.folder)
    columns = ["trial", "quality", "instructions", "network", "flash", "ram"]
    names = list(dict.fromkeys(name for point in result.front for name in (*point.figures, *point.params)))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    shown = [name for name in names if name != "quality"]
    writer.writerow([*columns, *shown])
    for point in result.front:
        values = {**point.figures, **point.params}
        writer.writerow([*(getattr(point, name) for name in columns), *(values.get(name) for name in shown)])
    write_text(folder / "front.csv", text.getvalue())
    page = FrontPage(
        board.title, result.judged, result.front, measured, result.counts, asdict(result.limits), result.notes
    )
    write_bytes(folder / "front.png", draw_front(page))
    write_text(folder / "front.html", render_front(page))
