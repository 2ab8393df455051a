/* elstm_fixed.h: the integer primitives of fixedpoint.py, name by name, and what several layers share;
 * internal to the runtime.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_FIXED_H
#define ELSTM_FIXED_H

#include "elstm.h"

#if ELSTM_API_VERSION != 4
#error "elstm_fixed.h is of elstm API 4: copy every elstm file from the same export"
#endif

/* A kernel is inlined where it is called: there the layer's widths, multipliers and shifts are constants. */
#if defined(__GNUC__)
#define ELSTM_KERNEL static inline __attribute__((always_inline))
#else
#define ELSTM_KERNEL static inline
#endif

#if !defined(__GNUC__)
/* the kernels of the cores are written for compilers that know GNU's assembler statements */
#elif defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#include "elstm_dsp.h"
#elif defined(__ARM_ARCH_7M__) || defined(__ARM_ARCH_8M_MAIN__)
#include "elstm_m3.h"
#elif defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__)
#include "elstm_m0.h"
#elif (defined(__SSE2__) || defined(__ARM_NEON)) && defined(__GNUC__)
#include "elstm_simd.h"
#endif

typedef char elstm_shift_is_arithmetic[((int32_t)-5 >> 1) == -3 && ((int64_t)-5 >> 1) == -3 ? 1 : -1];

enum { GATE_I, GATE_F, GATE_G, GATE_O, GATES };

static inline int32_t elstm_clamp(int32_t x, int32_t low, int32_t high)
{
    return x < low ? low : (x > high ? high : x);
}

#ifndef ELSTM_HAS_SATURATE
static inline int32_t elstm_saturate_8(int32_t x)
{
    return elstm_clamp(x, -128, 127);
}

static inline int32_t elstm_saturate_16(int32_t x)
{
    return elstm_clamp(x, -32767 - 1, 32767);
}

static inline int32_t elstm_saturate_17(int32_t x)
{
    return elstm_clamp(x, -65536, 65535);
}
#endif

/* The signed value of 32 bits, without the conversion that C leaves to the compiler. */
static inline int32_t elstm_wrap_32(uint32_t x)
{
    return x <= (uint32_t)INT32_MAX ? (int32_t)x : -(int32_t)(UINT32_MAX - x) - 1;
}

#ifndef ELSTM_HAS_SHIFT_TO_NEAREST
/* x / 2**shift to nearest, ties up; shift is 1 .. 31. */
ELSTM_KERNEL int32_t elstm_shift_to_nearest(int32_t x, uint8_t shift)
{
    const int32_t twice = x >> (shift - 1u);
    return (twice >> 1) + (twice & 1);
}
#endif

/* x / 2**shift to nearest, ties away from zero; x is above -2**31, shift is 0 .. 31.
 * x >> 31 is -1 below zero: it turns the ties of floor(x / 2**shift + 1/2) away from zero.
 */
ELSTM_KERNEL int32_t elstm_rounding_shift(int32_t x, uint8_t shift)
{
    return shift == 0u ? x : elstm_shift_to_nearest(x + (x >> 31), shift);
}

#ifndef ELSTM_HAS_HIGH_MULTIPLY
/* (a * b + 2**30) >> 31.  With twice b the result is the upper word; from 2**30 on, 2 * b is 2**32 too low as an
 * int32, and a in the upper word puts that right; below -2**30 it is 2**32 too high.
 */
ELSTM_KERNEL int32_t elstm_high_multiply(int32_t a, int32_t b)
{
    const int32_t edge = (int32_t)1 << 30;
    const int64_t carried = b >= edge ? (int64_t)a : (b < -edge ? -(int64_t)a : 0);
    const int64_t product = (int64_t)a * (int64_t)elstm_wrap_32((uint32_t)b << 1);
    return (int32_t)((product + carried * ((int64_t)1 << 32) + ((int64_t)1 << 31)) >> 32);
}
#endif

