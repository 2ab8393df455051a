"""The integer primitives; mirrored in c_runtime/elstm_fixed.h.  Spec: NUMERICS.md, 2 to 4."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import frozen

IntArray = npt.NDArray[np.signedinteger[Any]]
BY_TABLE = ("tflm", "native")  # profiles whose sigmoid and tanh come from the table


def saturate(x: npt.ArrayLike, bits: int) -> IntArray:
    """Clamp integers to ``bits`` two's-complement bits.  Returns int64, same shape."""
    limit = 1 << (bits - 1)
    return np.clip(np.asarray(x, dtype=np.int64), -limit, limit - 1)


def wrap(x: npt.ArrayLike, bits: int) -> IntArray:
    """Keep the low ``bits`` bits, signed.  Returns int64, same shape."""
    half = 1 << (bits - 1)
    wrapped: IntArray = ((np.asarray(x, dtype=np.int64) + half) & ((1 << bits) - 1)) - half
    return wrapped


def rounding_shift(x: npt.ArrayLike, shift: npt.ArrayLike) -> IntArray:
    """Divide by ``2**shift``, to nearest, ties away from zero.  shift: 0 .. 62.  Returns int64."""
    value, shift = np.asarray(x, dtype=np.int64), np.asarray(shift, dtype=np.int64)
    remainder = value & ((np.int64(1) << shift) - 1)
    threshold = (((np.int64(1) << shift) - 1) >> 1) + (value < 0)
    shifted: IntArray = (value >> shift) + (remainder > threshold)
    return shifted


def high_multiply(a: npt.ArrayLike, b: npt.ArrayLike) -> IntArray:
    """``(a * b + 2**30) >> 31`` for int32 ``a`` and ``b >= 0``: nearest, ties up.  Returns int64."""
    product = np.asarray(a, dtype=np.int64) * np.asarray(b, dtype=np.int64)  # |product| <= 2**62
    high: IntArray = (product + (1 << 30)) >> 31
    return high


def requantize(acc: npt.ArrayLike, multiplier: npt.ArrayLike, shift: npt.ArrayLike) -> IntArray:
    """Multiply accumulators by ``multiplier * 2**(shift - 31)``, rounded twice as TFLite does.

    acc: int32, any shape.  multiplier: Q0.31, 0 or 2**30 .. 2**31 - 1.  shift: -31 .. 30.
    multiplier and shift broadcast against acc.  Returns int64 holding int32 values.
    Error: at most 1/2 + 2**-31 LSB of the exact product.  Spec: NUMERICS.md, 2.
    """
    shift = np.asarray(shift, dtype=np.int64)
    left = wrap(np.asarray(acc, dtype=np.int64) << np.maximum(shift, 0), 32)
    return rounding_shift(high_multiply(left, multiplier), np.maximum(-shift, 0))


def requantize_ties_up(acc: npt.ArrayLike, multiplier: npt.ArrayLike, shift: npt.ArrayLike) -> IntArray:
    """``requantize`` whose second rounding takes ties up, as TFLite's own dense kernel does on x86-64."""
    shift = np.asarray(shift, dtype=np.int64)
    left = wrap(np.asarray(acc, dtype=np.int64) << np.maximum(shift, 0), 32)
    right = np.maximum(-shift, 0)
    rounded: IntArray = (high_multiply(left, multiplier) + ((np.int64(1) << right) >> 1)) >> right
    return rounded


def quantize_multiplier(real: float) -> tuple[int, int]:
    """Return ``(multiplier, shift)`` with ``real = multiplier * 2**(shift - 31)``.

    real: 0 or more.  multiplier: Q0.31, 2**30 .. 2**31 - 1, or 0 with shift 0 for a vanishing ``real``.
    """
    if real == 0:
        return 0, 0
    significand, shift = math.frexp(real)
    multiplier = math.floor(significand * 2**31 + 0.5)  # significand > 0: half up is half away
    if multiplier == 1 << 31:
        multiplier, shift = 1 << 30, shift + 1
    return (0, 0) if shift < -31 else (multiplier, shift)


def float_scale(real: float) -> tuple[int, int]:
    """Split a float32 into ``(significand, exponent)``: ``real = significand * 2**exponent``.

    significand: 2**23 .. 2**24 - 1 for every normal float32.
    """
    significand, exponent = math.frexp(float(np.float32(real)))
    return int(significand * (1 << 24)), exponent - 24


def short_multiplier(real: float) -> tuple[int, int]:
    """Return ``(multiplier, shift)`` with ``real = multiplier * 2**(shift - 15)``; multiplier has 15 bits.

    multiplier: 2**14 .. 2**15 - 1, or 0 with shift 0 for a vanishing ``real``.
    """
    multiplier, shift = quantize_multiplier(real)
    return min((multiplier + (1 << 15)) >> 16, 32767), shift


