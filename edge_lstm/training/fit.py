"""Training of a forecaster: windows, loss, early stopping and what it reaches on a long stream.

Reads a Dataset and a TrainConfig; writes a Trained.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import edge_lstm
from edge_lstm.datasets.dataset import Dataset, Splits
from edge_lstm.detection.methods import fit_method
from edge_lstm.errors import ConfigError, DataError, ModelError
from edge_lstm.graph import Dense, Graph, Stream
from edge_lstm.predictor import LinearPredictor
from edge_lstm.training.config import LSTM, TrainConfig
from edge_lstm.training.figures import forecast_figures
from edge_lstm.training.model import build, from_graph, load_keras, load_tensorflow, to_graph
from edge_lstm.training.optimise import History, Progress, optimise
from edge_lstm.training.prepare import Prepared, bottleneck_of, learning_rows, prepare
from edge_lstm.training.samples import Samples
from edge_lstm.training.trainer import Trainer

PLATEAU_EPOCHS = 3  # without a better validation loss, then ``plateau`` halves the rate
COSINE_FLOOR = 0.01  # of the first rate, at the last epoch


@dataclass(frozen=True, eq=False)
class Trained:
    """model: of Keras.  graph: its weights, with the stream and, in ``made``, how it was trained.

    history: loss, validation_loss and learning_rate, one entry an epoch.
    figures: ``windows`` (losses of the kept weights) and ``validation`` (see ``forecast_figures``).
    """

    model: Any
    graph: Graph
    config: TrainConfig
    history: Mapping[str, list[float]]
    figures: Mapping[str, Any]

    @property
    def stream(self) -> Stream:
        return self.graph.stream


@dataclass(frozen=True, eq=False)
class Task:
    """One network to train: its Graph with the weights to start from, its windows, the seed of the order."""

    graph: Graph
    train: Samples
    validation: Samples
    seed: int = 7


@dataclass(frozen=True, eq=False)
class FitResult:
    """graph: with the weights of the best epoch.  history: see Trained.  losses: train and validation."""

    graph: Graph
    history: History
    losses: Mapping[str, float]


def fresh_graph(
    config: TrainConfig,
    stream: Stream,
    outputs: int,
    name: str = "model",
    predictor: LinearPredictor | None = None,
) -> Graph:
    """An untrained network: LSTM layers of ``config.units`` and dense layers, weights by ``config.seed``.

    Beside a linear predictor it begins by adding nothing; of context it never says anything.
    """
    config = replace(config, bottleneck=bottleneck_of(config, int(stream.scored.sum())))
    graph = to_graph(build(config, len(stream.channels), outputs), name, stream, {})
    graph = replace(graph, ahead=config.ahead)
    line = predictor is not None and predictor.lags > 0
    if not line and stream.scored.all():
        return graph
    *layers, head = graph.layers
    assert isinstance(head, Dense)
    said = np.full(outputs, not line) & (stream.scored if outputs == len(stream.scored) else True)
    silent = replace(head, kernel=head.kernel * said, bias=head.bias * said)
    return replace(graph, layers=(*layers, silent), predictor=predictor if line else None)


def tasks_trainer(tasks: Sequence[Task], config: TrainConfig) -> Trainer:
    """The networks of ``tasks`` side by side."""
    return Trainer(
        [task.graph for task in tasks],
        [task.train for task in tasks],
        [task.validation for task in tasks],
        config,
        [task.seed for task in tasks],
    )


def fit_many(tasks: Sequence[Task], config: TrainConfig, progress: Progress | None = None) -> list[FitResult]:
    """Train networks of one shape side by side in one program; equal input gives equal weights.

    Each has its own windows, seed, gradient norm, best epoch and early stop.  An epoch has as many updates as
    the network with the most windows needs; one with fewer windows draws them again.
    Units, seed, stride and scaler of ``config`` are not read: the tasks have theirs.
    Raises ModelError for networks of different shapes, RuntimeFailure where one diverges.
    """
    trainer = tasks_trainer(tasks, config)
    histories = optimise(
        trainer, config.epochs, lambda epoch, losses: scheduled_rate(config, epoch, losses), config.patience,
        progress=progress, start=trainer.validate(),
    )  # fmt: skip
    losses = trainer.loss(trainer.train), trainer.validate()
    return [
        FitResult(
            trainer.graph(network), history,
            {"train": float(losses[0][network]), "validation": float(losses[1][network])},
        )
        for network, history in enumerate(histories)
    ]  # fmt: skip


def fit(
    dataset: Dataset, config: TrainConfig, progress: Progress | None = None, name: str = "model"
) -> Trained:
    """Train a forecaster of the next sample, or fit a simple method; equal input gives equal weights.

    progress: called with (epochs done, epochs at most, a line of losses).  name: of the Graph.
    Raises DataError where the rows do not suffice, RuntimeFailure where the training diverges.
    """
    if config.method != LSTM:
        return fit_simple(dataset, config, name)
    prepared = prepare(dataset, config)
    task = Task(
        fresh_graph(config, prepared.stream, dataset.channels, name, prepared.predictor),
        prepared.train,
        prepared.validation,
        config.seed,
    )
    [result] = fit_many([task], config, progress)
    return trained_of(result, dataset, prepared, config)


def trained_of(result: FitResult, dataset: Dataset, prepared: Prepared, config: TrainConfig) -> Trained:
    """A network of ``fit_many`` with what is told of its training: data, versions, history, figures."""
    figures = {
        "windows": dict(result.losses),
        "validation": forecast_figures(result.graph, prepared.parts.validation, config.burn_in),
    }
    made = {
        "train": config.to_mapping(),
        "data": data_figures(dataset, prepared),
        "versions": versions(),
        "history": result.history,
        "figures": figures,
    }
    graph = replace(result.graph, made=made)
    return Trained(from_graph(graph, config), graph, config, result.history, figures)


def fit_simple(dataset: Dataset, config: TrainConfig, name: str = "model") -> Trained:
    """Fit a method of ``detection.methods`` on the normal rows before the test part.

    The network beside it is a dense layer of zeros.  figures: none for a method that does not forecast.
    """
    parts, stream, rows, _ = learning_rows(dataset, config)
    predictor, _ = fit_method(config.method, rows)
    graph = simple_graph(predictor, stream, name)
    figures = {}
    if predictor.contemporaneous is None:
        figures["validation"] = forecast_figures(graph, parts.validation, config.burn_in)
    made = {
        "train": config.to_mapping(),
        "data": part_figures(dataset, parts),
        "versions": versions(),
        "figures": figures,
    }
    graph = replace(graph, made=made)
    return Trained(from_graph(graph, config), graph, config, {}, figures)


def simple_graph(predictor: LinearPredictor, stream: Stream, name: str) -> Graph:
    """A network that adds nothing to ``predictor``."""
    channels = predictor.channels
    zeros = Dense("zeros", np.zeros((channels, channels), np.float32), np.zeros(channels, np.float32))
    return Graph(name, (zeros,), stream, {}, predictor=predictor)


def training_config(graph: Graph, seed: int) -> TrainConfig:
    """The options that ``graph`` was trained with, under another seed; ModelError where it has none."""
    if "train" not in graph.made:
        raise ModelError(
            f"model '{graph.name}': it carries no training options, so it cannot be trained on; "
            "give a .keras file that this toolkit trained"
        )
    try:
        training = TrainConfig.from_mapping(graph.made["train"], f"model '{graph.name}'")
    except ConfigError as error:
        raise ModelError(f"{error}; train it again with this version") from error
    return replace(training, seed=seed)


def prepare_again(graph: Graph, dataset: Dataset, training: TrainConfig) -> Prepared:
    """What a trained network learns on from; its scaling and its linear predictor stay."""
    predictor = graph.predictor or LinearPredictor.none(graph.features)
    if predictor.alone:
        raise ModelError(
            f"model '{graph.name}': its method is {predictor.method}, its network adds nothing and cannot be "
            "trained on; give a model that was trained with --method lstm"
        )
    return prepare(dataset, training, graph.stream, predictor)


def check_channels(graph: Graph, dataset: Dataset) -> None:
    """Raises DataError for a recording of another number of channels."""
    if len(graph.stream.channels) != dataset.channels:
        raise DataError(
            f"model '{graph.name}' was trained on the channels {', '.join(graph.stream.names)}, "
            f"the dataset has {', '.join(dataset.names)}; give it the recording it was trained on"
        )


def scheduled_rate(config: TrainConfig, epoch: int, losses: list[float]) -> float:
    """The learning rate of an epoch, counted from 0.  losses: validation losses of the epochs before it."""
    if config.schedule == "cosine":
        turn = math.pi * epoch / max(config.epochs - 1, 1)
        return config.learning_rate * (COSINE_FLOOR + (1 - COSINE_FLOOR) * 0.5 * (1 + math.cos(turn)))
    if config.schedule == "plateau":
        return config.learning_rate * 0.5 ** _plateaus(losses)
    return config.learning_rate


def _plateaus(losses: list[float]) -> int:
    found, best, waited = 0, math.inf, 0
    for loss in losses:
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == PLATEAU_EPOCHS:
            found, waited = found + 1, 0
    return found


def data_figures(dataset: Dataset, prepared: Prepared) -> dict[str, Any]:
    """What the network was trained on, plain JSON values."""
    return {
        **part_figures(dataset, prepared.parts),
        "train_windows": prepared.train.count,
        "validation_windows": prepared.validation.count,
    }


def part_figures(dataset: Dataset, parts: Splits) -> dict[str, Any]:
    """What a method learnt from, plain JSON values."""
    return {
        "channels": list(dataset.names),
        "rows": dataset.rows,
        "train_rows": parts.train.rows,
        "validation_rows": parts.validation.rows,
        "test_rows": parts.test.rows,
        "normal_train_rows": int(parts.train.normal.sum()),
        "missing_values": int((~dataset.present).sum()),
        "gaps": int(dataset.gap.sum()),
        "period_s": dataset.period_s,
        "notes": list(dataset.notes),
    }


def versions() -> dict[str, str]:
    """What trained it; weights are equal only under equal versions."""
    return {
        "edge_lstm": edge_lstm.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "keras": str(load_keras().__version__),
        "tensorflow": str(load_tensorflow().__version__),
    }
