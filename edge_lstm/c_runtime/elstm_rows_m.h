/* elstm_rows_m.h: sums of rows of 16-bit codes on Cortex-M0 and M3; internal to the runtime.
 *
 * Cost: 4 rows x 4 columns of 8-bit weights take 38 instructions on M3, 2.4 a product, and 57 on M0, 3.6 a
 * product; of 4-bit weights 42 and 82; of a block that four rows share 40 and 74.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_ROWS_M_H
#define ELSTM_ROWS_M_H

#include "elstm_fixed.h"

#ifdef __thumb2__
/* One column, whose code lies at x and whose weights lie at a, b, c, d; load: of the even rows. */
#define ELSTM_COLUMN_8(load, x, a, b, c, d)                                                                  \
    "ldrsh %[code], [%[x]" x "\n\t"                                                                          \
    load " %[w], [%[weights]" a "\n\t"                                                                       \
    "mla %[a], %[w], %[code], %[a]\n\t"                                                                      \
    "ldrsb %[w], [%[weights], #" b "]\n\t"                                                                   \
    "mla %[b], %[w], %[code], %[b]\n\t"                                                                      \
    load " %[w], [%[weights], #" c "]\n\t"                                                                   \
    "mla %[c], %[w], %[code], %[c]\n\t"                                                                      \
    "ldrsb %[w], [%[weights], #" d "]\n\t"                                                                   \
    "mla %[d], %[w], %[code], %[d]\n\t"
#define ELSTM_FOUR_COLUMNS(load, x0, x1, x2, x3)                                                             \
    ELSTM_COLUMN_8(load, x0, "], #16", "-15", "-12", "-11")                                                  \
    ELSTM_COLUMN_8(load, x1, ", #-14]", "-13", "-10", "-9")                                                  \
    ELSTM_COLUMN_8(load, x2, ", #-8]", "-7", "-4", "-3")                                                     \
    ELSTM_COLUMN_8(load, x3, ", #-6]", "-5", "-2", "-1")
#define ELSTM_FOUR_COLUMNS_8 ELSTM_FOUR_COLUMNS("ldrb", "], #2", "], #2", "], #2", "], #2")
#define ELSTM_SHARED_BLOCK                                                                                   \
    "ldrb %[code], [%[place]], #1\n\t"                                                                       \
    "add %[x], %[x], %[code], lsl #3\n\t"                                                                    \
    ELSTM_FOUR_COLUMNS("ldrsb", "]", ", #2]", ", #4]", ", #6]")
#define ELSTM_NIBBLE(place, acc)                                                                             \
    "ubfx %[t], %[w], #" place ", #4\n\t"                                                                    \
    "mla %[" acc "], %[t], %[code], %[" acc "]\n\t"
#define ELSTM_TWO_COLUMNS_4                                                                                  \
    "ldr %[w], [%[weights]], #4\n\t"                                                                         \
    "ldrsh %[code], [%[x]], #2\n\t"                                                                          \
    ELSTM_NIBBLE("0", "a") ELSTM_NIBBLE("4", "b") ELSTM_NIBBLE("8", "c") ELSTM_NIBBLE("12", "d")             \
    "ldrsh %[code], [%[x]], #2\n\t"                                                                          \
    ELSTM_NIBBLE("16", "a") ELSTM_NIBBLE("20", "b") ELSTM_NIBBLE("24", "c") ELSTM_NIBBLE("28", "d")
#define ELSTM_SUM "+r"
#define ELSTM_PLACE "+r"
#define ELSTM_END "r"
#define ELSTM_CONSTANTS
#define ELSTM_CONSTANTS_8
#define ELSTM_BEFORE 0u
#else
/* One column; only LDRSH and LDRSB with a register extend the sign, so that x points one byte before the codes.
 * even: what follows the load of an even row.  d: the load of row d up to its register.
 */
