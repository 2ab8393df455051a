"""AdamW over many networks at once: each has its own learning rate and gradient norm, as in Keras.

Kingma and Ba, 2015; Loshchilov and Hutter, 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from edge_lstm.training.model import load_tensorflow

FIRST, SECOND = 0.9, 0.999  # decay of the moments
EPSILON = 1e-7


class Adam(NamedTuple):
    """step: updates so far, float32.  first, second: moments, one tensor a weight array."""

    step: Any
    first: tuple[Any, ...]
    second: tuple[Any, ...]


def start(weights: Sequence[Any]) -> Adam:
    """No updates yet."""
    tf = load_tensorflow()
    zeros = tuple(tf.zeros_like(weight) for weight in weights)
    return Adam(tf.constant(0.0), zeros, zeros)


def clipped(gradients: Sequence[Any], norm: float) -> list[Any]:
    """Gradients (networks, ...) scaled so that the norm of each network's whole is at most ``norm``."""
    tf = load_tensorflow()
    squares = [tf.reduce_sum(tf.square(g), list(range(1, g.shape.rank))) for g in gradients]
    factor = norm / tf.maximum(tf.sqrt(tf.add_n(squares)), norm)
    return [g * spread(factor, g) for g in gradients]


def update(
    weights: Sequence[Any], gradients: Sequence[Any], state: Adam, rate: Any, weight_decay: float
) -> tuple[list[Any], Adam]:
    """One step.  rate: (networks,); a network of rate 0 stays.  Biases (networks, width) do not decay."""
    tf = load_tensorflow()
    step = state.step + 1.0
    rate_now = rate * tf.sqrt(1.0 - tf.pow(SECOND, step)) / (1.0 - tf.pow(FIRST, step))
    first = [m + (g - m) * (1 - FIRST) for m, g in zip(state.first, gradients, strict=True)]
    second = [v + (tf.square(g) - v) * (1 - SECOND) for v, g in zip(state.second, gradients, strict=True)]
    moved = []
    for weight, m, v in zip(weights, first, second, strict=True):
        if weight_decay and weight.shape.rank > 2:
            weight -= weight * weight_decay * spread(rate, weight)
        moved.append(weight - m * spread(rate_now, weight) / (tf.sqrt(v) + EPSILON))
    return moved, Adam(step, tuple(first), tuple(second))


def spread(values: Any, like: Any) -> Any:
    """(networks,) with as many axes as ``like``."""
    return load_tensorflow().reshape(values, (-1, *[1] * (like.shape.rank - 1)))
