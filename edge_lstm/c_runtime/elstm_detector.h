/* elstm_detector.h: the detector, inlined where a model calls it: what its constants leave out costs nothing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_DETECTOR_H
#define ELSTM_DETECTOR_H

#include "elstm_fixed.h"
#include <string.h>

/* x >> shift where 32 bits hold the result; shift is 1 .. 63.  In words: some cores have no library for it. */
ELSTM_KERNEL int32_t elstm_shift_64(int64_t x, uint8_t shift)
{
    const int32_t high = (int32_t)(x >> 32);
    if (shift >= 32u) {
        return high >> (shift - 32u);
    }
    return elstm_wrap_32((uint32_t)x >> shift | (uint32_t)high << (32u - shift));
}

/* The fine code of one present raw integer. */
ELSTM_KERNEL int32_t elstm_fine(const elstm_scaler_t *scaler, int32_t raw)
{
    const int64_t count = elstm_clamp(raw, scaler->low, scaler->high);
    return elstm_saturate_16(elstm_shift_64(count * scaler->multiplier + scaler->bias, scaler->shift));
}

ELSTM_KERNEL int32_t elstm_rounded(int32_t fine)
{
    return elstm_rounding_shift(fine, ELSTM_FINE_BITS);
}

/* Set the state after power-on: no deviation from what is usual. */
ELSTM_KERNEL void elstm_detector_reset(const elstm_detector_t *detector, elstm_alarm_t *state,
                                       const elstm_channels_t *channels)
{
    state->score = 0;
    state->excess = detector->excess;
    state->saturated = 0;
    state->seen = 0;
    state->run = 0;
    state->alarm = 0;
    memset(channels->smoothed, 0, detector->rows * sizeof *channels->smoothed);
    memset(channels->energy, 0, detector->rows * sizeof *channels->energy);
    memset(channels->residual, 0, detector->channels * sizeof *channels->residual);
    memset(channels->forecast, detector->output_zero_point, detector->channels);
    for (uint16_t index = 0; index < (detector->lags + 1u) * detector->channels; index++) {
        channels->fine[index] = detector->start;
    }
}

/* Set the fine codes of the present channels and count those that saturate; return 1 if there is one, else 0.
 * x: set to the int8 codes of all channels, missing ones held.
 */
ELSTM_KERNEL uint8_t elstm_detector_scale(const elstm_detector_t *detector, elstm_alarm_t *state,
                                          const elstm_channels_t *channels, const int32_t *raw, int8_t *x)
{
    const elstm_scaler_t *scaler = detector->scalers;
    const int32_t *end = raw + detector->channels;
    int16_t *fine = channels->fine;
    uint8_t any = 0;
    for (; raw != end; raw++, scaler++, fine++, x++) {
        int32_t code = *fine;
        if (*raw != ELSTM_MISSING) {
            code = elstm_fine(scaler, *raw);
            *fine = (int16_t)code;
            any = 1;
        }
        code = elstm_rounded(code);
        *x = (int8_t)elstm_saturate_8(code);
        if (*x != code && *raw != ELSTM_MISSING) {
            state->saturated++;
        }
    }
    return any;
}

/* The sum of products of 16 bits, which does not exceed 32 bits. */
ELSTM_KERNEL int32_t elstm_dot_16(const int16_t *a, const int16_t *b, uint16_t count)
{
    int32_t acc = 0;
#ifdef ELSTM_HAS_PAIRS_16
    for (; count >= 8u; count = (uint16_t)(count - 8u)) {
        acc = elstm_pairs_16(a, b, acc);
        acc = elstm_pairs_16(a + 2, b + 2, acc);
        acc = elstm_pairs_16(a + 4, b + 4, acc);
        acc = elstm_pairs_16(a + 6, b + 6, acc);
        a += 8;
        b += 8;
    }
#endif
    for (; count != 0u; count--) {
        acc += (int32_t)*a++ * (int32_t)*b++;
    }
    return acc;
}

/* The standardized residual of one channel, Q5.10. */
ELSTM_KERNEL int32_t elstm_residual(const elstm_detector_t *detector, const elstm_channels_t *channels,
                                    uint8_t channel)
{
    int32_t seen = channels->fine[channel];
    if (detector->forms != NULL) {
        const uint16_t width = (uint16_t)((detector->lags + 1u) * detector->channels);
        const int32_t sum = elstm_dot_16(detector->forms + (size_t)channel * width, channels->fine, width);
        seen = elstm_saturate_16(elstm_rounding_shift(sum, detector->forms_shift));
    }
    const int32_t expected = (int32_t)channels->forecast[channel] - detector->output_zero_point;
    const int32_t acc = detector->residual_weight[channel] * seen -
                        detector->output_weight[channel] * expected - detector->offset[channel];
    return elstm_saturate_16(elstm_rounding_shift(acc, detector->shift));
}

/* The standardized level of one channel, Q5.10. */
ELSTM_KERNEL int32_t elstm_level(const elstm_detector_t *detector, const elstm_channels_t *channels,
                                 uint8_t channel)
{
    const uint8_t row = (uint8_t)(detector->channels + channel);
    const int32_t acc = detector->residual_weight[row] * channels->fine[channel] - detector->offset[row];
    return elstm_clamp(elstm_rounding_shift(acc, detector->shift), -detector->level_limit, detector->level_limit);
}

