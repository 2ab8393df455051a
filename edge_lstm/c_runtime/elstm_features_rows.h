/* elstm_features_rows.h: the columns of a row, from sums and rings; internal to the runtime.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_FEATURES_ROWS_H
#define ELSTM_FEATURES_ROWS_H

#include "elstm_features.h"

enum { ELSTM_CENTRAL_BITS = 31 };

#define ELSTM_SAMPLE_OFFSET ((int32_t)32768)
#define ELSTM_DEVIATION_LIMIT ((int64_t)1 << 24)

/* An integer of 96 bits, two's complement: high * 2**32 + low. */
typedef struct {
    uint64_t high;
    uint32_t low;
} elstm_wide_t;

/* x * factor, modulo 2**96. */
static elstm_wide_t elstm_wide_multiply(elstm_wide_t x, int32_t factor)
{
    const int64_t low = (int64_t)(uint64_t)x.low * (int64_t)factor;
    elstm_wide_t product;
    product.high = x.high * (uint64_t)(int64_t)factor + (uint64_t)(low >> 32);
    product.low = (uint32_t)((uint64_t)low & UINT32_MAX);
    return product;
}

static elstm_wide_t elstm_wide_add(elstm_wide_t a, elstm_wide_t b)
{
    elstm_wide_t sum;
    sum.low = a.low + b.low;
    sum.high = a.high + b.high + (sum.low < a.low ? 1u : 0u);
    return sum;
}

static elstm_wide_t elstm_wide_of(int64_t x)
{
    elstm_wide_t wide;
    wide.high = (uint64_t)(x >> 32);
    wide.low = (uint32_t)((uint64_t)x & UINT32_MAX);
    return wide;
}

/* The mean in 1/16, ties up. */
static int32_t elstm_mean(const elstm_fast_state_t *state, uint16_t hop)
{
    const uint64_t total = (uint64_t)((int64_t)state->total + (int64_t)ELSTM_SAMPLE_OFFSET * (int64_t)hop);
    return (int32_t)((16u * total + (uint64_t)(hop >> 1)) / hop) - 16 * ELSTM_SAMPLE_OFFSET;
}

/* The sum of (16 x - mean)**2, below 2**56. */
static uint64_t elstm_central(const elstm_fast_state_t *state, int32_t mean, uint16_t hop)
{
    return (uint64_t)((int64_t)(256u * state->squares) - 32 * (int64_t)mean * (int64_t)state->total +
                      (int64_t)hop * ((int64_t)mean * (int64_t)mean));
}

/* The sum of (16 x - mean)**4, below 2**96, by Horner's rule; the inner polynomial is within 2**59. */
static elstm_wide_t elstm_fourth(const elstm_fast_state_t *state, int32_t mean, uint16_t hop)
{
    const int64_t inner = ((int64_t)hop * (int64_t)mean - 64 * (int64_t)state->total) * (int64_t)mean +
                          (int64_t)(1536u * state->squares);
    const elstm_wide_t cubes = elstm_wide_multiply(elstm_wide_of(state->cubes), -16384);
    const elstm_wide_t outer = elstm_wide_add(elstm_wide_multiply(elstm_wide_of(inner), mean), cubes);
    elstm_wide_t fourths;
    fourths.high = state->fourths[1] + (state->fourths[0] >> 32);
    fourths.low = (uint32_t)(state->fourths[0] & UINT32_MAX);
    return elstm_wide_add(elstm_wide_multiply(outer, mean), elstm_wide_multiply(fourths, 65536));
}

/* x >> places of a result that 64 bits hold; places is 0 .. 50. */
static uint64_t elstm_wide_shift(elstm_wide_t x, uint8_t places)
{
    return places < 32u ? (x.high << (32u - places)) | (x.low >> places) : x.high >> (places - 32u);
}

/* Both moments are shifted until the second has 31 bits: the fourth, at most its square, then has 62. */
static int32_t elstm_kurtosis(const elstm_fast_state_t *state, int32_t mean, uint64_t central, uint16_t hop)
{
    if (central == 0u) {
        return 0;
    }
    const elstm_wide_t wide = elstm_fourth(state, mean, hop);
    uint8_t bits = 0;
    for (uint64_t left = central; left != 0u; left >>= 1) {
        bits++;
    }
    uint64_t fourth;
    if (bits >= ELSTM_CENTRAL_BITS) {
        const uint8_t places = (uint8_t)(bits - ELSTM_CENTRAL_BITS);
        central >>= places;
        fourth = elstm_wide_shift(wide, (uint8_t)(2u * places));
    } else {
        const uint8_t places = (uint8_t)(ELSTM_CENTRAL_BITS - bits);
        central <<= places;
        fourth = ((wide.high << 32) | wide.low) << (2u * places);
    }
    return (int32_t)(fourth / ((central * central / hop) >> 8));
}

static int32_t elstm_peak(const elstm_fast_state_t *state, int32_t mean)
{
    const int32_t above = 16 * (int32_t)state->high - mean;
    const int32_t below = mean - 16 * (int32_t)state->low;
    return above > below ? above : below;
}

/* The root mean square of a sum of squares. */
static int32_t elstm_root_mean(uint64_t squares, uint16_t hop)
{
    return (int32_t)elstm_square_root_64(squares / hop);
}

