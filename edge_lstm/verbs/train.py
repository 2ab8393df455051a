"""train: a CSV becomes a float LSTM network in a .keras file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edge_lstm.datasets.clock import with_clock
from edge_lstm.errors import OutputError
from edge_lstm.naming import identifier
from edge_lstm.registry.record import Step, data_record, validation_figures, with_step
from edge_lstm.training.config import TrainConfig
from edge_lstm.training.fit import Trained, fit, versions
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
    """Train a forecaster or an autoencoder on the normal rows of ``data``; write it to ``out``.

    Raises DataError for a recording that cannot be used, RuntimeFailure where the training diverges.
    """
    check_output(Path(out))
    config, options = config or TrainConfig(), options or StreamOptions()
    dataset = read_stream(Path(data), options)
    dataset = with_clock(dataset) if config.clock else dataset
    trained = fit(dataset, config, progress, identifier(Path(out).stem))
    tables = {"config": config.to_mapping(), "stream": options.to_mapping()}
    figures, record = validation_figures(trained.figures), data_record(data, dataset.rows)
    step = Step("train", tables, versions(), record, seed=config.seed, figures=figures)
    graph = replace(trained.graph, made=with_step(trained.graph.made, step))
    save(trained.model, trained.stream, graph.made, Path(out), graph.predictor, graph.ahead)
    return TrainResult(str(out), replace(trained, graph=graph), dataset.notes)
