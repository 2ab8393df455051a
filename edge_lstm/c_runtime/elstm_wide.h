/* elstm_wide.h: the sums of 16-bit codes and their scaling; internal to the runtime.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_WIDE_H
#define ELSTM_WIDE_H

#include "elstm.h"

enum { ELSTM_SHORT_SUM = 511 }; /* products of an int8 and an int16 that 32 bits can sum: below 2**31 / 2**22 */

/* acc + row . x */
static inline int32_t elstm_dot_16(int32_t acc, const int8_t *row, const int16_t *x, uint16_t columns)
{
    for (const int16_t *const end = x + columns; x != end; x++) {
        acc += (int32_t)*row * (int32_t)*x;
        row++;
    }
    return acc;
}

/* acc + row . x, below 2**47 */
static inline int64_t elstm_dot_48(int64_t acc, const int8_t *row, const int16_t *x, uint16_t columns)
{
    uint16_t left = columns;
    while (left > 0u) {
        const uint16_t count = left < (uint16_t)ELSTM_SHORT_SUM ? left : (uint16_t)ELSTM_SHORT_SUM;
        acc += elstm_dot_16(0, row, x, count);
        row += count;
        x += count;
        left = (uint16_t)(left - count);
    }
    return acc;
}

/* acc * multiplier * 2**(shift - 15), rounded once, ties up; |acc| is below 2**47, shift is -40 .. 7.
 * The result is cut to +-2**17, far outside int16 with any zero point.
 */
static inline int32_t elstm_scale_wide(int64_t acc, elstm_requantizer_t r)
{
    const int64_t limit = (int64_t)1 << 17;
    const uint8_t right = (uint8_t)(15 - r.shift);
    const int64_t scaled = (acc * (int64_t)r.multiplier + ((int64_t)1 << (right - 1u))) >> right;
    return (int32_t)(scaled < -limit ? -limit : (scaled > limit ? limit : scaled));
}

/* elstm_scale_wide of an acc that fits 32 bits, by multiplier * 2**-(32 + shift); shift is 0 .. 23. */
static inline int32_t elstm_scale_short(int32_t acc, elstm_requantizer_t r)
{
    const int64_t product = (int64_t)acc * (int64_t)r.multiplier;
    if (r.shift == 0) {
        return (int32_t)((product + ((int64_t)1 << 31)) >> 32);
    }
    return ((int32_t)(product >> 32) + ((int32_t)1 << (uint8_t)(r.shift - 1))) >> (uint8_t)r.shift;
}

#endif
