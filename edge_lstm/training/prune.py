"""Pruning of a trained forecaster: single weights, blocks, or whole units; then fine-tuning.

Reads a Graph that ``fit`` made and its Dataset; writes a Pruned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray
from edge_lstm.datasets.dataset import Dataset
from edge_lstm.errors import ConfigError, DataError, ModelError
from edge_lstm.graph import Dense, Graph, Lstm
from edge_lstm.training.config import PruneConfig, TrainConfig
from edge_lstm.training.figures import forecast_figures
from edge_lstm.training.fit import Progress, Trainer, optimise, prepare
from edge_lstm.training.model import (
    PlainLayer,
    from_graph,
    get_weights,
    layer_weights,
    plain_layers,
    set_weights,
    to_graph,
)

BLOCK = 4  # neighbouring features

BoolArray = npt.NDArray[np.bool_]


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
    training = _training_config(graph, config)
    _check_channels(graph, dataset)
    if config.method == "units":
        _check_units(graph)
    prepared = prepare(dataset, training, graph.stream)
    trainer = Trainer(from_graph(graph, training), training, prepared)
    loss_before, loss_pruned = trainer.validate(), _loss_pruned(trainer, graph, config)
    result = _cut_and_tune(trainer, graph, config, progress)
    report = _report(graph, result, config.method, loss_before, loss_pruned, trainer.validate())
    figures = {
        "windows": {"train": trainer.loss(prepared.train), "validation": report.loss_after},
        "validation": forecast_figures(result, prepared.parts.validation, training.burn_in),
    }
    history = {"options": config.to_mapping(), "report": report.to_mapping()}
    pruned = replace(result, made={**graph.made, "prune": history, "figures": figures})
    return Pruned(from_graph(pruned, training), pruned, report)


def _cut_and_tune(trainer: Trainer, graph: Graph, config: PruneConfig, progress: Progress | None) -> Graph:
    """Remove weights step by step while training goes on; units leave the matrices at the end."""

    def current() -> Graph:
        return to_graph(trainer.model, graph.name, graph.stream, graph.made)

    steps = config.steps if config.schedule == "polynomial" and config.epochs else 1

    def cut(epoch: int) -> None:
        if epoch < steps:
            sparsity = sparsity_at(epoch, steps, config.sparsity)
            trainer.set_masks(masks(current(), config.method, sparsity))

    if config.epochs:
        optimise(
            trainer, config.epochs, lambda *_: config.learning_rate,
            settled=steps - 1, before=cut, progress=progress,
        )  # fmt: skip
    else:
        cut(0)
    if config.method == "units":
        # what the masks removed has no importance, so it is what goes here: the outputs stay the same
        return remove_units(current(), kept_units(current(), config.sparsity))
    return current()


def _loss_pruned(trainer: Trainer, graph: Graph, config: PruneConfig) -> float:
    """Validation loss of the whole cut at once; leaves the trainer's weights as they were."""
    weights = get_weights(trainer.model)
    cut = masks(graph, config.method, config.sparsity)
    set_weights(trainer.model, [weight * mask for weight, mask in zip(weights, cut, strict=True)])
    loss = trainer.validate()
    set_weights(trainer.model, weights)
    return loss


def _training_config(graph: Graph, config: PruneConfig) -> TrainConfig:
    if "train" not in graph.made:
        raise ModelError(
            f"model '{graph.name}': it carries no training options, so it cannot be trained on; "
            "prune a .keras file that this toolkit trained"
        )
    try:
        training = TrainConfig.from_mapping(graph.made["train"], f"model '{graph.name}'")
    except ConfigError as error:
        raise ModelError(f"{error}; train it again with this version") from error
    return replace(training, seed=config.seed)


def _check_channels(graph: Graph, dataset: Dataset) -> None:
    if len(graph.stream.channels) != dataset.channels:
        raise DataError(
            f"model '{graph.name}' was trained on the channels {', '.join(graph.stream.names)}, "
            f"the dataset has {', '.join(dataset.names)}; give it the recording it was trained on"
        )


def _check_units(graph: Graph) -> None:
    """The outputs of the last layer are forecasts of channels: none of them can go."""
    if not any(isinstance(layer, Lstm) for layer in plain_layers(graph)[:-1]):
        raise ModelError(
            f"model '{graph.name}': the units of its only LSTM '{graph.layers[-1].name}' are the outputs, so "
            "none can be removed; use method element or block, or train it with a dense head"
        )


def sparsity_at(step: int, steps: int, final: float) -> float:
    """Sparsity of a step counted from 0, along ``1 - (1 - t)**3``; the last step has the final one."""
    return final * (1.0 - (1.0 - (step + 1) / steps) ** 3)


def masks(graph: Graph, method: str, sparsity: float) -> list[FloatArray]:
    """1 for weights that stay and 0 for those that go, one array a trainable weight, Keras' shapes.

    A weight that is 0 already stays 0, so a network can be pruned twice by different methods.
    Biases stay, except those of removed units.
    """
    weights = [(layer, array) for layer in plain_layers(graph) for array in layer_weights(layer)]
    if method == "units":
        kept = _unit_masks(graph, kept_units(graph, sparsity))
    else:
        kept = [_kept(layer, array, method, sparsity) for layer, array in weights]
    return [
        (stays & (array != 0) if array.ndim == 2 else stays).astype(np.float32)
        for (_, array), stays in zip(weights, kept, strict=True)
    ]


