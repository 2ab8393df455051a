"""Epochs until each network has had its best one: schedule, early stop, the weights that are kept.

Reads a Trainer; leaves the best weights in it and writes learning curves, one a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.datasets.dataset import BoolArray
from edge_lstm.errors import RuntimeFailure

Progress = Callable[[int, int, str], None]
History = dict[str, list[float]]


class Trainable(Protocol):
    """What ``optimise`` needs of a Trainer."""

    weights: list[Any]

    @property
    def count(self) -> int: ...

    def epoch(self, rates: FloatArray) -> FloatArray: ...

    def validate(self) -> FloatArray: ...


@dataclass
class Best:
    """The weights of each network's least validation loss, among the epochs from ``settled`` on."""

    loss: FloatArray
    epoch: FloatArray
    weights: list[FloatArray]

    @staticmethod
    def of(trainer: Trainable, settled: int, start: FloatArray | None) -> Best:
        """start: losses of the weights that the trainer has, where they may be kept too."""
        kept = [np.array(weight) for weight in trainer.weights]
        losses = np.full(trainer.count, math.inf) if start is None else np.array(start)
        return Best(losses, np.full(trainer.count, float(settled)), kept)

    def take(self, better: BoolArray, epoch: int, losses: FloatArray, weights: Sequence[Any]) -> None:
        """Keep the networks where ``better`` is true."""
        self.loss[better], self.epoch[better] = losses[better], epoch
        for kept, weight in zip(self.weights, weights, strict=True):
            kept[better] = np.asarray(weight)[better]


def optimise(
    trainer: Trainable,
    epochs: int,
    rate: Callable[[int, list[float]], float],
    patience: int = 0,
    settled: int = 0,
    before: Callable[[int], None] | None = None,
    progress: Progress | None = None,
    start: FloatArray | None = None,
) -> list[History]:
    """Run epochs, stop each network early, leave the weights of its best validation loss in the trainer.

    rate: learning rate of an epoch, from its number and a network's validation losses so far.
    patience: 0 never stops early.  settled: the first epoch whose weights may be kept.
    before: called before each epoch.  start: losses of the weights as they are, kept unless an epoch is
    better.  Returns the learning curves, one a network.  Raises RuntimeFailure on a loss that is no number.
    """
    histories: list[History] = [
        {"loss": [], "validation_loss": [], "learning_rate": []} for _ in range(trainer.count)
    ]
    best, running = Best.of(trainer, settled, start), np.ones(trainer.count, np.bool_)
    for epoch in range(epochs):
        if before is not None:
            before(epoch)
        rates = np.array([rate(epoch, history["validation_loss"]) for history in histories]) * running
        losses, validation = trainer.epoch(rates), trainer.validate()
        _check_finite(epoch, losses, validation, rates, running)
        for network in np.flatnonzero(running):
            values = losses[network], validation[network], rates[network]
            for series, value in zip(histories[network].values(), values, strict=True):
                series.append(float(value))
        if epoch >= settled:
            best.take(running & (validation < best.loss), epoch, validation, trainer.weights)
        if patience:
            running = running & (epoch - best.epoch < patience)
        if progress is not None:
            progress(*_line(epoch, epochs, losses, validation, running))
        if not running.any():
            break
    trainer.weights = list(best.weights)
    return histories


def _line(
    epoch: int, epochs: int, losses: FloatArray, validation: FloatArray, running: BoolArray
) -> tuple[int, int, str]:
    """Epochs done, epochs at most and what to show: losses, in the mean of several networks."""
    text = f"loss {losses.mean():.4g} validation {validation.mean():.4g}"
    if not running.any():
        return epochs, epochs, text + " stopped early"
    stopped = f" ({(~running).sum()} of {len(running)} stopped)" if not running.all() else ""
    return epoch + 1, epochs, text + stopped


def _check_finite(
    epoch: int, losses: FloatArray, validation: FloatArray, rates: FloatArray, running: BoolArray
) -> None:
    for network in np.flatnonzero(running & ~(np.isfinite(losses) & np.isfinite(validation))):
        which = "" if len(running) == 1 else f" of network {network + 1}"
        raise RuntimeFailure(
            f"the training{which} diverged in epoch {epoch + 1}: loss {losses[network]}, validation loss "
            f"{validation[network]}, learning rate {rates[network]:g}; lower learning_rate, or set clip_norm "
            "to 1 or less"
        )
