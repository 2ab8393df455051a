"""Epochs of many networks of one shape in one compiled program.

Reads Graphs and their Samples; writes weights and losses, one a network.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.graph import Graph
from edge_lstm.training import adam
from edge_lstm.training.config import TrainConfig
from edge_lstm.training.model import load_tensorflow
from edge_lstm.training.samples import Batch, Samples, Shuffles, in_order, make_batch
from edge_lstm.training.stack import (
    Shape,
    common_shapes,
    forward,
    gradients,
    stack_weights,
    unstack,
)

VALIDATION_WINDOWS = 2048  # of all networks at once; more needs memory, fewer needs time


class Arithmetic(Hashable, Protocol):
    """How a stack of networks computes; hashable, because compiled programs are kept by it."""

    def run(self, weights: Any, constants: Any, x: Any, masks: Any) -> tuple[Any, Callable[[Any], list[Any]]]:
        """Real outputs, and what turns their gradient into those of the weights."""


@dataclass(frozen=True)
class Floating:
    """The network in float32."""

    shapes: tuple[Shape, ...]

    def run(self, weights: Any, constants: Any, x: Any, masks: Any) -> tuple[Any, Callable[[Any], list[Any]]]:
        """See Arithmetic; constants are none.  masks: of dropout, one a layer."""
        outputs, kept = forward(self.shapes, weights, x, masks)
        return outputs, lambda upstream: gradients(self.shapes, weights, kept, upstream)


@dataclass(frozen=True)
class Options:
    """What a compiled step depends on beside its shapes."""

    huber: bool
    clip_norm: float
    weight_decay: float

    @staticmethod
    def of(config: TrainConfig) -> Options:
        return Options(config.loss == "huber", config.clip_norm, config.weight_decay)


def _losses(error: Any, weights: Any, huber: bool) -> tuple[Any, Any]:
    """Weighted sums of the loss and of the weights, one a network."""
    tf = load_tensorflow()
    loss = tf.square(error)
    if huber:
        size = tf.abs(error)
        loss = tf.where(size <= 1.0, 0.5 * loss, size - 0.5)
    axes = [0, 2, 3]
    return tf.reduce_sum(weights * loss, axes), tf.reduce_sum(weights, axes)


@cache
def _training_step(arithmetic: Arithmetic, options: Options, sizes: tuple[Any, ...]) -> Any:
    """One update of all networks, compiled.  sizes: of the batch, so that each size is compiled once."""
    tf = load_tensorflow()

    def step(
        weights: Any, moments: Any, held: Any, constants: Any, batch: Batch, masks: Any, rate: Any
    ) -> Any:
        outputs, pull = arithmetic.run(weights, constants, batch.inputs, masks)
        error = outputs - batch.targets
        totals, counts = _losses(error, batch.weights, options.huber)
        slope = tf.clip_by_value(error, -1.0, 1.0) if options.huber else 2.0 * error
        share = tf.reshape(tf.maximum(counts, 1.0), (1, -1, 1, 1))
        found = pull(batch.weights * slope / share)
        if options.clip_norm:
            found = adam.clipped(found, options.clip_norm)
        moved, moments = adam.update(weights, found, moments, rate, options.weight_decay)
        return [weight * mask for weight, mask in zip(moved, held, strict=True)], moments, totals, counts

    return tf.function(step, jit_compile=True, autograph=False)


@cache
def _loss_sums(arithmetic: Arithmetic, huber: bool, sizes: tuple[Any, ...]) -> Any:
    tf = load_tensorflow()

    def sums(weights: Any, constants: Any, batch: Batch, masks: Any) -> Any:
        outputs, _ = arithmetic.run(weights, constants, batch.inputs, masks)
        return _losses(outputs - batch.targets, batch.weights, huber)

    return tf.function(sums, jit_compile=True, autograph=False)


class Trainer:
    """Networks of one shape with their windows, masks and optimizer.

    weights: arrays (networks, ...).  constants: what the arithmetic needs beside them.
    """

    def __init__(
        self,
        graphs: Sequence[Graph],
        train: Sequence[Samples],
        validation: Sequence[Samples],
        config: TrainConfig,
        seeds: Sequence[int],
        arithmetic: Arithmetic | None = None,
    ) -> None:
        self.graphs, self.train, self.validation = graphs, train, validation
        self.shapes = common_shapes(graphs)
        self._arithmetic = arithmetic or Floating(self.shapes)
        self._options, self._config = Options.of(config), config
        self._shuffles = Shuffles(train, config.batch_size, seeds, config.updates)
        self._dropout = [np.random.default_rng([1, seed]) for seed in seeds]
        self.weights: list[Any] = stack_weights(graphs)
        tf = load_tensorflow()
        self._held = [tf.ones(weight.shape) for weight in self.weights]
        self._moments = adam.start(self._held)
        self.constants: Any = ()

    @property
    def count(self) -> int:
        return len(self.graphs)

    def set_masks(self, masks: Sequence[Sequence[FloatArray]]) -> None:
        """Hold weights at 0 where their mask is 0, from now on; for each network one array a weight array."""
        held = [np.stack(arrays).astype(np.float32) for arrays in zip(*masks, strict=True)]
        self.weights = [np.asarray(w) * mask for w, mask in zip(self.weights, held, strict=True)]
        self._held = [load_tensorflow().constant(mask) for mask in held]

    def graph(self, network: int) -> Graph:
        """One network with the weights that it has now."""
        return unstack(self.graphs[network], [np.asarray(weight) for weight in self.weights], network)

    def epoch(self, rates: FloatArray) -> FloatArray:
        """One pass over the shuffled windows; mean losses (networks,).  rates: of learning, one a network."""
        sums = []
        rate = np.asarray(rates, np.float32)
        for chosen in self._shuffles.epoch():
            batch, masks = make_batch(self.train, chosen), self._draw_masks(chosen.shape[1])
            step = _training_step(self._arithmetic, self._options, self._sizes(batch))
            self.weights, self._moments, totals, counts = step(
                self.weights, self._moments, self._held, self.constants, batch, masks, rate
            )
            sums.append((totals, counts))
        return _means(sums)

    def validate(self) -> FloatArray:
        """The losses over the validation windows, (networks,)."""
        return self.loss(self.validation)

    def loss(self, samples: Sequence[Samples]) -> FloatArray:
        """The exact means over all weighted entries, without dropout."""
        sums, none = [], (None,) * len(self.shapes)
        size = min(max(1, VALIDATION_WINDOWS // self.count), max(s.count for s in samples))
        for chosen in in_order(samples, size):
            batch = make_batch(samples, chosen)
            run = _loss_sums(self._arithmetic, self._options.huber, self._sizes(batch))
            sums.append(run(self.weights, self.constants, batch, none))
        return _means(sums)

    def _sizes(self, batch: Batch) -> tuple[Any, ...]:
        dropout = self._config.dropout > 0, self._config.recurrent_dropout > 0
        return (*batch.inputs.shape, batch.targets.shape[-1], *self.shapes, *dropout)

    def _draw_masks(self, windows: int) -> tuple[Any, ...]:
        """Dropout of inputs and state of each LSTM, the same at all steps of a window; scaled to mean 1."""
        config = self._config
        if not (config.dropout or config.recurrent_dropout):
            return (None,) * len(self.shapes)
        masks: list[Any] = []
        for shape in self.shapes:
            if shape.kind == "dense":
                masks.append(None)
                continue
            kept = 1.0 - np.repeat(
                [config.dropout, config.recurrent_dropout], [shape.features, shape.outputs]
            )
            drawn = [order.random((windows, len(kept))) < kept for order in self._dropout]
            masks.append((np.stack(drawn) / kept).astype(np.float32))
        return tuple(masks)


def _means(sums: Sequence[tuple[Any, Any]]) -> FloatArray:
    totals, counts = (
        np.sum([np.asarray(part, np.float64) for part in parts], axis=0) for parts in zip(*sums, strict=True)
    )
    means: FloatArray = totals / np.maximum(counts, 1.0)
    return means
