/* elstm_operators.c: the operators of a network beside its LSTMs.
 *
 * -ffunction-sections and --gc-sections drop what a network does not call.
 *
 * Deviations from MISRA C:2012:
 *   10.1  >> of negative values: must be arithmetic; elstm_fixed.h does not compile elsewhere
 *   18.4  advisory: pointers advance through weights and rows that lie in the order of use
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "elstm_operators.h"
#include <string.h>

#include "elstm_fixed.h"
#include "elstm_wide.h"

void elstm_dense_16(const elstm_dense_16_t *layer, const int16_t *x, int16_t *y)
{
    const int8_t *row = layer->kernel;
    const elstm_requantizer_t *r = layer->requantizers;
    for (uint16_t output = 0; output < layer->outputs; output++) {
        const int32_t acc = elstm_dot_16(layer->bias[output], row, x, layer->features);
        const int32_t code = elstm_scale_short(acc, *r) + layer->output_zero_point;
        y[output] = (int16_t)elstm_clamp(code, layer->minimum, 32767);
        row += layer->features;
        r += layer->per_row;
    }
}

void elstm_dense_48(const elstm_dense_48_t *layer, const int16_t *x, int16_t *y)
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

/* A code of 16 bits in the output's scale, not yet saturated; the clamp keeps the sum in range. */
static inline int32_t elstm_recode(const elstm_recode_t *layer, int32_t code)
{
    const int32_t scaled = elstm_requantize(code - layer->input_zero_point, layer->scale);
    return elstm_clamp(scaled, -65536, 65536) + layer->output_zero_point;
}

void elstm_recode_8_to_8(const elstm_recode_t *layer, const int8_t *x, int8_t *y, uint16_t width)
{
    for (uint16_t k = 0; k < width; k++) {
        y[k] = (int8_t)elstm_clamp(elstm_recode(layer, x[k]), -128, 127);
    }
}

void elstm_recode_8_to_16(const elstm_recode_t *layer, const int8_t *x, int16_t *y, uint16_t width)
{
    for (uint16_t k = 0; k < width; k++) {
        y[k] = (int16_t)elstm_saturate_16(elstm_recode(layer, x[k]));
    }
}

void elstm_recode_16_to_8(const elstm_recode_t *layer, const int16_t *x, int8_t *y, uint16_t width)
{
    for (uint16_t k = 0; k < width; k++) {
        y[k] = (int8_t)elstm_clamp(elstm_recode(layer, x[k]), -128, 127);
    }
}

void elstm_recode_16_to_16(const elstm_recode_t *layer, const int16_t *x, int16_t *y, uint16_t width)
{
    for (uint16_t k = 0; k < width; k++) {
        y[k] = (int16_t)elstm_saturate_16(elstm_recode(layer, x[k]));
    }
}

void elstm_add(const elstm_add_t *layer, const int16_t *left, const int16_t *right, int16_t *y, uint16_t width)
{
    for (uint16_t k = 0; k < width; k++) {
        const int32_t sum = (int32_t)layer->left * *left + (int32_t)layer->right * *right; /* 2**29 at most */
        y[k] = (int16_t)elstm_saturate_16(elstm_rounding_shift(sum, layer->shift));
        left += layer->left_step;
        right += layer->right_step;
    }
}

/* elstm_requantize of the multiplier 2**30 and the shift 1 - ``shift``. */
void elstm_multiply(const elstm_mul_t *layer, const int16_t *left, const int16_t *right, int16_t *y,
                    uint16_t width)
{
    const uint8_t down = layer->shift > 0u ? (uint8_t)(layer->shift - 1u) : (uint8_t)0;
    const uint8_t up = layer->shift > 0u ? (uint8_t)0 : (uint8_t)1;
    for (uint16_t k = 0; k < width; k++) {
        const int32_t product = (int32_t)*left * (int32_t)*right;
        const int32_t scaled = elstm_requantize_half(elstm_wrap_32((uint32_t)product << up), down);
        y[k] = (int16_t)elstm_saturate_16(scaled);
        left += layer->left_step;
        right += layer->right_step;
    }
}

void elstm_sigmoid(const int16_t *x, int16_t *y, uint16_t width)
{
    for (uint16_t k = 0; k < width; k++) {
        y[k] = (int16_t)elstm_sigmoid_by_table(x[k], 1);
    }
}

void elstm_tanh(const int16_t *x, int16_t *y, uint16_t width)
{
    for (uint16_t k = 0; k < width; k++) {
        y[k] = (int16_t)elstm_tanh_by_table(x[k], -1);
    }
}

void elstm_relu_8(const int8_t *x, int8_t *y, uint16_t width, int8_t zero_point)
{
    for (uint16_t k = 0; k < width; k++) {
        y[k] = x[k] > zero_point ? x[k] : zero_point;
    }
}

void elstm_relu_16(const int16_t *x, int16_t *y, uint16_t width, int16_t zero_point)
{
    for (uint16_t k = 0; k < width; k++) {
        y[k] = x[k] > zero_point ? x[k] : zero_point;
    }
}

void elstm_leaky_relu(const int16_t *x, int16_t *y, uint16_t width, elstm_requantizer_t slope)
{
    for (uint16_t k = 0; k < width; k++) {
        y[k] = x[k] < 0 ? (int16_t)elstm_requantize(x[k], slope) : x[k];
    }
}

void elstm_sum_rows(const int16_t *x, int32_t step, uint16_t rows, int16_t *y, uint16_t width)
{
    for (uint16_t k = 0; k < width; k++) {
        int32_t sum = 0; /* 2**31 - 2**15 at most */
        for (uint16_t row = 0; row < rows; row++) {
            sum += x[(int32_t)row * step + k];
        }
        y[k] = (int16_t)elstm_saturate_16(sum);
    }
}

void elstm_delay_reset(const elstm_delay_t *layer, void *past, uint16_t *oldest)
{
    memset(past, 0, (size_t)layer->rows * layer->bytes);
    *oldest = 0;
}

void elstm_delay(const elstm_delay_t *layer, const void *x, void *y, void *past, uint16_t *oldest)
{
    uint8_t *const kept = past;
    uint8_t *out = y;
    uint16_t row = *oldest;
    for (uint16_t age = layer->rows; age > 0u; age = (uint16_t)(age - layer->dilation)) {
        memcpy(out, kept + (size_t)row * layer->bytes, layer->bytes);
        out += layer->bytes;
        row = (uint16_t)(row + layer->dilation);
        row = row < layer->rows ? row : (uint16_t)(row - layer->rows);
    }
    memcpy(out, x, layer->bytes);
    memcpy(kept + (size_t)row * layer->bytes, x, layer->bytes);
    row = (uint16_t)(row + 1u);
    *oldest = row < layer->rows ? row : (uint16_t)0;
}

void elstm_fill_16(int16_t *y, uint16_t width, int16_t code)
{
    for (uint16_t k = 0; k < width; k++) {
        y[k] = code;
    }
}
