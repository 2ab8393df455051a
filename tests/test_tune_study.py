"""A study: every point once, by several processes, over kills and Ctrl-C; what is hopeless is given up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from edge_lstm.errors import ConfigError, ModelError
from edge_lstm.tuning.space import name_of, size
from edge_lstm.tuning.study import JOURNAL, Hopeless, Race, finished, open_study, revive, work
from tune_worker import CHOICES, figures, study_config

GRID = size(CHOICES)


def start(folder: Path, storage: str, trials: int, seed: int, seconds: float) -> subprocess.Popen[bytes]:
    program = [sys.executable, str(ROOT / "tests" / "tune_worker.py")]
    arguments = [str(folder), storage, str(trials), str(seed), str(seconds)]
    return subprocess.Popen([*program, *arguments], env={**os.environ, "PYTHONPATH": str(ROOT)})


def points(study: Any) -> list[str]:
    return [name_of(trial.params) for trial in finished(study)]


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe", "nsga2"])
def test_every_sampler_tries_each_point_once_and_ends_where_none_is_left(
    sampler: str, tmp_path: Path
) -> None:
    config = study_config(tmp_path, "", GRID + 5, sampler=sampler)
    study = open_study(config)
    work(study, CHOICES, config, figures)
    assert len(set(points(study))) == len(points(study)) == GRID
    best = {trial.params["units"] for trial in study.best_trials}
    assert best == {2, 4, 8, 16}
    assert all(trial.params["alpha"] == 0.1 for trial in study.best_trials)


def test_a_killed_search_goes_on_where_it_was(tmp_path: Path) -> None:
    process = start(tmp_path, "", GRID, 0, 1.0)
    config = study_config(tmp_path, "", 8, seed=1)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.1)
        if not (tmp_path / JOURNAL).exists():
            continue
        study = open_study(config)
        if len(finished(study)) >= 3 and len(study.trials) > len(finished(study)):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    with (tmp_path / JOURNAL).open("ab") as journal:
        journal.write(b'{"op_code": 6, "torn')  # as a process leaves it that is killed while it writes
    (tmp_path / "ask.lock").unlink(missing_ok=True)
    study = open_study(config)
    before = points(study)
    assert 3 <= len(before) < 8
    assert revive(study) == 1
    work(study, CHOICES, config, figures)
    assert points(study)[: len(before)] == before
    assert len(set(points(study))) == len(points(study)) == 8
    assert revive(study) == 0


@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_two_processes_share_a_study_without_a_point_twice(storage: str, tmp_path: Path) -> None:
    url = "" if storage == "journal" else f"sqlite:///{tmp_path / 'tune.db'}"
    config = study_config(tmp_path, url, 10)
    study = open_study(config)
    processes = [start(tmp_path, url, 10, seed, 0.05) for seed in (1, 2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert len(set(points(study))) == len(points(study)) == 10
    assert len({trial.user_attrs["process"] for trial in finished(study)}) == 2


def test_an_interrupted_point_is_tried_again_and_a_failure_is_written_down(tmp_path: Path) -> None:
    config = study_config(tmp_path, "", GRID, sampler="grid")
    study, calls = open_study(config), []

    def objective(trial: Any) -> list[float]:
        calls.append(name_of(trial.params))
        if len(calls) == 3:
            raise KeyboardInterrupt
        if trial.params["units"] == 16:
            raise ModelError("sums could overflow")
        if trial.params["units"] == 8:
            raise Hopeless
        return figures(trial)

    with pytest.raises(KeyboardInterrupt):
        work(study, CHOICES, config, objective)
    assert len(points(study)) == 2
    study = open_study(config)
    work(study, CHOICES, config, objective)
    assert len(set(points(study))) == len(points(study)) == GRID
    assert calls[3] == calls[2]
    problems = [t.user_attrs["problem"] for t in finished(study) if "problem" in t.user_attrs]
    assert problems == ["sums could overflow"] * 4
    assert [t.state.name for t in finished(study)].count("PRUNED") == 4


def test_a_race_gives_up_what_is_worse_than_its_rivals_median(tmp_path: Path) -> None:
    rivals = [[1.0, 0.8, 0.6, 0.5, 0.4 + 0.01 * n, 0.3] for n in range(7)]
    bad, good = Race(rivals), Race(rivals)
    for loss in (1.0, 0.9, 0.8, 0.7):
        bad.report(loss)
        good.report(loss - 0.2)
    with pytest.raises(Hopeless):
        bad.report(0.6)
    good.report(0.42)
    alone = Race(rivals[:2])
    for _ in range(8):
        alone.report(9.0)
    assert alone.losses == [9.0] * 8


def test_a_study_of_another_setting_is_refused(tmp_path: Path) -> None:
    config = study_config(tmp_path, "", 4)
    open_study(config)
    with pytest.raises(ConfigError, match=r"was begun with other options \(made\); repeat them"):
        open_study(replace(config, setting='{"made": "down"}'))


@pytest.mark.parametrize(
    ("url", "message"),
    [("tune.db", "expected an Optuna URL"), ("nonsense://x", "cannot be opened"),
     ("sqlite:////no/such/folder/tune.db", "cannot be opened")],
)  # fmt: skip
def test_a_storage_that_cannot_be_used_is_one_line(url: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as failure:
        open_study(study_config(tmp_path, url, 4))
    assert "\n" not in str(failure.value)
