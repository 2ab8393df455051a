/* elstm_operators.h: the operators of a network beside its LSTMs, one row of codes a call.
 *
 * Every function returns the codes of its Python namesake; spec: NUMERICS.md of edge-lstm.  Constants come
 * from an exporter that has proven that no sum can overflow; nothing is checked again here.
 * Pointers must not be null and must not overlap, but where a comment says that they may be equal.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_OPERATORS_H
#define ELSTM_OPERATORS_H

#include "elstm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* left * x + right * y, divided by 2**shift. */
typedef struct {
    int16_t left;       /* +-2**0 .. 2**13 */
    int16_t right;      /* as left */
    uint8_t shift;      /* 0 .. 13 */
    uint8_t left_step;  /* 1; 0: its one feature is repeated */
    uint8_t right_step; /* as left_step */
} elstm_add_t;

/* left * right, divided by 2**shift. */
typedef struct {
    uint8_t shift;      /* 0 .. 31 */
    uint8_t left_step;  /* 1; 0: its one feature is repeated */
    uint8_t right_step; /* as left_step */
} elstm_mul_t;

/* The rows t - rows, t - rows + dilation, ... t side by side. */
typedef struct {
    uint16_t bytes;    /* of a row */
    uint16_t rows;     /* that are kept, 1 .. 32767; a multiple of dilation */
    uint16_t dilation;
} elstm_delay_t;

/* left, right: [width], or [1] where their step is 0; y: [width].  left and right may be equal. */
void elstm_add(const elstm_add_t *layer, const int16_t *left, const int16_t *right, int16_t *y, uint16_t width);
void elstm_multiply(const elstm_mul_t *layer, const int16_t *left, const int16_t *right, int16_t *y,
                    uint16_t width);

/* x: [width], Q4.11 for sigmoid and Q2.13 for tanh; y: [width], Q0.15. */
void elstm_sigmoid(const int16_t *x, int16_t *y, uint16_t width);
void elstm_tanh(const int16_t *x, int16_t *y, uint16_t width);

/* Codes below zero_point become zero_point; below 0 they are multiplied by slope, Q0.15.
 * x, y: [width], may be equal.
 */
void elstm_relu_8(const int8_t *x, int8_t *y, uint16_t width, int8_t zero_point);
void elstm_relu_16(const int16_t *x, int16_t *y, uint16_t width, int16_t zero_point);
void elstm_leaky_relu(const int16_t *x, int16_t *y, uint16_t width, elstm_requantizer_t slope);

/* x: the first of ``rows`` rows, each ``step`` codes behind the one before; y: [width], their saturated sum. */
void elstm_sum_rows(const int16_t *x, int32_t step, uint16_t rows, int16_t *y, uint16_t width);

/* Set the state before the first row: all rows before it are 0. */
void elstm_delay_reset(const elstm_delay_t *layer, void *past, uint16_t *oldest);

/* x: a row; y: [rows / dilation + 1] rows; past: [rows] rows, a ring whose oldest row is *oldest.
 * Rows are codes of 8 or of 16 bits.
 */
void elstm_delay(const elstm_delay_t *layer, const void *x, void *y, void *past, uint16_t *oldest);

/* Set every code of y: [width]. */
void elstm_fill_16(int16_t *y, uint16_t width, int16_t code);

#ifdef __cplusplus
}
#endif

#endif
