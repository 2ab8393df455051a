/* elstm_m0.h: the kernels of cores whose multiplications give 32 bits: Cortex-M0, M0+, M1; internal to the runtime.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_M0_H
#define ELSTM_M0_H

#include "elstm.h"

/* (a * b + 2**30) >> 31 by four products of 16-bit halves; b is 0 or more.
 * With a = 2**16 p + q and b = 2**16 r + s: a * b >> 16 = 2**16 p r + t + q r, where t = p s + (q s >> 16).
 */
#define ELSTM_HAS_HIGH_MULTIPLY
static inline int32_t elstm_high_multiply(int32_t a, int32_t b)
{
    const int32_t p = a >> 16, r = b >> 16;
    const uint32_t q = (uint32_t)a & 0xffffu, s = (uint32_t)b & 0xffffu;
    const int32_t t = p * (int32_t)s + (int32_t)(q * s >> 16);
    const uint32_t low = q * (uint32_t)r + ((uint32_t)t & 0xffffu) + 0x4000u; /* below 2**31 */
    return (p * r + (t >> 16)) * 2 + (int32_t)(low >> 15);
}

#endif
