/* elstm_native.c: layers of profile native.  Deviations from MISRA C:2012: those of elstm.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "elstm_native.h"
#include "elstm_fixed.h"
#include "elstm_wide.h"
#include <string.h>

/* Adds row . x to acc and returns the row after this one; see elstm_native.h for how rows are stored. */
typedef const int8_t *elstm_row_t(int32_t *acc, const int8_t *row, const int16_t *x, uint16_t columns);

static inline const int8_t *elstm_row_8(int32_t *acc, const int8_t *row, const int16_t *x, uint16_t columns)
{
    *acc = elstm_dot_16(*acc, row, x, columns);
    return row + columns;
}

/* The signed value of the low four bits. */
static inline int32_t elstm_nibble(int32_t bits)
{
    return ((bits & 15) ^ 8) - 8;
}

static inline const int8_t *elstm_row_4(int32_t *acc, const int8_t *row, const int16_t *x, uint16_t columns)
{
    int32_t sum = *acc;
    uint16_t column = 0;
    for (; column + 1u < columns; column += 2u) {
        const int32_t pair = (int32_t)*row++;
        sum += elstm_nibble(pair) * (int32_t)x[column] + (pair >> 4) * (int32_t)x[column + 1u];
    }
    if (column < columns) {
        sum += elstm_nibble((int32_t)*row++) * (int32_t)x[column];
    }
    *acc = sum;
    return row;
}

static inline const int8_t *elstm_row_blocks(int32_t *acc, const int8_t *row, const int16_t *x, uint16_t columns)
{
    int32_t sum = *acc;
    for (uint8_t left = (uint8_t)*row++; left > 0u; left--) {
        const uint16_t first = (uint16_t)(4u * (uint8_t)*row++);
        const uint16_t rest = (uint16_t)(columns - first);
        const uint16_t count = rest < 4u ? rest : (uint16_t)4;
        sum = elstm_dot_16(sum, row, x + first, count);
        row += count;
    }
    *acc = sum;
    return row;
}

void elstm_native_lstm_reset(const elstm_native_lstm_t *layer, int16_t *hidden, int16_t *cell)
{
    memset(hidden, 0, layer->units * sizeof *hidden);
    memset(cell, 0, layer->units * sizeof *cell);
}

static inline void elstm_native_lstm_step(const elstm_native_lstm_t *layer, const int16_t *x,
                                          const int16_t *hidden, int16_t *next, int16_t *cell, elstm_row_t *row)
{
    const int8_t *weights = layer->weights;
    const int32_t *bias = layer->bias;
    const elstm_requantizer_t *r = layer->requantizers;
    for (uint16_t unit = 0; unit < layer->units; unit++) {
        int32_t z[GATES];
        for (uint8_t gate = 0; gate < (uint8_t)GATES; gate++) {
            int32_t acc = *bias++;
            weights = row(&acc, weights, x, layer->features);
            weights = row(&acc, weights, hidden, layer->units);
            z[gate] = elstm_saturate_16(elstm_requantize(acc, *r++));
        }
        const int32_t i = elstm_sigmoid_by_table(z[GATE_I], 0);
        const int32_t f = elstm_sigmoid_by_table(z[GATE_F], 0);
        const int32_t g = elstm_tanh_by_table(z[GATE_G], 0);
        const int32_t o = elstm_sigmoid_by_table(z[GATE_O], 0);
        const int32_t c = elstm_update_cell_tflm(cell[unit], i, f, g, layer->cell_power, layer->cell_clip);
        const int32_t squashed = elstm_tanh_by_table(c, (int8_t)(12 + layer->cell_power));
        cell[unit] = (int16_t)c;
        next[unit] = (int16_t)elstm_saturate_16(elstm_rounding_shift(o * squashed, layer->hidden_shift));
    }
}

void elstm_native_lstm_step_8(const elstm_native_lstm_t *layer, const int16_t *x, const int16_t *hidden,
                              int16_t *next, int16_t *cell)
{
    elstm_native_lstm_step(layer, x, hidden, next, cell, elstm_row_8);
}

void elstm_native_lstm_step_4(const elstm_native_lstm_t *layer, const int16_t *x, const int16_t *hidden,
                              int16_t *next, int16_t *cell)
{
    elstm_native_lstm_step(layer, x, hidden, next, cell, elstm_row_4);
}

void elstm_native_lstm_step_blocks(const elstm_native_lstm_t *layer, const int16_t *x, const int16_t *hidden,
                                   int16_t *next, int16_t *cell)
{
    elstm_native_lstm_step(layer, x, hidden, next, cell, elstm_row_blocks);
}

static inline void elstm_native_dense(const elstm_native_dense_t *layer, const int16_t *x, int16_t *y,
                                      elstm_row_t *row)
{
    const int8_t *weights = layer->weights;
    for (uint16_t output = 0; output < layer->outputs; output++) {
        int32_t acc = layer->bias[output];
        weights = row(&acc, weights, x, layer->features);
        y[output] = (int16_t)elstm_clamp(elstm_scale_wide(acc, layer->requantizers[output]), layer->minimum, 32767);
    }
}

void elstm_native_dense_4(const elstm_native_dense_t *layer, const int16_t *x, int16_t *y)
{
    elstm_native_dense(layer, x, y, elstm_row_4);
}

void elstm_native_dense_blocks(const elstm_native_dense_t *layer, const int16_t *x, int16_t *y)
{
    elstm_native_dense(layer, x, y, elstm_row_blocks);
}
