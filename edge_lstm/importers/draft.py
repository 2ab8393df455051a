"""What an importer builds a Graph in: layers as they come; then normalization folds and streaming returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import UnsupportedModel, raise_all
from edge_lstm.graph import INPUT, Graph, Stream, needs_window
from edge_lstm.layer_types import (
    TANH,
    Activation,
    Attend,
    Conv1d,
    Dense,
    Gru,
    Layer,
    Lstm,
    Merge,
    Rnn,
    Row,
    Softmax,
)

MAX_WEIGHTS = 1 << 24  # of the diagonal kernels of one network


@dataclass(frozen=True, eq=False)
class Affine:
    """``x * factor + offset`` for each feature; never part of a Graph: ``Draft.graph`` folds it away."""

    name: str
    factor: FloatArray
    offset: FloatArray


class Draft:
    """Layers and their sources while a file is read."""

    def __init__(self) -> None:
        self.layers: list[Layer | Affine] = []
        self.sources: list[tuple[int, ...]] = []

    def add(self, layer: Layer | Affine, *sources: int) -> int:
        """Append a layer under a name that no other has; returns its index.  Without sources: a chain."""
        names = {other.name for other in self.layers}
        name, number = layer.name, 1
        while name in names:
            name, number = f"{layer.name}_{number}", number + 1
        self.layers.append(replace(layer, name=name))
        self.sources.append(sources or (len(self.layers) - 2,))
        return len(self.layers) - 1

    def graph(
        self, name: str, stream: Stream | None, features: int, window: int, made: Mapping[str, Any]
    ) -> Graph:
        """The network whose output the last layer writes.

        window: rows of the file's input, 0 where it is open.  Layers that nothing reads are dropped; a
        network that only keeps its last row becomes a streaming one with ``made["last_only"]``.
        Raises UnsupportedModel where normalization of very many features can neither be folded nor kept.
        """
        stream = stream or Stream.unnamed(features)
        self._drop_unread()
        stream, problems = self._fold(stream)
        raise_all(UnsupportedModel, f"model '{name}'", problems)
        extra = {"last_only": True} if self._drop_last_row() else {}
        layers = [layer for layer in self.layers if not isinstance(layer, Affine)]
        window = window if any(needs_window(layer) for layer in layers) else 0
        return Graph(name, tuple(layers), stream, {**made, **extra}, tuple(self.sources), window)

    def _remove(self, index: int) -> None:
        """Take out a layer; who read it reads its first source."""
        bypass = self.sources[index][0]
        del self.layers[index], self.sources[index]

        def moved(source: int) -> int:
            source = bypass if source == index else source
            return source - 1 if source > index else source

        self.sources = [tuple(moved(source) for source in reads) for reads in self.sources]

    def _readers(self, index: int) -> list[int]:
        return [reader for reader, reads in enumerate(self.sources) if index in reads]

    def _drop_unread(self) -> None:
        for index in range(len(self.layers) - 2, -1, -1):
            if not self._readers(index):
                self._remove(index)

    def _fold(self, stream: Stream) -> tuple[Stream, list[str]]:
        """Fold every Affine into the sensor scaling, the layer before it or the layers after it.

        One that stands beside none of them becomes a dense layer with a diagonal kernel, which is exact.
        """
        problems: list[str] = []
        left = MAX_WEIGHTS
        for index in reversed(range(len(self.layers))):
            layer = self.layers[index]
            if not isinstance(layer, Affine):
                continue
            source, alone = self.sources[index][0], self._readers(self.sources[index][0]) == [index]
            before = self.layers[source] if source >= 0 else None
            after = [self.layers[reader] for reader in self._readers(index)]
            if (
                source == INPUT
                and alone
                and len(layer.factor) == len(stream.channels)
                and (layer.factor > 0).all()
            ):
                stream = _scaled(stream, layer)
            elif isinstance(before, (Dense, Conv1d)) and alone:
                self.layers[source] = _after(before, layer)
            elif after and all(_takes(other, layer) for other in after):
                for reader in self._readers(index):
                    self.layers[reader] = _before(self.layers[reader], layer)
            else:
                left -= len(layer.factor) ** 2
                if left < 0:
                    problems.append(
                        f"normalization '{layer.name}' of {len(layer.factor)} features stands beside no "
                        "layer that can take it in; move it or train without it"
                    )
                    break
                self.layers[index] = Dense(layer.name, np.diag(layer.factor), layer.offset)
                continue
            self._remove(index)
        return stream, problems

    def _drop_last_row(self) -> bool:
        """Drop the one layer that keeps the last row, where everything else streams."""
        gathering = [
            i for i, layer in enumerate(self.layers) if not isinstance(layer, Affine) and needs_window(layer)
        ]
        if len(gathering) != 1 or len(self.layers) < 2:
            return False
        index = gathering[0]
        layer = self.layers[index]
        if not isinstance(layer, Row) or layer.index != -1:
            return False
        reached = {index}
        for later in range(index + 1, len(self.layers)):
            if reached & set(self.sources[later]):
                if not isinstance(self.layers[later], (Dense, Activation, Softmax, Merge)):
                    return False
                if not set(self.sources[later]) <= reached:
                    return False
                reached.add(later)
        self._remove(index)
        return True


def _scaled(stream: Stream, layer: Affine) -> Stream:
    """``(real - center) / scale`` with the factor and the offset taken in."""
    channels = []
    for channel, factor, offset in zip(
        stream.channels, layer.factor.tolist(), layer.offset.tolist(), strict=True
    ):
        scale = channel.scale / factor
        channels.append(replace(channel, center=channel.center - offset * scale, scale=scale))
    return Stream(tuple(channels), stream.period_s)


def _after(layer: Dense | Conv1d, affine: Affine) -> Dense | Conv1d:
    factor, offset = affine.factor.astype(np.float64), affine.offset.astype(np.float64)
    return replace(layer, kernel=layer.kernel * factor, bias=layer.bias * factor + offset)


def _takes(layer: Layer | Affine, affine: Affine) -> bool:
    """Whether the affine function in front of ``layer`` can become part of its kernel and bias."""
    if isinstance(layer, Lstm) and layer.normalization is not None:
        return not affine.offset.any()  # its bias is added after the normalization
    return isinstance(layer, (Dense, Lstm, Gru, Rnn))


def _before(layer: Any, affine: Affine) -> Any:
    kernel = layer.kernel.astype(np.float64)
    bias = layer.bias + affine.offset.astype(np.float64) @ kernel
    return replace(layer, kernel=kernel * affine.factor.astype(np.float64)[:, None], bias=bias)


def batch_normalization(
    name: str, gamma: FloatArray, beta: FloatArray, mean: FloatArray, variance: FloatArray, epsilon: float
) -> Affine:
    """The affine function that a trained batch normalization is at inference."""
    factor = gamma / np.sqrt(variance.astype(np.float64) + epsilon)
    return Affine(name, factor, beta - mean * factor)


def attention(
    draft: Draft, name: str, query: int, keys: int, values: int, additive: bool, scale: Sequence[float]
) -> int:
    """Add attention over the window with a vector as query; returns the layer that writes the context.

    scale: the weight of each feature in the score (ones for plain dot products).  The attention weights can
    be read at the layer ``NAME_weights``.
    """
    joined = draft.add(Merge(f"{name}_join", "sum" if additive else "mul"), query, keys)
    if additive:
        joined = draft.add(Activation(f"{name}_tanh", TANH), joined)
    kernel = np.asarray(scale, dtype=np.float32)[:, None]
    scores = draft.add(Dense(f"{name}_scores", kernel, np.zeros(1, np.float32)), joined)
    weights = draft.add(Softmax(f"{name}_weights", "time"), scores)
    return draft.add(Attend(name), weights, values)
