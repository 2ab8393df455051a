/* elstm_native.h: the LSTM of profile native, inlined into the network: one accumulator a gate, one scale a row,
 * every value rounded once.
 *
 * Cost of a unit on cores with the DSP extension, beside its sums: about 75 instructions, of which three sigmoids
 * and two tanh take 7 each.  Spec: NUMERICS.md, 10, of edge-lstm.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_NATIVE_H
#define ELSTM_NATIVE_H

#include "elstm_activations.h"
#include "elstm_rows.h"
#include <string.h>

/* One LSTM layer; gates in the order i, f, g, o. */
typedef struct {
    const int8_t *weights; /* [units]: four rows over the features by input_storage, then four over the units by
                              recurrent_storage; see elstm_rows.h */
    const uint8_t *places; /* [units]: of blocks over the features, then over the units; null: there are none */
    const int32_t *gates;  /* [units][biases, then multipliers: times 2**(acc_shift - 32) to table places] */
    uint16_t features;
    uint16_t units;
    int16_t cell_clip;     /* the cell is kept within -cell_clip .. cell_clip; 0: no clip */
    int8_t cell_power;     /* the cell's scale is 2**cell_power, -15 .. -9 */
    uint8_t hidden_shift;  /* from Q0.30 to hidden codes, 15 .. 21 */
    uint8_t acc_shift;     /* 0 .. 30 */
    uint8_t input_storage; /* ELSTM_BYTES, ELSTM_NIBBLES or ELSTM_SHARED_BLOCKS */
    uint8_t recurrent_storage;
} elstm_native_lstm_t;

extern const int16_t elstm_tanh_table[513]; /* 32768 * tanh((i - 256) / 48) */

/* start + the table at x / 2**bits, interpolated: 2**bits times an entry.  bits is 9 or 8, x has bits + 9 bits. */
static inline int32_t elstm_interpolate_native(int32_t start, int32_t x, uint8_t bits)
{
    const int16_t *middle = elstm_tanh_table + 256;
    const int32_t weight = (int32_t)((uint32_t)x & (((uint32_t)1 << bits) - 1u));
#ifdef __GNUC__
    __asm("" : "+r"(middle)); /* or 256 would be added to every index */
#endif
#if defined(__GNUC__) && !defined(ELSTM_ROWS_DSP_H)
    __asm("" : "+r"(start)); /* or it would be added in parts */
#endif
#ifdef ELSTM_ROWS_DSP_H
    const uint32_t weights = ((uint32_t)weight << 16) - (uint32_t)weight + ((uint32_t)1 << bits);
    return (int32_t)elstm_add_pair((uint32_t)start, elstm_pair(middle + (x >> bits)), weights);
#elif defined(ELSTM_HAS_PAIRS)
    const int32_t entries = elstm_wrap_32(elstm_pair(middle + (x >> bits)));
    const int32_t first = (int16_t)(entries & 0xffff);
    return start + first * ((int32_t)1 << bits) + weight * ((entries >> 16) - first);
#else
    const int16_t *const entry = middle + (x >> bits);
    return start + (int32_t)entry[0] * ((int32_t)1 << bits) + weight * ((int32_t)entry[1] - (int32_t)entry[0]);
#endif
}

/* x: a place in the table times 2**9, saturated to 18 bits.  Returns Q0.15. */
static inline int32_t elstm_sigmoid_native(int32_t x)
{
    return elstm_interpolate_native(((int32_t)1 << 24) + 512, elstm_saturate_18(x), 9) >> 10;
}

/* x: a place in the table times 2**8, saturated to 17 bits.  Returns Q0.15. */
static inline int32_t elstm_tanh_native(int32_t x)
{
    return elstm_interpolate_native(128, elstm_saturate_17(x), 8) >> 8;
}

/* c' = f * c + i * g in cell codes of scale 2**power, rounded once; the sum is below 2**31. */
static inline int32_t elstm_update_cell_native(int32_t cell, int32_t i, int32_t f, int32_t g, int8_t power,
                                               int32_t limit)
{
    return elstm_clip_cell((f * cell + (i * g >> (15 + power)) + 16384) >> 15, limit);
}

