/* elstm_rows.h: sums of rows of weights times 16-bit codes, modulo 2**32; internal to the runtime.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_ROWS_H
#define ELSTM_ROWS_H

#include "elstm_fixed.h"
/* How the weights of four rows are stored.
 * ELSTM_BYTES: a pair of columns as a0 b0 a1 b1 c0 d0 c1 d1, rows a, b, c, d; a last single column as a b c d.
 * Rows a and c are stored as weight + 128, modulo 256.
 * ELSTM_NIBBLES: a column as a + 16 b, c + 16 d, each as weight + 8; a last odd column is followed by two zeros.
 * ELSTM_ROW_BLOCKS: row by row its blocks of four columns in the order 0 2 1 3, their places beside; then what
 * is left of the columns, each as a b c d.
 * ELSTM_SHARED_BLOCKS: the blocks of four columns in which a row has a weight, 16 bytes in the order of
 * ELSTM_BYTES, every row without an offset; beside them their number, then for each the blocks from the start of
 * the one before, of the first one from column 0, to its own.  Then what is left of the columns, as ELSTM_BYTES.
 */
enum { ELSTM_BYTES, ELSTM_NIBBLES, ELSTM_ROW_BLOCKS, ELSTM_SHARED_BLOCKS };

enum { ELSTM_LAST_BLOCK = 128 }; /* added to the place of a row's last block */

/* What is added to the weights of an even row, a and c, or of an odd one, b and d; see elstm_offset_column. */
static inline uint32_t elstm_offset(uint8_t storage, uint8_t odd)
{
    if (storage == (uint8_t)ELSTM_BYTES || storage == (uint8_t)ELSTM_SHARED_BLOCKS) {
        return odd == 0u ? 128u : 0u;
    }
    return storage == (uint8_t)ELSTM_NIBBLES ? 8u : 0u;
}

/* The first column whose weights have that offset. */
static inline uint16_t elstm_offset_column(uint8_t storage, uint16_t columns)
{
    return storage == (uint8_t)ELSTM_SHARED_BLOCKS ? (uint16_t)(columns & 0xfffcu) : (uint16_t)0;
}

#if defined(__ARM_FEATURE_SAT) && defined(__GNUC__)
static inline int32_t elstm_saturate_18(int32_t x)
{
    int32_t y;
    __asm("ssat %0, #18, %1" : "=r"(y) : "r"(x));
    return y;
}
#else
static inline int32_t elstm_saturate_18(int32_t x)
{
    return elstm_clamp(x, -131072, 131071);
}
#endif

static inline uint32_t elstm_product(int32_t weight, int32_t code)
{
    return (uint32_t)(weight * code);
}

#if defined(__ARM_FEATURE_UNALIGNED) && !defined(__ARM_BIG_ENDIAN) && defined(__GNUC__)
#define ELSTM_HAS_PAIRS
/* Two codes as they lie in memory. */
static inline uint32_t elstm_pair(const int16_t *codes)
{
    uint32_t pair;
    __builtin_memcpy(&pair, codes, sizeof pair); /* one LDR, also where codes are not aligned */
    return pair;
}
#endif

#if defined(__thumb2__) && defined(__GNUC__)
ELSTM_KERNEL void elstm_four_words(uint32_t y[4], const int32_t *x)
{
    uint32_t a, b, c, d;
    __asm("ldrd %0, %1, [%4]\n\t"
          "ldrd %2, %3, [%4, #8]"
          : "=&r"(a), "=&r"(b), "=&r"(c), "=&r"(d)
          : "r"(x), "m"(*x)); /* the latter keeps it behind what clobbers memory */
    y[0] = a;
    y[1] = b;
    y[2] = c;
    y[3] = d;
}
#else
ELSTM_KERNEL void elstm_four_words(uint32_t y[4], const int32_t *x)
{
    for (uint8_t k = 0; k < 4u; k++) {
        y[k] = (uint32_t)x[k];
    }
}
#endif

#if defined(ELSTM_DSP_H) && defined(ELSTM_HAS_PAIRS)
#include "elstm_rows_dsp.h"
#endif

#if defined(__thumb__) && !defined(__thumb2__) && defined(__GNUC__)
/* (a * b + 2**31) >> 32 by four products of 16-bit halves, see elstm_high_multiply; b is 0 or more.
 * The last shift leaves what rounds in the carry.
 */
