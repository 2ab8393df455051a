"""What pruning removes: masks of single weights and blocks, and whole units with all that reads them.

Reads Graphs; writes masks and smaller Graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.datasets.dataset import BoolArray
from edge_lstm.graph import Dense, Graph, Lstm
from edge_lstm.training.model import PlainLayer, layer_weights, plain_layers

BLOCK = 4  # neighbouring features


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
