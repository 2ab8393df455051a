"""Seeded random float networks of every kind, with inputs: odd sizes, non-zero biases, bounded values.

graph = random_graph(3, "bidirectional_mul")
outputs, state = floating.run(graph, random_input(3, graph))
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.graph import INPUT, Channel, Graph, Stream, needs_window
from edge_lstm.layer_types import (
    FUNCTIONS,
    MERGES,
    RELU,
    TANH,
    Activation,
    Attend,
    Conv1d,
    Dense,
    Function,
    Gru,
    Layer,
    Lstm,
    Merge,
    Repeat,
    Rnn,
    Row,
    Softmax,
)

LONGEST = 50  # rows of a window


class Sketch:
    """A network while it is drawn.  gain: typical size of the sum of a layer's products."""

    def __init__(self, rng: np.random.Generator, features: int, units: int | None, gain: float) -> None:
        self.rng, self.features, self.gain = rng, features, gain
        self._units = units
        self.layers: list[Layer] = []
        self.sources: list[tuple[int, ...]] = []

    def units(self) -> int:
        return int(self.rng.integers(1, 10)) if self._units is None else self._units

    def weights(self, *shape: int, gain: float = 1.0) -> FloatArray:
        """float32; the last axis is the outputs, all others are summed over."""
        spread = self.gain * gain / math.sqrt(math.prod(shape[:-1]))
        return self.rng.normal(0, spread, shape).astype(np.float32)

    def bias(self, size: int) -> FloatArray:
        signs = self.rng.choice(np.array([-1.0, 1.0]), size)
        values: FloatArray = (self.rng.uniform(0.1, 0.6, size) * signs).astype(np.float32)
        return values

    def add(self, layer: Layer, *sources: int) -> int:
        """Append a layer; without sources it reads the one before it."""
        self.layers.append(replace(layer, name=f"{layer.name}_{len(self.layers)}"))
        self.sources.append(sources or (len(self.layers) - 2,))
        return len(self.layers) - 1

    def width(self, index: int = -2) -> int:
        """Of the value that layer ``index`` writes; by default of the last one."""
        if index == INPUT or not self.layers:
            return self.features
        index = len(self.layers) - 1 if index == -2 else index
        layer = self.layers[index]
        if isinstance(layer, Merge) and layer.mode == "concat":
            return sum(self.width(source) for source in self.sources[index])
        if isinstance(layer, Attend):
            return self.width(self.sources[index][1])
        found = getattr(layer, "outputs", None)
        return max(self.width(source) for source in self.sources[index]) if found is None else int(found)

    def function(self, *kinds: str) -> Function:
        """One of ``kinds``, or of all, with its own alpha and beta."""
        kind = str(self.rng.choice(list(kinds or FUNCTIONS)))
        alpha, beta = FUNCTIONS[kind]
        alpha = None if alpha is None else float(self.rng.uniform(0.1, 0.9))
        return Function(kind, alpha, None if beta is None else float(self.rng.uniform(0.1, 0.9)))

    def lstm(self, features: int | None = None, units: int | None = None) -> Lstm:
        features = self.width() if features is None else features
        units = units or self.units()
        return Lstm(
            "lstm", self.weights(features, 4 * units), self.weights(units, 4 * units), self.bias(4 * units)
        )

    def gru(self, reset_after: bool, features: int | None = None, units: int | None = None) -> Gru:
        features = self.width() if features is None else features
        units = units or self.units()
        kernels = self.weights(features, 3 * units), self.weights(units, 3 * units)
        return Gru("gru", *kernels, self.bias(3 * units), self.bias(3 * units), reset_after)

    def rnn(self, features: int | None = None, units: int | None = None) -> Rnn:
        features = self.width() if features is None else features
        units = units or self.units()
        return Rnn("rnn", self.weights(features, units), self.weights(units, units), self.bias(units))

    def dense(self, outputs: int | None = None, source: int = -2) -> Dense:
        outputs = outputs or self.units()
        return Dense("dense", self.weights(self.width(source), outputs), self.bias(outputs))

    def conv(self, dilation: int = 1, size: int | None = None, source: int = -2) -> Conv1d:
        size, outputs = size or int(self.rng.integers(1, 5)), self.units()
        return Conv1d("conv", self.weights(size, self.width(source), outputs), self.bias(outputs), dilation)


def _headed(draw: Callable[[Sketch], Layer]) -> Callable[[Sketch], None]:
    """One layer and a dense head."""

    def drawn(sketch: Sketch) -> None:
        sketch.add(draw(sketch))
        sketch.add(sketch.dense())

    return drawn


def _peephole(sketch: Sketch) -> Lstm:
    layer = sketch.lstm()
    return replace(layer, peephole=sketch.weights(1, 3, layer.units, gain=1.5)[0])


def _normalized(sketch: Sketch) -> Lstm:
    layer = sketch.lstm(units=max(sketch.units(), 2))  # one unit would be normalized to 0
    return replace(layer, normalization=1.0 + sketch.weights(1, 4, layer.units, gain=0.3)[0])


