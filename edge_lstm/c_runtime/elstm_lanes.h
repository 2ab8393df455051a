/* elstm_lanes.h: an LSTM's step of ELSTM_LANES units at a time, for processors with vectors of int32: gates,
 * activations and cells are loops over lanes that a compiler vectorizes.  A lane is a unit, or a stream of
 * elstm_batch.h.  Internal to the runtime.
 *
 * Cost without the sums: about 350 instructions for 16 units with vectors of 64 bytes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_LANES_H
#define ELSTM_LANES_H

#include "elstm_activations.h"
#include <string.h>

#define ELSTM_LANES 16
#ifdef __clang__
#define ELSTM_UNROLL(times)
#else
#define ELSTM_UNROLL(times) _Pragma(#times)
#endif
/* GCC would unroll the loop before it could vectorize it. */
#define ELSTM_FOR_LANES ELSTM_UNROLL(GCC unroll 1) for (uint8_t lane = 0; lane < ELSTM_LANES; lane++)

/* What compilers do not find by themselves: 64-bit products of the even lanes; the even lanes of a with the
 * odd ones of b; 32 bits each from a table of 16 bits; the lower halves' product plus that of the upper ones.
 */
#if defined(__AVX512BW__)
#include <immintrin.h>
#define ELSTM_VECTOR_BYTES 64
#define ELSTM_EVEN_PRODUCTS(a, b) _mm512_mul_epi32((__m512i)(a), _mm512_set1_epi32(b))
#define ELSTM_MERGE(a, b) _mm512_mask_blend_epi32(0xAAAA, (__m512i)(a), (__m512i)(b))
#define ELSTM_GATHER(table, index) _mm512_i32gather_epi32((__m512i)(index), table, 2)
#define ELSTM_HALVES(a, b) _mm512_madd_epi16((__m512i)(a), _mm512_set1_epi32(b))
#elif defined(__AVX2__)
#include <immintrin.h>
#define ELSTM_VECTOR_BYTES 32
#define ELSTM_EVEN_PRODUCTS(a, b) _mm256_mul_epi32((__m256i)(a), _mm256_set1_epi32(b))
#define ELSTM_MERGE(a, b) _mm256_blend_epi32((__m256i)(a), (__m256i)(b), 0xAA)
#define ELSTM_GATHER(table, index)                                                                           \
    _mm256_i32gather_epi32((const int *)(const void *)(table), (__m256i)(index), 2)
#define ELSTM_HALVES(a, b) _mm256_madd_epi16((__m256i)(a), _mm256_set1_epi32(b))
#elif defined(__SSE2__)
#include <emmintrin.h>
#define ELSTM_VECTOR_BYTES 16
#define ELSTM_HALVES(a, b) _mm_madd_epi16((__m128i)(a), _mm_set1_epi32(b))
#else
#define ELSTM_VECTOR_BYTES 16
#define ELSTM_LOWER(pair) ((((pair) & 65535) ^ 32768) - 32768)
#define ELSTM_HALVES(a, b) (ELSTM_LOWER(a) * ELSTM_LOWER(b) + ((a) >> 16) * ((b) >> 16))
#endif

typedef int32_t elstm_vector_t __attribute__((vector_size(ELSTM_VECTOR_BYTES), may_alias, aligned(4)));
typedef uint64_t elstm_products_t __attribute__((vector_size(ELSTM_VECTOR_BYTES)));
enum { ELSTM_VECTORS = ELSTM_LANES * 4 / ELSTM_VECTOR_BYTES };

/* One int32 a lane. */
typedef struct {
    int32_t lane[ELSTM_LANES];
} __attribute__((aligned(64))) elstm_lanes_t;

/* elstm_high_multiply of each lane; even and odd lanes are multiplied apart. */
ELSTM_KERNEL void elstm_high_multiply_lanes(elstm_lanes_t *x, int32_t multiplier)
{
#ifdef ELSTM_EVEN_PRODUCTS
    elstm_vector_t *const y = (elstm_vector_t *)x;
    for (uint8_t k = 0; k < ELSTM_VECTORS; k++) {
        const elstm_products_t halves = (elstm_products_t)y[k];
        const elstm_products_t even = (elstm_products_t)ELSTM_EVEN_PRODUCTS(halves, multiplier) + (1u << 30);
        const elstm_products_t odd =
            (elstm_products_t)ELSTM_EVEN_PRODUCTS(halves >> 32, multiplier) + (1u << 30);
        y[k] = (elstm_vector_t)ELSTM_MERGE(even >> 31, odd << 1);
    }
#else
    ELSTM_FOR_LANES {
        x->lane[lane] = elstm_high_multiply(x->lane[lane], multiplier);
    }
#endif
}

