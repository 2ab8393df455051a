/* elstm_features.c: features of raw samples; mirrors edge_lstm/features.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "elstm_features.h"
#include "elstm_features_rows.h"

#include <stddef.h>

enum { COEFFICIENT_BITS = 30, OUTPUT_FRACTION = 4 };

uint16_t elstm_square_root_32(uint32_t x)
{
    uint32_t root = 0;
    uint32_t bit = (uint32_t)1 << 30;
    while (bit > x) {
        bit >>= 2;
    }
    for (; bit != 0u; bit >>= 2) {
        const uint32_t sum = root + bit;
        root >>= 1;
        if (x >= sum) {
            x -= sum;
            root += bit;
        }
    }
    return (uint16_t)root;
}

uint32_t elstm_square_root_64(uint64_t x)
{
    if (x >> 32 == 0u) {
        return elstm_square_root_32((uint32_t)x);
    }
    uint64_t root = 0;
    uint64_t bit = (uint64_t)1 << 62;
    while (bit > x) {
        bit >>= 2;
    }
    for (; bit != 0u; bit >>= 2) {
        const uint64_t sum = root + bit;
        root >>= 1;
        if (x >= sum) {
            x -= sum;
            root += bit;
        }
    }
    return (uint32_t)root;
}

static void elstm_features_clear(elstm_fast_state_t *state)
{
    state->squares = 0;
    state->cubes = 0;
    state->fourths[0] = 0;
    state->fourths[1] = 0;
    state->total = 0;
    state->low = INT16_MAX;
    state->high = INT16_MIN;
}

void elstm_features_reset(const elstm_features_t *features, const elstm_features_memory_t *memory,
                          elstm_features_progress_t *progress)
{
    elstm_band_state_t *band = memory->bands;
    for (uint8_t channel = 0; channel < features->fast_count; channel++) {
        elstm_features_clear(&memory->fast[channel]);
        for (uint8_t left = features->fast[channel].band_count; left > 0u; left--) {
            static const elstm_band_state_t silent = {0, {{0, 0}, {0, 0}}, {0, 0}};
            *band++ = silent;
        }
    }
    int32_t *past = memory->past;
    for (uint8_t channel = 0; channel < features->slow_count; channel++) {
        memory->slow[channel].latest = ELSTM_MISSING;
        memory->slow[channel].place = 0;
        for (uint16_t left = features->slow[channel].depth; left > 0u; left--) {
            *past++ = ELSTM_MISSING;
        }
    }
    progress->count = 0;
    progress->started = 0;
}

#if defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__)
/* a * b where products have 32 bits: of 16-bit halves; no sum of one product and 16 bits leaves 32 bits. */
static inline int64_t elstm_product(int32_t a, int32_t b)
{
    const int32_t p = a >> 16, r = b >> 16;
    const uint32_t q = (uint32_t)a & 0xffffu, s = (uint32_t)b & 0xffffu;
    const uint32_t low = q * s;
    const int32_t t = p * (int32_t)s + (int32_t)(low >> 16);
    const int32_t u = (int32_t)q * r + (t & 0xffff);
    const int32_t high = p * r + (t >> 16) + (u >> 16);
    return (int64_t)(((uint64_t)(uint32_t)high << 32) | ((uint32_t)u << 16) | (low & 0xffffu));
}
#else
static inline int64_t elstm_product(int32_t a, int32_t b)
{
    return (int64_t)a * (int64_t)b;
}
#endif

/* |terms| <= 2**60 each: difference < 2**30, gain <= 2**30; y < 2**29, back[0] < 2**31, back[1] < 2**30. */
static inline int32_t elstm_section(const elstm_section_t *section, int32_t *y, int32_t *rest,
                                    int32_t difference)
{
    const int64_t acc = elstm_product(section->gain, difference) + elstm_product(section->back[0], y[0]) +
                        elstm_product(section->back[1], y[1]) + (int64_t)*rest;
    *rest = (int32_t)((uint32_t)acc & (((uint32_t)1 << COEFFICIENT_BITS) - 1u));
    y[1] = y[0];
    y[0] = (int32_t)(acc >> COEFFICIENT_BITS);
    return y[0];
}

