/* elstm_batch.h: LSTM and dense layers of 8-bit codes over ELSTM_LANES independent streams at a time; for
 * hosts with GCC or Clang, not part of an export.
 *
 * Cost: four rows x two columns take 13 instructions for each vector of lanes: 0.1 a product with 64 bytes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_BATCH_H
#define ELSTM_BATCH_H

#include "elstm_lanes.h"
#include "elstm_lstm.h"

/* Unrolled, so that sums stay in registers. */
#define ELSTM_FOR_VECTORS_OF_FOUR                                                                            \
    ELSTM_UNROLL(GCC unroll 4) for (uint8_t row = 0; row < 4u; row++)                                        \
        ELSTM_UNROLL(GCC unroll 4) for (uint8_t k = 0; k < ELSTM_VECTORS; k++)
#define ELSTM_PAIRS(columns) (((columns) + 1u) / 2u)

/* Two columns of codes or weights in a word, the first in the lower half; 0 behind an odd number of columns.
 * Codes: elstm_lanes_t, a word a stream.  Weights: elstm_four_t, a word for each of four rows.
 */
typedef struct {
    int32_t row[4];
} elstm_four_t;

ELSTM_KERNEL int32_t elstm_pair(int32_t first, int32_t second)
{
    return elstm_wrap_32(((uint32_t)first & 65535u) | (uint32_t)second << 16);
}

/* Four rows from the order of elstm_four_rows; returns the weights after these. */
ELSTM_KERNEL const int8_t *elstm_batch_weights(elstm_four_t *fours, const int8_t *weights, uint16_t columns)
{
    const uint16_t left = columns & 3u;
    for (uint16_t column = 0; column < columns - left; column = (uint16_t)(column + 2u)) {
        for (uint8_t row = 0; row < 4u; row++) {
            const int8_t *const two = weights + 4u * row + (column & 2u);
            fours->row[row] = elstm_pair(two[0], two[1]);
        }
        fours++;
        weights += (column & 2u) * 8u;
    }
    for (uint16_t column = 0; column < left; column = (uint16_t)(column + 2u)) {
        for (uint8_t row = 0; row < 4u; row++) {
            fours->row[row] = elstm_pair(weights[row], left - column > 1 ? weights[row + 4u] : 0);
        }
        fours++;
        weights += left - column > 1 ? 8 : 4;
    }
    return weights;
}

/* All weights of a layer; fours: [units][pairs of features, then of units]. */
static inline void elstm_batch_lstm_weights(const elstm_lstm_t *layer, elstm_four_t *fours)
{
    const int8_t *weights = layer->weights;
    for (uint16_t unit = 0; unit < layer->units; unit++) {
        weights = elstm_batch_weights(fours, weights, layer->features);
        fours += ELSTM_PAIRS(layer->features);
        weights = elstm_batch_weights(fours, weights, layer->units);
        fours += ELSTM_PAIRS(layer->units);
    }
}

/* As above; fours: [outputs / 4, rounded up][pairs of features], 0 for rows behind the last. */
static inline void elstm_batch_dense_weights(const elstm_dense_t *layer, elstm_four_t *fours)
{
    const int8_t *weights = layer->weights;
    for (uint16_t four = 0; four < layer->outputs / 4u; four++) {
        weights = elstm_batch_weights(fours, weights, layer->features);
        fours += ELSTM_PAIRS(layer->features);
    }
    const uint16_t left = layer->outputs & 3u;
    memset(fours, 0, left != 0u ? ELSTM_PAIRS(layer->features) * sizeof *fours : 0u);
    for (uint16_t row = 0; row < left; row++) {
        for (uint16_t column = 0; column < layer->features; column = (uint16_t)(column + 2u)) {
            const int8_t *const two = weights + column;
            fours[column / 2u].row[row] = elstm_pair(two[0], column + 1u < layer->features ? two[1] : 0);
        }
        weights += layer->features;
    }
}

/* bias + four rows . x; rows: those that there are, 1 .. 4. */
ELSTM_KERNEL void elstm_batch_four_rows(elstm_lanes_t y[4], const int32_t *bias, uint8_t rows,
                                        const elstm_four_t *fours, const elstm_lanes_t *x, uint16_t columns)
{
    elstm_vector_t sum[4][ELSTM_VECTORS];
    ELSTM_FOR_VECTORS_OF_FOUR {
        sum[row][k] = (elstm_vector_t){0} + (row < rows ? bias[row] : 0);
    }
    for (const elstm_lanes_t *const end = x + ELSTM_PAIRS(columns); x != end; x++) {
        const elstm_vector_t *const codes = (const elstm_vector_t *)x;
        ELSTM_FOR_VECTORS_OF_FOUR {
            sum[row][k] += (elstm_vector_t)ELSTM_HALVES(codes[k], fours->row[row]);
        }
        fours++;
    }
    ELSTM_FOR_VECTORS_OF_FOUR {
        ((elstm_vector_t *)&y[row])[k] = sum[row][k];
    }
}

