/* elstm_native.h: layers of profile native: one accumulator a gate, one scale a row, three ways to store weights.
 *
 * Every function returns the codes of its Python namesake; spec: NUMERICS.md, 10, of edge-lstm.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_NATIVE_H
#define ELSTM_NATIVE_H

#include "elstm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows of weights lie one after another in the order of use.
 * _8: a byte a weight.
 * _4: two weights a byte, the first in the low half; a row of an odd number ends with an unused half.
 * _blocks: the number of blocks, then for each its place (columns / 4) and its four weights, fewer at the row's end.
 */

/* One LSTM layer; gates in the order i, f, g, o. */
typedef struct {
    const int8_t *weights;                   /* [units][gate]: a row over the features, then one over the units */
    const int32_t *bias;                     /* [units][gate] */
    const elstm_requantizer_t *requantizers; /* [units][gate], to Q3.12 */
    uint16_t features;
    uint16_t units;
    int16_t cell_clip;    /* the cell is kept within -cell_clip .. cell_clip; 0: no clip */
    int8_t cell_power;    /* the cell's scale is 2**cell_power, -15 .. -9 */
    uint8_t hidden_shift; /* from Q0.30 to hidden codes, 15 .. 21 */
} elstm_native_lstm_t;

/* One dense layer whose sums fit 32 bits. */
typedef struct {
    const int8_t *weights;                   /* [outputs]: a row over the features */
    const int32_t *bias;                     /* [outputs] */
    const elstm_requantizer_t *requantizers; /* [outputs], multiplier * 2**(shift - 15), shift is -40 .. 7 */
    uint16_t features;
    uint16_t outputs;
    int16_t minimum;
} elstm_native_dense_t;

/* Set the state after power-on.  hidden: [units], cell: [units]. */
void elstm_native_lstm_reset(const elstm_native_lstm_t *layer, int16_t *hidden, int16_t *cell);

/* One time step.  x: [features], hidden: [units] of the step before, next: [units], the new hidden codes and
 * the layer's output; cell: [units], updated in place.
 */
void elstm_native_lstm_step_8(const elstm_native_lstm_t *layer, const int16_t *x, const int16_t *hidden,
                              int16_t *next, int16_t *cell);
void elstm_native_lstm_step_4(const elstm_native_lstm_t *layer, const int16_t *x, const int16_t *hidden,
                              int16_t *next, int16_t *cell);
void elstm_native_lstm_step_blocks(const elstm_native_lstm_t *layer, const int16_t *x, const int16_t *hidden,
                                   int16_t *next, int16_t *cell);

/* x: [features], y: [outputs]. */
void elstm_native_dense_4(const elstm_native_dense_t *layer, const int16_t *x, int16_t *y);
void elstm_native_dense_blocks(const elstm_native_dense_t *layer, const int16_t *x, int16_t *y);

#ifdef __cplusplus
}
#endif

#endif