/* step: the sample less that two samples ago. */
static inline void elstm_filter(const elstm_band_t *band, elstm_band_state_t *state, int32_t step)
{
    const int32_t before = state->y[0][1];
    const int32_t first = elstm_section(&band->section[0], state->y[0], &state->rest[0],
                                        step * ((int32_t)1 << band->fraction));
    const int32_t y = elstm_section(&band->section[1], state->y[1], &state->rest[1], first - before);
    const uint8_t down = (uint8_t)(band->fraction - OUTPUT_FRACTION);
    const int32_t z = (y + ((int32_t)1 << (down - 1u))) >> down;
    state->squares += (uint64_t)elstm_product(z, z);
}

static inline void elstm_add_powers(elstm_fast_state_t *state, uint8_t powers, int16_t sample)
{
    const int32_t x = sample;
    state->total += x; /* 65535 * 2**15 < 2**31 */
    if (powers >= ELSTM_SQUARES) {
        const int32_t square = x * x;
        state->squares += (uint32_t)square;
        if (powers == ELSTM_FOURTHS) {
            const uint64_t fourth = (uint64_t)elstm_product(square, square);
            state->cubes += elstm_product(x, square);
            state->fourths[0] += (uint32_t)fourth;
            state->fourths[1] += (uint32_t)(fourth >> 32);
        }
    }
    if (sample < state->low) {
        state->low = sample;
    }
    if (sample > state->high) {
        state->high = sample;
    }
}

/* Write the row and begin the next one. */
static void elstm_features_row(const elstm_features_t *features, const elstm_features_memory_t *memory,
                               int32_t *row)
{
    elstm_band_state_t *band = memory->bands;
    for (uint8_t index = 0; index < features->fast_count; index++) {
        const elstm_fast_t *channel = &features->fast[index];
        row = elstm_fast_columns(channel, &memory->fast[index], band, features->hop, row);
        elstm_features_clear(&memory->fast[index]);
        for (uint8_t left = channel->band_count; left > 0u; left--) {
            band->squares = 0;
            band++;
        }
    }
    int32_t *past = memory->past;
    for (uint8_t index = 0; index < features->slow_count; index++) {
        const elstm_slow_t *channel = &features->slow[index];
        elstm_slow_state_t *state = &memory->slow[index];
        const elstm_ring_t ring = {past, channel->depth, state->place};
        past[state->place] = state->latest;
        row = elstm_slow_columns(channel, &ring, row);
        state->latest = ELSTM_MISSING;
        state->place = (uint16_t)(state->place + 1u < channel->depth ? state->place + 1u : 0u);
        past += channel->depth;
    }
}

/* Take one sample of a fast channel; returns the state behind those of its bands. */
static inline elstm_band_state_t *elstm_take(const elstm_fast_t *channel, elstm_fast_state_t *state,
                                             elstm_band_state_t *band, int16_t sample)
{
    const int32_t step = (int32_t)sample - (int32_t)state->past[1];
    elstm_add_powers(state, channel->powers, sample);
    for (uint8_t index = 0; index < channel->band_count; index++) {
        elstm_filter(&channel->bands[index], band, step);
        band++;
    }
    state->past[1] = state->past[0];
    state->past[0] = sample;
    return band;
}

uint8_t elstm_features_push(const elstm_features_t *features, const elstm_features_memory_t *memory,
                            elstm_features_progress_t *progress, const int16_t *sample, const int32_t *slow,
                            int32_t *row)
{
    elstm_band_state_t *band = memory->bands;
    for (uint8_t channel = 0; channel < features->fast_count; channel++) {
        elstm_fast_state_t *state = &memory->fast[channel];
        if (progress->started == 0u) { /* the first sample counts as what came before it */
            state->past[0] = sample[channel];
            state->past[1] = sample[channel];
        }
        band = elstm_take(&features->fast[channel], state, band, sample[channel]);
    }
    for (uint8_t channel = 0; slow != NULL && channel < features->slow_count; channel++) {
        if (slow[channel] != ELSTM_MISSING) {
            memory->slow[channel].latest = slow[channel];
        }
    }
    progress->started = 1;
    progress->count++;
    if (progress->count < features->hop) {
        return 0;
    }
    progress->count = 0;
    elstm_features_row(features, memory, row);
    return 1;
}
