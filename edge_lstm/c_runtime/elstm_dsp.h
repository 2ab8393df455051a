/* elstm_dsp.h: the kernels of cores with the DSP extension: Cortex-M4, M7, M33; internal to the runtime.
 *
 * Cost: 4 rows x 4 columns take 23 instructions, 1.4 a product; a requantization with constant shift takes 4.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_DSP_H
#define ELSTM_DSP_H

#include "elstm_m3.h"

/* Four codes as they lie in memory. */
static inline uint32_t elstm_word(const int8_t *codes)
{
    uint32_t word;
    __builtin_memcpy(&word, codes, sizeof word); /* one LDR, also where codes are not aligned */
    return word;
}

/* Codes 0 and 2 of a word as two int16. */
static inline uint32_t elstm_even(uint32_t word)
{
    uint32_t pair;
    __asm("sxtb16 %0, %1" : "=r"(pair) : "r"(word));
    return pair;
}

/* Codes 1 and 3 of a word as two int16. */
static inline uint32_t elstm_odd(uint32_t word)
{
    uint32_t pair;
    __asm("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
    return pair;
}

/* acc + both products of two pairs of int16. */
static inline int32_t elstm_add_products(int32_t acc, uint32_t a, uint32_t b)
{
    int32_t sum;
    __asm("smlad %0, %1, %2, %3" : "=r"(sum) : "r"(a), "r"(b), "r"(acc));
    return sum;
}

#define ELSTM_HAS_PAIRS_16
/* acc + both products of two int16 at a and two at b, which need not be aligned. */
static inline int32_t elstm_pairs_16(const int16_t *a, const int16_t *b, int32_t acc)
{
    uint32_t x;
    uint32_t y;
    __builtin_memcpy(&x, a, sizeof x);
    __builtin_memcpy(&y, b, sizeof y);
    return elstm_add_products(acc, x, y);
}

/* acc + low half of a times code, and acc + high half of a times code. */
static inline int32_t elstm_add_low(int32_t acc, uint32_t a, int32_t code)
{
    int32_t sum;
    __asm("smlabb %0, %1, %2, %3" : "=r"(sum) : "r"(a), "r"(code), "r"(acc));
    return sum;
}

static inline int32_t elstm_add_high(int32_t acc, uint32_t a, int32_t code)
{
    int32_t sum;
    __asm("smlatb %0, %1, %2, %3" : "=r"(sum) : "r"(a), "r"(code), "r"(acc));
    return sum;
}

/* SMMLAR is (a * b + (c << 32) + 2**31) >> 32: with twice b it rounds at bit 31 of a * b.  From 2**30 on,
 * 2 * b is 2**32 too low as an int32; a << 32 puts that right.
 */
#define ELSTM_HAS_HIGH_MULTIPLY
ELSTM_KERNEL int32_t elstm_high_multiply(int32_t a, int32_t b)
{
    const uint32_t twice = (uint32_t)b << 1;
    const int32_t edge = (int32_t)1 << 30;
    const int32_t carried = b >= edge ? a : (b < -edge ? -a : 0); /* |a| is below 2**31 in the latter */
    int32_t high;
    __asm("smmlar %0, %1, %2, %3" : "=r"(high) : "r"(a), "r"(twice), "r"(carried));
    return high;
}

/* Two of four rows: columns 0 and 2 of p, then 1 and 3, times those of x. */
#define ELSTM_TWO_ROWS(a, b)                                                                                 \
    "ldrd %[p], %[q], [%[weights]], #8\n\t"                                                                  \
    "sxtb16 %[t], %[p]\n\t"                                                                                  \
    "sxtb16 %[p], %[p], ror #8\n\t"                                                                          \
    "smlad %[" a "], %[t], %[even], %[" a "]\n\t"                                                             \
    "smlad %[" a "], %[p], %[odd], %[" a "]\n\t"                                                              \
    "sxtb16 %[t], %[q]\n\t"                                                                                  \
    "sxtb16 %[q], %[q], ror #8\n\t"                                                                          \
    "smlad %[" b "], %[t], %[even], %[" b "]\n\t"                                                             \
    "smlad %[" b "], %[q], %[odd], %[" b "]\n\t"

/* A column of what is left: rows 0 and 2 lie in the halves of one word, 1 and 3 in those of the other. */
ELSTM_KERNEL void elstm_column(int32_t sum[4], const int8_t *weights, int32_t code)
{
    const uint32_t word = elstm_word(weights), even = elstm_even(word), odd = elstm_odd(word);
    sum[0] = elstm_add_low(sum[0], even, code);
    sum[1] = elstm_add_low(sum[1], odd, code);
    sum[2] = elstm_add_high(sum[2], even, code);
    sum[3] = elstm_add_high(sum[3], odd, code);
}

/* weights are aligned to 4 bytes. */
#define ELSTM_HAS_FOUR_ROWS
ELSTM_KERNEL const int8_t *elstm_four_rows(int32_t sum[4], const int8_t *weights, const int8_t *x,
                                            uint16_t columns)
{
    const uint16_t left = columns & 3u;
    if (columns > left) {
        int32_t a = sum[0], b = sum[1], c = sum[2], d = sum[3];
        const int8_t *const end = x + columns - left;
        uint32_t even, odd, p, q, t;
        __asm("1:\n\t"
              "ldr %[even], [%[x]], #4\n\t"
              "sxtb16 %[odd], %[even], ror #8\n\t"
              "sxtb16 %[even], %[even]\n\t"
              ELSTM_TWO_ROWS("a", "b")
              ELSTM_TWO_ROWS("c", "d")
              "cmp %[x], %[end]\n\t"
              "bne 1b"
              : [a] "+r"(a), [b] "+r"(b), [c] "+r"(c), [d] "+r"(d), [weights] "+r"(weights), [x] "+r"(x),
                [even] "=&r"(even), [odd] "=&r"(odd), [p] "=&r"(p), [q] "=&r"(q), [t] "=&r"(t)
              : [end] "r"(end)
              : "cc", "memory");
        sum[0] = a;
        sum[1] = b;
        sum[2] = c;
        sum[3] = d;
    }
    for (uint16_t column = 0; column < left; column++) {
        elstm_column(sum, weights + 4u * column, x[column]);
    }
    return weights + 4u * left;
}

#define ELSTM_HAS_DOT
ELSTM_KERNEL int32_t elstm_dot(int32_t acc, const int8_t *row, const int8_t *x, uint16_t columns)
{
    for (const int8_t *const end = x + (columns & ~3u); x != end; x += 4) {
        const uint32_t word = elstm_word(x), weights = elstm_word(row);
        acc = elstm_add_products(acc, elstm_even(weights), elstm_even(word));
        acc = elstm_add_products(acc, elstm_odd(weights), elstm_odd(word));
        row += 4;
    }
    for (uint16_t column = 0; column < (columns & 3u); column++) {
        acc += (int32_t)row[column] * (int32_t)x[column];
    }
    return acc;
}

#endif
