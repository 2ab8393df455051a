"""What LiteRT's LSTM variants add to a step, in NumPy integers.  Spec: NUMERICS.md, 12.

Rounding is LiteRT's of x86-64, value by value, also where a sum wraps.
"""

from __future__ import annotations

import numpy as np

from edge_lstm.fixedpoint import (
    IntArray,
    bit_length,
    high_multiply,
    requantize,
    requantize_ties_up,
    rounding_shift,
    saturate,
    wrap,
)
from edge_lstm.program import Normalization, Peephole, Projection

HALF_SQRT_2 = 1518500250  # sqrt(1 / 2) in Q0.31
UNIT = 1 << 20  # of a variance, in squares of the gate's scale
PEEPHOLE_ROWS = {0: 0, 1: 1, 3: 2}  # gate -> row of the weights; g has none


def truncate_divide(a: IntArray, b: int) -> IntArray:
    """C's integer division: toward zero.  b > 0."""
    quotient: IntArray = np.sign(a) * (np.abs(a) // b)
    return quotient


def inverse_square_root(value: IntArray) -> tuple[IntArray, IntArray]:
    """``1 / sqrt(value)`` as ``multiplier * 2**(shift - 31)``, by five Newton steps.

    value: 0 .. 2**31 - 1; below 2 gives 1.  multiplier: 0 .. 2**31 - 1.  shift: -12 .. 0.
    """
    above = np.maximum(value, 2)
    pairs = (31 - bit_length(above)) // 2 - 1  # of leading zeros that can go; -1 where two bits must
    scaled = np.where(pairs < 0, above >> 2, above << np.maximum(2 * pairs, 0))  # 2**27 .. 2**29 - 1
    quarter = rounding_shift(scaled >> 1, 1)
    x = np.full_like(scaled, 1 << 28)
    for _ in range(5):
        cube = high_multiply(high_multiply(x, x), x) << 6  # at most 0.998 * 2**31, where scaled is 2**27
        x = (high_multiply(x, 3 << 27) - high_multiply(quarter, cube)) << 3  # below 2**29
    multiplier, right = high_multiply(x, HALF_SQRT_2), 11 - pairs
    multiplier = np.where(value <= 1, 2**31 - 1, multiplier << np.maximum(-right, 0))
    return multiplier, np.where(value <= 1, 0, -np.maximum(right, 0))


def add_peephole(peephole: Peephole, gate: int, z: IntArray, cell: IntArray) -> IntArray:
    """``z`` plus the weighted cell, int16; z, cell: (streams, units)."""
    row = PEEPHOLE_ROWS.get(gate)
    if row is None:
        return z
    product = peephole.weights[row].astype(np.int64) * cell
    r = peephole.requantizer.multiplier[row], peephole.requantizer.shift[row]
    term, first = requantize(product, *r), slice(peephole.ties_up)
    term[:, first] = requantize_ties_up(product[:, first], *r)
    return saturate(z + term, 16)


def normalize(norm: Normalization, gate: int, z: IntArray) -> IntArray:
    """Layer normalization of one gate: int16 (streams, units) of any scale -> Q3.12."""
    units = z.shape[1]
    mean = truncate_divide(1024 * z.sum(axis=1), units)  # in 1/1024 codes
    variance = (z * z).sum(axis=1) * (UNIT // units) - mean * mean
    variance = truncate_divide(variance, UNIT)  # below 2**30
    multiplier, shift = inverse_square_root(np.where(variance < 1, norm.least_variance[gate], variance))
    normal = requantize(1024 * z - mean[:, None], multiplier[:, None], shift[:, None])
    value = wrap(normal * norm.weights[gate].astype(np.int64) + norm.bias[gate], 32)
    value = truncate_divide(np.where(value > 0, value + 512, value - 512), 1024)
    return saturate(requantize(value, norm.requantizer.multiplier[gate], norm.requantizer.shift[gate]), 16)


def project(projection: Projection, inner: IntArray, zero_point: int) -> IntArray:
    """int8 codes of o * tanh(c) (streams, units) -> hidden codes (streams, outputs)."""
    acc = inner @ projection.kernel.astype(np.int64).T + projection.bias
    hidden = requantize(acc, projection.requantizer.multiplier, projection.requantizer.shift)
    hidden = saturate(hidden + zero_point, 8)
    return np.clip(hidden, -projection.clip, projection.clip) if projection.clip else hidden