static inline int32_t elstm_upper_half(int32_t a, int32_t b)
{
    uint32_t q, s, t;
    __asm(".syntax unified\n\t"
          "uxth %[q], %[a]\n\t"
          "asrs %[a], %[a], #16\n\t"
          "uxth %[s], %[b]\n\t"
          "asrs %[b], %[b], #16\n\t"
          "movs %[t], %[q]\n\t"
          "muls %[t], %[s], %[t]\n\t"
          "lsrs %[t], %[t], #16\n\t"
          "muls %[s], %[a], %[s]\n\t"
          "adds %[t], %[t], %[s]\n\t"
          "muls %[q], %[b], %[q]\n\t"
          "uxth %[s], %[t]\n\t"
          "adds %[q], %[q], %[s]\n\t"
          "muls %[a], %[b], %[a]\n\t"
          "asrs %[t], %[t], #16\n\t"
          "adds %[a], %[a], %[t]\n\t"
          "lsrs %[q], %[q], #16\n\t"
          "adcs %[a], %[a], %[q]"
          : [a] "+l"(a), [b] "+l"(b), [q] "=&l"(q), [s] "=&l"(s), [t] "=&l"(t)
          :
          : "cc");
    return a;
}
#elif !defined(ELSTM_HAS_UPPER_HALF)
/* (a * b + 2**31) >> 32; b is 0 or more. */
static inline int32_t elstm_upper_half(int32_t a, int32_t b)
{
    const int64_t product = (int64_t)a * (int64_t)b;
    return (int32_t)(product >> 32) + (int32_t)((uint32_t)product >> 31);
}
#endif

#ifndef ELSTM_HAS_ROW_8
/* acc + row . x; the row's blocks of four columns lie in the order 0 2 1 3. */
ELSTM_KERNEL uint32_t elstm_row_8(uint32_t acc, const int8_t *row, const int16_t *x, uint16_t columns)
{
    for (const int16_t *const end = x + (columns & ~3u); x != end; x += 4) {
        acc += elstm_product(row[0], x[0]) + elstm_product(row[1], x[2]);
        acc += elstm_product(row[2], x[1]) + elstm_product(row[3], x[3]);
        row += 4;
    }
    for (uint16_t column = 0; column < (columns & 3u); column++) {
        acc += elstm_product(row[column], x[column]);
    }
    return acc;
}
#endif

#ifndef ELSTM_HAS_SUM_CODES
ELSTM_KERNEL uint32_t elstm_sum_codes(const int16_t *x, uint16_t columns)
{
    int32_t sum = 0; /* 65535 codes fit */
    for (const int16_t *const end = x + columns; x != end; x++) {
        sum += *x;
    }
    return (uint32_t)sum;
}
#endif

#ifndef ELSTM_HAS_FOUR_ROWS_8
/* Adds four rows . x to sum; returns the weights after these. */
ELSTM_KERNEL const int8_t *elstm_last_rows_8(uint32_t sum[4], const int8_t *weights, const int16_t *x,
                                              uint16_t columns)
{
    uint32_t a = sum[0], b = sum[1], c = sum[2], d = sum[3];
    for (const int16_t *const end = x + (columns & ~1u); x != end; x += 2) {
        for (uint8_t column = 0; column < 2u; column++) {
            const int32_t code = x[column];
            const int8_t *const w = weights + 2u * column;
            a += elstm_product((uint8_t)w[0], code);
            b += elstm_product(w[1], code);
            c += elstm_product((uint8_t)w[4], code);
            d += elstm_product(w[5], code);
        }
        weights += 8;
    }
    if ((columns & 1u) != 0u) {
        a += elstm_product((uint8_t)weights[0], *x);
        b += elstm_product(weights[1], *x);
        c += elstm_product((uint8_t)weights[2], *x);
        d += elstm_product(weights[3], *x);
        weights += 4;
    }
    sum[0] = a;
    sum[1] = b;
    sum[2] = c;
    sum[3] = d;
    return weights;
}

ELSTM_KERNEL const int8_t *elstm_last_rows_4(uint32_t sum[4], const int8_t *weights, const int16_t *x,
                                              uint16_t columns)
{
    uint32_t a = sum[0], b = sum[1], c = sum[2], d = sum[3];
    for (const int16_t *const end = x + columns; x != end; x++) {
        const uint8_t ab = (uint8_t)weights[0], cd = (uint8_t)weights[1];
        a += elstm_product(ab & 15, *x);
        b += elstm_product(ab >> 4, *x);
        c += elstm_product(cd & 15, *x);
        d += elstm_product(cd >> 4, *x);
        weights += 2;
    }
    sum[0] = a;
    sum[1] = b;
    sum[2] = c;
    sum[3] = d;
    return weights + 2u * (columns & 1u);
}