/* Write the columns of a fast channel; returns the place behind them. */
static int32_t *elstm_fast_columns(const elstm_fast_t *channel, const elstm_fast_state_t *state,
                                   const elstm_band_state_t *bands, uint16_t hop, int32_t *row)
{
    const int32_t mean = elstm_mean(state, hop);
    const uint64_t central = elstm_central(state, mean, hop);
    const int32_t spread = channel->powers >= ELSTM_SQUARES ? elstm_root_mean(central, hop) : 0;
    for (uint8_t index = 0; index < channel->kind_count; index++) {
        int32_t value = 0;
        switch (channel->kinds[index]) {
        case ELSTM_FAST_VALUE:
            value = state->past[0];
            break;
        case ELSTM_FAST_MEAN:
            value = mean;
            break;
        case ELSTM_FAST_RMS:
            value = elstm_root_mean(256u * state->squares, hop);
            break;
        case ELSTM_FAST_STD:
            value = spread;
            break;
        case ELSTM_FAST_PEAK:
            value = elstm_peak(state, mean);
            break;
        case ELSTM_FAST_PEAK_TO_PEAK:
            value = (int32_t)state->high - (int32_t)state->low;
            break;
        case ELSTM_FAST_CREST:
            value = spread > 0 ? 256 * elstm_peak(state, mean) / spread : 0;
            break;
        case ELSTM_FAST_KURTOSIS:
            value = elstm_kurtosis(state, mean, central, hop);
            break;
        default:
            value = elstm_root_mean(bands->squares, hop);
            bands++;
            break;
        }
        *row++ = value;
    }
    return row;
}

/* The ring of a slow channel. */
typedef struct {
    const int32_t *values;
    uint16_t depth;
    uint16_t last; /* place of the present row */
} elstm_ring_t;

/* The value some rows ago, 0 .. depth - 1. */
static int32_t elstm_ring_value(const elstm_ring_t *ring, uint16_t ago)
{
    const uint16_t place = (uint16_t)(ring->last + (ago > ring->last ? ring->depth : 0u) - ago);
    return ring->values[place];
}

/* The mean of the present values of the last rows, ties up; *count: how many there are. */
static int32_t elstm_rolling_mean(const elstm_ring_t *ring, uint16_t rows, uint16_t *count)
{
    int64_t total = 0;
    *count = 0;
    for (uint16_t ago = 0; ago < rows; ago++) {
        const int32_t value = elstm_ring_value(ring, ago);
        if (value != ELSTM_MISSING) {
            total += value;
            (*count)++;
        }
    }
    if (*count == 0u) {
        return ELSTM_MISSING;
    }
    const int64_t offset = (int64_t)1 << 31; /* makes the dividend positive */
    const uint64_t shifted = (uint64_t)(total + offset * (int64_t)*count) + (uint64_t)(*count >> 1);
    return (int32_t)((int64_t)(shifted / *count) - offset);
}

static int32_t elstm_rolling_std(const elstm_ring_t *ring, uint16_t rows)
{
    uint16_t count;
    const int32_t mean = elstm_rolling_mean(ring, rows, &count);
    if (count == 0u) {
        return ELSTM_MISSING;
    }
    uint64_t squares = 0; /* 4096 * 2**48 at most */
    int64_t rest = 0;     /* of all rows: what the rounded mean lacks, within count / 2 */
    for (uint16_t ago = 0; ago < rows; ago++) {
        const int32_t value = elstm_ring_value(ring, ago);
        if (value != ELSTM_MISSING) {
            const int64_t away = (int64_t)value - (int64_t)mean;
            const int64_t size = away < 0 ? -away : away;
            const int64_t near = size < ELSTM_DEVIATION_LIMIT ? size : ELSTM_DEVIATION_LIMIT;
            rest += away;
            squares += (uint64_t)(near * near);
        }
    }
    squares -= (uint32_t)(rest * rest) / count;
    return (int32_t)elstm_square_root_64(squares / count);
}

static int32_t elstm_difference(int32_t value, int32_t before)
{
    if (value == ELSTM_MISSING || before == ELSTM_MISSING) {
        return ELSTM_MISSING;
    }
    const int64_t change = (int64_t)value - (int64_t)before;
    if (change > (int64_t)INT32_MAX) {
        return INT32_MAX;
    }
    return change < -(int64_t)INT32_MAX ? -INT32_MAX : (int32_t)change;
}

static int32_t *elstm_slow_columns(const elstm_slow_t *channel, const elstm_ring_t *ring, int32_t *row)
{
    for (uint8_t index = 0; index < channel->feature_count; index++) {
        const elstm_slow_feature_t *feature = &channel->features[index];
        const int32_t value = elstm_ring_value(ring, 0);
        uint16_t count;
        switch (feature->kind) {
        case ELSTM_SLOW_VALUE:
            *row++ = value;
            break;
        case ELSTM_SLOW_DIFFERENCE:
            *row++ = elstm_difference(value, elstm_ring_value(ring, feature->rows));
            break;
        case ELSTM_SLOW_LAG:
            *row++ = elstm_ring_value(ring, feature->rows);
            break;
        case ELSTM_SLOW_ROLLING_MEAN:
            *row++ = elstm_rolling_mean(ring, feature->rows, &count);
            break;
        default:
            *row++ = elstm_rolling_std(ring, feature->rows);
            break;
        }
    }
    return row;
}

#endif
