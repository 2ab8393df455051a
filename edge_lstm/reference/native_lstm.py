"""The LSTM of profile native in NumPy integers.  Spec: NUMERICS.md, 10."""

from __future__ import annotations

from functools import cache

import numpy as np

from edge_lstm.arrays import frozen
from edge_lstm.fixedpoint import IntArray, saturate
from edge_lstm.program import NativeLstmProgram

STEPS = 48  # of the table in 1


@cache
def tanh_table() -> IntArray:
    """513 samples of ``32768 * tanh(i / 48)``, i = -256 .. 256, moved so that chords err both ways."""
    exact = np.tanh(np.arange(-256, 257) / STEPS)
    curvature = -2.0 * exact * (1.0 - exact**2)
    samples = 32768.0 * (exact - curvature / (16.0 * STEPS**2))
    return frozen(np.sign(samples) * np.floor(np.abs(samples) + 0.5), np.int64)


def _interpolate(x: IntArray, bits: int) -> IntArray:
    """The table at ``x / 2**bits``, times ``2**bits``.  x: within ``2**(bits + 8)`` from 0."""
    table, index, weight = tanh_table(), (x >> bits) + 256, x & ((1 << bits) - 1)
    value: IntArray = (table[index] << bits) + weight * (table[index + 1] - table[index])
    return value


def sigmoid_native(x: IntArray) -> IntArray:
    """sigmoid(x / 12288) in Q0.15; at most 1.1 LSB from exact within the table."""
    value: IntArray = (_interpolate(saturate(x, 18), 9) + (1 << 24) + (1 << 9)) >> 10
    return value


def tanh_native(x: IntArray) -> IntArray:
    """tanh(x / 12288) in Q0.15; at most 2.1 LSB from exact."""
    value: IntArray = (_interpolate(saturate(x, 17), 8) + (1 << 7)) >> 8
    return value


def native_input(layer: NativeLstmProgram, x: IntArray) -> IntArray:
    """Bias and kernel applied to the input, int32 (..., 4, units); x: codes (..., features)."""
    acc: IntArray = np.einsum("guf,...f->...gu", layer.kernel.astype(np.int64), x) + layer.bias
    return acc


def native_step(
    layer: NativeLstmProgram, acc: IntArray, hidden: IntArray, cell: IntArray
) -> tuple[IntArray, IntArray]:
    """One time step: the next hidden and cell codes.  acc: of ``native_input`` (streams, 4, units)."""
    acc = acc + np.einsum("guh,sh->sgu", layer.recurrent_kernel.astype(np.int64), hidden)
    z = ((acc << layer.acc_shift) * layer.multiplier + (1 << 31)) >> 32  # below 2**63
    i, f, o = (sigmoid_native(z[:, gate]) for gate in (0, 1, 3))
    g, power = tanh_native(z[:, 2]), layer.cell_power
    cell = saturate((f * cell + ((i * g) >> (15 + power)) + (1 << 14)) >> 15, 16)
    if layer.cell_clip:
        cell = np.clip(cell, -layer.cell_clip, layer.cell_clip)
    tripled, up = 3 * cell, 12 + power
    place = tripled << up if up >= 0 else (tripled + (1 << (-up - 1))) >> -up
    hidden = (o * tanh_native(place) + (1 << (layer.hidden_shift - 1))) >> layer.hidden_shift
    return hidden, cell
