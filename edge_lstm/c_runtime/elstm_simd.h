/* elstm_simd.h: the kernels of processors with SSE2 (all x86-64) or NEON (all aarch64); internal.
 *
 * Cost: 4 rows x 4 columns take 14 instructions on x86-64, 0.9 a product.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_SIMD_H
#define ELSTM_SIMD_H

#include "elstm.h"
#include <string.h>

/* Four columns of four rows: two sums of two products a row, which one addition at the end makes one. */
#ifdef __SSE2__
#include <emmintrin.h>

typedef struct {
    __m128i ab, cd;
} elstm_sums_t;

/* Eight codes as int16: each comes in the upper byte of a lane, and the shift extends its sign. */
static inline __m128i elstm_low_codes(__m128i codes)
{
    return _mm_srai_epi16(_mm_unpacklo_epi8(codes, codes), 8);
}

static inline __m128i elstm_high_codes(__m128i codes)
{
    return _mm_srai_epi16(_mm_unpackhi_epi8(codes, codes), 8);
}

ELSTM_KERNEL elstm_sums_t elstm_add_block(elstm_sums_t sums, const int8_t *weights, const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, sizeof four);
    const __m128i codes = elstm_low_codes(_mm_set1_epi32(four));
    const __m128i rows = _mm_loadu_si128((const __m128i *)(const void *)weights);
    sums.ab = _mm_add_epi32(sums.ab, _mm_madd_epi16(elstm_low_codes(rows), codes));
    sums.cd = _mm_add_epi32(sums.cd, _mm_madd_epi16(elstm_high_codes(rows), codes));
    return sums;
}

ELSTM_KERNEL void elstm_add_sums(int32_t sum[4], elstm_sums_t sums)
{
    const __m128 ab = _mm_castsi128_ps(sums.ab), cd = _mm_castsi128_ps(sums.cd);
    const __m128i even = _mm_castps_si128(_mm_shuffle_ps(ab, cd, _MM_SHUFFLE(2, 0, 2, 0)));
    const __m128i odd = _mm_castps_si128(_mm_shuffle_ps(ab, cd, _MM_SHUFFLE(3, 1, 3, 1)));
    __m128i *const target = (__m128i *)(void *)sum;
    _mm_storeu_si128(target, _mm_add_epi32(_mm_loadu_si128(target), _mm_add_epi32(even, odd)));
}

#define ELSTM_NO_SUMS {_mm_setzero_si128(), _mm_setzero_si128()}
#else
#include <arm_neon.h>

typedef struct {
    int32x4_t ab, cd;
} elstm_sums_t;

ELSTM_KERNEL elstm_sums_t elstm_add_block(elstm_sums_t sums, const int8_t *weights, const int8_t *x)
{
    uint32_t four;
    memcpy(&four, x, sizeof four);
    const int8x8_t codes = vreinterpret_s8_u32(vdup_n_u32(four));
    const int8x16_t rows = vld1q_s8(weights);
    sums.ab = vpadalq_s16(sums.ab, vmull_s8(vget_low_s8(rows), codes));
    sums.cd = vpadalq_s16(sums.cd, vmull_s8(vget_high_s8(rows), codes));
    return sums;
}

ELSTM_KERNEL void elstm_add_sums(int32_t sum[4], elstm_sums_t sums)
{
    const int32x2_t ab = vpadd_s32(vget_low_s32(sums.ab), vget_high_s32(sums.ab));
    const int32x2_t cd = vpadd_s32(vget_low_s32(sums.cd), vget_high_s32(sums.cd));
    vst1q_s32(sum, vaddq_s32(vld1q_s32(sum), vcombine_s32(ab, cd)));
}

#define ELSTM_NO_SUMS {vdupq_n_s32(0), vdupq_n_s32(0)}
#endif

#ifndef __OPTIMIZE_SIZE__
#define ELSTM_HAS_LANES /* elstm_lanes.h has an LSTM's step */
#endif

#define ELSTM_HAS_FOUR_ROWS
ELSTM_KERNEL const int8_t *elstm_four_rows(int32_t sum[4], const int8_t *weights, const int8_t *x,
                                            uint16_t columns)
{
    const uint16_t left = columns & 3u;
    elstm_sums_t sums = ELSTM_NO_SUMS;
    for (const int8_t *const end = x + (columns - left); x != end; x += 4) {
        sums = elstm_add_block(sums, weights, x);
        weights += 16;
    }
    elstm_add_sums(sum, sums);
    for (uint16_t column = 0; column < left; column++) {
        const int32_t code = x[column];
        for (uint8_t row = 0; row < 4u; row++) {
            sum[row] += (int32_t)weights[row] * code;
        }
        weights += 4;
    }
    return weights;
}

#endif
