"""Softmax in integers, as each runtime computes it; mirrored in c_runtime/elstm_softmax.c.

Spec: NUMERICS.md, 11.  Every function sums over the last axis, over at most ``most_entries`` codes.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray, frozen
from edge_lstm.fixedpoint import (
    BY_TABLE,
    IntArray,
    bit_length,
    float_scale,
    high_multiply,
    quantize_multiplier,
    requantize,
    round_to_even,
    rounding_shift,
    saturate,
)


def most_entries(profile: str, bits: int) -> int:
    """How many codes one sum may have: above, TensorFlow Lite Micro shifts 32 bits by more than 31."""
    return 511 if bits == 8 and profile in BY_TABLE else 65535


# --- 8 bits in fixed point: gemmlowp, as TensorFlow Lite Micro and CMSIS-NN have it ----------------

# exp(-2**e) in Q0.31 for e = -2 .. 4
_EXP_FACTORS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)


def fixed_scale(input_scale: float) -> tuple[int, int, int]:
    """Return (multiplier, shift, lowest) for ``softmax_by_polynomial``.

    They bring differences of input codes to Q5.26; a difference below ``lowest`` counts as minus infinity.
    input_scale: 2**-26 or more.  shift: 0 .. 31.
    """
    multiplier, shift = quantize_multiplier(min(input_scale * 2.0**26, 2.0**31 - 1))
    return multiplier, shift, -(31 * 2**26 >> shift)


def exp_on_negative_32(x: npt.ArrayLike) -> IntArray:
    """exp of ``x <= 0`` in Q5.26, as Q0.31."""
    value = np.asarray(x, dtype=np.int64)
    remainder = (value & ((1 << 24) - 1)) - (1 << 24)
    u = (remainder << 5) + (1 << 28)
    u2 = high_multiply(u, u)
    u3, u4 = high_multiply(u2, u), high_multiply(u2, u2)
    tail = rounding_shift(high_multiply(rounding_shift(u4, 2) + u3, 715827883) + u2, 1)
    y = 1895147668 + high_multiply(u + tail, 1895147668)
    k = remainder - value
    for bit, factor in enumerate(_EXP_FACTORS, start=24):
        y = np.where((k >> bit) & 1, high_multiply(y, factor), y)
    return np.where(value == 0, (1 << 31) - 1, y)


def reciprocal_32(total: npt.ArrayLike) -> tuple[IntArray, IntArray]:
    """1 / total as Q0.31 and how often to halve it, by three Newton steps.

    total: Q12.19, 2**19 .. 2**28 - 1, the sum of at most 511 entries.
    """
    headroom = 32 - bit_length(total)
    half = np.asarray(total, dtype=np.int64) << (headroom - 1)
    value = 1515870810 + high_multiply(half, -1010580540)
    for _ in range(3):
        error = (1 << 29) - high_multiply(half, value)
        value = value + saturate(high_multiply(value, error) << 2, 32)
    return saturate(value << 1, 32), 12 - headroom


def softmax_by_polynomial(x: npt.ArrayLike, multiplier: int, shift: int, lowest: int) -> IntArray:
    """int8 codes -> codes with scale 1/256 and zero point -128.  The rest is of ``fixed_scale``."""
    code = np.asarray(x, dtype=np.int64)
    difference = code - code.max(axis=-1, keepdims=True)
    counts = difference >= lowest
    power = exp_on_negative_32(high_multiply(np.where(counts, difference, 0) << shift, multiplier))
    total = np.where(counts, rounding_shift(power, 12), 0).sum(axis=-1, keepdims=True)
    reciprocal, halvings = reciprocal_32(total)
    share = rounding_shift(high_multiply(power, reciprocal), halvings + 23)
    return np.where(counts, saturate(share - 128, 8), -128)


# --- 8 bits in float32: LiteRT and tflite-runtime; all values are (significand, exponent) ----------

_EXP_POLYNOMIAL = tuple(
    float.fromhex(text) for text in ("0x1.c6af84b912394p-20", "0x1.ebfce50fac4f3p-13", "0x1.62e42ff0c52d6p-6")
)


def exp_float32(x: FloatArray) -> FloatArray:
    """exp of float32 as the GNU C library rounds it (1 in 1600 is not the nearest); -200 <= x <= 0."""
    z = x.astype(np.float64) * (float.fromhex("0x1.71547652b82fep+0") * 32)
    k = np.rint(z)
    r = z - k
    cubic, square, linear = _EXP_POLYNOMIAL
    y = (cubic * r + square) * (r * r) + (linear * r + 1)
    return (y * 2.0 ** (k / 32)).astype(np.float32)


@cache
def float_table(input_scale: float) -> tuple[IntArray, IntArray]:
    """exp of 0, -1, ... -255 input codes as float32: (significands, exponents)."""
    scale = np.float32(min(input_scale, 200.0))  # exp(-200) is 0 already
    steps = -scale * np.arange(256, dtype=np.float32)
    pairs = [float_scale(value) for value in exp_float32(np.maximum(steps, np.float32(-200))).tolist()]
    table = np.array(pairs, dtype=np.int64)
    table[table[:, 0] == 0, 1] = -200  # below every other
    return frozen(table[:, 0], np.int64), frozen(table[:, 1], np.int64)


def add_float(a: tuple[IntArray, IntArray], b: tuple[IntArray, IntArray]) -> tuple[IntArray, IntArray]:
    """a + b of float32 values >= 0, each ``significand * 2**exponent`` with 24 bits, rounded to 24 bits.

    A term that lies 26 bits or more below the other is under half of its last place: 26 bits say the same.
    """
    gap = np.clip(a[1] - b[1], -26, 26)
    upper = np.maximum(a[1], b[1])
    left = np.where(gap >= 0, a[0] << np.maximum(gap, 0), a[0])
    right = np.where(gap <= 0, b[0] << np.maximum(-gap, 0), b[0])
    return round_float(left + right, upper - np.abs(gap))


def round_float(significand: IntArray, exponent: IntArray) -> tuple[IntArray, IntArray]:
    """Round a significand of up to 52 bits to 24, ties to even; 2**24 may be left."""
    spare = np.maximum(bit_length(significand) - 24, 0)
    return round_to_even(significand, spare), exponent + spare


def softmax_by_float(x: npt.ArrayLike, significands: IntArray, exponents: IntArray) -> IntArray:
    """int8 codes -> codes with scale 1/256 and zero point -128.  The table is of ``float_table``."""
    code = np.asarray(x, dtype=np.int64)
    below = code.max(axis=-1, keepdims=True) - code
    power, place = significands[below], exponents[below]
    total, exponent = power[..., 0], place[..., 0]
    for entry in range(1, code.shape[-1]):
        total, exponent = add_float((total, exponent), (power[..., entry], place[..., entry]))
    # 256 / sum, whose rounding has no ties: 2**47 / total has 24 bits
    reciprocal = ((1 << 48) // total + 1) >> 1
    product, at = round_float(power * reciprocal[..., None], place + (8 - 47 - exponent)[..., None])
    share = rounding_shift(product, np.minimum(-at, 62))
    return saturate(share - 128, 8)


# --- 16 bits: tables of exp over -10 .. 0 and of 1 / (1 + x) over 0 .. 1, in all runtimes ----------

# Entries of TFLM's second table that its float32 arithmetic rounds otherwise.
_TFLM_DIFFERENCES = {160: -1, 294: 1}


def table_scale(input_scale: float) -> tuple[int, int]:
    """Return (multiplier, shift) that bring differences of input codes to 10 / 65535; shift: at most 15."""
    return quantize_multiplier(input_scale / (10.0 / 65535.0))


def _sampled(ends: FloatArray, middles: FloatArray) -> IntArray:
    """513 entries of Q0.15, each moved by half the error of the line at the middle to the next one."""
    samples = np.floor(ends * 32768 + 0.5)
    lines = np.floor((samples[:-1] + ends[1:] * 32768) / 2 + 0.5)
    errors = lines - np.floor(middles * 32768 + 0.5)
    samples[:-1] -= np.copysign(np.floor(np.abs(errors) / 2 + 0.5), errors)
    return saturate(samples.astype(np.int64), 16)


@cache
def softmax_tables(profile: str) -> tuple[IntArray, IntArray]:
    """The tables of exp and of the reciprocal, Q0.15, 513 entries each."""
    ends, middles = np.arange(513) / 512.0, (np.arange(512) + 0.5) / 512.0
    exponential = _sampled(np.exp(10 * ends - 10), np.exp(10 * middles - 10))
    reciprocal = _sampled(1 / (1 + ends), 1 / (1 + middles))
    if profile in BY_TABLE:
        for entry, difference in _TFLM_DIFFERENCES.items():
            reciprocal[entry] += difference
    return frozen(exponential, np.int64), frozen(reciprocal, np.int64)


def look_up(x: IntArray, table: IntArray) -> IntArray:
    """A table of 513 entries at int16 ``x``, with linear interpolation over 7 bits."""
    index = 256 + (x >> 7)
    low = table[index]
    value: IntArray = low + (((table[index + 1] - low) * (x & 127) + 64) >> 7)
    return value


def softmax_by_table(
    x: npt.ArrayLike, multiplier: int, shift: int, exponential: IntArray, reciprocal: IntArray
) -> IntArray:
    """int16 codes -> Q0.15.  The rest is of ``table_scale`` and ``softmax_tables``."""
    code = np.asarray(x, dtype=np.int64)
    difference = requantize(code - code.max(axis=-1, keepdims=True), multiplier, shift)
    power = look_up(saturate(difference + 32767, 16), exponential)
    total = power.sum(axis=-1, keepdims=True)  # below 2**27
    headroom = 32 - bit_length(total)
    mantissa = ((total << (headroom - 1)) + (1 << 13)) >> 14  # Q1.16 of 1 .. 2
    share = power * look_up(saturate(mantissa - 98304, 16), reciprocal)
    right = 31 - headroom
    rounded = (share + (np.int64(1) << (right - 1))) >> right
    return saturate(np.maximum(rounded, 0), 16)
