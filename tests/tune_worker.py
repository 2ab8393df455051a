"""A process that searches for nothing: python tune_worker.py FOLDER STORAGE TRIALS SEED SECONDS."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from edge_lstm.tuning.study import StudyConfig, open_study, work

CHOICES: dict[str, tuple[Any, ...]] = {
    "units": (2, 4, 8, 16),
    "scheme": ("int8", "int4"),
    "alpha": (0.1, 0.2),
}


def study_config(folder: Path, storage: str, trials: int, seed: int = 0, sampler: str = "tpe") -> StudyConfig:
    objectives = ("quality", "instructions")
    return StudyConfig(folder, storage, "tune", sampler, objectives, trials, 0.0, seed, '{"made": "up"}')


def figures(trial: Any) -> list[float]:
    """More units are better and dearer."""
    units = trial.params["units"]
    return [1 - 1 / units - trial.params["alpha"] / 10, 100.0 * units]


def main() -> None:
    folder, storage, trials, seed, seconds = sys.argv[1:]

    def objective(trial: Any) -> list[float]:
        time.sleep(float(seconds))
        return figures(trial)

    config = study_config(Path(folder), storage, int(trials), int(seed))
    work(open_study(config), CHOICES, config, objective)


if __name__ == "__main__":
    main()
