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

#include "elstm_activations.h"

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
