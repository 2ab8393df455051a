/* elstm_detector.h: the detector, inlined where a model calls it: what its constants leave out costs nothing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_DETECTOR_H
#define ELSTM_DETECTOR_H

#include "elstm_scores.h"

/* x >> shift where 32 bits hold the result; shift is 1 .. 63.  In words: some cores have no library for it. */
ELSTM_KERNEL int32_t elstm_shift_64(int64_t x, uint8_t shift)
{
    const int32_t high = (int32_t)(x >> 32);
    if (shift >= 32u) {
        return high >> (shift - 32u);
    }
    return elstm_wrap_32((uint32_t)x >> shift | (uint32_t)high << (32u - shift));
}

/* The fine code of one present raw integer, before it saturates. */
ELSTM_KERNEL int32_t elstm_scaled(const elstm_scaler_t *scaler, int32_t raw)
{
    const int64_t count = elstm_clamp(raw, scaler->low, scaler->high);
    return elstm_shift_64(count * scaler->multiplier + scaler->bias, scaler->shift);
}

/* The fine code of one present raw integer. */
ELSTM_KERNEL int32_t elstm_fine(const elstm_scaler_t *scaler, int32_t raw)
{
    return elstm_saturate_16(elstm_scaled(scaler, raw));
}

ELSTM_KERNEL int32_t elstm_rounded(int32_t fine)
{
    return elstm_rounding_shift(fine, ELSTM_FINE_BITS);
}

/* Set the network's codes for the rows to come to zero. */
ELSTM_KERNEL void elstm_detector_reset_forecast(const elstm_detector_t *detector, const elstm_channels_t *channels)
{
    const uint16_t count = (uint16_t)((detector->ahead > 1u ? detector->ahead : 1u) * detector->channels);
    if (detector->output_bits == 8u) {
        memset(channels->forecast, detector->output_zero_point, count);
        return;
    }
    for (uint16_t index = 0; index < count; index++) {
        ((int16_t *)channels->forecast)[index] = detector->output_zero_point;
    }
}

/* Move the network's codes up by a row; returns where it writes those of the row that it reads now. */
ELSTM_KERNEL void *elstm_detector_shift_forecast(const elstm_detector_t *detector, const elstm_channels_t *channels)
{
    const size_t row = (size_t)detector->channels * (detector->output_bits / 8u);
    uint8_t *at = (uint8_t *)channels->forecast;
    for (uint8_t rows = detector->ahead; rows > 1u; rows--) {
        memcpy(at, at + row, row);
        at += row;
    }
    return at;
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
    elstm_detector_reset_forecast(detector, channels);
    elstm_options_reset(detector, channels);
    for (uint16_t index = 0; index < (detector->lags + 1u) * detector->channels; index++) {
        channels->fine[index] = detector->start;
    }
}

/* Set the fine codes, which are the int16 codes, of the present channels and count those that saturate; return 1 if
 * there is one, else 0.
 */
ELSTM_KERNEL uint8_t elstm_detector_scale_16(const elstm_detector_t *detector, elstm_alarm_t *state,
                                             const elstm_channels_t *channels, const int32_t *raw)
{
    uint8_t any = 0;
    for (uint8_t channel = 0; channel < detector->channels; channel++) {
        if (raw[channel] != ELSTM_MISSING) {
            const int32_t code = elstm_scaled(detector->scalers + channel, raw[channel]);
            const int32_t fine = elstm_saturate_16(code);
            elstm_count_still(detector, channels, channel, fine == channels->fine[channel]);
            channels->fine[channel] = (int16_t)fine;
            if (fine != code) {
                state->saturated++;
            }
            any = 1;
        }
    }
    return any;
}

/* Set the fine codes of the present channels and count those beyond int8; return 1 if there is one, else 0.
 * x: set to the int8 codes of all channels, missing ones held.
 */
ELSTM_KERNEL uint8_t elstm_detector_scale_8(const elstm_detector_t *detector, elstm_alarm_t *state,
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
            elstm_count_still(detector, channels, (uint8_t)(fine - channels->fine), code == *fine);
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
    const int32_t code = detector->output_bits == 8u ? (int32_t)((const int8_t *)channels->forecast)[channel]
                                                     : (int32_t)((const int16_t *)channels->forecast)[channel];
    const int32_t expected = code - detector->output_zero_point;
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
    return elstm_saturate_16(elstm_rounding_shift(acc, detector->shift));
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

/* Take a present channel's residual and level into the averages; returns what it adds to the score. */
ELSTM_KERNEL int32_t elstm_channel_part(const elstm_detector_t *detector, const elstm_channels_t *channels,
                                        uint8_t channel, int calm)
{
    const int32_t z = detector->whitening == NULL ? (int32_t)channels->residual[channel]
                                                  : elstm_whiten(detector, channels->residual, channel);
    int32_t part = elstm_average(detector, channels, channel, elstm_adapt(detector, channels, channel, z, calm));
    if (detector->level_limit != 0) {
        const uint8_t row = (uint8_t)(detector->channels + channel);
        const int32_t level = elstm_level(detector, channels, channel);
        part += elstm_average(detector, channels, row, elstm_adapt(detector, channels, row, level, calm));
    }
    return elstm_detector_stuck(detector, channels, channel) != 0u ? ELSTM_STUCK : part;
}

/* Whether a channel is present that is scored; raw is not that of a row without any channel. */
ELSTM_KERNEL int elstm_detector_sees(const elstm_detector_t *detector, const int32_t *raw)
{
    if (detector->context == 0u) {
        return 1;
    }
    for (uint8_t channel = 0; channel < detector->channels; channel++) {
        if (raw[channel] != ELSTM_MISSING && detector->residual_weight[channel] != 0) {
            return 1;
        }
    }
    return 0;
}

/* Score the fine codes against what the network wrote of them.  Call only when a channel is present, before the
 * network reads them, or after where ahead is 0.
 * raw: [channels], of which only ELSTM_MISSING is looked for.
 */
ELSTM_KERNEL void elstm_detector_step(const elstm_detector_t *detector, elstm_alarm_t *state,
                                      const elstm_channels_t *channels, const int32_t *raw)
{
    if (state->seen < detector->warmup) {
        state->seen++;
    } else if (elstm_detector_sees(detector, raw)) {
        for (uint8_t channel = 0; channel < detector->channels; channel++) {
            channels->residual[channel] = raw[channel] != ELSTM_MISSING
                                              ? (int16_t)elstm_residual(detector, channels, channel)
                                              : (int16_t)0;
        }
        const int calm = detector->adapt != 0u && elstm_detector_calm(detector, state, channels);
        int32_t score = 0; /* 254 * 2**23 at most */
        for (uint8_t channel = 0; channel < detector->channels; channel++) {
            if (raw[channel] != ELSTM_MISSING) {
                score += elstm_channel_part(detector, channels, channel, calm);
            }
        }
        state->score = score;
        elstm_detector_alarm(detector, state, channels);
    }
    for (uint8_t lag = detector->lags; lag != 0u; lag--) {
        int16_t *row = channels->fine + (size_t)lag * detector->channels;
        memcpy(row, row - detector->channels, detector->channels * sizeof *row);
    }
}

#endif