/* Without Thumb-2 it takes every low register: a compiler that needs one itself uses the plain C. */
#if defined(__thumb2__) && defined(__GNUC__)
#include "elstm_rows_m.h"
#elif defined(__thumb__) && defined(__OPTIMIZE__) && !defined(__OPTIMIZE_SIZE__) && !defined(__clang__)
#include "elstm_rows_m.h"
#else
ELSTM_KERNEL const int8_t *elstm_four_rows_8(uint32_t sum[4], const int8_t *weights, const int16_t *x,
                                              uint16_t columns)
{
    return elstm_last_rows_8(sum, weights, x, columns);
}

ELSTM_KERNEL const int8_t *elstm_four_rows_4(uint32_t sum[4], const int8_t *weights, const int16_t *x,
                                              uint16_t columns)
{
    return elstm_last_rows_4(sum, weights, x, columns);
}
#endif
#endif

#ifndef ELSTM_HAS_ROW_OF_BLOCKS
/* Adds the blocks of one row to sum; returns the weights after these. */
ELSTM_KERNEL const int8_t *elstm_row_of_blocks(uint32_t *sum, const int8_t *weights, const uint8_t **places,
                                                const int16_t *x)
{
    uint32_t acc = *sum;
    uint8_t place;
    do {
        place = *(*places)++;
        acc = elstm_row_8(acc, weights, x + 4u * (place & (ELSTM_LAST_BLOCK - 1u)), 4);
        weights += 4;
    } while (place < (uint8_t)ELSTM_LAST_BLOCK);
    *sum = acc;
    return weights;
}
#endif

ELSTM_KERNEL const int8_t *elstm_four_rows_of_blocks(uint32_t sum[4], const int8_t *weights,
                                                      const uint8_t **places, const int16_t *x, uint16_t columns)
{
    if (columns >= 4u) {
        weights = elstm_row_of_blocks(&sum[0], weights, places, x);
        weights = elstm_row_of_blocks(&sum[1], weights, places, x);
        weights = elstm_row_of_blocks(&sum[2], weights, places, x);
        weights = elstm_row_of_blocks(&sum[3], weights, places, x);
    }
    for (uint16_t column = (uint16_t)(columns & 0xfffcu); column < columns; column++) {
        for (uint8_t row = 0; row < 4u; row++) {
            sum[row] += elstm_product(weights[row], x[column]);
        }
        weights += 4;
    }
    return weights;
}

#ifndef ELSTM_HAS_SHARED_BLOCKS
/* Adds the blocks that four rows share to sum; returns the weights after these. */
ELSTM_KERNEL const int8_t *elstm_four_shared_blocks(uint32_t sum[4], const int8_t *weights,
                                                     const uint8_t **places, const int16_t *x)
{
    uint32_t a = sum[0], b = sum[1], c = sum[2], d = sum[3];
    const uint8_t *place = *places;
    for (uint8_t left = *place++; left > 0u; left--) {
        x += 4u * *place++;
        for (uint8_t column = 0; column < 4u; column++) {
            const int8_t *const w = weights + 2u * (column + (column & 2u));
            a += elstm_product(w[0], x[column]);
            b += elstm_product(w[1], x[column]);
            c += elstm_product(w[4], x[column]);
            d += elstm_product(w[5], x[column]);
        }
        weights += 16;
    }
    *places = place;
    sum[0] = a;
    sum[1] = b;
    sum[2] = c;
    sum[3] = d;
    return weights;
}
#endif

ELSTM_KERNEL const int8_t *elstm_four_rows_shared(uint32_t sum[4], const int8_t *weights, const uint8_t **places,
                                                   const int16_t *x, uint16_t columns)
{
    weights = elstm_four_shared_blocks(sum, weights, places, x);
    return elstm_four_rows_8(sum, weights, x + (columns & ~3u), columns & 3u);
}

/* Adds four rows . x to sum, and elstm_offset times the sum of the codes from elstm_offset_column on; returns
 * the weights after these.
 */
ELSTM_KERNEL const int8_t *elstm_four_rows_16(uint32_t sum[4], const int8_t *weights, const uint8_t **places,
                                               const int16_t *x, uint16_t columns, uint8_t storage)
{
    if (storage == (uint8_t)ELSTM_SHARED_BLOCKS) {
        return elstm_four_rows_shared(sum, weights, places, x, columns);
    }
    if (storage == (uint8_t)ELSTM_ROW_BLOCKS) {
        return elstm_four_rows_of_blocks(sum, weights, places, x, columns);
    }
    return storage == (uint8_t)ELSTM_BYTES ? elstm_four_rows_8(sum, weights, x, columns)
                                           : elstm_four_rows_4(sum, weights, x, columns);
}

#endif
