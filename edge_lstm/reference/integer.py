"""The integer network in NumPy: every exact executor must return these codes.  Spec: NUMERICS.md, 5, 6.

Reads a Program and int8 codes; writes int8 codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_lstm.fixedpoint import (
    IntArray,
    requantize,
    requantize_float,
    requantize_ties_up,
    rounding_shift,
    saturate,
    sigmoid_lookup,
    tanh_lookup,
    wrap,
)
from edge_lstm.lower import DenseProgram, LstmProgram, Program
from edge_lstm.qgraph import Int8Array


@dataclass(frozen=True, eq=False)
class LstmState:
    """hidden: int8 codes, cell: int16 codes, both (streams, units), held as int64."""

    hidden: IntArray
    cell: IntArray


State = tuple[LstmState, ...]


@dataclass(frozen=True, eq=False)
class Signals:
    """Codes that one layer wrote: output (streams, steps, outputs), cell (streams, steps, units) or None."""

    output: IntArray
    cell: IntArray | None


def reset(program: Program, streams: int = 1) -> State:
    """The state after power-on: hidden at its zero point, cell 0; one entry an LSTM layer."""
    return tuple(
        LstmState(
            np.full((streams, layer.units), layer.hidden_zero_point, dtype=np.int64),
            np.zeros((streams, layer.units), dtype=np.int64),
        )
        for layer in program.layers
        if isinstance(layer, LstmProgram)
    )


def combine(a: IntArray, b: IntArray, profile: str) -> IntArray:
    """Add the input and the recurrent term of a gate, int16 Q3.12."""
    if profile == "tflm":
        return saturate(saturate(a, 16) + saturate(b, 16), 16)
    return saturate(saturate(a, 16) + b, 16)


def update_cell(
    layer: LstmProgram, profile: str, cell: IntArray, i: IntArray, f: IntArray, g: IntArray
) -> IntArray:
    """``c' = f * c + i * g`` in int16 cell codes; i, f, g are Q0.15."""
    power = layer.cell_power
    if profile == "tflm":
        kept = saturate(requantize(f * cell, 1 << 30, -14), 16)
        new = saturate(kept + saturate(requantize(i * g, 1 << 30, -29 - power), 16), 16)
    else:
        kept = wrap(rounding_shift(f * cell, 15), 16)
        new = saturate(kept + wrap(rounding_shift(i * g, 30 + power), 16), 16)
    return np.clip(new, -layer.cell_clip, layer.cell_clip) if layer.cell_clip else new


def lstm_input(layer: LstmProgram, x: IntArray) -> IntArray:
    """The input term of all gates, int32 (..., 4, units); x: codes (..., features)."""
    acc = np.einsum("guf,...f->...gu", layer.kernel.astype(np.int64), x) + layer.input_bias
    r = layer.input_requantizer
    return requantize(acc, r.multiplier[:, None], r.shift[:, None])


def lstm_step(layer: LstmProgram, profile: str, a: IntArray, state: LstmState) -> LstmState:
    """One time step.  a: the input term of all gates (streams, 4, units)."""
    acc = np.einsum("guh,sh->sgu", layer.recurrent_kernel.astype(np.int64), state.hidden)
    r = layer.recurrent_requantizer
    b = requantize(acc + layer.recurrent_bias, r.multiplier[:, None], r.shift[:, None])
    z = combine(a, b, profile) + 32768
    sigmoid, tanh = sigmoid_lookup(profile), tanh_lookup(profile, -12)
    i, f, g, o = sigmoid[z[:, 0]], sigmoid[z[:, 1]], tanh[z[:, 2]], sigmoid[z[:, 3]]
    cell = update_cell(layer, profile, state.cell, i, f, g)
    squashed = tanh_lookup(profile, layer.cell_power)[cell + 32768]
    h = layer.hidden_requantizer
    hidden = requantize(o * squashed, h.multiplier, h.shift) + layer.hidden_zero_point
    return LstmState(saturate(hidden, 8), cell)


def run_lstm(layer: LstmProgram, profile: str, x: IntArray, state: LstmState) -> tuple[Signals, LstmState]:
    """All time steps.  x: codes (streams, steps, features)."""
    a = lstm_input(layer, x)
    hidden = np.empty((x.shape[0], x.shape[1], layer.units), dtype=np.int64)
    cell = np.empty_like(hidden)
    for t in range(x.shape[1]):
        state = lstm_step(layer, profile, a[:, t], state)
        hidden[:, t], cell[:, t] = state.hidden, state.cell
    return Signals(hidden, cell), state


def run_dense(layer: DenseProgram, profile: str, x: IntArray) -> IntArray:
    """x: codes (..., features).  Returns codes (..., outputs)."""
    acc = x @ layer.kernel.astype(np.int64).T + layer.bias
    r = layer.requantizer
    scale = {"tflm": requantize, "litert": requantize_float, "tflite": requantize_ties_up}[profile]
    return saturate(scale(acc, r.multiplier, r.shift) + layer.output_zero_point, 8)


def run_signals(
    program: Program, codes: npt.ArrayLike, state: State | None = None
) -> tuple[list[Signals], State]:
    """Run the network over int8 codes (streams, steps, features); return the codes of every layer."""
    x: IntArray = np.asarray(codes, dtype=np.int64)
    states = list(reset(program, x.shape[0]) if state is None else state)
    signals: list[Signals] = []
    after = []
    for layer in program.layers:
        if isinstance(layer, DenseProgram):
            signals.append(Signals(run_dense(layer, program.profile, x), None))
        else:
            signal, last = run_lstm(layer, program.profile, x, states.pop(0))
            signals.append(signal)
            after.append(last)
        x = signals[-1].output
    return signals, tuple(after)


def run(program: Program, codes: npt.ArrayLike, state: State | None = None) -> tuple[Int8Array, State]:
    """Run the network over int8 codes (streams, steps, features) from ``state`` (None: from reset).

    Returns codes (streams, steps, outputs) of every step and the state after the last one.
    """
    signals, after = run_signals(program, codes, state)
    return signals[-1].output.astype(np.int8), after