def _projected(sketch: Sketch) -> Lstm:
    layer = sketch.lstm()
    outputs = sketch.units()
    return replace(
        layer,
        recurrent_kernel=sketch.weights(outputs, 4 * layer.units),
        projection=sketch.weights(layer.units, outputs),
        projection_bias=sketch.bias(outputs) if sketch.rng.random() < 0.5 else None,
    )


def _started(sketch: Sketch) -> Layer:
    """A recurrent layer with an initial state."""
    layer = _cell(sketch)
    states: dict[str, FloatArray] = {"initial_hidden": sketch.bias(layer.units)}
    if isinstance(layer, Lstm):
        states["initial_cell"] = sketch.bias(layer.units)
    return replace(layer, **states)  # type: ignore[arg-type]


def _lstm_functions(sketch: Sketch) -> Lstm:
    """At most one of the two outer functions is unbounded, so that 50 rows stay small."""
    bounded = sketch.function("tanh", "sigmoid", "softsign", "scaled_tanh", "hard_sigmoid")
    functions = sketch.rng.permutation(np.array([sketch.function(), bounded], dtype=object))
    return replace(
        sketch.lstm(),
        recurrent_activation=sketch.function("sigmoid", "hard_sigmoid"),
        activation=functions[0],
        cell_activation=functions[1],
    )


def _gru_functions(sketch: Sketch) -> Gru:
    layer = sketch.gru(bool(sketch.rng.integers(2)))
    gates = sketch.function("sigmoid", "hard_sigmoid")
    calm = sketch.weights(*layer.recurrent_kernel.shape, gain=0.4)
    return replace(layer, recurrent_kernel=calm, recurrent_activation=gates, activation=sketch.function())


def _rnn_functions(sketch: Sketch) -> Rnn:
    layer = sketch.rnn()
    calm = sketch.weights(*layer.recurrent_kernel.shape, gain=0.4)
    return replace(layer, recurrent_kernel=calm, activation=sketch.function())


def _stacked(sketch: Sketch) -> None:
    for _ in range(int(sketch.rng.integers(2, 4))):
        sketch.add(sketch.lstm())
    sketch.add(sketch.dense())


def _cells(
    sketch: Sketch, count: int, features: int | None = None, units: int | None = None
) -> list[Lstm | Gru | Rnn]:
    """Layers of one kind and size, none of them added."""
    units, after = units or sketch.units(), bool(sketch.rng.integers(2))
    draws: list[Callable[[], Lstm | Gru | Rnn]] = [
        lambda: sketch.lstm(features, units),
        lambda: sketch.gru(after, features, units),
        lambda: sketch.rnn(features, units),
    ]
    draw = draws[int(sketch.rng.integers(3))]
    return [draw() for _ in range(count)]


def _cell(sketch: Sketch) -> Lstm | Gru | Rnn:
    return _cells(sketch, 1)[0]


def _bidirectional(mode: str, last: bool = False) -> Callable[[Sketch], None]:
    """Two directions; last: of each only the row that saw the whole window."""

    def drawn(sketch: Sketch) -> None:
        first, second = _cells(sketch, 2, sketch.features)
        forward = sketch.add(first, INPUT)
        backward = sketch.add(replace(second, backwards=True), INPUT)
        if last:
            forward, backward = sketch.add(Row("row", -1), forward), sketch.add(Row("row", 0), backward)
        sketch.add(Merge("merge", mode), forward, backward)
        sketch.add(sketch.dense())

    return drawn


def _autoencoder(sketch: Sketch) -> None:
    sketch.add(sketch.lstm())
    sketch.add(Row("row"))
    sketch.add(Repeat("repeat"))
    sketch.add(_cell(sketch))
    sketch.add(sketch.dense(sketch.features))


def _attention(additive: bool) -> Callable[[Sketch], None]:
    """The last row of a recurrent layer asks all of its rows; the context and the query are joined."""

    def drawn(sketch: Sketch) -> None:
        values = sketch.add(_cell(sketch), INPUT)
        query = last = sketch.add(Row("query"), values)
        keys, size = values, sketch.units()
        if additive:
            query, keys = (sketch.add(sketch.dense(size, source), source) for source in (last, values))
        joined = sketch.add(Merge("join", "sum" if additive else "mul"), query, keys)
        if additive:
            joined = sketch.add(Activation("tanh", TANH), joined)
        scores = sketch.add(sketch.dense(1, joined), joined)
        weights = sketch.add(Softmax("weights", "time"), scores)
        context = sketch.add(Attend("context"), weights, values)
        sketch.add(Merge("merge", "concat"), context, last)
        sketch.add(sketch.dense())

    return drawn


def _conv(sketch: Sketch) -> None:
    """A convolution in front of an LSTM."""
    sketch.add(sketch.conv(int(sketch.rng.integers(1, 4))))
    sketch.add(Activation("relu", RELU))
    sketch.add(sketch.lstm())
    sketch.add(sketch.dense())


