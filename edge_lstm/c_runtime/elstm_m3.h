/* elstm_m3.h: what Cortex-M3 and every larger core have: saturation with a shift; internal to the runtime.
 *
 * Cost: a requantization with constant shift, saturated to 16 bits, takes 6 instructions, with SMMLAR 4.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_M3_H
#define ELSTM_M3_H

#include "elstm.h"

#define ELSTM_HAS_SATURATE
#define ELSTM_SATURATE(bits)                                                                                 \
    static inline int32_t elstm_saturate_##bits(int32_t x)                                                   \
    {                                                                                                        \
        int32_t y;                                                                                           \
        __asm("ssat %0, #" #bits ", %1" : "=r"(y) : "r"(x));                                                 \
        return y;                                                                                            \
    }
ELSTM_SATURATE(8)
ELSTM_SATURATE(16)
ELSTM_SATURATE(17)

/* x / 2**shift to nearest, ties up: ASRS leaves the last bit that it drops in the carry. */
#define ELSTM_HAS_SHIFT_TO_NEAREST
ELSTM_KERNEL int32_t elstm_shift_to_nearest(int32_t x, uint8_t shift)
{
#ifdef __OPTIMIZE__
    if (__builtin_constant_p(shift)) {
        int32_t y;
        __asm("asrs %0, %1, %2\n\tadc %0, %0, #0" : "=r"(y) : "r"(x), "i"(shift) : "cc");
        return y;
    }
#endif
    const int32_t twice = x >> (shift - 1u);
    return (twice >> 1) + (twice & 1);
}

/* x >> shift, saturated to 16 bits; shift is 1 .. 31.  SSAT shifts what it saturates. */
#define ELSTM_HAS_SATURATE_SHIFTED
ELSTM_KERNEL int32_t elstm_saturate_shifted(int32_t x, uint8_t shift)
{
#ifdef __OPTIMIZE__
    if (__builtin_constant_p(shift)) {
        int32_t y;
        __asm("ssat %0, #16, %1, asr %2" : "=r"(y) : "r"(x), "i"(shift));
        return y;
    }
#endif
    return elstm_saturate_16(x >> shift);
}

#endif
