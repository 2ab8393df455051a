/* elstm_softmax.h: softmax in integers, as each runtime computes it.
 *
 * Every function returns the codes of its namesake in softmax.py; spec: NUMERICS.md of edge-lstm.
 * Pointers must not be null and must not overlap.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_SOFTMAX_H
#define ELSTM_SOFTMAX_H

#include "elstm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Which codes are summed: ``entries`` of them, each ``x_step`` behind the one before, for every column. */
typedef struct {
    int32_t x_step;
    int32_t y_step;
    uint16_t entries; /* 1 or more */
    uint16_t columns; /* 1 or more; the first entry of the next one is the next code */
} elstm_softmax_shape_t;

/* 8 bits, profiles tflm and native; at most 511 entries. */
typedef struct {
    elstm_softmax_shape_t shape;
    elstm_requantizer_t scale; /* to Q5.26, without the rounding to the right; shift is 0 .. 31 */
    int32_t lowest;            /* a difference below it counts as minus infinity */
} elstm_softmax_fixed_t;

/* 8 bits, profiles litert and tflite: float32 numbers significand * 2**exponent. */
typedef struct {
    elstm_softmax_shape_t shape;
    const int32_t *significands; /* [256]: exp of 0, -1, -2 ... input codes; 0 or 2**23 .. 2**24 - 1 */
    const int16_t *exponents;    /* [256], -200 .. -23 */
} elstm_softmax_float_t;

/* 16 bits. */
typedef struct {
    elstm_softmax_shape_t shape;
    elstm_requantizer_t scale;  /* to 10 / 65535; shift is at most 15 */
    const int16_t *exponential; /* [513], Q0.15: exp over -10 .. 0 */
    const int16_t *reciprocal;  /* [513], Q0.15: 1 / (1 + x) over 0 .. 1 */
} elstm_softmax_table_t;

/* Output codes have the scale 1/256 and the zero point -128, those of 16 bits are Q0.15. */
void elstm_softmax_by_polynomial(const elstm_softmax_fixed_t *layer, const int8_t *x, int8_t *y);
void elstm_softmax_by_float(const elstm_softmax_float_t *layer, const int8_t *x, int8_t *y);
void elstm_softmax_by_table(const elstm_softmax_table_t *layer, const int16_t *x, int16_t *y);

#ifdef __cplusplus
}
#endif

#endif
