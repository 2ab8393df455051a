/* elstm_m0.h: the kernels of cores whose products have 32 bits: Cortex-M0, M0+, M1; internal to the runtime.
 *
 * Cost: 4 rows x 4 columns take 72 instructions, 4.5 a product.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_M0_H
#define ELSTM_M0_H

#include "elstm.h"

/* A constant that the compiler must multiply by; it would take shifts and additions, which are more. */
static inline int32_t elstm_factor(int32_t x)
{
    __asm("" : "+r"(x));
    return x;
}

/* (a * b + 2**30) >> 31 by four products of 16-bit halves.
 * With a = 2**16 p + q and b = 2**16 r + s: a * b >> 16 = 2**16 p r + t + q r, where t = p s + (q s >> 16).
 */
#define ELSTM_HAS_HIGH_MULTIPLY
ELSTM_KERNEL int32_t elstm_high_multiply(int32_t a, int32_t b)
{
    const int32_t p = a >> 16, r = elstm_factor(b >> 16), s = elstm_factor(b & 0xffff);
    const uint32_t q = (uint32_t)a & 0xffffu;
    const int32_t t = p * s + (int32_t)(q * (uint32_t)s >> 16);
    const int32_t low = (int32_t)q * r + (t & 0xffff) + 0x4000; /* within 32 bits for every b */
    return (p * r + (t >> 16)) * 2 + (low >> 15);
}

/* The same for an a below 2**20 by three products of 11 bits of b: each floor drops bits that no later one needs. */
#define ELSTM_HAS_SHORT_MULTIPLY
ELSTM_KERNEL int32_t elstm_short_multiply(int32_t a, int32_t b, uint8_t bits)
{
    if (bits == 0u || bits > 20u) {
        return elstm_high_multiply(a, b);
    }
    const int32_t low = a * elstm_factor(b & 2047) >> 11;
    const int32_t middle = (a * elstm_factor(b >> 11 & 2047) + low) >> 11;
    return (a * elstm_factor(b >> 22) + middle + 256) >> 9;
}

/* One row of four columns: a byte is extended and multiplied, then the next one is shifted down. */
#define ELSTM_ROW(place, acc)                                                                                \
    "ldr %[word], [%[weights], #" place "]\n\t"                                                              \
    "sxtb %[t], %[word]\n\t"                                                                                 \
    "muls %[t], %[x0], %[t]\n\t"                                                                             \
    "add %[" acc "], %[" acc "], %[t]\n\t"                                                                   \
    "asrs %[word], %[word], #8\n\t"                                                                          \
    "sxtb %[t], %[word]\n\t"                                                                                 \
    "muls %[t], %[x1], %[t]\n\t"                                                                             \
    "add %[" acc "], %[" acc "], %[t]\n\t"                                                                   \
    "asrs %[word], %[word], #8\n\t"                                                                          \
    "sxtb %[t], %[word]\n\t"                                                                                 \
    "muls %[t], %[x2], %[t]\n\t"                                                                             \
    "add %[" acc "], %[" acc "], %[t]\n\t"                                                                   \
    "asrs %[word], %[word], #8\n\t"                                                                          \
    "muls %[word], %[x3], %[word]\n\t"                                                                       \
    "add %[" acc "], %[" acc "], %[word]\n\t"
#define ELSTM_CODE(place, x)                                                                                 \
    "movs %[t], #" place "\n\t"                                                                              \
    "ldrsb %[" x "], [%[x], %[t]]\n\t"

/* It takes every low register: a compiler that needs one itself, as clang does, uses the plain C. */
#if defined(__OPTIMIZE__) && !defined(__OPTIMIZE_SIZE__) && !defined(__clang__)
/* Adds four rows of whole blocks of four columns; the sums lie in the high registers, which can only add. */
ELSTM_KERNEL const int8_t *elstm_four_row_blocks(int32_t sum[4], const int8_t *weights, const int8_t *x,
                                                  const int8_t *end)
{
    int32_t a = sum[0], b = sum[1], c = sum[2], d = sum[3], x0, x1, x2, x3, word, t;
    __asm(".syntax unified\n\t"
          "1:\n\t"
          ELSTM_CODE("0", "x0")
          ELSTM_CODE("1", "x1")
          ELSTM_CODE("2", "x2")
          ELSTM_CODE("3", "x3")
          ELSTM_ROW("0", "a")
          ELSTM_ROW("4", "b")
          ELSTM_ROW("8", "c")
          ELSTM_ROW("12", "d")
          "adds %[weights], #16\n\t"
          "adds %[x], #4\n\t"
          "cmp %[x], %[end]\n\t"
          "bne 1b"
          : [a] "+h"(a), [b] "+h"(b), [c] "+h"(c), [d] "+h"(d), [weights] "+l"(weights), [x] "+l"(x),
            [x0] "=&l"(x0), [x1] "=&l"(x1), [x2] "=&l"(x2), [x3] "=&l"(x3), [word] "=&l"(word), [t] "=&l"(t)
          : [end] "h"(end)
          : "cc", "memory");
    sum[0] = a;
    sum[1] = b;
    sum[2] = c;
    sum[3] = d;
    return weights;
}

/* weights are aligned to 4 bytes. */
#define ELSTM_HAS_FOUR_ROWS
ELSTM_KERNEL const int8_t *elstm_four_rows(int32_t sum[4], const int8_t *weights, const int8_t *x,
                                           uint16_t columns)
{
    const uint16_t left = columns & 3u;
    const int8_t *const end = x + (columns - left);
    if (columns > left) {
        weights = elstm_four_row_blocks(sum, weights, x, end);
    }
    for (uint16_t column = 0; column < left; column++) {
        for (uint8_t row = 0; row < 4u; row++) {
            sum[row] += (int32_t)weights[row] * (int32_t)end[column];
        }
        weights += 4;
    }
    return weights;
}
#endif

#endif
