"""The integer primitives against exact fractions, float32 itself and published checksums."""

from __future__ import annotations

import math
import zlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_lstm import fixedpoint as fp

INT32 = st.integers(-(2**31), 2**31 - 1)
EDGES = sorted({s * (2**k + d) for k in range(31) for d in (-1, 0, 1) for s in (-1, 1)})


def nearest_ties_away(value: Fraction) -> int:
    return int(math.copysign(1, value)) * math.floor(abs(value) + Fraction(1, 2))


def nearest_ties_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def nearest_ties_even(value: Fraction) -> int:
    return round(value)


@pytest.mark.parametrize("shift", [0, 1, 2, 7, 15, 30, 31, 40])
def test_rounding_shift_is_exact_division_with_ties_away(shift: int) -> None:
    expected = [nearest_ties_away(Fraction(x, 2**shift)) for x in EDGES]
    assert fp.rounding_shift(EDGES, shift).tolist() == expected


@pytest.mark.parametrize("shift", [0, 1, 2, 7, 15, 30, 31, 40])
def test_round_to_even_is_exact_division_with_ties_to_even(shift: int) -> None:
    assert fp.round_to_even(EDGES, shift).tolist() == [
        nearest_ties_even(Fraction(x, 2**shift)) for x in EDGES
    ]


@given(INT32, st.integers(2**30, 2**31 - 1), st.integers(-31, 0))
def test_requantize_rounds_the_exact_product_twice(acc: int, multiplier: int, shift: int) -> None:
    high = nearest_ties_up(Fraction(acc * multiplier, 2**31))
    assert int(fp.requantize(acc, multiplier, shift)) == nearest_ties_away(Fraction(high, 2**-shift))


@given(INT32, st.integers(2**30, 2**31 - 1), st.integers(-31, 0))
def test_requantize_ties_up_rounds_the_exact_product_up_twice(acc: int, multiplier: int, shift: int) -> None:
    high = nearest_ties_up(Fraction(acc * multiplier, 2**31))
    found = int(fp.requantize_ties_up(acc, multiplier, shift))
    assert found == nearest_ties_up(Fraction(high, 2**-shift))


@given(st.integers(-(2**20), 2**20), st.integers(2**30, 2**31 - 1), st.integers(1, 10))
def test_requantize_shifts_left_before_it_multiplies(acc: int, multiplier: int, shift: int) -> None:
    assert int(fp.requantize(acc, multiplier, shift)) == nearest_ties_up(
        Fraction((acc << shift) * multiplier, 2**31)
    )


@given(st.floats(2.0**-31, 2.0**30, allow_nan=False))
def test_quantize_multiplier_is_within_half_a_unit_of_31_bits(real: float) -> None:
    multiplier, shift = fp.quantize_multiplier(real)
    assert 2**30 <= multiplier < 2**31
    assert abs(Fraction(multiplier) * Fraction(2) ** (shift - 31) / Fraction(real) - 1) <= Fraction(1, 2**31)


def test_quantize_multiplier_carries_into_the_shift_and_vanishes_below_two_to_minus_32() -> None:
    assert fp.quantize_multiplier(1.0 - 2.0**-40) == (2**30, 1)
    assert fp.quantize_multiplier(0.0) == (0, 0)
    assert fp.quantize_multiplier(2.0**-33) == (0, 0)
    assert fp.quantize_multiplier(2.0**-32) == (2**30, -31)


@given(INT32, st.floats(2.0**-38, 0.9375, allow_nan=False, width=32))
def test_requantize_float_is_the_float32_product_rounded(acc: int, scale: float) -> None:
    significand, exponent = fp.float_scale(scale)
    assert 2**23 <= significand < 2**24
    expected = np.rint(np.float32(acc) * np.float32(scale))
    assert int(fp.requantize_float(acc, significand, exponent)) == int(expected)


def test_requantize_float_meets_float32_on_ties_and_large_accumulators() -> None:
    acc = np.array([*EDGES, *(3 * 2**k + d for k in range(1, 29) for d in (-1, 0, 1))])
    for scale in (0.5, 0.25, 2.0**-7, 1.5 * 2.0**-9, 0.1, 1 / 3):
        s = np.float32(scale)
        expected = np.rint(acc.astype(np.float32) * s).astype(np.int64)
        assert (fp.requantize_float(acc, *fp.float_scale(float(s))) == expected).all(), scale


def test_wrap_keeps_the_low_bits_signed() -> None:
    assert fp.wrap([32767, 32768, -32768, -32769, 65536], 16).tolist() == [32767, -32768, -32768, 32767, 0]


X = np.arange(-32768, 32768)


def crc(values: fp.IntArray) -> str:
    return f"{zlib.crc32(values.astype('<i2').tobytes()):08x}"


def test_activations_have_the_published_checksums() -> None:
    assert crc(fp.sigmoid_by_polynomial(X)) == "89b3f38e"
    assert [crc(fp.tanh_by_polynomial(X, bits)) for bits in range(7)] == [
        "a348daf8", "c979dd1d", "742f59b7", "70b28dfe", "215077b2", "3a695108", "32e074ae",
    ]  # fmt: skip
    assert crc(fp.sigmoid_by_table(X)) == "928f0a46"
    assert [crc(fp.tanh_by_table(X, shift)) for shift in range(-3, 4)] == [
        "c3723410", "0a35e7ef", "931c6619", "abdd53cc", "20f0f708", "93ee576e", "2537531d",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "exact", "bound"),
    [
        (fp.sigmoid_by_table(X), 32768 / (1 + np.exp(-X / 4096)), 1.02),
        (fp.sigmoid_by_polynomial(X), 32768 / (1 + np.exp(-X / 4096)), 6.4),
        (fp.tanh_by_table(X, 0), 32768 * np.tanh(X / 4096), 2.5),
        (fp.tanh_by_polynomial(X, 3), 32768 * np.tanh(X / 4096), 12.0),
    ],
)
def test_activations_stay_within_the_error_that_numerics_states(
    values: fp.IntArray, exact: np.ndarray, bound: float
) -> None:
    assert np.abs(values - np.clip(exact, -32768, 32767)).max() <= bound


def test_lookups_hold_every_result_of_the_function() -> None:
    assert (fp.sigmoid_lookup("tflm") == fp.sigmoid_by_table(X)).all()
    assert (fp.sigmoid_lookup("litert") == fp.sigmoid_by_polynomial(X)).all()
    assert (fp.tanh_lookup("tflm", -10) == fp.tanh_by_table(X, 2)).all()
    assert (fp.tanh_lookup("litert", -10) == fp.tanh_by_polynomial(X, 5)).all()