static inline int32_t elstm_native_gate(const elstm_native_lstm_t *layer, uint32_t sum, uint32_t multiplier)
{
    return elstm_upper_half(elstm_wrap_32(sum << layer->acc_shift), (int32_t)multiplier);
}

static inline void elstm_native_lstm_reset(const elstm_native_lstm_t *layer, int16_t *hidden, int16_t *cell)
{
    memset(hidden, 0, layer->units * sizeof *hidden);
    memset(cell, 0, layer->units * sizeof *cell);
}

/* What the stored weights add to the sums of the rows a and c, or of b and d. */
ELSTM_KERNEL uint32_t elstm_native_gate_excess(const elstm_native_lstm_t *layer, const int16_t *x,
                                               const int16_t *hidden, uint8_t odd)
{
    const uint32_t input = elstm_offset(layer->input_storage, odd);
    const uint32_t recurrent = elstm_offset(layer->recurrent_storage, odd);
    const uint16_t first = elstm_offset_column(layer->input_storage, layer->features);
    const uint16_t first_unit = elstm_offset_column(layer->recurrent_storage, layer->units);
    uint32_t excess = 0;
    if (input != 0u) {
        excess += input * elstm_sum_codes(x + first, (uint16_t)(layer->features - first));
    }
    if (recurrent != 0u) {
        excess += recurrent * elstm_sum_codes(hidden + first_unit, (uint16_t)(layer->units - first_unit));
    }
    return excess;
}

/* One time step.  x: [features], hidden: [units] of the step before, next: [units], the new hidden codes and
 * the layer's output; cell: [units], updated in place.
 */
ELSTM_KERNEL void elstm_native_lstm_step(const elstm_native_lstm_t *layer, const int16_t *x,
                                         const int16_t *hidden, int16_t *next, int16_t *cell)
{
    const int8_t *weights = layer->weights;
    const uint8_t *places = layer->places;
    const int32_t *gates = layer->gates;
    const uint32_t even = elstm_native_gate_excess(layer, x, hidden, 0);
    const uint32_t odd = elstm_native_gate_excess(layer, x, hidden, 1);
    for (uint16_t unit = 0; unit < layer->units; unit++) {
        uint32_t sum[GATES], multiplier[GATES];
        elstm_four_words(sum, gates);
        sum[GATE_I] -= even;
        sum[GATE_F] -= odd;
        sum[GATE_G] -= even;
        sum[GATE_O] -= odd;
        weights = elstm_four_rows_16(sum, weights, &places, x, layer->features, layer->input_storage);
        weights = elstm_four_rows_16(sum, weights, &places, hidden, layer->units, layer->recurrent_storage);
        elstm_four_words(multiplier, gates + GATES);
        const int32_t i = elstm_sigmoid_native(elstm_native_gate(layer, sum[GATE_I], multiplier[GATE_I]));
        const int32_t f = elstm_sigmoid_native(elstm_native_gate(layer, sum[GATE_F], multiplier[GATE_F]));
        const int32_t g = elstm_tanh_native(elstm_native_gate(layer, sum[GATE_G], multiplier[GATE_G]));
        const int32_t o = elstm_sigmoid_native(elstm_native_gate(layer, sum[GATE_O], multiplier[GATE_O]));
        gates += 2 * GATES;
        const int32_t c =
            elstm_update_cell_native(cell[unit], i, f, g, layer->cell_power, layer->cell_clip);
        const int32_t squashed =
            elstm_tanh_native(elstm_table_argument(c, (int8_t)(12 + layer->cell_power)));
        const int32_t half = (int32_t)1 << (layer->hidden_shift - 1u);
        cell[unit] = (int16_t)c;
        next[unit] = (int16_t)((o * squashed + half) >> layer->hidden_shift);
    }
}

#endif
