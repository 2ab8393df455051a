"""A small network of every kind that ``edge-lstm layers`` lists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.graph import Graph, Stream
from edge_lstm.layer_types import (
    MERGES,
    RELU,
    SIGMOID,
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

FEATURES, UNITS, WINDOW = 2, 4, 6
_RNG = np.random.default_rng(7)


def _weights(*shape: int) -> FloatArray:
    return np.round(_RNG.normal(0, 0.5, shape), 3).astype(np.float32)


def _lstm(name: str = "lstm", features: int = FEATURES, **options: object) -> Lstm:
    outputs = 2 if "projection" in options else UNITS
    arrays = _weights(features, 4 * UNITS), _weights(outputs, 4 * UNITS), _weights(4 * UNITS)
    return Lstm(name, *arrays, **options)  # type: ignore[arg-type]


def _gru(name: str = "gru", **options: object) -> Gru:
    arrays = (
        _weights(FEATURES, 3 * UNITS),
        _weights(UNITS, 3 * UNITS),
        _weights(3 * UNITS),
        _weights(3 * UNITS),
    )
    return Gru(name, *arrays, **options)  # type: ignore[arg-type]


def _dense(name: str = "dense", features: int = UNITS, outputs: int = 2) -> Dense:
    return Dense(name, _weights(features, outputs), _weights(outputs))


def _network(layers: Sequence[Layer], sources: Sequence[tuple[int, ...]] = (), window: int = 0) -> Graph:
    return Graph("sample", tuple(layers), Stream.unnamed(FEATURES), {}, tuple(sources), window)


def _bidirectional(pair: tuple[Layer, Layer], mode: str) -> Graph:
    return _network((*pair, Merge("merge", mode)), ((-1,), (-1,), (0, 1)), WINDOW)


def _attention(additive: bool) -> Graph:
    """The last row asks all rows."""
    layers: list[Layer] = [_lstm(), Row("query"), Merge("join", "sum" if additive else "mul")]
    if additive:
        layers.append(Activation("bend", TANH))
    scores = len(layers)
    layers += [_dense("scores", UNITS, 1), Softmax("weights", "time"), Attend("context")]
    sources = [(-1,), (0,), (1, 0), *((index - 1,) for index in range(3, scores + 2)), (scores + 1, 0)]
    return _network(layers, sources, WINDOW)


def _tcn() -> Graph:
    first = Conv1d("conv_1", _weights(3, FEATURES, UNITS), _weights(UNITS))
    second = Conv1d("conv_2", _weights(3, UNITS, UNITS), _weights(UNITS), dilation=2)
    shortcut = Dense("shortcut", _weights(FEATURES, UNITS), _weights(UNITS))
    relus = Activation("relu_1", RELU), Activation("relu_2", RELU)
    layers = (first, relus[0], second, shortcut, Merge("add", "sum"), relus[1], _dense())
    return _network(layers, ((-1,), (0,), (1,), (-1,), (2, 3), (4,), (5,)))


def _rnn() -> Rnn:
    return Rnn("rnn", _weights(FEATURES, UNITS), _weights(UNITS, UNITS), _weights(UNITS))


SAMPLES: dict[str, Graph] = {
    "LSTM": _network([_lstm(), _dense()]),
    "stacked LSTM": _network([_lstm("lstm_1"), _lstm("lstm_2", UNITS), _dense()]),
    "LSTM, coupled gates (CIFG)": _network([_lstm(coupled=True)]),
    "LSTM, peephole": _network([_lstm(peephole=_weights(3, UNITS))]),
    "LSTM, projection": _network([_lstm(projection=_weights(UNITS, 2))]),
    "LSTM, layer normalization": _network([_lstm(normalization=1 + _weights(4, UNITS))]),
    "LSTM, activations relu, hard_sigmoid": _network(
        [_lstm(recurrent_activation=Function("hard_sigmoid"), activation=RELU)]
    ),
    "bidirectional LSTM": _bidirectional((_lstm("forward"), _lstm("backward", backwards=True)), "concat"),
    "GRU, reset after": _network([_gru(), _dense()]),
    "GRU, reset before": _network([_gru(reset_after=False)]),
    "bidirectional GRU": _bidirectional((_gru("forward"), _gru("backward", backwards=True)), "mean"),
    "SimpleRNN": _network([_rnn(), _dense()]),
    "LSTM autoencoder": _network(
        [_lstm("encoder"), Row("code"), Repeat("repeat"), _lstm("decoder", UNITS), _dense()], (), WINDOW
    ),
    "attention, dot": _attention(False),
    "attention, additive": _attention(True),
    "Conv1D, causal": _network(
        [Conv1d("conv", _weights(3, FEATURES, UNITS), _weights(UNITS)), _lstm("lstm", UNITS)]
    ),
    "TCN block": _tcn(),
    "Dense": _network([_lstm(), _dense(), Activation("relu", RELU), _dense("head", 2)]),
    "tanh, sigmoid": _network([_lstm(), Activation("tanh", TANH), Activation("sigmoid", SIGMOID)]),
    "leaky ReLU": _network([_lstm(), _dense(), Activation("leaky", Function("leaky_relu", 0.1))]),
    "softmax": _network([_lstm(), _dense(), Softmax("softmax")]),
    **{
        f"merge, {mode}": _network(
            [_lstm(), _dense("a"), _dense("b"), Merge("merge", mode)], ((-1,), (0,), (0,), (1, 2))
        )
        for mode in MERGES
    },
}
