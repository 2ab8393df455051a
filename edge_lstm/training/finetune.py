"""Quantization-aware training: a float network learns with the integers of its numerics profile.

Reads a trained Graph, its windows and a calibration stream; writes a Graph that ``quantize`` takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.datasets.dataset import Dataset
from edge_lstm.graph import Graph
from edge_lstm.lower import lower
from edge_lstm.qgraph import QGraph
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.reference import integer
from edge_lstm.training.calibration import quantize_many
from edge_lstm.training.config import FinetuneConfig, TrainConfig
from edge_lstm.training.figures import forecast_figures
from edge_lstm.training.fit import (
    FitResult,
    Task,
    check_channels,
    prepare_again,
    scheduled_rate,
    training_config,
)
from edge_lstm.training.integer_constants import integer_stack, stack_constants
from edge_lstm.training.model import from_graph, layer_weights, load_tensorflow, plain_layers
from edge_lstm.training.optimise import Progress, optimise
from edge_lstm.training.samples import Samples
from edge_lstm.training.trainer import Trainer


@dataclass(frozen=True, eq=False)
class Finetuned:
    """model: of Keras.  graph: its weights; ``made`` has the options and losses under ``finetune``.

    losses: of the integer network over the validation windows, ``before`` (post-training quantization) and
    ``after``.
    """

    model: Any
    graph: Graph
    losses: Mapping[str, float]


def finetune(
    graph: Graph,
    dataset: Dataset,
    calibration: FloatArray,
    quantizer: QuantizeConfig,
    config: FinetuneConfig,
    progress: Progress | None = None,
) -> Finetuned:
    """Train a network on in the integers that ``quantize(graph, calibration, quantizer)`` has.

    graph: of this toolkit; its scaling stays, and so do weights of 0.  dataset: what it was trained on.
    Raises ModelError on a network without training options, DataError on another dataset.
    """
    training = training_config(graph, config.seed)
    check_channels(graph, dataset)
    prepared = prepare_again(graph, dataset, training)
    train, validation = prepared.train, prepared.validation
    [result] = finetune_many(
        [Task(graph, train, validation, config.seed)], [calibration], quantizer, config, training, progress
    )
    made = {
        "options": config.to_mapping(),
        "quantize": asdict(quantizer),
        "losses": dict(result.losses),
        "history": result.history,
    }
    figures = {
        **graph.made.get("figures", {}),
        "validation": forecast_figures(result.graph, prepared.parts.validation, training.burn_in),
    }
    tuned = replace(result.graph, made={**graph.made, "finetune": made, "figures": figures})
    return Finetuned(from_graph(tuned, training), tuned, result.losses)


def finetune_many(
    tasks: Sequence[Task],
    calibrations: Sequence[FloatArray],
    quantizer: QuantizeConfig,
    config: FinetuneConfig,
    training: TrainConfig,
    progress: Progress | None = None,
) -> list[FitResult]:
    """Train networks of one shape side by side in their integers; see ``fit_many`` and ``quantize``.

    calibrations: streams of network inputs, one a task; scales are taken from them after each epoch.
    Losses of a result: of the integer network over the validation windows, before and after.  The network of
    the best epoch is returned, and the one that came where no epoch is better.
    """
    trainer = IntegerTrainer(tasks, calibrations, quantizer, training)
    before = trainer.validate()
    cosine = replace(
        training, schedule="cosine", epochs=max(config.epochs, 1), learning_rate=config.learning_rate
    )
    histories = optimise(
        trainer, config.epochs, lambda epoch, losses: scheduled_rate(cosine, epoch, losses), config.patience,
        progress=progress, start=before,
    )  # fmt: skip
    after = trainer.validate()
    return [
        FitResult(trainer.graph(n), history, {"before": float(before[n]), "after": float(after[n])})
        for n, history in enumerate(histories)
    ]


class IntegerTrainer(Trainer):
    """A Trainer whose forward pass computes the codes of the quantized networks.

    qgraphs: of the weights at the last validation; their scales hold until the next.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        calibrations: Sequence[FloatArray],
        quantizer: QuantizeConfig,
        training: TrainConfig,
    ) -> None:
        self._calibrations, self._quantizer = calibrations, quantizer
        graphs = [task.graph for task in tasks]
        self.qgraphs = quantize_many(graphs, calibrations, quantizer)
        self._stack = integer_stack(self.qgraphs[0], quantizer.weights)
        super().__init__(
            graphs,
            [_encoded(task.train, q) for task, q in zip(tasks, self.qgraphs, strict=True)],
            [_encoded(task.validation, q) for task, q in zip(tasks, self.qgraphs, strict=True)],
            replace(training, dropout=0.0, recurrent_dropout=0.0),
            [task.seed for task in tasks],
            self._stack,
        )
        self.set_masks([_nonzero(graph) for graph in graphs])

    def validate(self) -> FloatArray:
        """Quantize the weights of now, and the losses of those integer networks, (networks,)."""
        graphs = [self.graph(network) for network in range(self.count)]
        self.qgraphs = quantize_many(graphs, self._calibrations, self._quantizer)
        tf = load_tensorflow()
        found = stack_constants(self._stack, graphs, self.qgraphs)
        self.constants = tf.nest.map_structure(tf.constant, found)
        huber = self._options.huber
        return np.array(
            [integer_loss(q, part, huber) for q, part in zip(self.qgraphs, self.validation, strict=True)]
        )


def _encoded(samples: Samples, qgraph: QGraph) -> Samples:
    """Samples whose inputs are codes; float32 holds those of 16 bits."""
    return replace(samples, inputs=qgraph.input.encode(samples.inputs).astype(np.float32))


def _nonzero(graph: Graph) -> list[FloatArray]:
    """Masks that keep weights of 0 where they are; biases are free."""
    weights = [array for layer in plain_layers(graph) for array in layer_weights(layer)]
    return [(array != 0) if array.ndim == 2 else np.ones(array.shape) for array in weights]


def integer_loss(qgraph: QGraph, samples: Samples, huber: bool = False) -> float:
    """The mean loss of the integer network over the weighted entries.  samples: their inputs are codes."""
    rows = samples.starts[:, None] + np.arange(samples.timesteps)
    codes, _ = integer.run(lower(qgraph), samples.inputs[rows].astype(np.int64))
    error = np.abs(qgraph.output.decode(codes) - samples.targets[rows])
    weights = np.array(samples.weights[rows], np.float64)
    weights[:, : samples.burn_in] = 0.0
    loss = np.where(error <= 1.0, 0.5 * error**2, error - 0.5) if huber else error**2
    return float((weights * loss).sum() / max(weights.sum(), 1.0))
