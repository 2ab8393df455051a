"""train: a CSV becomes a float LSTM forecaster in a .keras file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_lstm.errors import OutputError
from edge_lstm.naming import identifier
from edge_lstm.training.config import TrainConfig
from edge_lstm.training.fit import Trained, fit
from edge_lstm.training.model import save
from edge_lstm.verbs.streams import StreamOptions, read_stream

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class TrainResult:
    """The written file, the trained network and what is to be known of the recording."""

    path: str
    trained: Trained
    notes: tuple[str, ...]


def check_output(path: Path) -> None:
    """Fail before long work, not after it: the folder must exist and the name must end in .keras."""
    if path.suffix != ".keras":
        raise OutputError(f"cannot write {path}: a float model is a .keras file; choose -o {path.stem}.keras")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: no folder {path.parent}; create it or choose another -o")


def train(
    data: Path,
    out: Path,
    config: TrainConfig | None = None,
    options: StreamOptions | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a forecaster of the next sample on the normal rows of ``data``; write it to ``out``.

    Raises DataError for a recording that cannot be used, RuntimeFailure where the training diverges.
    """
    check_output(Path(out))
    dataset = read_stream(Path(data), options or StreamOptions())
    trained = fit(dataset, config or TrainConfig(), progress, identifier(Path(out).stem))
    save(trained.model, trained.stream, trained.graph.made, Path(out), trained.graph.predictor)
    return TrainResult(str(out), trained, dataset.notes)