/* One row of the whitening matrix times the residuals, Q5.10. */
ELSTM_KERNEL int32_t elstm_whiten(const elstm_detector_t *detector, const int16_t *residual, uint8_t channel)
{
    const int16_t *row = detector->whitening + (uint16_t)channel * (uint16_t)detector->channels;
    int32_t acc = 0;
    for (uint8_t column = 0; column < detector->channels; column++) {
        acc += (int32_t)row[column] * (int32_t)residual[column];
    }
    return elstm_saturate_16(elstm_rounding_shift(acc, detector->whitening_shift));
}

/* The score above which an alarm starts, Q19.12. */
ELSTM_KERNEL int32_t elstm_detector_threshold(const elstm_detector_t *detector, const elstm_alarm_t *state)
{
    const int64_t rise = ((int64_t)state->excess * (int64_t)detector->gain) >> 8; /* < 2**47 */
    const int64_t sum = (int64_t)detector->base + rise;
    return sum < (int64_t)INT32_MAX ? (int32_t)sum : INT32_MAX;
}

/* Compare the score with the threshold: hysteresis, debounce, and the running mean excess. */
ELSTM_KERNEL void elstm_detector_alarm(const elstm_detector_t *detector, elstm_alarm_t *state)
{
    const int32_t high = elstm_detector_threshold(detector, state);
    const int32_t low = (int32_t)(((int64_t)high * (int64_t)detector->clear) >> 8);
    const int crossed = state->alarm != 0u ? state->score < low : state->score > high;
    if (state->alarm == 0u && detector->gain > 0 && state->score > detector->base && state->score <= high) {
        state->excess += elstm_rounding_shift(state->score - detector->base - state->excess, detector->rate);
    }
    state->run = crossed ? (uint8_t)(state->run + 1u) : (uint8_t)0;
    if (state->run >= detector->debounce) {
        state->run = 0;
        state->alarm = (uint8_t)(1u - state->alarm);
    }
}

/* What the averages of a row add to the score, Q19.12. */
ELSTM_KERNEL int32_t elstm_part(const elstm_detector_t *detector, int32_t smoothed, int32_t energy)
{
    const int32_t coarse = elstm_rounding_shift(smoothed, 6);
    const uint32_t square = (uint32_t)(coarse * coarse) >> 8; /* 2**22 at most, as the energy */
    return (int32_t)((square * detector->smoothed_gain + (uint32_t)energy * detector->energy_gain) >> 8);
}

/* Take the next z, Q5.10, into the averages of one row; returns what the row adds to the score. */
ELSTM_KERNEL int32_t elstm_average(const elstm_detector_t *detector, const elstm_channels_t *channels, uint8_t row,
                                   int32_t z)
{
    const int32_t alpha = detector->alpha;
    int32_t smoothed = channels->smoothed[row];
    int32_t energy = channels->energy[row];
    smoothed += elstm_rounding_shift((z * 64 - smoothed) * alpha, 8);
    energy += elstm_rounding_shift((((z * z) >> 8) - energy) * alpha, 8);
    channels->smoothed[row] = smoothed;
    channels->energy[row] = energy;
    return elstm_part(detector, smoothed, energy);
}

/* The part of the score that a channel has, Q19.12; of a missing channel as it was last. */
ELSTM_KERNEL int32_t elstm_detector_contribution(const elstm_detector_t *detector, const elstm_channels_t *channels,
                                                 uint8_t channel)
{
    int32_t sum = 0;
    for (uint16_t row = channel; row < detector->rows; row = (uint16_t)(row + detector->channels)) {
        sum += elstm_part(detector, channels->smoothed[row], channels->energy[row]);
    }
    return sum;
}

/* Score the fine codes against the forecast made before them.  Call only when a channel is present, then let
 * the network read them and write the next forecast.
 * raw: [channels], of which only ELSTM_MISSING is looked for.
 */
ELSTM_KERNEL void elstm_detector_step(const elstm_detector_t *detector, elstm_alarm_t *state,
                                      const elstm_channels_t *channels, const int32_t *raw)
{
    if (state->seen < detector->warmup) {
        state->seen++;
    } else {
        for (uint8_t channel = 0; channel < detector->channels; channel++) {
            channels->residual[channel] = raw[channel] != ELSTM_MISSING
                                              ? (int16_t)elstm_residual(detector, channels, channel)
                                              : (int16_t)0;
        }
        int32_t score = 0; /* 254 * 2**23 at most */
        for (uint8_t channel = 0; channel < detector->channels; channel++) {
            if (raw[channel] != ELSTM_MISSING) {
                const int32_t z = detector->whitening == NULL
                                      ? (int32_t)channels->residual[channel]
                                      : elstm_whiten(detector, channels->residual, channel);
                score += elstm_average(detector, channels, channel, z);
                if (detector->level_limit != 0) {
                    score += elstm_average(detector, channels, (uint8_t)(detector->channels + channel),
                                           elstm_level(detector, channels, channel));
                }
            }
        }
        state->score = score;
        elstm_detector_alarm(detector, state);
    }
    for (uint8_t lag = detector->lags; lag != 0u; lag--) {
        int16_t *row = channels->fine + (size_t)lag * detector->channels;
        memcpy(row, row - detector->channels, detector->channels * sizeof *row);
    }
}

#endif
