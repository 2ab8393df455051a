/* elstm_mve.h: the LSTM and the dense layer of profile tflm on Cortex-M55, M85 (MVE); internal to the runtime.
 *
 * Cost: 4 rows x 16 columns take 8 instructions, 0.125 a product, and 5 more for every four sums; what follows
 * the sums takes 26 a unit, eight units at a time.  No load leaves its array.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_MVE_H
#define ELSTM_MVE_H

#include "elstm_activations.h"
#include <arm_mve.h>

/* Keeps the compiler, which takes loads by addresses for constants, from loading too early or too much. */
#define ELSTM_IN_TURN(vector) __asm volatile("" : "+w"(vector) : : "memory")

/* How a row of codes meets its weights, sixteen columns at a time: the words of one row lie 16 bytes apart.
 * first: of columns 0 .. 15.  last, codes: of the last 4, 8, 12 or 16 that are whole blocks of four; behind the
 * last word its place is repeated, with codes of 0.
 */
typedef struct {
    uint32x4_t first;
    uint32x4_t last;
    int8x16_t codes;
} elstm_columns_t;

/* offset: of the weights of column 0. */
ELSTM_KERNEL elstm_columns_t elstm_gate_columns(const int8_t *x, uint16_t columns, uint32_t offset)
{
    const uint32_t whole = columns & ~3u, before = whole != 0u ? (whole - 1u) & ~15u : 0u;
    const uint32_t last = whole - before;
    const uint32x4_t places = vmulq_n_u32(vidupq_n_u32(0, 8), 2);
    elstm_columns_t found;
    found.first = vaddq_n_u32(places, offset);
    found.last = vaddq_n_u32(vminq_u32(places, vdupq_n_u32(4u * last - 16u)), offset + 4u * before);
    found.codes = vldrbq_z_s8(x + before, vctp8q(last));
    return found;
}

/* sum + four rows . sixteen codes.  VMLADAV adds to even registers. */
ELSTM_KERNEL void elstm_gate_rows(int32_t sum[4], uint32x4_t places, int8x16_t codes)
{
    uint32x4_t even, odd;
    __asm("vldrw.u32 %q4, [%q6]\n\t"
          "vldrw.u32 %q5, [%q6, #4]\n\t"
          "vmladava.s8 %0, %q4, %q7\n\t"
          "vldrw.u32 %q4, [%q6, #8]\n\t"
          "vmladava.s8 %1, %q5, %q7\n\t"
          "vldrw.u32 %q5, [%q6, #12]\n\t"
          "vmladava.s8 %2, %q4, %q7\n\t"
          "vmladava.s8 %3, %q5, %q7"
          : "+Te"(sum[0]), "+Te"(sum[1]), "+Te"(sum[2]), "+Te"(sum[3]), "=&w"(even), "=&w"(odd)
          : "w"(places), "w"(codes));
}

/* sum = bias + four rows . x; both move behind the four.  offset: as for column; its order: elstm_four_rows. */
ELSTM_KERNEL void elstm_gate_sums(int32_t **sum, const int32_t **bias, const int8_t *weights, uint32_t offset,
                                  const int8_t *x, uint16_t columns, elstm_columns_t column)
{
    const uint32_t left = columns & 3u, whole = columns - left;
    if (left != 0u) {
        const int8_t *const single = weights + offset + 4u * whole;
        int32x4_t rows = vldrwq_s32(*bias);
        for (uint32_t k = 0; k < left; k++) {
            rows = vmlaq_n_s32(rows, vldrbq_s32(single + 4u * k), x[whole + k]);
        }
        vstrwq_s32(*sum, rows);
        *bias += 4;
        *sum += whole != 0u ? 0 : 4;
    }
    if (whole != 0u) {
        int32_t rows[4];
        const int32_t *start = left != 0u ? *sum : *bias;
        __asm volatile("ldrd %0, %1, [%4], #8\n\tldrd %2, %3, [%4], #8"
                       : "=&Te"(rows[0]), "=&Te"(rows[1]), "=&Te"(rows[2]), "=&Te"(rows[3]), "+r"(start)
                       :
                       : "memory");
        *bias = left != 0u ? *bias : start;
        uint32x4_t places = vaddq_n_u32(whole > 16u ? column.first : column.last, (uint32_t)weights);
        if (whole > 16u) {
            for (const int8_t *const end = x + ((whole - 1u) & ~15u); x != end; x += 16) {
                elstm_gate_rows(rows, places, vldrbq_s8(x));
                places = vaddq_n_u32(places, 64);
            }
            if ((whole & 15u) != 0u) {
                places = vaddq_n_u32(column.last, (uint32_t)weights);
            }
        }
        elstm_gate_rows(rows, places, column.codes);
        __asm volatile("strd %1, %2, [%0], #8\n\tstrd %3, %4, [%0], #8"
                       : "+r"(*sum)
                       : "r"(rows[0]), "r"(rows[1]), "r"(rows[2]), "r"(rows[3])
                       : "memory");
    }
}