/* One column of codes, after the one before it. */
ELSTM_KERNEL void elstm_batch_put(elstm_lanes_t *y, uint16_t column, const elstm_lanes_t *codes)
{
    y += column / 2u;
    if ((column & 1u) == 0u) {
        ELSTM_FOR_LANES {
            y->lane[lane] = codes->lane[lane] & 65535;
        }
    } else {
        ELSTM_FOR_LANES {
            y->lane[lane] |= elstm_wrap_32((uint32_t)codes->lane[lane] << 16);
        }
    }
}

/* A row of each of ``streams`` streams, which lie ``stride`` codes apart; further lanes repeat the last. */
ELSTM_KERNEL void elstm_batch_read(elstm_lanes_t *y, const int8_t *x, size_t stride, uint16_t columns,
                                   uint32_t streams)
{
    for (uint8_t lane = 0; lane < ELSTM_LANES; lane++) {
        for (uint16_t column = 0; column < columns; column = (uint16_t)(column + 2u)) {
            const int32_t second = column + 1u < columns ? x[column + 1u] : 0;
            y[column / 2u].lane[lane] = elstm_pair(x[column], second);
        }
        x += lane + 1u < streams ? stride : 0u;
    }
}

ELSTM_KERNEL void elstm_batch_write(int8_t *y, const elstm_lanes_t *x, size_t stride, uint16_t columns,
                                    uint32_t streams)
{
    for (uint8_t lane = 0; lane < ELSTM_LANES && lane < streams; lane++) {
        for (uint16_t column = 0; column < columns; column++) {
            y[column] = (int8_t)(x[column / 2u].lane[lane] >> ((column & 1u) * 16u));
        }
        y += stride;
    }
}

static inline void elstm_batch_lstm_reset(const elstm_lstm_t *layer, elstm_lanes_t *hidden,
                                          elstm_lanes_t *cell)
{
    elstm_lanes_t codes;
    ELSTM_FOR_LANES {
        codes.lane[lane] = layer->hidden_zero_point;
    }
    for (uint16_t unit = 0; unit < layer->units; unit++) {
        elstm_batch_put(hidden, unit, &codes);
    }
    memset(cell, 0, layer->units * sizeof *cell);
}

/* One time step of every stream; see elstm_lstm_step_tflm. */
ELSTM_KERNEL void elstm_batch_lstm(const elstm_lstm_t *layer, const elstm_four_t *fours,
                                   const elstm_lanes_t *x, const elstm_lanes_t *hidden, elstm_lanes_t *next,
                                   elstm_lanes_t *cell, elstm_update_t *update)
{
    const int32_t *bias = layer->bias;
    for (uint16_t unit = 0; unit < layer->units; unit++) {
        elstm_sums_of_gates_t sums;
        elstm_lanes_t codes;
        elstm_batch_four_rows(sums.input, bias, GATES, fours, x, layer->features);
        fours += ELSTM_PAIRS(layer->features);
        elstm_batch_four_rows(sums.recurrent, bias + GATES, GATES, fours, hidden, layer->units);
        fours += ELSTM_PAIRS(layer->units);
        update(layer, &sums, &cell[unit], &codes);
        elstm_batch_put(next, unit, &codes);
        bias += 2 * GATES;
    }
}

/* How a profile requantizes the sums of a dense layer. */
typedef void elstm_scaling_lanes_t(elstm_lanes_t *x, elstm_requantizer_t r);

ELSTM_KERNEL void elstm_scale_tflm(elstm_lanes_t *x, elstm_requantizer_t r)
{
    elstm_requantize_lanes(x, r);
}

ELSTM_KERNEL void elstm_scale_litert(elstm_lanes_t *x, elstm_requantizer_t r)
{
    ELSTM_FOR_LANES {
        x->lane[lane] = elstm_requantize_float(x->lane[lane], r);
    }
}

ELSTM_KERNEL void elstm_scale_tflite(elstm_lanes_t *x, elstm_requantizer_t r)
{
    ELSTM_FOR_LANES {
        x->lane[lane] = elstm_requantize_ties_up(x->lane[lane], r);
    }
}

/* y: [outputs], at least minimum, of x: [features]; see elstm_dense. */
ELSTM_KERNEL void elstm_batch_dense(const elstm_dense_t *layer, const elstm_four_t *fours,
                                    const elstm_lanes_t *x, elstm_lanes_t *y, int8_t minimum,
                                    elstm_scaling_lanes_t *scale)
{
    for (uint16_t first = 0; first < layer->outputs; first = (uint16_t)(first + 4u)) {
        const uint16_t left = (uint16_t)(layer->outputs - first);
        const uint8_t rows = left < 4u ? (uint8_t)left : (uint8_t)4;
        elstm_lanes_t sum[4];
        elstm_batch_four_rows(sum, layer->bias + first, rows, fours, x, layer->features);
        fours += ELSTM_PAIRS(layer->features);
        for (uint8_t row = 0; row < rows; row++) {
            scale(&sum[row], layer->requantizers[layer->per_row != 0u ? first + row : 0]);
            ELSTM_FOR_LANES {
                const int32_t code = elstm_code(sum[row].lane[lane], layer->output_zero_point);
                sum[row].lane[lane] = code < minimum ? minimum : code;
            }
            elstm_batch_put(y, (uint16_t)(first + row), &sum[row]);
        }
    }
}

#endif
