/* elstm_lstm_variants.h: LSTMs beyond the plain one of 8-bit codes.
 *
 * elstm_variant_...: with coupled gates, peephole weights, layer normalization and a projection, as LiteRT
 * and tflite-runtime compute them.  elstm_lstm_16_...: of 16-bit codes, as TensorFlow Lite Micro does it.
 * Every function returns the codes of its Python namesake; spec: NUMERICS.md of edge-lstm.  Constants come
 * from an exporter that has proven that no sum can overflow; nothing is checked again here.
 * Pointers must not be null, but where a comment says so, and must not overlap.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_LSTM_VARIANTS_H
#define ELSTM_LSTM_VARIANTS_H

#include "elstm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One LSTM layer; gates in the order i, f, g, o, tables without gate i where it is coupled.
 * A gate's scale is 2**-12, or its own before it is normalized.
 */
typedef struct {
    const int8_t *kernel;           /* [units][gate][features] */
    const int8_t *recurrent_kernel; /* [units][gate][outputs] */
    const int32_t *input_bias;      /* [units][gate], the input's zero point folded in */
    const int32_t *recurrent_bias;  /* [units][gate], the hidden zero point folded in */
    const int16_t *peephole;        /* [gate i, f, o][units], or null: none */
    const int16_t *normalization;   /* [gate i, f, g, o][units], or null: none */
    const int32_t *normal_bias;     /* [gate i, f, g, o][units], or null */
    const int8_t *projection;       /* [outputs][units], or null: the outputs are the units */
    const int32_t *projection_bias; /* [outputs], the inner zero point folded in, or null */
    elstm_requantizer_t input[4];      /* of each gate, to its scale */
    elstm_requantizer_t recurrent[4];  /* of each gate, to its scale */
    elstm_requantizer_t cell[3];       /* of the peephole terms of i, f and o, to the gate's scale */
    elstm_requantizer_t normal[4];     /* of each gate's normalized values, to Q3.12 */
    elstm_requantizer_t hidden;        /* of o * tanh(c); shift is -31 .. 0 */
    elstm_requantizer_t projected;
    int32_t least_variance[4];         /* of a gate whose variance is below 1; 1 or more */
    uint16_t features;
    uint16_t units;
    uint16_t outputs;
    uint16_t ties_up;          /* the peephole terms of the first so many units round ties up */
    int16_t cell_clip;         /* the cell is kept within -cell_clip .. cell_clip; 0: no clip */
    int16_t inner_zero_point;  /* added to o * tanh(c), -128 .. 128 */
    int8_t hidden_zero_point;  /* of the hidden codes; those after a reset */
    int8_t cell_power;         /* the cell's scale is 2**cell_power, -15 .. -9 */
    int8_t projection_clip;    /* hidden codes are kept within +-projection_clip; 0: no clip */
    uint8_t coupled;           /* 1: the input gate is 1 - f */
} elstm_variant_t;

/* One LSTM layer of 16-bit codes with zero point 0; gates in the order i, f, g, o. */
typedef struct {
    const int8_t *kernel;           /* [units][gate][features] */
    const int8_t *recurrent_kernel; /* [units][gate][units] */
    const int64_t *bias;            /* [units][gate] */
    elstm_requantizer_t input[4];     /* of each gate, to Q3.12: multiplier * 2**(shift - 15), multiplier is
                                         0 .. 32767, shift is -31 .. 7 */
    elstm_requantizer_t recurrent[4]; /* as input */
    elstm_requantizer_t hidden;       /* of o * tanh(c); shift is -31 .. 0 */
    uint16_t features;
    uint16_t units;
    int16_t cell_clip;              /* the cell is kept within -cell_clip .. cell_clip; 0: no clip */
    int8_t cell_power;              /* the cell's scale is 2**cell_power, -15 .. -9 */
} elstm_lstm_16_t;

/* Set the state after power-on.  hidden: [outputs], cell: [units]. */
void elstm_variant_reset(const elstm_variant_t *layer, int8_t *hidden, int16_t *cell);

/* One time step.  x: [features], hidden: [outputs] of the step before, next: [outputs], the new hidden codes
 * and the layer's output; cell: [units], updated in place; gates: [4 * units], working memory.
 */
void elstm_variant_step(const elstm_variant_t *layer, const int8_t *x, const int8_t *hidden, int8_t *next,
                        int16_t *cell, int16_t *gates);

/* As above; hidden, next: [units]. */
void elstm_lstm_16_reset(const elstm_lstm_16_t *layer, int16_t *hidden, int16_t *cell);
void elstm_lstm_16_step(const elstm_lstm_16_t *layer, const int16_t *x, const int16_t *hidden, int16_t *next,
                        int16_t *cell);

#ifdef __cplusplus
}
#endif

#endif