/* Lanes 0, 2, 4, 6 and 1, 3, 5, 7 / 2**shift to nearest, ties up, saturated to 16 bits; shift: 0 .. 31. */
ELSTM_KERNEL int16x8_t elstm_round_eight(int32x4_t even, int32x4_t odd, uint8_t shift)
{
#ifdef __OPTIMIZE__
    if (__builtin_constant_p(shift) && shift >= 1u && shift <= 16u) {
        __asm("vqrshrnb.s32 %q0, %q0, %2\n\tvqrshrnt.s32 %q0, %q1, %2" : "+w"(even) : "w"(odd), "i"(shift));
        return vreinterpretq_s16_s32(even);
    }
#endif
    if (shift != 0u) {
        even = vrshlq_n_s32(even, -(int32_t)shift);
        odd = vrshlq_n_s32(odd, -(int32_t)shift);
    }
    __asm("vqmovnb.s32 %q0, %q0" : "+w"(even));
    return vqmovntq_s32(vreinterpretq_s16_s32(even), odd);
}

/* elstm_requantize_16 of lanes 0, 2, 4, 6 and 1, 3, 5, 7.  Before a shift, 1 less below zero turns ties away
 * from zero; the sum has its product's sign, or the product is 0 and rounded to 0 all the same.
 */
ELSTM_KERNEL int16x8_t elstm_requantize_eight(int32x4_t even, int32x4_t odd, elstm_requantizer_t r)
{
    if (r.shift < 0) {
        even = vqrdmlahq_n_s32(vshrq_n_s32(even, 31), even, r.multiplier);
        odd = vqrdmlahq_n_s32(vshrq_n_s32(odd, 31), odd, r.multiplier);
        return elstm_round_eight(even, odd, (uint8_t)-r.shift);
    }
    if (r.shift > 0) {
        even = vshlq_r_s32(even, r.shift);
        odd = vshlq_r_s32(odd, r.shift);
    }
    return elstm_round_eight(vqrdmulhq_n_s32(even, r.multiplier), vqrdmulhq_n_s32(odd, r.multiplier), 0);
}

/* Eight times elstm_sigmoid_by_table of scale 2**-12: sigmoid(-x) is 1 - sigmoid(x).  |x| * 384 is the argument
 * in units of 2**-16 entries: the entry's index is its high half, the weight its low half.
 */
ELSTM_KERNEL int16x8_t elstm_sigmoid_eight(int16x8_t x)
{
    const uint16x8_t factor = vdupq_n_u16(384);
    const uint16x8_t magnitude = vreinterpretq_u16_s16(vabsq_s16(x));
    const uint16x8_t index = vmulhq_u16(magnitude, factor), weight = vmulq_u16(magnitude, factor);
    const uint16x8_t low = vldrhq_gather_shifted_offset_u16(elstm_sigmoid_half, index);
    const uint16x8_t high = vldrhq_gather_shifted_offset_u16(elstm_sigmoid_half + 1, index);
    const uint16x8_t y = vrhaddq_u16(low, vmulhq_u16(weight, vsubq_u16(high, low)));
    const uint16x8_t below = vshrq_n_u16(vreinterpretq_u16_s16(x), 15); /* 1 below 0, else 0 */
    return vreinterpretq_s16_u16(vabdq_u16(y, vshlq_n_u16(below, 15)));
}

/* |elstm_table_argument|, saturated to 16 bits: from 65535 on the table is flat.  Ties of x < 0 go to 0. */
ELSTM_KERNEL uint16x8_t elstm_tanh_argument(int16x8_t x, int8_t shift)
{
    const uint16x8_t magnitude = vreinterpretq_u16_s16(vabsq_s16(x));
    if (shift >= 0) {
        const uint16x8_t tripled = vqaddq_u16(vqaddq_u16(magnitude, magnitude), magnitude);
        return shift > 0 ? vqshlq_r_u16(tripled, shift) : tripled;
    }
    const uint16x8_t below = vreinterpretq_u16_s16(vshrq_n_s16(x, 15));
    const uint16x8_t sum = vaddq_n_u16(vaddq_u16(magnitude, below), (uint16_t)(1u << (-shift - 1)));
    return vshlq_r_u16(vaddq_u16(magnitude, vshrq_n_u16(sum, 1)), shift + 1); /* 3 m as 2 m + m: in 16 bits */
}