def scale_wide(acc: npt.ArrayLike, multiplier: npt.ArrayLike, shift: npt.ArrayLike) -> IntArray:
    """Multiply 48-bit accumulators by ``multiplier * 2**(shift - 15)``, rounded once, ties up.

    multiplier: 0 .. 32767.  shift: -40 .. 7.  |acc| < 2**47.  Returns int64.
    """
    product = np.asarray(acc, dtype=np.int64) * np.asarray(multiplier, dtype=np.int64)  # < 2**62
    right = 15 - np.asarray(shift, dtype=np.int64)
    scaled: IntArray = (product + (np.int64(1) << (right - 1))) >> right
    return scaled


def round_to_even(x: npt.ArrayLike, shift: npt.ArrayLike) -> IntArray:
    """Divide by ``2**shift``, to nearest, ties to even.  shift: 0 .. 62.  Returns int64."""
    value, shift = np.asarray(x, dtype=np.int64), np.asarray(shift, dtype=np.int64)
    quotient = value >> shift
    remainder = value - (quotient << shift)
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    up = (remainder > half) | ((remainder == half) & (half > 0) & ((quotient & 1) == 1))
    rounded: IntArray = quotient + up
    return rounded


def bit_length(x: npt.ArrayLike) -> IntArray:
    """Number of bits of non-negative integers below 2**53."""
    return np.frexp(np.asarray(x, dtype=np.float64))[1].astype(np.int64)


def round_to_24_bits(x: npt.ArrayLike) -> IntArray:
    """Round integers to 24 significant bits, ties to even: what storing them in a float32 does."""
    value = np.asarray(x, dtype=np.int64)
    spare = np.maximum(bit_length(np.abs(value)) - 24, 0)
    return round_to_even(value, spare) << spare


def requantize_float(acc: npt.ArrayLike, significand: npt.ArrayLike, exponent: npt.ArrayLike) -> IntArray:
    """``rint(float32(acc) * float32(significand * 2**exponent))`` in integers.

    acc: int32.  significand: 2**23 .. 2**24 - 1.  exponent: -62 .. 0.  Broadcasts.  Returns int64.
    This is how XNNPACK scales a fully connected layer.  Spec: NUMERICS.md, 6.
    """
    product = round_to_24_bits(round_to_24_bits(acc) * np.asarray(significand, dtype=np.int64))  # < 2**56
    return round_to_even(product, -np.asarray(exponent, dtype=np.int64))


# --- sigmoid and tanh by table: TensorFlow Lite Micro and CMSIS-NN, and our C ---------------------

# Entries of their 256-entry table that lie one above the rounded exact value.
_TABLE_PLUS_ONE = (
    4, 8, 12, 14, 15, 16, 17, 19, 20, 21, 22, 25, 27, 28, 29, 30, 31, 33, 34, 35, 37, 39, 40, 41, 43, 44,
    45, 46, 49, 50, 54, 62, 63, 64, 66, 82, 86, 93, 100, 103, 112, 116, 135, 255,
)  # fmt: skip


@cache
def sigmoid_table() -> IntArray:
    """256 samples of ``65536 * sigmoid(i / 24)``, uint16 range.  Spec: NUMERICS.md, 3."""
    exact = 65536.0 / (1.0 + np.exp(-np.arange(256) / 24.0))
    table = np.minimum(65535, np.floor(exact + 0.5)).astype(np.int64)
    table[list(_TABLE_PLUS_ONE)] += 1
    return frozen(table, np.int64)


def _interpolate(magnitude: IntArray, bits: int) -> IntArray:
    """Read the table at ``magnitude / 2**bits`` with linear interpolation: ``S * 2**bits``."""
    table = sigmoid_table()
    index, weight = magnitude >> bits, magnitude & ((1 << bits) - 1)
    low = table[np.minimum(index, 254)]
    high = table[np.minimum(index, 254) + 1]
    top = (32767 << 10) if bits == 9 else (65535 << 8)
    return np.where(index >= 255, top, (low << bits) + weight * (high - low))


def _table_argument(x: npt.ArrayLike, shift: int) -> IntArray:
    """``3 * x * 2**shift``, rounded half up: the place of an int16 with scale ``2**(shift - 12)``."""
    argument: IntArray = np.asarray(x, dtype=np.int64) * 3
    if shift >= 0:
        return argument << shift
    return (argument + (1 << (-shift - 1))) >> -shift


def sigmoid_by_table(x: npt.ArrayLike, shift: int = 0) -> IntArray:
    """sigmoid of an int16 with scale ``2**(shift - 12)`` in Q0.15; at most 1.02 LSB from exact."""
    argument = _table_argument(x, shift)
    value = _interpolate(np.abs(argument), 9)
    return np.where(argument >= 0, (value + 512) >> 10, ((1 << 25) - value + 511) >> 10)