/* elstm_requantize of each lane. */
ELSTM_KERNEL void elstm_requantize_lanes(elstm_lanes_t *x, elstm_requantizer_t r)
{
    if (r.shift > 0) {
        ELSTM_FOR_LANES {
            x->lane[lane] = elstm_wrap_32((uint32_t)x->lane[lane] << (uint8_t)r.shift);
        }
    }
    elstm_high_multiply_lanes(x, r.multiplier);
    if (r.shift < 0) {
        ELSTM_FOR_LANES {
            x->lane[lane] = elstm_rounding_shift(x->lane[lane], (uint8_t)-r.shift);
        }
    }
}

/* elstm_interpolate of each lane. */
ELSTM_KERNEL void elstm_interpolate_lanes(elstm_lanes_t *x, uint8_t bits)
{
    elstm_lanes_t pair; /* an entry in the lower half, the next one in the upper */
#ifdef ELSTM_GATHER
    for (uint8_t k = 0; k < ELSTM_VECTORS; k++) {
        ((elstm_vector_t *)&pair)[k] =
            (elstm_vector_t)ELSTM_GATHER(elstm_sigmoid_table + 256, ((elstm_vector_t *)x)[k] >> bits);
    }
#else
    ELSTM_FOR_LANES {
        const uint16_t *const entry = elstm_sigmoid_table + 256 + (x->lane[lane] >> bits);
        pair.lane[lane] = elstm_wrap_32((uint32_t)entry[0] | (uint32_t)entry[1] << 16);
    }
#endif
    ELSTM_FOR_LANES {
        const int32_t weight = (int32_t)((uint32_t)x->lane[lane] & (((uint32_t)1 << bits) - 1u));
        const int32_t left = pair.lane[lane] & 65535, right = (int32_t)((uint32_t)pair.lane[lane] >> 16);
        x->lane[lane] = (left << bits) + weight * (right - left);
    }
}

/* elstm_sigmoid_by_table of Q3.12. */
ELSTM_KERNEL void elstm_sigmoid_lanes(elstm_lanes_t *x)
{
    elstm_lanes_t argument;
    ELSTM_FOR_LANES {
        argument.lane[lane] = x->lane[lane] = elstm_table_argument(x->lane[lane], 0);
    }
    elstm_interpolate_lanes(x, 9);
    ELSTM_FOR_LANES {
        x->lane[lane] = (x->lane[lane] + 512 + (argument.lane[lane] >> 31)) >> 10;
    }
}

/* elstm_tanh_by_table. */
ELSTM_KERNEL void elstm_tanh_lanes(elstm_lanes_t *x, int8_t shift)
{
    elstm_lanes_t argument;
    ELSTM_FOR_LANES {
        argument.lane[lane] = x->lane[lane] = elstm_saturate_17(elstm_table_argument(x->lane[lane], shift));
    }
    elstm_interpolate_lanes(x, 8);
    ELSTM_FOR_LANES {
        x->lane[lane] = (x->lane[lane] - (((int32_t)1 << 23) - 128) + (argument.lane[lane] >> 31)) >> 8;
    }
}

/* The sums of the gates' terms, bias included. */
typedef struct {
    elstm_lanes_t input[GATES], recurrent[GATES];
} elstm_sums_of_gates_t;

/* Cell codes in place and hidden codes from the sums, which are lost. */
typedef void elstm_update_t(const elstm_lstm_t *layer, elstm_sums_of_gates_t *sums, elstm_lanes_t *cell,
                            elstm_lanes_t *hidden);

/* hidden: tanh of the cell, then the hidden codes. */
ELSTM_KERNEL void elstm_hidden_lanes(const elstm_lstm_t *layer, const elstm_lanes_t *o, elstm_lanes_t *hidden)
{
    ELSTM_FOR_LANES {
        hidden->lane[lane] *= o->lane[lane];
    }
    elstm_requantize_lanes(hidden, layer->hidden);
    ELSTM_FOR_LANES {
        hidden->lane[lane] = elstm_code(hidden->lane[lane], layer->hidden_zero_point);
    }
}

ELSTM_KERNEL elstm_lanes_t *elstm_gate_tflm(const elstm_lstm_t *layer, elstm_sums_of_gates_t *sums,
                                            uint8_t gate)
{
    elstm_lanes_t *const a = &sums->input[gate], *const b = &sums->recurrent[gate];
    elstm_requantize_lanes(a, layer->input[gate]);
    elstm_requantize_lanes(b, layer->recurrent[gate]);
    ELSTM_FOR_LANES {
        a->lane[lane] =
            elstm_combine_tflm(elstm_saturate_16(a->lane[lane]), elstm_saturate_16(b->lane[lane]));
    }
    return a;
}

