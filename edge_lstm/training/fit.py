"""Training of a forecaster: windows, loss, early stopping and what it reaches on a long stream.

Reads a Dataset and a TrainConfig; writes a Trained.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import edge_lstm
from edge_lstm.arrays import FloatArray
from edge_lstm.datasets.dataset import Dataset, Splits, split
from edge_lstm.datasets.scaling import fit_scaler
from edge_lstm.datasets.windows import Windows, make_windows
from edge_lstm.errors import DataError, RuntimeFailure
from edge_lstm.graph import Graph, Stream
from edge_lstm.training.config import TrainConfig
from edge_lstm.training.figures import forecast_figures
from edge_lstm.training.model import (
    build,
    get_weights,
    load_keras,
    load_tensorflow,
    set_weights,
    to_graph,
)

PLATEAU_EPOCHS = 3  # without a better validation loss, then ``plateau`` halves the rate
COSINE_FLOOR = 0.01  # of the first rate, at the last epoch
VALIDATION_BATCH = 256  # windows at once; more needs memory, fewer needs time

Progress = Callable[[int, int, str], None]
History = dict[str, list[float]]


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
class Prepared:
    """The parts of a dataset and their windows, in network units."""

    parts: Splits
    stream: Stream
    train: Windows
    validation: Windows


def fit(
    dataset: Dataset, config: TrainConfig, progress: Progress | None = None, name: str = "model"
) -> Trained:
    """Train a forecaster of the next sample; equal input gives equal weights.

    progress: called with (epochs done, epochs at most, a line of losses).  name: of the Graph.
    Raises DataError where the rows do not suffice, RuntimeFailure where the training diverges.
    """
    prepared = prepare(dataset, config)
    model = build(config, dataset.channels)
    trainer = Trainer(model, config, prepared)
    history = optimise(
        trainer,
        config.epochs,
        lambda epoch, losses: scheduled_rate(config, epoch, losses),
        config.patience,
        progress=progress,
    )
    losses = {"train": trainer.loss(prepared.train), "validation": trainer.loss(prepared.validation)}
    plain = to_graph(model, name, prepared.stream, {})
    figures = {
        "windows": losses,
        "validation": forecast_figures(plain, prepared.parts.validation, config.burn_in),
    }
    made = {
        "train": config.to_mapping(),
        "data": data_figures(dataset, prepared),
        "versions": versions(),
        "history": history,
        "figures": figures,
    }
    return Trained(model, to_graph(model, name, prepared.stream, made), config, history, figures)


def prepare(dataset: Dataset, config: TrainConfig, stream: Stream | None = None) -> Prepared:
    """Split in time order, scale by the normal training rows (or by ``stream``), cut windows."""
    parts = split(dataset, config.train_fraction, config.validation_fraction)
    scaling = fit_scaler(parts.train, config.scaler) if stream is None else stream
    return Prepared(
        parts,
        scaling,
        _windows(parts.train, scaling, config, "training"),
        _windows(parts.validation, scaling, config, "validation"),
    )


def _windows(part: Dataset, stream: Stream, config: TrainConfig, name: str) -> Windows:
    x = stream.to_network(part.values)
    try:
        return make_windows(
            x, part.present, part.gap, part.normal, config.timesteps, config.stride, config.burn_in
        )
    except DataError as error:
        raise DataError(f"the {name} part ({part.rows} rows): {error}") from error


class Trainer:
    """A model, its optimizer and its windows; the steps are compiled once."""

    def __init__(self, model: Any, config: TrainConfig, prepared: Prepared) -> None:
        keras, tf = load_keras(), load_tensorflow()
        self.model, self._tf = model, tf
        self._huber = config.loss == "huber"
        self._windows, self._validation = prepared.train, prepared.validation
        self._data = [tf.constant(a) for a in _arrays(prepared.train)]
        self._batch = min(config.batch_size, prepared.train.count)
        self._order = np.random.default_rng(config.seed)
        self._optimizer = keras.optimizers.AdamW(
            config.learning_rate,
            weight_decay=config.weight_decay,
            global_clipnorm=config.clip_norm or None,
        )
        self._optimizer.exclude_from_weight_decay(var_names=["bias"])
        self._optimizer.build(model.trainable_variables)
        self._masks = [tf.Variable(tf.ones(v.shape)) for v in model.trainable_variables]
        self._step = tf.function(self._train_step)
        self._sums = tf.function(self._loss_sums, reduce_retracing=True)

    def set_masks(self, masks: Sequence[FloatArray]) -> None:
        """Hold weights at 0 where their mask is 0, from now on; one float32 array a trainable weight."""
        for variable, held, mask in zip(self.model.trainable_variables, self._masks, masks, strict=True):
            held.assign(mask)
            variable.assign(variable.value * held)

    def epoch(self, learning_rate: float) -> float:
        """One pass over the shuffled windows; returns the mean loss of its batches."""
        self._optimizer.learning_rate = learning_rate
        batches = self._windows.count // self._batch
        order = self._order.permutation(self._windows.count)[: batches * self._batch]
        sums = [self._step(self._tf.constant(batch)) for batch in order.reshape(batches, self._batch)]
        return _mean_of(sums)

    def validate(self) -> float:
        """The loss over the validation windows."""
        return self.loss(self._validation)

    def loss(self, windows: Windows) -> float:
        """The exact mean over all weighted entries of ``windows``, without dropout."""
        arrays = _arrays(windows)
        parts = range(0, windows.count, VALIDATION_BATCH)
        return _mean_of(
            [self._sums(*(self._tf.constant(a[k : k + VALIDATION_BATCH]) for a in arrays)) for k in parts]
        )

    def _loss_sums(self, inputs: Any, targets: Any, weights: Any, training: bool = False) -> tuple[Any, Any]:
        """The weighted sum of the loss and the sum of the weights."""
        tf = self._tf
        error = self.model(inputs, training=training) - targets
        loss = tf.square(error)
        if self._huber:
            size = tf.abs(error)
            loss = tf.where(size <= 1.0, 0.5 * loss, size - 0.5)
        return tf.reduce_sum(weights * loss), tf.reduce_sum(weights)

    def _train_step(self, batch: Any) -> tuple[Any, Any]:
        tf, variables = self._tf, self.model.trainable_variables
        inputs, targets, weights = (tf.gather(array, batch) for array in self._data)
        with tf.GradientTape() as tape:
            total, count = self._loss_sums(inputs, targets, weights, training=True)
            loss = total / count  # make_windows drops windows without a weight
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
        for variable, held in zip(variables, self._masks, strict=True):
            variable.assign(variable.value * held)
        return total, count


def _arrays(windows: Windows) -> tuple[Any, Any, Any]:
    return windows.inputs, windows.targets, windows.weights


def _mean_of(sums: list[Any]) -> float:
    totals = np.array([[float(total), float(count)] for total, count in sums])
    return float(totals[:, 0].sum() / totals[:, 1].sum())


def optimise(
    trainer: Trainer,
    epochs: int,
    rate: Callable[[int, list[float]], float],
    patience: int = 0,
    settled: int = 0,
    before: Callable[[int], None] | None = None,
    progress: Progress | None = None,
) -> History:
    """Run epochs, stop early, leave the weights of the best validation loss in the model.

    rate: learning rate of an epoch, from its number and the validation losses so far.
    patience: 0 never stops early.  settled: the first epoch whose weights may be kept.
    before: called before each epoch.  Raises RuntimeFailure on a loss that is no number.
    """
    history: History = {"loss": [], "validation_loss": [], "learning_rate": []}
    best, best_epoch, kept = math.inf, settled, get_weights(trainer.model)
    for epoch in range(epochs):
        if before is not None:
            before(epoch)
        learning_rate = rate(epoch, history["validation_loss"])
        loss = trainer.epoch(learning_rate)
        validation = trainer.validate()
        _check_finite(epoch, loss, validation, learning_rate)
        for series, value in zip(history.values(), (loss, validation, learning_rate), strict=True):
            series.append(value)
        if epoch >= settled and validation < best:
            best, best_epoch, kept = validation, epoch, get_weights(trainer.model)
        stopping = bool(patience) and epoch - best_epoch >= patience
        if progress is not None:
            text = f"loss {loss:.4g} validation {validation:.4g}" + (" stopped early" if stopping else "")
            progress(epochs if stopping else epoch + 1, epochs, text)
        if stopping:
            break
    set_weights(trainer.model, kept)
    return history


def _check_finite(epoch: int, loss: float, validation: float, learning_rate: float) -> None:
    if not (math.isfinite(loss) and math.isfinite(validation)):
        raise RuntimeFailure(
            f"the training diverged in epoch {epoch + 1}: loss {loss}, validation loss {validation}, "
            f"learning rate {learning_rate:g}; lower learning_rate, or set clip_norm to 1 or less"
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
    parts = prepared.parts
    return {
        "channels": list(dataset.names),
        "rows": dataset.rows,
        "train_rows": parts.train.rows,
        "validation_rows": parts.validation.rows,
        "test_rows": parts.test.rows,
        "normal_train_rows": int(parts.train.normal.sum()),
        "train_windows": prepared.train.count,
        "validation_windows": prepared.validation.count,
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
