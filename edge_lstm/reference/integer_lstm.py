"""The fused LSTMs in NumPy integers.  Spec: NUMERICS.md, 5, 12 and 13."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from edge_lstm.fixedpoint import (
    IntArray,
    requantize,
    rounding_shift,
    saturate,
    scale_wide,
    sigmoid_lookup,
    tanh_lookup,
    wrap,
)
from edge_lstm.program import LstmProgram, NativeLstmProgram, Requantizer, VariantProgram
from edge_lstm.reference.lstm_variants import add_peephole, normalize, project
from edge_lstm.reference.native_lstm import native_input, native_step

GATE_I, GATE_F, GATE_G, GATE_O = range(4)


@dataclass(frozen=True, eq=False)
class LstmState:
    """hidden: codes (streams, outputs), cell: int16 codes (streams, units), held as int64."""

    hidden: IntArray
    cell: IntArray


@dataclass(frozen=True, eq=False)
class Signals:
    """Codes that one layer wrote: output (streams, rows, outputs), cell (streams, rows, units) or None."""

    output: IntArray
    cell: IntArray | None


def initial_state(layer: LstmProgram | NativeLstmProgram, streams: int) -> LstmState:
    """The state after power-on: hidden at its zero point, cell 0."""
    zero_point = layer.hidden_zero_point if isinstance(layer, LstmProgram) else 0
    return LstmState(
        np.full((streams, layer.outputs), zero_point, dtype=np.int64),
        np.zeros((streams, layer.units), dtype=np.int64),
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


def _scaled(layer: LstmProgram, acc: IntArray, r: Requantizer) -> IntArray:
    scale = scale_wide if layer.bits == 16 else requantize
    return scale(acc, r.multiplier[:, None], r.shift[:, None])


def lstm_input(layer: LstmProgram, x: IntArray) -> IntArray:
    """The input term of all gates, int32 (..., 4, units); x: codes (..., features)."""
    acc = np.einsum("guf,...f->...gu", layer.kernel.astype(np.int64), x) + layer.input_bias
    return _scaled(layer, acc, layer.input_requantizer)


def gate_sums(layer: LstmProgram, profile: str, a: IntArray, hidden: IntArray) -> IntArray:
    """Both terms of all gates, int16 (streams, 4, units).  a: the input term."""
    acc = np.einsum("guh,sh->sgu", layer.recurrent_kernel.astype(np.int64), hidden) + layer.recurrent_bias
    return combine(a, _scaled(layer, acc, layer.recurrent_requantizer), profile)


def inner_codes(layer: LstmProgram, profile: str, o: IntArray, cell: IntArray) -> IntArray:
    """o * tanh(c): the hidden codes, or what is projected to them."""
    squashed, h = tanh_lookup(profile, layer.cell_power)[cell + 32768], layer.hidden_requantizer
    return saturate(requantize(o * squashed, h.multiplier, h.shift) + layer.inner_zero_point, layer.bits)


def lstm_step(layer: LstmProgram, profile: str, a: IntArray, state: LstmState) -> LstmState:
    """One time step.  a: the input term of all gates (streams, 4, units)."""
    z = gate_sums(layer, profile, a, state.hidden) + 32768
    sigmoid, tanh = sigmoid_lookup(profile), tanh_lookup(profile, -12)
    i, f, g, o = sigmoid[z[:, 0]], sigmoid[z[:, 1]], tanh[z[:, 2]], sigmoid[z[:, 3]]
    cell = update_cell(layer, profile, state.cell, i, f, g)
    return LstmState(inner_codes(layer, profile, o, cell), cell)


def variant_step(
    layer: LstmProgram, variant: VariantProgram, profile: str, a: IntArray, state: LstmState
) -> LstmState:
    """One time step of a layer with a variant: the same, and what the variant adds in between."""
    z = gate_sums(layer, profile, a, state.hidden)

    def gate(index: int, cell: IntArray) -> IntArray:
        value = z[:, index]
        if variant.peephole is not None:
            value = add_peephole(variant.peephole, index, value, cell)
        if variant.normalization is not None:
            value = normalize(variant.normalization, index, value)
        return (tanh_lookup(profile, -12) if index == GATE_G else sigmoid_lookup(profile))[value + 32768]

    f = gate(GATE_F, state.cell)
    i = 32767 - f if variant.coupled else gate(GATE_I, state.cell)
    cell = update_cell(layer, profile, state.cell, i, f, gate(GATE_G, state.cell))
    hidden = inner_codes(layer, profile, gate(GATE_O, cell), cell)
    if variant.projection is not None:
        hidden = project(variant.projection, hidden, layer.hidden_zero_point)
    return LstmState(hidden, cell)


def _native_step(layer: NativeLstmProgram, a: IntArray, state: LstmState) -> LstmState:
    return LstmState(*native_step(layer, a, state.hidden, state.cell))


def run_lstm(
    layer: LstmProgram | NativeLstmProgram, profile: str, x: IntArray, state: LstmState
) -> tuple[Signals, LstmState]:
    """All time steps.  x: codes (streams, steps, features)."""
    step: Callable[[IntArray, LstmState], LstmState]
    if isinstance(layer, NativeLstmProgram):
        a = native_input(layer, x)
        step = partial(_native_step, layer)
    else:
        a = lstm_input(layer, x)
        step = partial(lstm_step, layer, profile)
        if layer.variant is not None:
            step = partial(variant_step, layer, layer.variant, profile)
    hidden = np.empty((x.shape[0], x.shape[1], layer.outputs), dtype=np.int64)
    cell = np.empty((x.shape[0], x.shape[1], layer.units), dtype=np.int64)
    times = range(x.shape[1])
    for t in reversed(times) if layer.backwards else times:
        state = step(a[:, t], state)
        hidden[:, t], cell[:, t] = state.hidden, state.cell
    return Signals(hidden, cell), state