def _tcn(sketch: Sketch) -> None:
    """Residual blocks of dilated convolutions."""
    block = INPUT
    for level in range(int(sketch.rng.integers(1, 4))):
        inner = sketch.add(sketch.conv(2**level, source=block), block)
        inner = sketch.add(Activation("relu", RELU), inner)
        inner = sketch.add(sketch.conv(2**level, source=inner), inner)
        around = sketch.add(sketch.dense(sketch.width(inner), block), block)
        joined = sketch.add(Merge("residual", "sum"), inner, around)
        block = sketch.add(Activation("relu", RELU), joined)
    sketch.add(sketch.dense())


def _activations(sketch: Sketch) -> None:
    sketch.add(sketch.lstm())
    for _ in range(3):
        sketch.add(sketch.dense())
        sketch.add(Activation("activation", sketch.function()))


def _merges(sketch: Sketch) -> None:
    """Every merge of three values: the input, one feature of it and a vector of the window."""
    wide = sketch.add(sketch.dense(sketch.features), INPUT)
    narrow = sketch.add(sketch.dense(1, INPUT), INPUT)
    row = sketch.add(Row("row", int(sketch.rng.choice([0, -1]))), wide)
    merged = [sketch.add(Merge(mode, mode), INPUT, narrow, row) for mode in MERGES if mode != "concat"]
    sketch.add(Merge("concat", "concat"), *merged)
    sketch.add(sketch.dense())


def _softmax(sketch: Sketch) -> None:
    sketch.add(sketch.lstm())
    sketch.add(sketch.dense(sketch.units() + 1))
    sketch.add(Softmax("softmax"))


def _last_row(sketch: Sketch) -> None:
    sketch.add(_cell(sketch))
    sketch.add(Row("row"))
    sketch.add(sketch.dense())


KINDS: dict[str, Callable[[Sketch], None]] = {
    "lstm": _headed(lambda sketch: sketch.lstm()),
    "stacked": _stacked,
    "peephole": _headed(_peephole),
    "coupled": _headed(lambda sketch: replace(sketch.lstm(), coupled=True)),
    "gate_clip": _headed(lambda sketch: replace(_cell(sketch), gate_clip=float(sketch.rng.uniform(0.3, 1)))),
    "cell_clip": _headed(lambda sketch: replace(sketch.lstm(), cell_clip=float(sketch.rng.uniform(0.2, 1)))),
    "projection": _headed(_projected),
    "normalized": _headed(_normalized),
    "initial": _headed(_started),
    "lstm_functions": _headed(_lstm_functions),
    "gru_after": _headed(lambda sketch: sketch.gru(True)),
    "gru_before": _headed(lambda sketch: sketch.gru(False)),
    "gru_functions": _headed(_gru_functions),
    "rnn": _headed(lambda sketch: sketch.rnn()),
    "rnn_functions": _headed(_rnn_functions),
    **{f"bidirectional_{mode}": _bidirectional(mode) for mode in MERGES},
    "bidirectional_last": _bidirectional("concat", last=True),
    "autoencoder": _autoencoder,
    "attention_dot": _attention(False),
    "attention_additive": _attention(True),
    "conv": _conv,
    "tcn": _tcn,
    "activations": _activations,
    "merges": _merges,
    "softmax": _softmax,
    "last_row": _last_row,
}


def random_graph(
    seed: int,
    kind: str,
    *,
    features: int | None = None,
    units: int | None = None,
    window: int | None = None,
    gain: float = 1.0,
) -> Graph:
    """The network ``seed`` of one of ``KINDS``; the same arguments give the same network.

    features: 1 .. 6 unless given.  units: of every inner layer, 1 .. 9 unless given.
    window: rows; 1 .. LONGEST unless given for a network that gathers one, 0 for one that streams.
    gain: 1 keeps sums of products near 1 for inputs near 1; a larger one saturates.
    """
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode())])
    width, rows = int(rng.integers(1, 7)), int(rng.integers(1, LONGEST + 1))
    width = width if features is None else features
    sketch = Sketch(rng, width, units, gain)
    KINDS[kind](sketch)
    gathers = any(needs_window(layer) for layer in sketch.layers)
    rows = window if window is not None else rows if gathers else 0
    channels = tuple(
        Channel(f"s{i}", "bar", float(rng.normal(0, 9)), float(rng.uniform(0.1, 9))) for i in range(width)
    )
    stream = Stream(channels, period_s=0.5)
    made = {"seed": seed, "kind": kind}
    return Graph(f"{kind}_{seed}", tuple(sketch.layers), stream, made, tuple(sketch.sources), rows)


def random_input(
    seed: int, graph: Graph, steps: int | None = None, streams: int = 1, reach: float = 1.0
) -> FloatArray:
    """Network inputs (streams, steps, features): normal values that float32 holds, within +-3 ``reach``.

    steps: 1 .. LONGEST for a streaming network unless given; the window of another.
    """
    rng = np.random.default_rng([seed, 1])
    rows = int(rng.integers(1, LONGEST + 1)) if steps is None else steps
    rows = graph.window or rows
    values = np.clip(rng.normal(0, 1, (streams, rows, graph.features)), -3, 3) * reach
    return values.astype(np.float32)
