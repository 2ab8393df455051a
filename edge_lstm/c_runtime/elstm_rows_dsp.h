/* elstm_rows_dsp.h: sums of rows of 16-bit codes on cores with the DSP extension; internal to the runtime.
 *
 * Cost: 4 rows x 4 columns of 8-bit weights take 16 instructions and 1 of the loop, 1.1 a product: two rows in one
 * SMLAD, see ELSTM_TWO_ROWS_8; of 4-bit weights 21; of a block that four rows share 24; a block of
 * one row takes 11.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_ROWS_DSP_H
#define ELSTM_ROWS_DSP_H

#include "elstm_fixed.h"

#define ELSTM_HAS_UPPER_HALF
#define ELSTM_HAS_SUM_CODES
#define ELSTM_HAS_FOUR_ROWS_8
#define ELSTM_HAS_ROW_OF_BLOCKS
#define ELSTM_HAS_SHARED_BLOCKS
#define ELSTM_HAS_ROW_8

/* (a * b + 2**31) >> 32 */
static inline int32_t elstm_upper_half(int32_t a, int32_t b)
{
    int32_t half;
    __asm("smmulr %0, %1, %2" : "=r"(half) : "r"(a), "r"(b));
    return half;
}

static inline uint32_t elstm_add_pair(uint32_t acc, uint32_t a, uint32_t b)
{
    uint32_t sum;
    __asm("smlad %0, %1, %2, %3" : "=r"(sum) : "r"(a), "r"(b), "r"(acc));
    return sum;
}

ELSTM_KERNEL uint32_t elstm_sum_codes(const int16_t *x, uint16_t columns)
{
    uint32_t sum = 0;
    for (const int16_t *const end = x + (columns & ~1u); x != end; x += 2) {
        sum = elstm_add_pair(sum, elstm_pair(x), 0x00010001u);
    }
    return (columns & 1u) != 0u ? sum + (uint32_t)(int32_t)*x : sum;
}

/* Rows a and b of two columns: with halves 256 b + a the first SMLAD adds 256 b x + a x, the second b x. */
#define ELSTM_TWO_ROWS_8(ab, b, word, x)                                                                     \
    "smlad %[" ab "], %[" word "], %[" x "], %[" ab "]\n\t"                                                  \
    "sxtb16 %[" word "], %[" word "], ror #8\n\t"                                                            \
    "smlad %[" b "], %[" word "], %[" x "], %[" b "]\n\t"
#define ELSTM_TWO_COLUMNS_8(x)                                                                               \
    "ldrd %[p], %[q], [%[weights]], #8\n\t"                                                                  \
    ELSTM_TWO_ROWS_8("ab", "b", "p", x)                                                                      \
    ELSTM_TWO_ROWS_8("cd", "d", "q", x)
#define ELSTM_FOUR_COLUMNS_8                                                                                 \
    "ldr %[u], [%[x]], #8\n\t"                                                                               \
    "ldr %[v], [%[x], #-4]\n\t"                                                                              \
    ELSTM_TWO_COLUMNS_8("u")                                                                                 \
    ELSTM_TWO_COLUMNS_8("v")
#define ELSTM_SUMS_8                                                                                         \
    [ab] "+r"(ab), [b] "+r"(b), [cd] "+r"(cd), [d] "+r"(d), [weights] "+r"(weights), [x] "+r"(x),            \
        [p] "=&r"(p), [q] "=&r"(q), [u] "=&r"(u), [v] "=&r"(v)

