/* elstm_wide.h: dense layers of 16-bit codes and the same reals in other codes, inlined into the network.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_WIDE_H
#define ELSTM_WIDE_H

#include "elstm_rows.h"

/* One dense layer of 16-bit codes whose sums fit 32 bits. */
typedef struct {
    const int8_t *weights;      /* four rows at a time by ``storage``; then the last ones, see elstm_row_8 */
    const uint8_t *places;      /* of blocks, or null */
    const int32_t *bias;        /* [outputs], the input's zero point folded in */
    const int32_t *multipliers; /* one, or one a row: multiplier * 2**-(32 + shift), 0 .. 2**31 - 1 */
    const uint8_t *shifts;      /* as multipliers, 0 .. 23; null: all are 0 */
    uint16_t features;
    uint16_t outputs;
    int16_t output_zero_point;
    int16_t minimum;            /* of the output codes */
    uint8_t per_row;            /* 1: one multiplier a row, 0: one for all */
    uint8_t storage;            /* ELSTM_BYTES, ELSTM_NIBBLES or ELSTM_ROW_BLOCKS */
} elstm_dense_16_t;

/* As above, for sums below 2**47. */
typedef struct {
    const int8_t *kernel;                    /* [outputs][features] */
    const int64_t *bias;
    const elstm_requantizer_t *requantizers; /* one, or one a row: multiplier * 2**(shift - 15), multiplier is
                                                0 .. 32767, shift is -40 .. 7 */
    uint16_t features;
    uint16_t outputs;
    int16_t output_zero_point;
    int16_t minimum;
    uint8_t per_row;
} elstm_dense_48_t;

/* The same reals in other codes. */
typedef struct {
    elstm_requantizer_t scale;
    int16_t input_zero_point;
    int16_t output_zero_point;
} elstm_recode_t;

enum { ELSTM_SHORT_SUM = 511 }; /* products of an int8 and an int16 that 32 bits can sum: below 2**31 / 2**22 */

/* acc + row . x, below 2**47 */
static inline int64_t elstm_dot_48(int64_t acc, const int8_t *row, const int16_t *x, uint16_t columns)
{
    uint16_t left = columns;
    while (left > 0u) {
        const uint16_t count = left < (uint16_t)ELSTM_SHORT_SUM ? left : (uint16_t)ELSTM_SHORT_SUM;
        int32_t sum = 0;
        for (const int16_t *const end = x + count; x != end; x++) {
            sum += (int32_t)*row * (int32_t)*x;
            row++;
        }
        acc += sum;
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
static inline int32_t elstm_scale_short(int32_t acc, int32_t multiplier, uint8_t shift)
{
    if (shift == 0u) {
        return elstm_upper_half(acc, multiplier);
    }
    const int32_t upper = (int32_t)(((int64_t)acc * (int64_t)multiplier) >> 32);
    return (upper + ((int32_t)1 << (uint8_t)(shift - 1u))) >> shift;
}

ELSTM_KERNEL int16_t elstm_dense_code(const elstm_dense_16_t *layer, uint16_t row, uint32_t sum)
{
    const uint16_t place = layer->per_row != 0u ? row : (uint16_t)0;
    const uint8_t shift = layer->shifts != 0 ? layer->shifts[place] : (uint8_t)0;
    const int32_t code = elstm_scale_short(elstm_wrap_32(sum), layer->multipliers[place], shift);
    const int32_t moved = elstm_saturate_16(code + layer->output_zero_point);
    return (int16_t)(moved < layer->minimum ? layer->minimum : moved);
}

/* x: [features], y: [outputs]. */
ELSTM_KERNEL void elstm_dense_16(const elstm_dense_16_t *layer, const int16_t *x, int16_t *y)
{
    const int8_t *weights = layer->weights;
    const uint8_t *places = layer->places;
    const int32_t *bias = layer->bias;
    const uint16_t fours = (uint16_t)(layer->outputs & 0xfffcu);
    const uint32_t codes = elstm_offset(layer->storage, 0) != 0u && fours != 0u ? elstm_sum_codes(x, layer->features) : 0u;
    const uint32_t even = elstm_offset(layer->storage, 0) * codes;
    const uint32_t odd = elstm_offset(layer->storage, 1) * codes;
    uint16_t row = 0;
    for (; row < fours; row = (uint16_t)(row + 4u)) {
        uint32_t sum[4] = {(uint32_t)bias[0] - even, (uint32_t)bias[1] - odd,
                           (uint32_t)bias[2] - even, (uint32_t)bias[3] - odd};
        weights = elstm_four_rows_16(sum, weights, &places, x, layer->features, layer->storage);
        y[row] = elstm_dense_code(layer, row, sum[0]);
        y[row + 1u] = elstm_dense_code(layer, (uint16_t)(row + 1u), sum[1]);
        y[row + 2u] = elstm_dense_code(layer, (uint16_t)(row + 2u), sum[2]);
        y[row + 3u] = elstm_dense_code(layer, (uint16_t)(row + 3u), sum[3]);
        bias += 4;
    }
    for (; row < layer->outputs; row++) {
        y[row] = elstm_dense_code(layer, row, elstm_row_8((uint32_t)*bias++, weights, x, layer->features));
        weights += layer->features;
    }
}

/* x: [features], y: [outputs]. */
ELSTM_KERNEL void elstm_dense_48(const elstm_dense_48_t *layer, const int16_t *x, int16_t *y)
{
    const int8_t *row = layer->kernel;
    const elstm_requantizer_t *r = layer->requantizers;
    for (uint16_t output = 0; output < layer->outputs; output++) {
        const int64_t acc = elstm_dot_48(layer->bias[output], row, x, layer->features);
        const int32_t code = elstm_scale_wide(acc, *r) + layer->output_zero_point;
        y[output] = (int16_t)elstm_clamp(code, layer->minimum, 32767);
        row += layer->features;
        r += layer->per_row;
    }
}

/* A code of 16 bits in the output's scale, not yet saturated; 17 bits keep the sum in range. */
ELSTM_KERNEL int32_t elstm_recode(const elstm_recode_t *layer, int32_t code)
{
    const int32_t scaled = elstm_requantize(code - layer->input_zero_point, layer->scale);
    return elstm_saturate_17(scaled) + layer->output_zero_point;
}

/* x, y: [width]. */
ELSTM_KERNEL void elstm_recode_8_to_8(const elstm_recode_t *layer, const int8_t *x, int8_t *y, uint16_t width)
{
    for (uint16_t k = 0; k < width; k++) {
        y[k] = (int8_t)elstm_saturate_8(elstm_recode(layer, x[k]));
    }
}

ELSTM_KERNEL void elstm_recode_8_to_16(const elstm_recode_t *layer, const int8_t *x, int16_t *y, uint16_t width)
{
    for (uint16_t k = 0; k < width; k++) {
        y[k] = (int16_t)elstm_saturate_16(elstm_recode(layer, x[k]));
    }
}

ELSTM_KERNEL void elstm_recode_16_to_8(const elstm_recode_t *layer, const int16_t *x, int8_t *y, uint16_t width)
{
    for (uint16_t k = 0; k < width; k++) {
        y[k] = (int8_t)elstm_saturate_8(elstm_recode(layer, x[k]));
    }
}

ELSTM_KERNEL void elstm_recode_16_to_16(const elstm_recode_t *layer, const int16_t *x, int16_t *y, uint16_t width)
{
    for (uint16_t k = 0; k < width; k++) {
        y[k] = (int16_t)elstm_saturate_16(elstm_recode(layer, x[k]));
    }
}

#endif