def tanh_by_table(x: npt.ArrayLike, shift: int) -> IntArray:
    """tanh of an int16 with scale ``2**(shift - 12)`` in Q0.15; at most 2.5 LSB from exact."""
    argument = _table_argument(x, shift)
    value = _interpolate(np.abs(argument), 8)
    return np.where(argument >= 0, (value - (1 << 23) + 128) >> 8, (-value + (1 << 23) + 127) >> 8)


# --- sigmoid and tanh by polynomial: gemmlowp, as LiteRT has them ----------------------------------

# exp(-2**e) in Q0.15 for e = -2 .. 4
_EXP_FACTORS = (25520, 19875, 12055, 4435, 600, 11, 0)


def _half_multiply(a: IntArray, b: IntArray | int) -> IntArray:
    """``(a * b + 2**14) >> 15`` for int16 values; -32768 * -32768 gives 32767."""
    product: IntArray = (a * b + (1 << 14)) >> 15
    return np.minimum(product, 32767)


def exp_on_negative(x: npt.ArrayLike, integer_bits: int) -> IntArray:
    """exp of ``x <= 0`` in Q(integer_bits).(15 - integer_bits), as Q0.15.  Spec: NUMERICS.md, 4."""
    value = np.asarray(x, dtype=np.int64)
    fraction_bits = 15 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    remainder = (value & (quarter - 1)) - quarter
    u = saturate(remainder << integer_bits, 16) + 4096
    u2 = _half_multiply(u, u)
    u3, u4 = _half_multiply(u2, u), _half_multiply(u2, u2)
    tail = rounding_shift(_half_multiply(rounding_shift(u4, 2) + u3, 10923) + u2, 1)
    y = saturate(28918 + _half_multiply(u + tail, 28918), 16)
    k = remainder - value
    for exponent, factor in enumerate(_EXP_FACTORS, start=-2):
        if exponent < integer_bits:
            y = np.where((k >> (fraction_bits + exponent)) & 1, _half_multiply(y, factor), y)
    if integer_bits > 5:
        y = np.where(value < -(1 << (20 - integer_bits)), 0, y)
    return np.where(value == 0, 32767, y)


def twice_reciprocal(y: IntArray) -> IntArray:
    """``2 / (1 + y)`` for Q0.15 ``y`` in 0 .. 1, as Q2.13, by three Newton steps."""
    half = (y + 32768) >> 1
    value: IntArray = 23130 + _half_multiply(half, -15420)
    for _ in range(3):
        value = value + saturate(_half_multiply(value, 8192 - _half_multiply(half, value)) << 2, 16)
    return value


def sigmoid_by_polynomial(x: npt.ArrayLike) -> IntArray:
    """sigmoid of Q3.12 int16 in Q0.15; at most 6.4 LSB from exact."""
    value = np.asarray(x, dtype=np.int64)
    positive = saturate(twice_reciprocal(exp_on_negative(-np.abs(value), 3)) << 1, 16)
    return np.where(value == 0, 16384, np.where(value > 0, positive, 32767 - positive))


def tanh_by_polynomial(x: npt.ArrayLike, integer_bits: int) -> IntArray:
    """tanh of an int16 in Q(integer_bits).(15 - integer_bits) as Q0.15; at most 12 LSB from exact.

    integer_bits: 0 .. 6.
    """
    value = np.asarray(x, dtype=np.int64)
    positive = saturate((twice_reciprocal(exp_on_negative(-np.abs(value), integer_bits + 1)) - 8192) << 2, 16)
    return np.where(value == 0, 0, np.where(value > 0, positive, -positive))


def _all_int16() -> IntArray:
    return np.arange(-32768, 32768, dtype=np.int64)


@cache
def sigmoid_lookup(profile: str, scale_power: int = -12) -> IntArray:
    """All 65,536 results of the profile's sigmoid at scale ``2**scale_power``, index ``x + 32768``."""
    if profile in BY_TABLE:
        return frozen(sigmoid_by_table(_all_int16(), scale_power + 12), np.int64)
    if scale_power != -12:
        raise ValueError(f"sigmoid at scale 2**{scale_power} has no polynomial")
    return frozen(sigmoid_by_polynomial(_all_int16()), np.int64)


@cache
def tanh_lookup(profile: str, scale_power: int) -> IntArray:
    """All 65,536 results of the profile's tanh at scale ``2**scale_power``, index ``x + 32768``."""
    if profile in BY_TABLE:
        return frozen(tanh_by_table(_all_int16(), scale_power + 12), np.int64)
    return frozen(tanh_by_polynomial(_all_int16(), 15 + scale_power), np.int64)