ELSTM_KERNEL const int8_t *elstm_four_rows_8(uint32_t sum[4], const int8_t *weights, const int16_t *x,
                                              uint16_t columns)
{
    uint32_t b = sum[1], d = sum[3], ab = sum[0] + (b << 8), cd = sum[2] + (d << 8), p, q, u, v;
    if (columns >= 16u) {
        const int16_t *const end = x + (columns & ~7u);
        __asm("1:\n\t"
              ELSTM_FOUR_COLUMNS_8
              ELSTM_FOUR_COLUMNS_8
              "cmp %[x], %[end]\n\t"
              "bne 1b"
              : ELSTM_SUMS_8
              : [end] "r"(end)
              : "cc", "memory");
    } else if (columns >= 8u) {
        __asm(ELSTM_FOUR_COLUMNS_8 ELSTM_FOUR_COLUMNS_8 : ELSTM_SUMS_8 : : "memory");
    }
    if ((columns & 4u) != 0u) {
        __asm(ELSTM_FOUR_COLUMNS_8 : ELSTM_SUMS_8 : : "memory");
    }
    if ((columns & 2u) != 0u) {
        u = elstm_pair(x);
        __asm(ELSTM_TWO_COLUMNS_8("u")
              : [ab] "+r"(ab), [b] "+r"(b), [cd] "+r"(cd), [d] "+r"(d), [weights] "+r"(weights),
                [p] "=&r"(p), [q] "=&r"(q)
              : [u] "r"(u)
              : "memory");
        x += 2;
    }
    if ((columns & 1u) != 0u) {
        const uint32_t word = elstm_word(weights), odd = elstm_odd(word);
        ab = (uint32_t)elstm_add_low((int32_t)ab, word, *x);
        b = (uint32_t)elstm_add_low((int32_t)b, odd, *x);
        cd = (uint32_t)elstm_add_high((int32_t)cd, word, *x);
        d = (uint32_t)elstm_add_high((int32_t)d, odd, *x);
        weights += 4;
    }
    sum[0] = ab - (b << 8);
    sum[1] = b;
    sum[2] = cd - (d << 8);
    sum[3] = d;
    return weights;
}

#define ELSTM_ROW_4(row, word, x, shift)                                                                     \
    "and %[t], %[mask], %[" word "]" shift "\n\t"                                                            \
    "smlad %[" row "], %[t], %[" x "], %[" row "]\n\t"
#define ELSTM_TWO_COLUMNS_4(word, x)                                                                         \
    ELSTM_ROW_4("a", word, x, "")                                                                            \
    ELSTM_ROW_4("b", word, x, ", lsr #4")                                                                    \
    ELSTM_ROW_4("c", word, x, ", lsr #8")                                                                    \
    ELSTM_ROW_4("d", word, x, ", lsr #12")

ELSTM_KERNEL const int8_t *elstm_four_rows_4(uint32_t sum[4], const int8_t *weights, const int16_t *x,
                                              uint16_t columns)
{
    uint32_t a = sum[0], b = sum[1], c = sum[2], d = sum[3], p, q, u, v, t;
    const uint32_t mask = 0x000f000fu;
    if (columns >= 4u) {
        const int16_t *const end = x + (columns & ~3u);
        __asm("1:\n\t"
              "ldr %[u], [%[x]], #8\n\t"
              "ldr %[v], [%[x], #-4]\n\t"
              "ldrd %[p], %[q], [%[weights]], #8\n\t"
              ELSTM_TWO_COLUMNS_4("p", "u")
              ELSTM_TWO_COLUMNS_4("q", "v")
              "cmp %[x], %[end]\n\t"
              "bne 1b"
              : [a] "+r"(a), [b] "+r"(b), [c] "+r"(c), [d] "+r"(d), [weights] "+r"(weights), [x] "+r"(x),
                [p] "=&r"(p), [q] "=&r"(q), [u] "=&r"(u), [v] "=&r"(v), [t] "=&r"(t)
              : [end] "r"(end), [mask] "r"(mask)
              : "cc", "memory");
    }
    for (uint16_t left = columns & 3u; left > 0u; left = left > 1u ? (uint16_t)(left - 2u) : (uint16_t)0) {
        p = elstm_word(weights);
        u = left > 1u ? elstm_pair(x) : (uint32_t)(uint16_t)*x;
        __asm(ELSTM_TWO_COLUMNS_4("p", "u")
              : [a] "+r"(a), [b] "+r"(b), [c] "+r"(c), [d] "+r"(d), [t] "=&r"(t)
              : [p] "r"(p), [u] "r"(u), [mask] "r"(mask));
        weights += 4;
        x += 2;
    }
    sum[0] = a;
    sum[1] = b;
    sum[2] = c;
    sum[3] = d;
    return weights;
}

