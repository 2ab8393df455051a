"""The network in real numbers (float64), one time step at a time.

Reads a Graph and network inputs; writes outputs and, for calibration, every layer's signals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import DataError
from edge_lstm.graph import Graph
from edge_lstm.layer_types import (
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

# What a layer keeps between two steps: (hidden,), (hidden, cell), or the last rows that a convolution saw.
LayerState = tuple[FloatArray, ...]
State = tuple[LayerState, ...]
NORMALIZATION_EPSILON = 1e-8  # of layer normalization in LiteRT's float LSTM


@dataclass(frozen=True, eq=False)
class Signals:
    """What one layer computed: output (streams, rows, outputs), and by name what its quantization must know.

    inner: arrays (streams, rows, ...), such as the cell of an LSTM.
    """

    output: FloatArray
    inner: Mapping[str, FloatArray] = field(default_factory=dict)


def sigmoid(z: FloatArray) -> FloatArray:
    value: FloatArray = 0.5 * (1.0 + np.tanh(0.5 * z))  # the same function, without overflow in exp
    return value


def apply(function: Function, x: FloatArray) -> FloatArray:
    """The activation, element by element."""
    a, b = function.alpha or 0.0, function.beta or 0.0
    functions: dict[str, Callable[[], FloatArray]] = {
        "linear": lambda: x,
        "relu": lambda: np.maximum(x, 0.0),
        "tanh": lambda: np.tanh(x),
        "sigmoid": lambda: sigmoid(x),
        "softsign": lambda: x / (1.0 + np.abs(x)),
        "softplus": lambda: np.logaddexp(0.0, x),
        "leaky_relu": lambda: np.where(x < 0, a * x, x),
        "elu": lambda: np.where(x < 0, a * np.expm1(np.minimum(x, 0.0)), x),
        "thresholded_relu": lambda: np.where(x > a, x, 0.0),
        "affine": lambda: a * x + b,
        "scaled_tanh": lambda: a * np.tanh(b * x),
        "hard_sigmoid": lambda: np.clip(a * x + b, 0.0, 1.0),
    }
    return functions[function.kind]()


def _clipped(x: FloatArray, limit: float) -> FloatArray:
    return np.clip(x, -limit, limit) if limit else x


def _normalized(z: FloatArray, coefficients: FloatArray, bias: FloatArray) -> FloatArray:
    """Layer normalization of one gate (streams, units); the bias is added afterwards."""
    centered = z - z.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centered**2).mean(axis=-1, keepdims=True) + NORMALIZATION_EPSILON)
    value: FloatArray = centered / deviation * coefficients + bias
    return value


def lstm_step(layer: Lstm, a: FloatArray, state: LayerState) -> tuple[LayerState, dict[str, FloatArray]]:
    """One time step.  a: the kernel applied to the input (streams, 4 * units), without bias.

    Among its signals "sums" are the gates before normalization and bias, "raw_gates" those without peephole.
    """
    hidden, cell = state
    z = np.split(a + hidden @ layer.recurrent_kernel.astype(np.float64), 4, axis=-1)
    bias = layer.bias.astype(np.float64).reshape(4, -1)
    sums = np.stack(z, axis=-2)
    raw = sums + bias
    peephole: Any = (0.0, 0.0, 0.0) if layer.peephole is None else layer.peephole.astype(np.float64)

    def gate(index: int, seen: FloatArray | float, function: Function) -> FloatArray:
        value: FloatArray = z[index] + seen
        sums[..., index, :] = value
        if layer.normalization is not None:
            value = _normalized(value, layer.normalization[index], bias[index])
        else:
            value = value + bias[index]
        return apply(function, _clipped(value, layer.gate_clip))

    f = gate(1, peephole[1] * cell, layer.recurrent_activation)
    i = 1.0 - f if layer.coupled else gate(0, peephole[0] * cell, layer.recurrent_activation)
    g = gate(2, 0.0, layer.activation)
    cell = _clipped(np.asarray(f * cell + i * g), layer.cell_clip)
    o = gate(3, peephole[2] * cell, layer.recurrent_activation)
    unprojected = o * apply(layer.cell_activation, cell)
    hidden = unprojected
    if layer.projection is not None:
        hidden = unprojected @ layer.projection.astype(np.float64)
        if layer.projection_bias is not None:
            hidden = hidden + layer.projection_bias
        hidden = _clipped(hidden, layer.projection_clip)
    return (hidden, cell), {
        "cell": cell, "raw_gates": raw, "sums": sums, "unprojected": unprojected, "input": a,
    }  # fmt: skip


def gru_step(layer: Gru, a: FloatArray, state: LayerState) -> tuple[LayerState, dict[str, FloatArray]]:
    """One time step.  a: kernel and bias applied to the input (streams, 3 * units)."""
    (hidden,) = state
    kernels = np.split(layer.recurrent_kernel.astype(np.float64), 3, axis=1)
    biases = np.split(layer.recurrent_bias.astype(np.float64), 3)
    a_z, a_r, a_h = np.split(a, 3, axis=-1)
    squash, clip = layer.recurrent_activation, layer.gate_clip
    recurrent_gates = [hidden @ kernels[index] + biases[index] for index in (0, 1)]
    z = apply(squash, _clipped(a_z + recurrent_gates[0], clip))
    r = apply(squash, _clipped(a_r + recurrent_gates[1], clip))
    if layer.reset_after:
        recurrent = hidden @ kernels[2] + biases[2]
        candidate = a_h + r * recurrent
    else:
        recurrent = (r * hidden) @ kernels[2] + biases[2]
        candidate = a_h + recurrent
    new = apply(layer.activation, _clipped(candidate, clip))
    hidden = z * hidden + (1.0 - z) * new
    gates = np.concatenate(recurrent_gates, axis=-1)
    return (hidden,), {
        "recurrent": recurrent, "recurrent_gates": gates, "input": a, "candidate": candidate,
    }  # fmt: skip


def rnn_step(layer: Rnn, a: FloatArray, state: LayerState) -> tuple[LayerState, dict[str, FloatArray]]:
    """One time step.  a: kernel and bias applied to the input (streams, units)."""
    recurrent = state[0] @ layer.recurrent_kernel.astype(np.float64)
    z = a + recurrent
    hidden = apply(layer.activation, _clipped(z, layer.gate_clip))
    return (hidden,), {"sum": z, "input": a, "recurrent": recurrent}


def run_recurrent(layer: Lstm | Gru | Rnn, x: FloatArray, state: LayerState) -> tuple[Signals, LayerState]:
    """All time steps.  x: (streams, steps, features)."""
    step = {Lstm: lstm_step, Gru: gru_step, Rnn: rnn_step}[type(layer)]
    a = x @ layer.kernel.astype(np.float64)
    if not isinstance(layer, Lstm):
        a = a + layer.bias
    times = range(x.shape[1])
    kept: dict[int, tuple[FloatArray, dict[str, FloatArray]]] = {}
    for t in reversed(times) if layer.backwards else times:
        state, inner = step(layer, a[:, t], state)  # type: ignore[operator]
        kept[t] = (state[0], inner)
    output = np.stack([kept[t][0] for t in times], axis=1)
    inner = {name: np.stack([kept[t][1][name] for t in times], axis=1) for name in kept[0][1]}
    return Signals(output, {**inner, "x": x}), state


def run_conv1d(layer: Conv1d, x: FloatArray, state: LayerState) -> tuple[Signals, LayerState]:
    """x: (streams, steps, features)."""
    steps, reach = x.shape[1], (layer.size - 1) * layer.dilation
    padded = np.concatenate([state[0], x], axis=1)
    kernel = layer.kernel.astype(np.float64)
    output = layer.bias.astype(np.float64) + sum(
        padded[:, tap * layer.dilation : tap * layer.dilation + steps] @ kernel[tap]
        for tap in range(layer.size)
    )
    return Signals(output), (padded[:, padded.shape[1] - reach :],)


def softmax(x: FloatArray, axis: int) -> FloatArray:
    """exp(x) / sum(exp(x)) along ``axis``."""
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    value: FloatArray = powers / powers.sum(axis=axis, keepdims=True)
    return value


def merge(mode: str, values: Sequence[FloatArray]) -> FloatArray:
    """Join values; one row or one feature is repeated, but by ``concat``."""
    if mode == "concat":
        return np.concatenate(values, axis=-1)
    total = values[0]
    for value in values[1:]:
        total = total * value if mode == "mul" else total + value
    return total / len(values) if mode == "mean" else total


def _run_stateless(layer: Layer, values: Sequence[FloatArray], window: int) -> FloatArray:
    x = values[0]
    if isinstance(layer, Dense):
        return x @ layer.kernel.astype(np.float64) + layer.bias
    if isinstance(layer, Activation):
        return apply(layer.function, x)
    if isinstance(layer, Softmax):
        return softmax(x, -1 if layer.axis == "features" else 1)
    if isinstance(layer, Merge):
        return merge(layer.mode, values)
    if isinstance(layer, Row):
        return x[:, [layer.index]]
    if isinstance(layer, Repeat):
        return np.repeat(x, window, axis=1)
    if isinstance(layer, Attend):
        total: FloatArray = (x * values[1]).sum(axis=1, keepdims=True)
        return total
    raise TypeError(f"{type(layer).__name__} has a state")


def initial_state(layer: Layer, streams: int) -> LayerState:
    """The state after power-on; () for a layer without one."""

    def filled(values: FloatArray | None, width: int) -> FloatArray:
        row = np.zeros(width) if values is None else values.astype(np.float64)
        return np.repeat(row[None], streams, axis=0)

    if isinstance(layer, Lstm):
        return filled(layer.initial_hidden, layer.outputs), filled(layer.initial_cell, layer.units)
    if isinstance(layer, (Gru, Rnn)):
        return (filled(layer.initial_hidden, layer.units),)
    if isinstance(layer, Conv1d):
        return (np.zeros((streams, (layer.size - 1) * layer.dilation, layer.features)),)
    return ()


def reset(graph: Graph, streams: int = 1) -> State:
    """The state after power-on, one entry a layer."""
    return tuple(initial_state(layer, streams) for layer in graph.layers)


def run_signals(graph: Graph, x: FloatArray, state: State | None = None) -> tuple[list[Signals], State]:
    """Run the network over inputs (streams, steps, features); return the signals of every layer.

    Raises DataError where a network with a window gets another number of steps.
    """
    first: FloatArray = np.asarray(x, dtype=np.float64)
    if graph.window and first.shape[1] != graph.window:
        raise DataError(
            f"model '{graph.name}' takes windows of {graph.window} rows, got {first.shape[1]} rows"
        )
    before = reset(graph, first.shape[0]) if state is None or graph.window else state
    signals: list[Signals] = []
    after: list[LayerState] = []
    for layer, reads, own in zip(graph.layers, graph.sources, before, strict=True):
        values = [signals[source].output if source >= 0 else first for source in reads]
        last: LayerState = ()
        if isinstance(layer, (Lstm, Gru, Rnn)):
            signal, last = run_recurrent(layer, values[0], own)
        elif isinstance(layer, Conv1d):
            signal, last = run_conv1d(layer, values[0], own)
        else:
            signal = Signals(_run_stateless(layer, values, graph.window))
        signals.append(signal)
        after.append(last)
    return signals, tuple(after)


def run(graph: Graph, x: FloatArray, state: State | None = None) -> tuple[FloatArray, State]:
    """Run the network over inputs (streams, steps, features); return outputs and the last state."""
    signals, after = run_signals(graph, x, state)
    return signals[-1].output, after