/* Eight times elstm_tanh_by_table. */
ELSTM_KERNEL int16x8_t elstm_tanh_eight(int16x8_t x, int8_t shift)
{
    const uint16x8_t argument = elstm_tanh_argument(x, shift);
    const uint16x8_t index = vshrq_n_u16(argument, 8), weight = vshlq_n_u16(argument, 8);
    const uint16x8_t low = vldrhq_gather_shifted_offset_u16(elstm_sigmoid_half, index);
    const uint16x8_t high = vldrhq_gather_shifted_offset_u16(elstm_sigmoid_half + 1, index);
    const uint16x8_t entry = vaddq_u16(low, vrmulhq_u16(weight, vsubq_u16(high, low)));
    const int16x8_t y = vreinterpretq_s16_u16(vaddq_n_u16(entry, 32768)), sign = vshrq_n_s16(x, 15);
    return vsubq_s16(veorq_s16(y, sign), sign);
}

/* Eight times elstm_requantize_half of a * b. */
ELSTM_KERNEL int16x8_t elstm_update_cell_product(int16x8_t a, int16x8_t b, uint8_t shift)
{
    int32x4_t even = vrshrq_n_s32(vmullbq_int_s16(a, b), 1), odd = vrshrq_n_s32(vmulltq_int_s16(a, b), 1);
    even = vaddq_s32(even, vshrq_n_s32(even, 31));
    odd = vaddq_s32(odd, vshrq_n_s32(odd, 31));
    return elstm_round_eight(even, odd, shift);
}

/* Eight times elstm_update_cell_tflm; fresh: the rounded i * g. */
ELSTM_KERNEL int16x8_t elstm_update_cell_eight(const elstm_lstm_t *layer, int16x8_t cell, int16x8_t f,
                                               int16x8_t fresh)
{
    const int16x8_t sum = vqaddq_s16(elstm_update_cell_product(f, cell, 14), fresh);
    if (layer->cell_clip == 0) {
        return sum;
    }
    return vmaxq_s16(vminq_s16(sum, vdupq_n_s16(layer->cell_clip)), vdupq_n_s16((int16_t)-layer->cell_clip));
}

/* Eight times elstm_hidden, each in the low half of a lane. */
ELSTM_KERNEL int16x8_t elstm_hidden_eight(const elstm_lstm_t *layer, int16x8_t o, int16x8_t squashed)
{
    const int32x4_t even = vmullbq_int_s16(o, squashed), odd = vmulltq_int_s16(o, squashed);
    int16x8_t h = vqaddq_n_s16(elstm_requantize_eight(even, odd, layer->hidden), layer->hidden_zero_point);
    __asm("vqmovnb.s16 %q0, %q0" : "+w"(h));
    return h;
}

/* A gate of eight units: both terms of even and odd units, requantized and added. */
#define ELSTM_GATE_EIGHT(gate)                                                                                \
    vqaddq_s16(elstm_requantize_eight(vldrwq_gather_base_s32(at, 4 * (gate)),                                 \
                                      vldrwq_gather_base_s32(at, 4 * (gate) + 32), layer->input[gate]),       \
               elstm_requantize_eight(vldrwq_gather_base_s32(at, 4 * (gate) + 16),                            \
                                      vldrwq_gather_base_s32(at, 4 * (gate) + 48), layer->recurrent[gate]))

/* Up to eight units from the sums of each: the gates of the input, then of the hidden codes. */
ELSTM_KERNEL void elstm_eight_units(const elstm_lstm_t *layer, const int32_t *sums, mve_pred16_t present,
                                    int8_t *next, int16_t *cell)
{
    uint32x4_t at = vaddq_n_u32(vmulq_n_u32(vidupq_n_u32(0, 8), 8), (uint32_t)sums);
    ELSTM_IN_TURN(at);
    const int16x8_t i = elstm_sigmoid_eight(ELSTM_GATE_EIGHT(0));
    ELSTM_IN_TURN(at);
    const int16x8_t g = elstm_tanh_eight(ELSTM_GATE_EIGHT(2), 0);
    int16x8_t c = elstm_update_cell_product(i, g, (uint8_t)(29 + layer->cell_power));
    ELSTM_IN_TURN(at);
    const int16x8_t f = elstm_sigmoid_eight(ELSTM_GATE_EIGHT(1));
    c = elstm_update_cell_eight(layer, vldrhq_z_s16(cell, present), f, c);
    vstrhq_p_s16(cell, c, present);
    int16x8_t squashed = elstm_tanh_eight(c, (int8_t)(12 + layer->cell_power));
    ELSTM_IN_TURN(at);
    const int16x8_t o = elstm_sigmoid_eight(ELSTM_GATE_EIGHT(3));
    vstrbq_p_s16(next, elstm_hidden_eight(layer, o, squashed), present);
}

