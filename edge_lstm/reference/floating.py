"""The network in real numbers (float64), one time step at a time.

Reads a Graph and network inputs; writes outputs and, for calibration, every layer's signals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_lstm.graph import Dense, FloatArray, Graph, Lstm


@dataclass(frozen=True, eq=False)
class LstmState:
    """hidden, cell: (streams, units)."""

    hidden: FloatArray
    cell: FloatArray


State = tuple[LstmState, ...]


@dataclass(frozen=True, eq=False)
class Signals:
    """What one layer wrote: output (streams, steps, outputs), cell (streams, steps, units) or None."""

    output: FloatArray
    cell: FloatArray | None


def reset(graph: Graph, streams: int = 1) -> State:
    """Zero state, one entry an LSTM layer."""
    return tuple(
        LstmState(np.zeros((streams, layer.units)), np.zeros((streams, layer.units)))
        for layer in graph.layers
        if isinstance(layer, Lstm)
    )


def sigmoid(z: FloatArray) -> FloatArray:
    value: FloatArray = 0.5 * (1.0 + np.tanh(0.5 * z))  # the same function, without overflow in exp
    return value


def lstm_step(layer: Lstm, a: FloatArray, state: LstmState) -> LstmState:
    """One time step.  a: kernel and bias applied to the input (streams, 4 * units)."""
    z = a + state.hidden @ layer.recurrent_kernel
    i, f, g, o = np.split(z, 4, axis=1)
    cell = sigmoid(f) * state.cell + sigmoid(i) * np.tanh(g)
    if layer.cell_clip:
        cell = np.clip(cell, -layer.cell_clip, layer.cell_clip)
    return LstmState(sigmoid(o) * np.tanh(cell), cell)


def run_lstm(layer: Lstm, x: FloatArray, state: LstmState) -> tuple[Signals, LstmState]:
    """All time steps.  x: (streams, steps, features)."""
    a = x @ layer.kernel.astype(np.float64) + layer.bias
    hidden = np.empty((x.shape[0], x.shape[1], layer.units))
    cell = np.empty_like(hidden)
    for t in range(x.shape[1]):
        state = lstm_step(layer, a[:, t], state)
        hidden[:, t], cell[:, t] = state.hidden, state.cell
    return Signals(hidden, cell), state


def run_signals(graph: Graph, x: FloatArray, state: State | None = None) -> tuple[list[Signals], State]:
    """Run the network over inputs (streams, steps, features); return the signals of every layer."""
    value: FloatArray = np.asarray(x, dtype=np.float64)
    states = list(reset(graph, value.shape[0]) if state is None else state)
    signals: list[Signals] = []
    after = []
    for layer in graph.layers:
        if isinstance(layer, Dense):
            signals.append(Signals(value @ layer.kernel.astype(np.float64) + layer.bias, None))
        else:
            signal, last = run_lstm(layer, value, states.pop(0))
            signals.append(signal)
            after.append(last)
        value = signals[-1].output
    return signals, tuple(after)


def run(graph: Graph, x: FloatArray, state: State | None = None) -> tuple[FloatArray, State]:
    """Run the network over inputs (streams, steps, features); return outputs and the last state."""
    signals, after = run_signals(graph, x, state)
    return signals[-1].output, after
