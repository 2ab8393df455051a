/* elstm_lstm_variants.c: LSTMs beyond the plain one of 8-bit codes.
 *
 * -ffunction-sections and --gc-sections drop what a network does not call.
 *
 * Deviations from MISRA C:2012:
 *   10.1  >> of negative values: must be arithmetic; elstm_fixed.h does not compile elsewhere
 *   18.4  advisory: pointers advance through weights that lie in the order of use
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "elstm_lstm_variants.h"
#include <string.h>

#include "elstm_activations.h"
#include "elstm_wide.h"

/* 1 / sqrt(value) by five Newton steps; value is 1 or more. */
static inline elstm_requantizer_t elstm_inverse_square_root(int32_t value)
{
    elstm_requantizer_t inverse = {INT32_MAX, 0, 0};
    int8_t right = 11;
    if (value <= 1) {
        return inverse;
    }
    for (; value >= ((int32_t)1 << 29); value >>= 2) {
        right++;
    }
    for (; value < ((int32_t)1 << 27); value *= 4) {
        right--;
    }
    const int32_t half = value >> 1;
    const int32_t quarter = elstm_rounding_shift(half, 1);
    int32_t x = (int32_t)1 << 28;
    for (uint8_t turn = 0; turn < 5u; turn++) {
        const int32_t square = elstm_high_multiply(x, x);
        const int32_t cube = elstm_high_multiply(square, x) * 64; /* below 2**31, also where value is 2**27 */
        x = (elstm_high_multiply(x, (int32_t)3 << 27) - elstm_high_multiply(quarter, cube)) * 8;
    }
    inverse.multiplier = elstm_high_multiply(x, 1518500250); /* sqrt(1 / 2) in Q0.31 */
    if (right < 0) {
        inverse.multiplier *= (int32_t)1 << -right; /* right is -2 or more, and the value then small */
    } else {
        inverse.shift = (int8_t)-right;
    }
    return inverse;
}

/* The sums of all gates of a time step, int16; gates: [gate][units]. */
static void elstm_variant_sums(const elstm_variant_t *layer, const int8_t *x, const int8_t *hidden,
                               int16_t *gates)
{
    const int8_t *kernel = layer->kernel, *recurrent_kernel = layer->recurrent_kernel;
    const int32_t *input_bias = layer->input_bias, *recurrent_bias = layer->recurrent_bias;
    for (uint16_t unit = 0; unit < layer->units; unit++) {
        for (uint8_t gate = layer->coupled; gate < (uint8_t)GATES; gate++) {
            const int32_t input = elstm_dot(*input_bias, kernel, x, layer->features);
            const int32_t recurrent = elstm_dot(*recurrent_bias, recurrent_kernel, hidden, layer->outputs);
            const int32_t a = elstm_requantize(input, layer->input[gate]);
            const int32_t b = elstm_requantize(recurrent, layer->recurrent[gate]);
            gates[(uint32_t)gate * layer->units + unit] = (int16_t)elstm_combine_litert(elstm_saturate_16(a), b);
            kernel += layer->features;
            recurrent_kernel += layer->outputs;
            input_bias++;
            recurrent_bias++;
        }
    }
}

/* Add the weighted cell to the sums z of one gate; row is 0, 1, 2 for i, f, o. */
static void elstm_add_peephole(const elstm_variant_t *layer, uint8_t row, int16_t *z, const int16_t *cell)
{
    const int16_t *weights = layer->peephole + (uint32_t)row * layer->units;
    const elstm_requantizer_t r = layer->cell[row];
    for (uint16_t unit = 0; unit < layer->units; unit++) {
        const int32_t product = (int32_t)weights[unit] * (int32_t)cell[unit];
        const int32_t term =
            unit < layer->ties_up ? elstm_requantize_ties_up(product, r) : elstm_requantize(product, r);
        z[unit] = (int16_t)elstm_saturate_16(z[unit] + elstm_clamp(term, -65535, 65535));
    }
}

/* value / 1024 to nearest, ties away from zero. */
static inline int32_t elstm_thousandth(int32_t value)
{
    const uint32_t magnitude = value < 0 ? 0u - (uint32_t)value : (uint32_t)value;
    const int32_t quotient = (int32_t)((magnitude + 512u) >> 10);
    return value < 0 ? -quotient : quotient;
}

/* Layer normalization of the sums z of one gate, to Q3.12. */
static void elstm_normalize(const elstm_variant_t *layer, uint8_t gate, int16_t *z)
{
    const int32_t units = (int32_t)layer->units;
    const int16_t *weights = layer->normalization + (uint32_t)gate * layer->units;
    const int32_t *bias = layer->normal_bias + (uint32_t)gate * layer->units;
    int32_t sum = 0;     /* below 2**31: units is below 2**16 */
    int64_t squares = 0; /* below 2**46 */
    for (uint16_t unit = 0; unit < layer->units; unit++) {
        sum += z[unit];
        squares += (int32_t)z[unit] * (int32_t)z[unit];
    }
    const int32_t mean = sum / units * 1024 + sum % units * 1024 / units; /* 1024 * sum / units */
    const int64_t spread = squares * (int64_t)(((int32_t)1 << 20) / units) - (int64_t)mean * (int64_t)mean;
    const int32_t variance = (int32_t)(spread >> 20);
    const elstm_requantizer_t inverse =
        elstm_inverse_square_root(variance < 1 ? layer->least_variance[gate] : variance);
    for (uint16_t unit = 0; unit < layer->units; unit++) {
        const int32_t normal = elstm_requantize((int32_t)z[unit] * 1024 - mean, inverse);
        const uint32_t weighted = (uint32_t)normal * (uint32_t)(int32_t)weights[unit];
        const int32_t value = elstm_thousandth(elstm_wrap_32(weighted + (uint32_t)bias[unit]));
        z[unit] = (int16_t)elstm_saturate_16(elstm_requantize(value, layer->normal[gate]));
    }
}