#ifndef ELSTM_HAS_SHORT_MULTIPLY
/* elstm_high_multiply of an a that is below 2**bits; bits is 0 where that is not known. */
ELSTM_KERNEL int32_t elstm_short_multiply(int32_t a, int32_t b, uint8_t bits)
{
    (void)bits;
    return elstm_high_multiply(a, b);
}
#endif

ELSTM_KERNEL int32_t elstm_requantize(int32_t acc, elstm_requantizer_t r)
{
    if (r.shift > 0) {
        return elstm_high_multiply(elstm_wrap_32((uint32_t)acc << (uint8_t)r.shift), r.multiplier);
    }
    return elstm_rounding_shift(elstm_short_multiply(acc, r.multiplier, r.bits), (uint8_t)-r.shift);
}

#ifndef ELSTM_HAS_SATURATE_SHIFTED
/* x >> shift, saturated to 16 bits; shift is 1 .. 31. */
ELSTM_KERNEL int32_t elstm_saturate_shifted(int32_t x, uint8_t shift)
{
    return elstm_saturate_16(x >> shift);
}
#endif

/* elstm_requantize, saturated to 16 bits; |acc| is below 2**30 where shift is below 0. */
ELSTM_KERNEL int32_t elstm_requantize_16(int32_t acc, elstm_requantizer_t r)
{
    if (r.shift >= 0) {
        return elstm_saturate_16(elstm_requantize(acc, r));
    }
    const int32_t x = elstm_short_multiply(acc, r.multiplier, r.bits);
    return elstm_saturate_shifted(x + (x >> 31) + ((int32_t)1 << (uint8_t)(-r.shift - 1)), (uint8_t)-r.shift);
}

/* elstm_requantize whose second rounding takes ties up. */
static inline int32_t elstm_requantize_ties_up(int32_t acc, elstm_requantizer_t r)
{
    const int32_t high = r.shift > 0 ? elstm_requantize(acc, r) : elstm_high_multiply(acc, r.multiplier);
    const uint8_t right = r.shift < 0 ? (uint8_t)-r.shift : (uint8_t)0;
    return (int32_t)(((int64_t)high + (((int64_t)1 << right) >> 1)) >> right);
}

/* elstm_requantize for the multiplier 2**30: its product and first rounding are one addition.
 * acc is below 2**31 - 1, shift is 0 .. 31.
 */
static inline int32_t elstm_requantize_half(int32_t acc, uint8_t shift)
{
    return elstm_rounding_shift((acc + 1) >> 1, shift);
}

static inline uint8_t elstm_bit_length(uint64_t x)
{
    uint8_t length = 0;
    for (; x != 0u; x >>= 1) {
        length++;
    }
    return length;
}

/* x / 2**shift to nearest, ties to even; shift is 0 .. 62. */
static inline uint64_t elstm_round_to_even(uint64_t x, uint8_t shift)
{
    const uint64_t quotient = x >> shift;
    const uint64_t remainder = x - (quotient << shift);
    const uint64_t half = ((uint64_t)1 << shift) >> 1;
    const int up = remainder > half || (remainder == half && half > 0u && (quotient & 1u) == 1u);
    return quotient + (up ? 1u : 0u);
}

/* What storing x in a float32 does. */
static inline uint64_t elstm_round_to_24_bits(uint64_t x)
{
    const uint8_t length = elstm_bit_length(x);
    const uint8_t spare = length > 24u ? (uint8_t)(length - 24u) : (uint8_t)0;
    return elstm_round_to_even(x, spare) << spare;
}

/* rint(float32(acc) * float32(multiplier * 2**shift)), computed on the magnitude: ties to even have no sign.
 * The result is cut to +-2**16, far outside int8.
 */
static inline int32_t elstm_requantize_float(int32_t acc, elstm_requantizer_t r)
{
    const uint64_t magnitude = acc < 0 ? (uint64_t)0 - (uint64_t)(int64_t)acc : (uint64_t)acc;
    const uint64_t product = elstm_round_to_24_bits(elstm_round_to_24_bits(magnitude) * (uint64_t)r.multiplier);
    const uint64_t rounded = elstm_round_to_even(product, (uint8_t)-r.shift);
    const int32_t cut = rounded < 65536u ? (int32_t)rounded : (int32_t)65536;
    return acc < 0 ? -cut : cut;
}