def _kept(layer: PlainLayer, array: FloatArray, method: str, sparsity: float) -> BoolArray:
    if array.ndim != 2:
        return np.ones(array.shape, dtype=np.bool_)
    if method == "element":
        return element_mask(array, sparsity)
    return block_mask(array, sparsity, 4 if isinstance(layer, Lstm) else 1)


def element_mask(weights: FloatArray, sparsity: float) -> BoolArray:
    """False for the ``round(sparsity * size)`` weights of least magnitude, the first ones among equals."""
    kept = np.ones(weights.size, dtype=np.bool_)
    order = np.argsort(np.abs(weights), axis=None, kind="stable")
    kept[order[: round(sparsity * weights.size)]] = False
    return kept.reshape(weights.shape)


def block_mask(weights: FloatArray, sparsity: float, gates: int = 1) -> BoolArray:
    """False for whole blocks of 4 consecutive features of a unit in all its gates.

    weights: (features, gates * units), gate by gate.  Where features is no multiple of 4 the last block of a
    unit is shorter.  Blocks go in the order of their mean square, until the share of weights is as near
    ``sparsity`` as whole blocks get.
    """
    features, units = len(weights), weights.shape[1] // gates
    starts = np.arange(0, features, BLOCK)
    lengths = np.minimum(BLOCK, features - starts)
    squares = np.square(weights, dtype=np.float64).reshape(features, gates, units).sum(axis=1)
    mean_square = np.add.reduceat(squares, starts, axis=0) / lengths[:, None]
    order = np.argsort(mean_square, axis=None, kind="stable")
    removed = np.cumsum(np.repeat(gates * lengths, units)[order])
    count = int(np.argmin(np.abs(np.concatenate(([0], removed)) - sparsity * weights.size)))
    kept = np.ones(len(order), dtype=np.bool_)
    kept[order[:count]] = False
    mask: BoolArray = np.tile(np.repeat(kept.reshape(len(starts), units), lengths, axis=0), gates)
    return mask


def unit_importance(layer: Lstm, after: PlainLayer) -> FloatArray:
    """(units,): what enters a unit's cell times what leaves the unit, both as sums of squares.

    Into the cell goes only gate g (kernel, recurrent kernel, bias); out go the unit's rows of the recurrent
    kernel and of the next layer.  0 where either is 0: then the unit's output is 0, or read by nobody.
    """
    g = slice(2 * layer.units, 3 * layer.units)
    incoming = _energy(layer.kernel[:, g], 0) + _energy(layer.recurrent_kernel[:, g], 0)
    incoming = incoming + np.square(layer.bias[g], dtype=np.float64)
    outgoing: FloatArray = _energy(layer.recurrent_kernel, 1) + _energy(after.kernel, 1)
    return incoming * outgoing


def _energy(weights: FloatArray, axis: int) -> FloatArray:
    energy: FloatArray = np.square(weights, dtype=np.float64).sum(axis=axis)
    return energy


def kept_units(graph: Graph, sparsity: float) -> list[BoolArray | None]:
    """Bool (units,) for each LSTM layer, None for others; ``round(sparsity * units)`` go, one stays."""
    kept: list[BoolArray | None] = []
    for layer, after in pairwise(plain_layers(graph)):
        if isinstance(layer, Dense):
            kept.append(None)
            continue
        stays = np.ones(layer.units, dtype=np.bool_)
        gone = min(round(sparsity * layer.units), layer.units - 1)
        stays[np.argsort(unit_importance(layer, after), kind="stable")[:gone]] = False
        kept.append(stays)
    return [*kept, None]


def _unit_masks(graph: Graph, kept: Sequence[BoolArray | None]) -> list[BoolArray]:
    """False for every weight of a unit that goes and for every weight that reads it."""
    result: list[BoolArray] = []
    inputs: BoolArray = np.ones(graph.features, dtype=np.bool_)
    for layer, stays in zip(plain_layers(graph), kept, strict=True):
        outputs = np.ones(layer.outputs, dtype=np.bool_) if stays is None else stays
        columns = np.tile(outputs, 4) if isinstance(layer, Lstm) else outputs
        result.append(np.logical_and.outer(inputs, columns))
        if isinstance(layer, Lstm):
            result.append(np.logical_and.outer(outputs, columns))
        result.append(columns)
        inputs = outputs
    return result


def remove_units(graph: Graph, kept: Sequence[BoolArray | None]) -> Graph:
    """The network without the units whose entry is False: their columns, rows and readers are cut out."""
    layers: list[PlainLayer] = []
    inputs: BoolArray = np.ones(graph.features, dtype=np.bool_)
    for layer, stays in zip(plain_layers(graph), kept, strict=True):
        kernel = layer.kernel[inputs]
        outputs = np.ones(layer.outputs, dtype=np.bool_) if stays is None else stays
        if isinstance(layer, Lstm):
            columns = np.tile(outputs, 4)
            recurrent = layer.recurrent_kernel[outputs][:, columns]
            layers.append(
                replace(
                    layer, kernel=kernel[:, columns], recurrent_kernel=recurrent, bias=layer.bias[columns]
                )
            )
        else:
            layers.append(replace(layer, kernel=kernel))
        inputs = outputs
    return replace(graph, layers=tuple(layers))


def _report(
    before: Graph, after: Graph, method: str, loss_before: float, loss_pruned: float, loss_after: float
) -> PruneReport:
    olds, news = plain_layers(before), plain_layers(after)
    rows = [_compare(old.name, [old], [new]) for old, new in zip(olds, news, strict=True)]
    total = _compare("total", olds, news)
    return PruneReport(method, tuple(rows), total, loss_before, loss_pruned, loss_after)


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