#define ELSTM_ROW_8(load, acc)                                                                               \
    load "\n\t"                                                                                              \
    "muls %[w], %[code], %[w]\n\t"                                                                           \
    "add %[" acc "], %[" acc "], %[w]\n\t"
#define ELSTM_COLUMN_8(even, place, a, b, c, d)                                                              \
    "ldrsh %[code], [%[x], %[" place "]]\n\t"                                                                \
    ELSTM_ROW_8("ldrb %[w], [%[weights], #" a "]" even, "a")                                                 \
    ELSTM_ROW_8("ldrsb %[w], [%[weights], %[" b "]]", "b")                                                   \
    ELSTM_ROW_8("ldrb %[w], [%[weights], #" c "]" even, "c")                                                 \
    ELSTM_ROW_8(d "]]", "d")
#define ELSTM_FIVE "ldrsb %[w], [%[weights], %[five"
/* before, last: bring the offset of the last code into a register; that register. */
#define ELSTM_FOUR_COLUMNS(even, d, before, last)                                                            \
    ELSTM_COLUMN_8(even, "one", "0", "one", "4", ELSTM_FIVE)                                                 \
    ELSTM_COLUMN_8(even, "three", "2", "three", "6", d)                                                      \
    "adds %[weights], #8\n\t"                                                                                \
    ELSTM_COLUMN_8(even, "five", "0", "one", "4", ELSTM_FIVE)                                                \
    before                                                                                                   \
    ELSTM_COLUMN_8(even, last, "2", "three", "6", d)                                                         \
    "adds %[weights], #8\n\t"
#define ELSTM_FOUR_COLUMNS_8                                                                                 \
    ELSTM_FOUR_COLUMNS("", "ldrsb %[w], [%[weights], %[seven", "", "seven")                                  \
    "adds %[x], #8\n\t"
#define ELSTM_SHARED_BLOCK                                                                                   \
    "ldrb %[code], [%[place]]\n\t"                                                                           \
    "adds %[place], #1\n\t"                                                                                  \
    "lsls %[code], %[code], #3\n\t"                                                                          \
    "adds %[x], %[x], %[code]\n\t"                                                                           \
    ELSTM_FOUR_COLUMNS("\n\tsxtb %[w], %[w]", "movs %[w], #7\n\tldrsb %[w], [%[weights], %[w",               \
                       "movs %[code], #7\n\t", "code")
#define ELSTM_NIBBLE(up, acc)                                                                                \
    "lsls %[t], %[w], #" up "\n\t"                                                                           \
    "lsrs %[t], %[t], #28\n\t"                                                                               \
    "muls %[t], %[code], %[t]\n\t"                                                                           \
    "add %[" acc "], %[" acc "], %[t]\n\t"
#define ELSTM_TWO_COLUMNS_4                                                                                  \
    "ldr %[w], [%[weights]]\n\t"                                                                             \
    "adds %[weights], #4\n\t"                                                                                \
    "movs %[t], #0\n\t"                                                                                      \
    "ldrsh %[code], [%[x], %[t]]\n\t"                                                                        \
    ELSTM_NIBBLE("28", "a") ELSTM_NIBBLE("24", "b") ELSTM_NIBBLE("20", "c") ELSTM_NIBBLE("16", "d")          \
    "movs %[t], #2\n\t"                                                                                      \
    "ldrsh %[code], [%[x], %[t]]\n\t"                                                                        \
    "adds %[x], #4\n\t"                                                                                      \
    ELSTM_NIBBLE("12", "a") ELSTM_NIBBLE("8", "b") ELSTM_NIBBLE("4", "c") ELSTM_NIBBLE("0", "d")
#define ELSTM_SUM "+h"
#define ELSTM_PLACE "+l"
#define ELSTM_END "h"
#define ELSTM_CONSTANTS , [one] "l"(1), [three] "l"(3), [five] "l"(5)
#define ELSTM_CONSTANTS_8 ELSTM_CONSTANTS, [seven] "l"(7)
#define ELSTM_BEFORE 1u
#endif

