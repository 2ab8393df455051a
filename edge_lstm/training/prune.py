"""Pruning of a trained forecaster: single weights, blocks, or whole units; then fine-tuning.

Reads a Graph that ``fit`` made and its Dataset; writes a Pruned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.datasets.dataset import Dataset
from edge_lstm.errors import ModelError
from edge_lstm.graph import Graph, Lstm
from edge_lstm.training.config import PruneConfig, TrainConfig
from edge_lstm.training.figures import forecast_figures
from edge_lstm.training.fit import (
    FitResult,
    Task,
    check_channels,
    prepare_again,
    tasks_trainer,
    training_config,
)
from edge_lstm.training.model import PlainLayer, from_graph, layer_weights, plain_layers
from edge_lstm.training.optimise import History, Progress, optimise
from edge_lstm.training.removal import kept_units, masks, remove_units, sparsity_at
from edge_lstm.training.trainer import Trainer


@dataclass(frozen=True)
class PrunedLayer:
    """One layer, or all of them, before and after.

    parameters: weights and biases.  bytes: of their tables in C, a byte a weight, four a bias;
    a zero takes its byte.  sparsity: share of the weights before that is now 0 or gone.
    """

    name: str
    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int
    weights_before: int
    nonzero_after: int

    @property
    def sparsity(self) -> float:
        return 1.0 - self.nonzero_after / self.weights_before

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "sparsity": self.sparsity}


@dataclass(frozen=True)
class PruneReport:
    """loss_before: of the network as it came.  loss_pruned: after the same cut at once, without training.
    loss_after: of the network returned.  All over the validation windows."""

    method: str
    layers: tuple[PrunedLayer, ...]
    total: PrunedLayer
    loss_before: float
    loss_pruned: float
    loss_after: float

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values: the total on top, ``layers`` below."""
        return {
            "method": self.method,
            "loss_before": self.loss_before,
            "loss_pruned": self.loss_pruned,
            "loss_after": self.loss_after,
            **self.total.to_mapping(),
            "layers": [layer.to_mapping() for layer in self.layers],
        }


@dataclass(frozen=True, eq=False)
class Pruned:
    """model: of Keras.  graph: its weights; ``made`` has the options and the report under ``prune``."""

    model: Any
    graph: Graph
    report: PruneReport


def prune(graph: Graph, dataset: Dataset, config: PruneConfig, progress: Progress | None = None) -> Pruned:
    """Prune a network and train the rest of it on; equal input gives equal weights.

    graph: from ``fit``, or from ``read_keras`` of a file of this toolkit; its scaling stays.
    dataset: with the channels it was trained on.  Raises ModelError on a network without training options
    or without a unit to remove, DataError on another dataset, RuntimeFailure where the training diverges.
    """
    training = training_config(graph, config.seed)
    check_channels(graph, dataset)
    if config.method == "units":
        _check_units(graph)
    prepared = prepare_again(graph, dataset, training)
    task = Task(graph, prepared.train, prepared.validation, config.seed)
    [cut] = prune_many([task], config, training, progress)
    report = _report(graph, cut.graph, config.method, cut.losses)
    figures = {
        "windows": {"train": cut.losses["train"], "validation": report.loss_after},
        "validation": forecast_figures(cut.graph, prepared.parts.validation, training.burn_in),
    }
    history = {"options": config.to_mapping(), "report": report.to_mapping()}
    pruned = replace(cut.graph, made={**graph.made, "prune": history, "figures": figures})
    return Pruned(from_graph(pruned, training), pruned, report)


def prune_many(
    tasks: Sequence[Task], config: PruneConfig, training: TrainConfig, progress: Progress | None = None
) -> list[FitResult]:
    """Prune networks of one shape side by side and train them on; see ``fit_many``.

    Losses of a result: before, pruned (the same cut at once, without training), train and validation.
    """
    trainer = tasks_trainer(tasks, training)
    before, pruned = trainer.validate(), _losses_pruned(trainer, config)
    histories = _cut_and_tune(trainer, config, progress)
    graphs = [trainer.graph(network) for network in range(trainer.count)]
    if config.method == "units":
        # what the masks removed has no importance, so it is what goes here: the outputs stay the same
        graphs = [remove_units(graph, kept_units(graph, config.sparsity)) for graph in graphs]
    losses = zip(before, pruned, trainer.loss(trainer.train), trainer.validate(), strict=True)
    names = ("before", "pruned", "train", "validation")
    return [
        FitResult(graph, history, dict(zip(names, map(float, found), strict=True)))
        for graph, history, found in zip(graphs, histories, losses, strict=True)
    ]


def _masks_of_all(trainer: Trainer, method: str, sparsity: float) -> list[list[FloatArray]]:
    return [masks(trainer.graph(network), method, sparsity) for network in range(trainer.count)]


def _cut_and_tune(trainer: Trainer, config: PruneConfig, progress: Progress | None) -> list[History]:
    """Remove weights step by step while training goes on."""
    steps = config.steps if config.schedule == "polynomial" and config.epochs else 1

    def cut(epoch: int) -> None:
        if epoch < steps:
            sparsity = sparsity_at(epoch, steps, config.sparsity)
            trainer.set_masks(_masks_of_all(trainer, config.method, sparsity))

    if not config.epochs:
        cut(0)
    return optimise(
        trainer, config.epochs, lambda *_: config.learning_rate,
        settled=steps - 1, before=cut, progress=progress,
    )  # fmt: skip


def _losses_pruned(trainer: Trainer, config: PruneConfig) -> FloatArray:
    """Validation losses of the whole cut at once; leaves the trainer's weights as they were."""
    weights = trainer.weights
    kept = zip(*_masks_of_all(trainer, config.method, config.sparsity), strict=True)
    trainer.weights = [w * np.stack(mask) for w, mask in zip(weights, kept, strict=True)]
    losses = trainer.validate()
    trainer.weights = weights
    return losses


def _check_units(graph: Graph) -> None:
    """The outputs of the last layer are forecasts of channels: none of them can go."""
    if not any(isinstance(layer, Lstm) for layer in plain_layers(graph)[:-1]):
        raise ModelError(
            f"model '{graph.name}': the units of its only LSTM '{graph.layers[-1].name}' are the outputs, so "
            "none can be removed; use method element or block, or train it with a dense head"
        )


def _report(before: Graph, after: Graph, method: str, losses: Mapping[str, float]) -> PruneReport:
    olds, news = plain_layers(before), plain_layers(after)
    rows = [_compare(old.name, [old], [new]) for old, new in zip(olds, news, strict=True)]
    total = _compare("total", olds, news)
    return PruneReport(method, tuple(rows), total, losses["before"], losses["pruned"], losses["validation"])


def _compare(name: str, before: Sequence[PlainLayer], after: Sequence[PlainLayer]) -> PrunedLayer:
    old = [array for layer in before for array in layer_weights(layer)]
    new = [array for layer in after for array in layer_weights(layer)]
    return PrunedLayer(
        name,
        parameters_before=sum(array.size for array in old),
        parameters_after=sum(array.size for array in new),
        bytes_before=_int8_bytes(old),
        bytes_after=_int8_bytes(new),
        weights_before=sum(array.size for array in old if array.ndim == 2),
        nonzero_after=sum(int(np.count_nonzero(array)) for array in new if array.ndim == 2),
    )


def _int8_bytes(arrays: Sequence[FloatArray]) -> int:
    return sum(array.size * (1 if array.ndim == 2 else 4) for array in arrays)