#define ELSTM_HAS_LSTM_STEP_TFLM
ELSTM_KERNEL void elstm_lstm_step_tflm(const elstm_lstm_t *layer, const int8_t *x, const int8_t *hidden,
                                       int8_t *next, int16_t *cell)
{
    const uint32_t recurrent = 4u * layer->features, size = recurrent + 4u * layer->units;
    const elstm_columns_t column_x = elstm_gate_columns(x, layer->features, 0);
    const elstm_columns_t column_hidden = elstm_gate_columns(hidden, layer->units, recurrent);
    const int8_t *weights = layer->weights;
    const int32_t *bias = layer->bias;
    int32_t sums[8 * 2 * GATES];
    for (uint16_t unit = 0; unit < layer->units; unit += 8) {
        const uint16_t present = layer->units - unit;
        int32_t *sum = sums;
        for (uint16_t left = present < 8u ? present : 8u; left != 0u; left--) {
            elstm_gate_sums(&sum, &bias, weights, 0, x, layer->features, column_x);
            elstm_gate_sums(&sum, &bias, weights, recurrent, hidden, layer->units, column_hidden);
            weights += size;
        }
        elstm_eight_units(layer, sums, vctp16q(present), next + unit, cell + unit);
    }
}

/* acc + row . x */
ELSTM_KERNEL int32_t elstm_dense_row(int32_t acc, const int8_t *row, const int8_t *x, uint16_t columns)
{
    for (uint16_t column = 0; column < columns; column += 16) {
        const mve_pred16_t present = vctp8q((uint32_t)columns - column);
        acc = vmladavaq_s8(acc, vldrbq_z_s8(row + column, present), vldrbq_z_s8(x + column, present));
    }
    return acc;
}

/* Up to four times elstm_requantize, each with its own multiplier and shift. */
ELSTM_KERNEL int32x4_t elstm_dense_requantize(const elstm_dense_t *layer, uint16_t output, int32x4_t acc,
                                              mve_pred16_t present)
{
    const elstm_requantizer_t *const r = layer->requantizers + layer->per_row * output;
    const uint32x4_t offsets = vmulq_n_u32(vidupq_n_u32(0, 1), layer->per_row * (uint32_t)sizeof *r);
    const int32x4_t shift = vldrbq_gather_offset_z_s32(&r->shift, offsets, present);
    const int32x4_t multiplier = vldrwq_gather_offset_z_s32(&r->multiplier, offsets, present);
    const int32x4_t x = vqrdmulhq_s32(vshlq_s32(acc, vmaxq_s32(shift, vdupq_n_s32(0))), multiplier);
    const int32x4_t away = vandq_s32(vshrq_n_s32(x, 31), vshrq_n_s32(shift, 31));
    return vrshlq_s32(vaddq_s32(x, away), vminq_s32(shift, vdupq_n_s32(0)));
}

#define ELSTM_HAS_DENSE_TFLM
ELSTM_KERNEL void elstm_dense_tflm(const elstm_dense_t *layer, const int8_t *x, int8_t *y)
{
    const elstm_columns_t column = elstm_gate_columns(x, layer->features, 0);
    const int8_t *weights = layer->weights;
    const int32_t *bias = layer->bias;
    for (uint16_t output = 0; output < layer->outputs; output += 4) {
        const uint16_t rows = layer->outputs - output;
        const mve_pred16_t present = vctp32q(rows);
        int32_t sum[4];
        if (rows >= 4u) {
            int32_t *to = sum;
            elstm_gate_sums(&to, &bias, weights, 0, x, layer->features, column);
            weights += 4u * layer->features;
        } else {
            for (uint16_t row = 0; row < rows; row++) {
                sum[row] = elstm_dense_row(bias[row], weights, x, layer->features);
                weights += layer->features;
            }
        }
        int32x4_t codes = elstm_dense_requantize(layer, output, vldrwq_s32(sum), present);
        codes = vqaddq_n_s32(codes, layer->output_zero_point);
        codes = vmaxq_s32(vminq_s32(codes, vdupq_n_s32(127)), vdupq_n_s32(-128));
        vstrbq_p_s32(y + output, codes, present);
    }
}

#endif