ELSTM_KERNEL void elstm_update_tflm(const elstm_lstm_t *layer, elstm_sums_of_gates_t *sums,
                                    elstm_lanes_t *cell, elstm_lanes_t *hidden)
{
    elstm_lanes_t *const i = elstm_gate_tflm(layer, sums, GATE_I);
    elstm_lanes_t *const f = elstm_gate_tflm(layer, sums, GATE_F);
    elstm_lanes_t *const g = elstm_gate_tflm(layer, sums, GATE_G);
    elstm_lanes_t *const o = elstm_gate_tflm(layer, sums, GATE_O);
    elstm_sigmoid_lanes(i);
    elstm_sigmoid_lanes(f);
    elstm_tanh_lanes(g, 0);
    elstm_sigmoid_lanes(o);
    ELSTM_FOR_LANES {
        cell->lane[lane] = hidden->lane[lane] =
            elstm_update_cell_tflm(cell->lane[lane], i->lane[lane], f->lane[lane], g->lane[lane],
                                   layer->cell_power, layer->cell_clip);
    }
    elstm_tanh_lanes(hidden, (int8_t)(12 + layer->cell_power));
    elstm_hidden_lanes(layer, o, hidden);
}

ELSTM_KERNEL elstm_lanes_t *elstm_gate_litert(const elstm_lstm_t *layer, elstm_sums_of_gates_t *sums,
                                              uint8_t gate)
{
    elstm_lanes_t *const a = &sums->input[gate], *const b = &sums->recurrent[gate];
    elstm_requantize_lanes(a, layer->input[gate]);
    elstm_requantize_lanes(b, layer->recurrent[gate]);
    ELSTM_FOR_LANES {
        a->lane[lane] = elstm_combine_litert(elstm_saturate_16(a->lane[lane]), b->lane[lane]);
    }
    return a;
}

ELSTM_KERNEL void elstm_update_litert(const elstm_lstm_t *layer, elstm_sums_of_gates_t *sums,
                                      elstm_lanes_t *cell, elstm_lanes_t *hidden)
{
    const uint8_t integer_bits = (uint8_t)(15 + layer->cell_power);
    elstm_lanes_t *const i = elstm_gate_litert(layer, sums, GATE_I);
    elstm_lanes_t *const f = elstm_gate_litert(layer, sums, GATE_F);
    elstm_lanes_t *const g = elstm_gate_litert(layer, sums, GATE_G);
    elstm_lanes_t *const o = elstm_gate_litert(layer, sums, GATE_O);
    ELSTM_FOR_LANES {
        i->lane[lane] = elstm_sigmoid_by_polynomial(i->lane[lane]);
        f->lane[lane] = elstm_sigmoid_by_polynomial(f->lane[lane]);
        g->lane[lane] = elstm_tanh_by_polynomial(g->lane[lane], 3);
        o->lane[lane] = elstm_sigmoid_by_polynomial(o->lane[lane]);
        cell->lane[lane] = elstm_update_cell_litert(cell->lane[lane], i->lane[lane], f->lane[lane],
                                                    g->lane[lane], layer->cell_power, layer->cell_clip);
        hidden->lane[lane] = elstm_tanh_by_polynomial(cell->lane[lane], integer_bits);
    }
    elstm_hidden_lanes(layer, o, hidden);
}

/* The sums of one unit's four gates in its lane. */
ELSTM_KERNEL const int8_t *elstm_sum_gates(elstm_lanes_t sums[GATES], uint8_t lane, const int32_t bias[GATES],
                                           const int8_t *weights, const int8_t *codes, uint16_t columns)
{
    int32_t sum[GATES] = {bias[GATE_I], bias[GATE_F], bias[GATE_G], bias[GATE_O]};
    weights = elstm_four_rows(sum, weights, codes, columns);
    for (uint8_t gate = 0; gate < GATES; gate++) {
        sums[gate].lane[lane] = sum[gate];
    }
    return weights;
}

/* One time step, see elstm_lstm.h; idle lanes of the last units compute what nobody reads. */
#define ELSTM_HAS_LSTM_STEP_TFLM
ELSTM_KERNEL void elstm_lstm_step_tflm(const elstm_lstm_t *layer, const int8_t *x, const int8_t *hidden,
                                       int8_t *next, int16_t *cell)
{
    const int8_t *weights = layer->weights;
    const int32_t *bias = layer->bias;
    for (uint16_t first = 0; first < layer->units; first = (uint16_t)(first + ELSTM_LANES)) {
        const uint16_t left = (uint16_t)(layer->units - first);
        const uint8_t count = left < ELSTM_LANES ? (uint8_t)left : (uint8_t)ELSTM_LANES;
        elstm_sums_of_gates_t sums;
        elstm_lanes_t cells = {{0}}, codes;
        memset(&sums, 0, sizeof sums);
        for (uint8_t lane = 0; lane < count; lane++) {
            weights = elstm_sum_gates(sums.input, lane, bias, weights, x, layer->features);
            weights = elstm_sum_gates(sums.recurrent, lane, bias + GATES, weights, hidden, layer->units);
            cells.lane[lane] = cell[first + lane];
            bias += 2 * GATES;
        }
        elstm_update_tflm(layer, &sums, &cells, &codes);
        for (uint8_t lane = 0; lane < count; lane++) {
            cell[first + lane] = (int16_t)cells.lane[lane];
            next[first + lane] = (int8_t)codes.lane[lane];
        }
    }
}

#endif
