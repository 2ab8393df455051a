/* elstm_activations.h: sigmoid and tanh by table (profile tflm) and by polynomial (litert, tflite); internal to the
 * runtime.  Spec: NUMERICS.md, 3 and 4.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_ACTIVATIONS_H
#define ELSTM_ACTIVATIONS_H

#include "elstm_fixed.h"

extern const uint16_t elstm_sigmoid_table[513]; /* 65536 * sigmoid((i - 256) / 24) */
extern const uint16_t elstm_sigmoid_half[258];  /* 65536 * sigmoid(i / 24) */
extern const int16_t elstm_exp_factors[7];      /* exp(-2**e) in Q0.15 for e = -2 .. 4 */

#ifdef __OPTIMIZE_SIZE__
/* The table at x / 2**bits, interpolated: 2**bits times an entry.  bits is 9 or 8, |x| is 2**(bits + 8) at most.
 * sigmoid(-x) is 1 - sigmoid(x), also between two entries.
 */
static inline int32_t elstm_interpolate(int32_t x, uint8_t bits)
{
    const int32_t sign = x >> 31, magnitude = (x ^ sign) - sign;
    const uint16_t *const entry = elstm_sigmoid_half + (magnitude >> bits);
    const int32_t weight = magnitude & (((int32_t)1 << bits) - 1);
    const int32_t value = ((int32_t)entry[0] << bits) + weight * ((int32_t)entry[1] - (int32_t)entry[0]);
    return (value ^ sign) - sign - sign * ((int32_t)65536 << bits);
}
#else
/* The entry of 0; a compiler that sees the sum would add 256 to every index instead. */
static inline const uint16_t *elstm_table_middle(void)
{
    const uint16_t *middle = elstm_sigmoid_table + 256;
#ifdef __GNUC__
    __asm("" : "+r"(middle));
#endif
    return middle;
}

/* The table at x / 2**bits, interpolated: 2**bits times an entry.  bits is 9 or 8, |x| is 2**(bits + 8) at most. */
static inline int32_t elstm_interpolate(int32_t x, uint8_t bits)
{
    const uint16_t *const entry = elstm_table_middle() + (x >> bits);
    const int32_t weight = (int32_t)((uint32_t)x & (((uint32_t)1 << bits) - 1u));
    return ((int32_t)entry[0] << bits) + weight * ((int32_t)entry[1] - (int32_t)entry[0]);
}
#endif

/* 3 * x * 2**shift, rounded half up: the place of an int16 with scale 2**(shift - 12); shift is -3 .. 3. */
static inline int32_t elstm_table_argument(int32_t x, int8_t shift)
{
    return shift >= 0 ? x * 3 * ((int32_t)1 << shift) : (x * 3 + ((int32_t)1 << (-shift - 1))) >> -shift;
}

/* x: int16 with scale 2**(shift - 12).  Returns Q0.15.  Ties of x < 0 are rounded down. */
ELSTM_KERNEL int32_t elstm_sigmoid_by_table(int32_t x, int8_t shift)
{
    const int32_t tripled = elstm_table_argument(x, shift);
    const int32_t argument = shift > 0 ? elstm_clamp(tripled, -130559, 130559) : tripled; /* ends below 1 */
    return (elstm_interpolate(argument, 9) + 512 + (argument >> 31)) >> 10;
}

/* x: int16 with scale 2**(shift - 12).  Returns Q0.15. */
ELSTM_KERNEL int32_t elstm_tanh_by_table(int32_t x, int8_t shift)
{
    const int32_t argument = elstm_saturate_17(elstm_table_argument(x, shift));
    return (elstm_interpolate(argument, 8) - (((int32_t)1 << 23) - 128) + (argument >> 31)) >> 8;
}

/* (a * b + 2**14) >> 15 for int16 values; -32768 * -32768 gives 32767. */
static inline int32_t elstm_half_multiply(int32_t a, int32_t b)
{
    const int32_t product = (a * b + ((int32_t)1 << 14)) >> 15;
    return product < 32767 ? product : 32767;
}

/* exp of x <= 0 in Q(integer_bits).(15 - integer_bits), as Q0.15; integer_bits is 1 .. 7. */
static inline int32_t elstm_exp_on_negative(int32_t x, uint8_t integer_bits)
{
    const uint8_t fraction_bits = (uint8_t)(15u - integer_bits);
    const int32_t quarter = (int32_t)1 << (fraction_bits - 2u);
    const int32_t remainder = (int32_t)((uint32_t)x & (uint32_t)(quarter - 1)) - quarter;
    const int32_t u = remainder * ((int32_t)1 << integer_bits) + 4096; /* -8192 .. 0, then -4096 .. 4096 */
    const int32_t u2 = elstm_half_multiply(u, u);
    const int32_t u3 = elstm_half_multiply(u2, u);
    const int32_t u4 = elstm_half_multiply(u2, u2);
    const int32_t cubic = elstm_half_multiply(elstm_rounding_shift(u4, 2) + u3, 10923);
    const int32_t tail = elstm_rounding_shift(cubic + u2, 1);
    const int32_t k = remainder - x;
    int32_t y = elstm_saturate_16(28918 + elstm_half_multiply(u + tail, 28918));
    const uint8_t factors = integer_bits < 5u ? (uint8_t)(integer_bits + 2u) : (uint8_t)7;
    for (uint8_t e = 0; e < factors; e++) {
        if (((uint32_t)k & ((uint32_t)quarter << e)) != 0u) {
            y = elstm_half_multiply(y, elstm_exp_factors[e]);
        }
    }
    if (integer_bits > 5u && x < -((int32_t)1 << (20u - integer_bits))) {
        y = 0;
    }
    return x == 0 ? 32767 : y;
}

/* 2 / (1 + y) for Q0.15 y in 0 .. 1, as Q2.13, by three Newton steps. */
static inline int32_t elstm_twice_reciprocal(int32_t y)
{
    const int32_t half = (y + 32768) >> 1;
    int32_t value = 23130 + elstm_half_multiply(half, -15420);
    for (uint8_t turn = 0; turn < 3u; turn++) {
        const int32_t error = 8192 - elstm_half_multiply(half, value);
        value += elstm_saturate_16(elstm_half_multiply(value, error) * 4);
    }
    return value;
}

/* x: int16 Q3.12.  Returns Q0.15. */
static inline int32_t elstm_sigmoid_by_polynomial(int32_t x)
{
    if (x == 0) {
        return 16384;
    }
    const int32_t exponential = elstm_exp_on_negative(x < 0 ? x : -x, 3);
    const int32_t positive = elstm_saturate_16(elstm_twice_reciprocal(exponential) * 2);
    return x > 0 ? positive : 32767 - positive;
}

/* x: int16 in Q(integer_bits).(15 - integer_bits), integer_bits is 0 .. 6.  Returns Q0.15. */
static inline int32_t elstm_tanh_by_polynomial(int32_t x, uint8_t integer_bits)
{
    if (x == 0) {
        return 0;
    }
    const int32_t exponential = elstm_exp_on_negative(x < 0 ? x : -x, (uint8_t)(integer_bits + 1u));
    const int32_t positive = elstm_saturate_16((elstm_twice_reciprocal(exponential) - 8192) * 4);
    return x > 0 ? positive : -positive;
}

#endif