/* Two columns of a shared block, whose codes are x. */
#define ELSTM_TWO_SIGNED_ROWS(a, b, word)                                                                    \
    "sxtb16 %[t], %[" word "]\n\t"                                                                           \
    "smlad %[" a "], %[t], %[u], %[" a "]\n\t"                                                               \
    "sxtb16 %[" word "], %[" word "], ror #8\n\t"                                                            \
    "smlad %[" b "], %[" word "], %[u], %[" b "]\n\t"
#define ELSTM_TWO_SHARED_COLUMNS                                                                             \
    "ldrd %[p], %[q], [%[weights]], #8\n\t"                                                                  \
    ELSTM_TWO_SIGNED_ROWS("a", "b", "p")                                                                     \
    ELSTM_TWO_SIGNED_ROWS("c", "d", "q")

/* Adds the blocks that four rows share to sum; returns the weights after these. */
ELSTM_KERNEL const int8_t *elstm_four_shared_blocks(uint32_t sum[4], const int8_t *weights,
                                                     const uint8_t **places, const int16_t *x)
{
    const uint8_t *place = *places;
    uint32_t left = *place++;
    if (left != 0u) {
        uint32_t a = sum[0], b = sum[1], c = sum[2], d = sum[3], p, q, t, u;
        __asm("1:\n\t"
              "ldrb %[t], [%[place]], #1\n\t"
              "add %[x], %[x], %[t], lsl #3\n\t"
              "ldr %[u], [%[x]]\n\t"
              ELSTM_TWO_SHARED_COLUMNS
              "ldr %[u], [%[x], #4]\n\t"
              ELSTM_TWO_SHARED_COLUMNS
              "subs %[left], #1\n\t"
              "bne 1b"
              : [a] "+r"(a), [b] "+r"(b), [c] "+r"(c), [d] "+r"(d), [weights] "+r"(weights), [x] "+r"(x),
                [place] "+r"(place), [left] "+r"(left), [p] "=&r"(p), [q] "=&r"(q), [t] "=&r"(t), [u] "=&r"(u)
              :
              : "cc", "memory");
        sum[0] = a;
        sum[1] = b;
        sum[2] = c;
        sum[3] = d;
    }
    *places = place;
    return weights;
}

/* Adds the blocks of one row to sum; LSLS leaves the flag of the last block in the carry. */
ELSTM_KERNEL const int8_t *elstm_row_of_blocks(uint32_t *sum, const int8_t *weights, const uint8_t **places,
                                                const int16_t *x)
{
    const uint8_t *place = *places;
    uint32_t acc = *sum, t, p, u, v;
    __asm("1:\n\t"
          "ldrb %[t], [%[place]], #1\n\t"
          "ldr %[p], [%[weights]], #4\n\t"
          "lsls %[t], %[t], #25\n\t"
          "add %[t], %[x], %[t], lsr #22\n\t"
          "ldr %[u], [%[t]]\n\t"
          "ldr %[v], [%[t], #4]\n\t"
          "sxtb16 %[t], %[p]\n\t"
          "sxtb16 %[p], %[p], ror #8\n\t"
          "smlad %[acc], %[t], %[u], %[acc]\n\t"
          "smlad %[acc], %[p], %[v], %[acc]\n\t"
          "bcc 1b"
          : [acc] "+r"(acc), [weights] "+r"(weights), [place] "+r"(place), [t] "=&r"(t), [p] "=&r"(p),
            [u] "=&r"(u), [v] "=&r"(v)
          : [x] "r"(x)
          : "cc", "memory");
    *sum = acc;
    *places = place;
    return weights;
}

/* acc + row . x; the row's blocks of four columns lie in the order 0 2 1 3. */
ELSTM_KERNEL uint32_t elstm_row_8(uint32_t acc, const int8_t *row, const int16_t *x, uint16_t columns)
{
    for (const int16_t *const end = x + (columns & ~3u); x != end; x += 4) {
        const uint32_t word = elstm_word(row);
        acc = elstm_add_pair(acc, elstm_even(word), elstm_pair(x));
        acc = elstm_add_pair(acc, elstm_odd(word), elstm_pair(x + 2));
        row += 4;
    }
    for (uint16_t column = 0; column < (columns & 3u); column++) {
        acc += (uint32_t)((int32_t)row[column] * (int32_t)x[column]);
    }
    return acc;
}

#endif