/* Shift to the zero point and saturate; the inner saturation changes nothing but keeps the sum in range. */
static inline int8_t elstm_code(int32_t x, int8_t zero_point)
{
    return (int8_t)elstm_saturate_8(elstm_saturate_16(x) + zero_point);
}

#ifndef ELSTM_HAS_DOT
/* acc + row . x */
ELSTM_KERNEL int32_t elstm_dot(int32_t acc, const int8_t *row, const int8_t *x, uint16_t columns)
{
    for (const int8_t *const end = x + columns; x != end; x++) {
        acc += (int32_t)*row * (int32_t)*x;
        row++;
    }
    return acc;
}
#endif

#ifndef ELSTM_HAS_FOUR_ROWS
/* Adds four rows . x to sum; returns the weights after these.
 * weights: four columns of the first row, of the second, third and fourth, then the next four columns; of what
 * is left of the columns the four rows of one column, then of the next.
 */
ELSTM_KERNEL const int8_t *elstm_four_rows(int32_t sum[4], const int8_t *weights, const int8_t *x,
                                            uint16_t columns)
{
    int32_t a = sum[0], b = sum[1], c = sum[2], d = sum[3];
    for (const int8_t *const end = x + (columns & ~3u); x != end; x += 4) {
        const int32_t x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3];
        a += weights[0] * x0;
        a += weights[1] * x1;
        a += weights[2] * x2;
        a += weights[3] * x3;
        b += weights[4] * x0;
        b += weights[5] * x1;
        b += weights[6] * x2;
        b += weights[7] * x3;
        c += weights[8] * x0;
        c += weights[9] * x1;
        c += weights[10] * x2;
        c += weights[11] * x3;
        d += weights[12] * x0;
        d += weights[13] * x1;
        d += weights[14] * x2;
        d += weights[15] * x3;
        weights += 16;
    }
    for (uint8_t column = 0; column < (columns & 3u); column++) {
        const int32_t code = x[column];
        a += weights[0] * code;
        b += weights[1] * code;
        c += weights[2] * code;
        d += weights[3] * code;
        weights += 4;
    }
    sum[0] = a;
    sum[1] = b;
    sum[2] = c;
    sum[3] = d;
    return weights;
}
#endif

/* Add the input and the recurrent term of a gate, all int16 Q3.12. */
static inline int32_t elstm_combine_tflm(int32_t a, int32_t b)
{
    return elstm_saturate_16(a + b);
}

/* As above; b has not been saturated to 16 bits, but beyond +-65535 it decides the sum alone. */
static inline int32_t elstm_combine_litert(int32_t a, int32_t b)
{
    return elstm_saturate_16(a + elstm_clamp(b, -65535, 65535));
}

/* A new cell code within +-limit, 0 for none. */
static inline int32_t elstm_clip_cell(int32_t cell, int32_t limit)
{
    return limit != 0 ? elstm_clamp(cell, -limit, limit) : elstm_saturate_16(cell);
}

/* c' = f * c + i * g in cell codes of scale 2**power.  |f * c| and |i * g| are below 2**30: each fits 16 bits. */
ELSTM_KERNEL int32_t elstm_update_cell_tflm(int32_t cell, int32_t i, int32_t f, int32_t g, int8_t power,
                                             int32_t limit)
{
    const int32_t kept = elstm_requantize_half(f * cell, 14);
    const int32_t fresh = elstm_requantize_half(i * g, (uint8_t)(29 + power));
    return elstm_clip_cell(kept + fresh, limit);
}

static inline int32_t elstm_update_cell_litert(int32_t cell, int32_t i, int32_t f, int32_t g, int8_t power,
                                               int32_t limit)
{
    const int32_t kept = elstm_rounding_shift(f * cell, 15);
    const int32_t fresh = elstm_rounding_shift(i * g, (uint8_t)(30 + power));
    return elstm_clip_cell(kept + fresh, limit);
}

#endif