/* Four rows of whole blocks of four columns.  On M0 the sums lie in the high registers, which can only add. */
ELSTM_KERNEL const int8_t *elstm_four_rows_8(uint32_t sum[4], const int8_t *weights, const int16_t *x,
                                              uint16_t columns)
{
    const uint16_t whole = (uint16_t)(columns & 0xfffcu);
    if (whole != 0u) {
        uint32_t a = sum[0], b = sum[1], c = sum[2], d = sum[3], code, w;
        uintptr_t at = (uintptr_t)x - ELSTM_BEFORE;
        const uintptr_t end = at + 2u * whole;
        __asm(".syntax unified\n\t"
              "1:\n\t"
              ELSTM_FOUR_COLUMNS_8
              "cmp %[x], %[end]\n\t"
              "bne 1b"
              : [a] ELSTM_SUM(a), [b] ELSTM_SUM(b), [c] ELSTM_SUM(c), [d] ELSTM_SUM(d), [weights] "+l"(weights),
                [x] "+l"(at), [code] "=&l"(code), [w] "=&l"(w)
              : [end] ELSTM_END(end) ELSTM_CONSTANTS_8
              : "cc", "memory");
        sum[0] = a;
        sum[1] = b;
        sum[2] = c;
        sum[3] = d;
    }
    return elstm_last_rows_8(sum, weights, x + whole, columns & 3u);
}

#define ELSTM_HAS_SHARED_BLOCKS
/* Adds the blocks that four rows share to sum; returns the weights after these. */
ELSTM_KERNEL const int8_t *elstm_four_shared_blocks(uint32_t sum[4], const int8_t *weights,
                                                     const uint8_t **places, const int16_t *x)
{
    const uint8_t *place = *places + 1;
    const uint8_t *const end = place + **places;
    if (place != end) {
        uint32_t a = sum[0], b = sum[1], c = sum[2], d = sum[3], code, w;
        uintptr_t at = (uintptr_t)x - ELSTM_BEFORE;
        __asm(".syntax unified\n\t"
              "1:\n\t"
              ELSTM_SHARED_BLOCK
              "cmp %[place], %[end]\n\t"
              "bne 1b"
              : [a] ELSTM_SUM(a), [b] ELSTM_SUM(b), [c] ELSTM_SUM(c), [d] ELSTM_SUM(d), [weights] "+l"(weights),
                [x] "+l"(at), [place] ELSTM_PLACE(place), [code] "=&l"(code), [w] "=&l"(w)
              : [end] ELSTM_END(end) ELSTM_CONSTANTS
              : "cc", "memory");
        sum[0] = a;
        sum[1] = b;
        sum[2] = c;
        sum[3] = d;
    }
    *places = end;
    return weights;
}

/* The same for weights of 4 bits and whole pairs of columns. */
ELSTM_KERNEL const int8_t *elstm_four_rows_4(uint32_t sum[4], const int8_t *weights, const int16_t *x,
                                              uint16_t columns)
{
    const uint16_t whole = (uint16_t)(columns & 0xfffeu);
    if (whole != 0u) {
        uint32_t a = sum[0], b = sum[1], c = sum[2], d = sum[3], code, w, t;
        const int16_t *const end = x + whole;
        __asm(".syntax unified\n\t"
              "1:\n\t"
              ELSTM_TWO_COLUMNS_4
              "cmp %[x], %[end]\n\t"
              "bne 1b"
              : [a] ELSTM_SUM(a), [b] ELSTM_SUM(b), [c] ELSTM_SUM(c), [d] ELSTM_SUM(d), [weights] "+l"(weights),
                [x] "+l"(x), [code] "=&l"(code), [w] "=&l"(w), [t] "=&l"(t)
              : [end] ELSTM_END(end)
              : "cc", "memory");
        sum[0] = a;
        sum[1] = b;
        sum[2] = c;
        sum[3] = d;
    }
    return elstm_last_rows_4(sum, weights, x, columns & 1u);
}

#endif