/* The activations of one gate from its sums z, in place, Q0.15. */
static void elstm_variant_gate(const elstm_variant_t *layer, uint8_t gate, int16_t *z, const int16_t *cell)
{
    if (layer->peephole != NULL && gate != (uint8_t)GATE_G) {
        elstm_add_peephole(layer, gate == (uint8_t)GATE_O ? (uint8_t)2 : gate, z, cell);
    }
    if (layer->normalization != NULL) {
        elstm_normalize(layer, gate, z);
    }
    for (uint16_t unit = 0; unit < layer->units; unit++) {
        z[unit] = (int16_t)(gate == (uint8_t)GATE_G ? elstm_tanh_by_polynomial(z[unit], 3)
                                                    : elstm_sigmoid_by_polynomial(z[unit]));
    }
}

/* The hidden codes from the inner ones. */
static void elstm_project(const elstm_variant_t *layer, const int16_t *inner, int8_t *next)
{
    const int8_t *row = layer->projection;
    const int32_t limit = layer->projection_clip != 0 ? layer->projection_clip : 128;
    for (uint16_t output = 0; output < layer->outputs; output++) {
        int32_t acc = layer->projection_bias[output];
        for (uint16_t unit = 0; unit < layer->units; unit++) {
            acc += (int32_t)row[unit] * (int32_t)inner[unit];
        }
        const int32_t code = elstm_code(elstm_requantize(acc, layer->projected), layer->hidden_zero_point);
        next[output] = (int8_t)elstm_clamp(code, -limit, limit < 127 ? limit : 127);
        row += layer->units;
    }
}

void elstm_variant_reset(const elstm_variant_t *layer, int8_t *hidden, int16_t *cell)
{
    memset(hidden, layer->hidden_zero_point, layer->outputs);
    memset(cell, 0, layer->units * sizeof *cell);
}

void elstm_variant_step(const elstm_variant_t *layer, const int8_t *x, const int8_t *hidden, int8_t *next,
                        int16_t *cell, int16_t *gates)
{
    int16_t *i = gates, *f = i + layer->units, *g = f + layer->units, *o = g + layer->units;
    elstm_variant_sums(layer, x, hidden, gates);
    elstm_variant_gate(layer, (uint8_t)GATE_F, f, cell);
    elstm_variant_gate(layer, (uint8_t)GATE_G, g, cell);
    if (layer->coupled == 0u) {
        elstm_variant_gate(layer, (uint8_t)GATE_I, i, cell);
    }
    for (uint16_t unit = 0; unit < layer->units; unit++) {
        const int32_t share = layer->coupled != 0u ? 32767 - f[unit] : i[unit];
        cell[unit] = (int16_t)elstm_update_cell_litert(cell[unit], share, f[unit], g[unit], layer->cell_power,
                                                       layer->cell_clip);
    }
    elstm_variant_gate(layer, (uint8_t)GATE_O, o, cell);
    for (uint16_t unit = 0; unit < layer->units; unit++) {
        const int32_t squashed = elstm_tanh_by_polynomial(cell[unit], (uint8_t)(15 + layer->cell_power));
        const int32_t scaled = elstm_saturate_16(elstm_requantize(o[unit] * squashed, layer->hidden));
        i[unit] = (int16_t)elstm_clamp(scaled + layer->inner_zero_point, -128, 127);
    }
    if (layer->projection != NULL) {
        elstm_project(layer, i, next);
        return;
    }
    for (uint16_t unit = 0; unit < layer->units; unit++) {
        next[unit] = (int8_t)i[unit];
    }
}

void elstm_lstm_16_reset(const elstm_lstm_16_t *layer, int16_t *hidden, int16_t *cell)
{
    memset(hidden, 0, layer->units * sizeof *hidden);
    memset(cell, 0, layer->units * sizeof *cell);
}

void elstm_lstm_16_step(const elstm_lstm_16_t *layer, const int16_t *x, const int16_t *hidden, int16_t *next,
                        int16_t *cell)
{
    const int8_t *kernel = layer->kernel, *recurrent_kernel = layer->recurrent_kernel;
    const int64_t *bias = layer->bias;
    for (uint16_t unit = 0; unit < layer->units; unit++) {
        int32_t z[GATES];
        for (uint8_t gate = 0; gate < (uint8_t)GATES; gate++) {
            const int64_t input = elstm_dot_48(*bias, kernel, x, layer->features);
            const int64_t recurrent = elstm_dot_48(0, recurrent_kernel, hidden, layer->units);
            z[gate] = elstm_combine_tflm(elstm_saturate_16(elstm_scale_wide(input, layer->input[gate])),
                                         elstm_saturate_16(elstm_scale_wide(recurrent, layer->recurrent[gate])));
            kernel += layer->features;
            recurrent_kernel += layer->units;
            bias++;
        }
        const int32_t i = elstm_sigmoid_by_table(z[GATE_I], 0);
        const int32_t f = elstm_sigmoid_by_table(z[GATE_F], 0);
        const int32_t g = elstm_tanh_by_table(z[GATE_G], 0);
        const int32_t o = elstm_sigmoid_by_table(z[GATE_O], 0);
        const int32_t c = elstm_update_cell_tflm(cell[unit], i, f, g, layer->cell_power, layer->cell_clip);
        const int32_t squashed = elstm_tanh_by_table(c, (int8_t)(12 + layer->cell_power));
        cell[unit] = (int16_t)c;
        next[unit] = (int16_t)elstm_saturate_16(elstm_requantize(o * squashed, layer->hidden));
    }
}
