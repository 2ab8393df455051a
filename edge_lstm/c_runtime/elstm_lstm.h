/* elstm_lstm.h: the LSTM and the dense layer of 8-bit codes, inlined into the network: what is constant there
 * (widths, multipliers, shifts) is constant for the compiler.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_LSTM_H
#define ELSTM_LSTM_H

#include "elstm_activations.h"
#include <string.h>

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1) && defined(__GNUC__)
#include "elstm_mve.h"
#elif defined(ELSTM_HAS_LANES)
#include "elstm_lanes.h"
#endif

typedef int32_t elstm_scaling_t(int32_t acc, elstm_requantizer_t r);

/* The terms of the four gates of one unit, Q3.12: scaling(bias + weights . codes). */
ELSTM_KERNEL const int8_t *elstm_gate_terms(int32_t term[GATES], const int8_t *weights, const int8_t *codes,
                                            uint16_t columns, const int32_t bias[GATES],
                                            const elstm_requantizer_t r[GATES], elstm_scaling_t *scaling)
{
    int32_t sum[GATES] = {bias[GATE_I], bias[GATE_F], bias[GATE_G], bias[GATE_O]};
    weights = elstm_four_rows(sum, weights, codes, columns);
    term[GATE_I] = scaling(sum[GATE_I], r[GATE_I]);
    term[GATE_F] = scaling(sum[GATE_F], r[GATE_F]);
    term[GATE_G] = scaling(sum[GATE_G], r[GATE_G]);
    term[GATE_O] = scaling(sum[GATE_O], r[GATE_O]);
    return weights;
}

/* h = o * tanh(c) in hidden codes. */
ELSTM_KERNEL int8_t elstm_hidden(const elstm_lstm_t *layer, int32_t o, int32_t squashed)
{
    return elstm_code(elstm_requantize(o * squashed, layer->hidden), layer->hidden_zero_point);
}

static inline void elstm_lstm_reset(const elstm_lstm_t *layer, int8_t *hidden, int16_t *cell)
{
    memset(hidden, layer->hidden_zero_point, layer->units);
    memset(cell, 0, layer->units * sizeof *cell);
}

/* What tells the profiles apart.  scaling: of the recurrent terms; tanh: of an int16 of scale 2**power. */
typedef struct {
    elstm_scaling_t *scaling;
    int32_t (*combine)(int32_t a, int32_t b);
    int32_t (*sigmoid)(int32_t x);
    int32_t (*tanh)(int32_t x, int8_t power);
    int32_t (*update)(int32_t cell, int32_t i, int32_t f, int32_t g, int8_t power, int32_t limit);
} elstm_numerics_t;

/* One time step.  x: [features], hidden: [units] of the step before, next: [units], the new hidden codes and
 * the layer's output; cell: [units], updated in place.
 */
ELSTM_KERNEL void elstm_lstm_step(const elstm_lstm_t *layer, const int8_t *x, const int8_t *hidden,
                                  int8_t *next, int16_t *cell, elstm_numerics_t numerics)
{
    const int8_t *weights = layer->weights;
    const int32_t *bias = layer->bias;
    for (uint16_t unit = 0; unit < layer->units; unit++) {
        int32_t a[GATES], b[GATES];
        weights = elstm_gate_terms(a, weights, x, layer->features, bias, layer->input, elstm_requantize_16);
        weights = elstm_gate_terms(b, weights, hidden, layer->units, bias + GATES, layer->recurrent,
                                   numerics.scaling);
        const int32_t i = numerics.sigmoid(numerics.combine(a[GATE_I], b[GATE_I]));
        const int32_t f = numerics.sigmoid(numerics.combine(a[GATE_F], b[GATE_F]));
        const int32_t g = numerics.tanh(numerics.combine(a[GATE_G], b[GATE_G]), -12);
        const int32_t o = numerics.sigmoid(numerics.combine(a[GATE_O], b[GATE_O]));
        const int32_t c = numerics.update(cell[unit], i, f, g, layer->cell_power, layer->cell_clip);
        cell[unit] = (int16_t)c;
        next[unit] = elstm_hidden(layer, o, numerics.tanh(c, layer->cell_power));
        bias += 2 * GATES;
    }
}

#ifndef ELSTM_HAS_LSTM_STEP_TFLM
ELSTM_KERNEL int32_t elstm_sigmoid_tflm(int32_t x)
{
    return elstm_sigmoid_by_table(x, 0);
}

ELSTM_KERNEL int32_t elstm_tanh_tflm(int32_t x, int8_t power)
{
    return elstm_tanh_by_table(x, (int8_t)(12 + power));
}

ELSTM_KERNEL void elstm_lstm_step_tflm(const elstm_lstm_t *layer, const int8_t *x, const int8_t *hidden,
                                       int8_t *next, int16_t *cell)
{
    const elstm_numerics_t numerics = {elstm_requantize_16, elstm_combine_tflm, elstm_sigmoid_tflm,
                                       elstm_tanh_tflm, elstm_update_cell_tflm};
    elstm_lstm_step(layer, x, hidden, next, cell, numerics);
}
#endif

ELSTM_KERNEL int32_t elstm_tanh_litert(int32_t x, int8_t power)
{
    return elstm_tanh_by_polynomial(x, (uint8_t)(15 + power));
}

ELSTM_KERNEL void elstm_lstm_step_litert(const elstm_lstm_t *layer, const int8_t *x, const int8_t *hidden,
                                         int8_t *next, int16_t *cell)
{
    const elstm_numerics_t numerics = {elstm_requantize, elstm_combine_litert, elstm_sigmoid_by_polynomial,
                                       elstm_tanh_litert, elstm_update_cell_litert};
    elstm_lstm_step(layer, x, hidden, next, cell, numerics);
}

/* y: [outputs] of x: [features]; scaling: how the profile requantizes. */
ELSTM_KERNEL void elstm_dense(const elstm_dense_t *layer, const int8_t *x, int8_t *y,
                              elstm_scaling_t *scaling)
{
    const int8_t *weights = layer->weights;
    const int32_t *bias = layer->bias;
    const elstm_requantizer_t *r = layer->requantizers;
    const int8_t *const end = y + layer->outputs;
    for (const int8_t *const fours = y + (layer->outputs & ~3u); y != fours; y += 4) {
        int32_t sum[4] = {bias[0], bias[1], bias[2], bias[3]};
        weights = elstm_four_rows(sum, weights, x, layer->features);
        for (uint8_t row = 0; row < 4u; row++) {
            y[row] = elstm_code(scaling(sum[row], *r), layer->output_zero_point);
            r += layer->per_row;
        }
        bias += 4;
    }
    for (; y != end; y++) {
        *y = elstm_code(scaling(elstm_dot(*bias, weights, x, layer->features), *r), layer->output_zero_point);
        weights += layer->features;
        r += layer->per_row;
        bias++;
    }
}

#ifndef ELSTM_HAS_DENSE_TFLM
ELSTM_KERNEL void elstm_dense_tflm(const elstm_dense_t *layer, const int8_t *x, int8_t *y)
{
    elstm_dense(layer, x, y, elstm_requantize);
}
#endif

ELSTM_KERNEL void elstm_dense_litert(const elstm_dense_t *layer, const int8_t *x, int8_t *y)
{
    elstm_dense(layer, x, y, elstm_requantize_float);
}

ELSTM_KERNEL void elstm_dense_tflite(const elstm_dense_t *layer, const int8_t *x, int8_t *y)
{
    elstm_dense(layer, x, y, elstm_requantize_ties_up);
}

#endif
