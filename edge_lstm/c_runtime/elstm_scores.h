/* elstm_scores.h: what follows the detector's standardized residuals: adaptation, averages, stuck channels, alarms.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_SCORES_H
#define ELSTM_SCORES_H

#include "elstm_fixed.h"
#include <string.h>

#define ELSTM_ONE ((uint32_t)1024)    /* one spread, Q5.10 */
#define ELSTM_STUCK ((int32_t)1 << 23) /* part of the score, Q19.12: the most that a row can have */

/* Set what options keep to its state after power-on. */
ELSTM_KERNEL void elstm_options_reset(const elstm_detector_t *detector, const elstm_channels_t *channels)
{
    if (detector->adapt != 0u) {
        for (uint16_t row = 0; row < detector->rows; row++) {
            channels->learnt[row] = 0;
            channels->learnt[detector->rows + row] = (int32_t)(ELSTM_ONE << detector->adapt);
        }
    }
    if (detector->depth != 0u) {
        channels->running[0] = detector->score_mean;
        channels->running[1] = 0;
    }
    if (detector->stuck != NULL) {
        memset(channels->still, 0, detector->channels * sizeof *channels->still);
    }
    if (channels->rest != NULL) {
        *channels->rest = 0;
    }
}

/* Count a present row of a channel whose fine code is, or is not, that of the row before. */
ELSTM_KERNEL void elstm_count_still(const elstm_detector_t *detector, const elstm_channels_t *channels,
                                    uint8_t channel, int equal)
{
    if (detector->stuck != NULL) {
        uint16_t *still = &channels->still[channel];
        if (!equal) {
            *still = 0;
        } else if (*still < detector->stuck[channel]) {
            (*still)++;
        }
    }
}

/* Whether a channel is stuck, 0 or 1. */
ELSTM_KERNEL uint8_t elstm_detector_stuck(const elstm_detector_t *detector, const elstm_channels_t *channels,
                                          uint8_t channel)
{
    return detector->stuck != NULL && detector->stuck[channel] != 0u &&
           channels->still[channel] == detector->stuck[channel];
}

/* The score above which an alarm starts, Q19.12.  running: of elstm_channels_t. */
ELSTM_KERNEL int32_t elstm_detector_threshold(const elstm_detector_t *detector, const elstm_alarm_t *state,
                                              const int32_t *running)
{
    const int64_t rise = ((int64_t)state->excess * (int64_t)detector->gain) >> 8; /* < 2**47 */
    const int64_t sum = (int64_t)detector->base + rise + (detector->depth != 0u ? running[0] : 0);
    return sum < (int64_t)INT32_MAX ? (int32_t)sum : INT32_MAX;
}

/* The score below which an alarm ends, Q19.12. */
ELSTM_KERNEL int32_t elstm_detector_low(const elstm_detector_t *detector, int32_t high)
{
    return (int32_t)(((int64_t)high * (int64_t)detector->clear) >> 8);
}

/* Take a score up to the threshold into the running mean of the scores, and into the mean excess above it. */
ELSTM_KERNEL void elstm_detector_follow(const elstm_detector_t *detector, elstm_alarm_t *state, int32_t *running)
{
    const int32_t over = state->score - (detector->depth != 0u ? running[0] : 0); /* > -2**31 */
    if (detector->gain > 0 && over > detector->base) {
        state->excess += elstm_rounding_shift(over - detector->base - state->excess, detector->rate);
    }
    if (detector->depth != 0u) {
        const int32_t moved = running[1] + over; /* scores end 2**24 below 2**31, the first is below 2**20 */
        running[0] += moved >> detector->depth;
        running[1] = moved & (int32_t)(((uint32_t)1 << detector->depth) - 1u);
    }
}

/* Count down the rows for which the alarm stays as it is; whether there are more. */
ELSTM_KERNEL int elstm_detector_rests(uint16_t *rest)
{
    if (rest == NULL || *rest == 0u) {
        return 0;
    }
    (*rest)--;
    return *rest != 0u;
}

/* Compare the score with the threshold: hysteresis, debounce, hold and cool-down, running means. */
ELSTM_KERNEL void elstm_detector_alarm(const elstm_detector_t *detector, elstm_alarm_t *state,
                                       const elstm_channels_t *channels)
{
    const int32_t high = elstm_detector_threshold(detector, state, channels->running);
    const int crossed =
        state->alarm != 0u ? state->score < elstm_detector_low(detector, high) : state->score > high;
    if (state->alarm == 0u && state->score <= high) {
        elstm_detector_follow(detector, state, channels->running);
    }
    const int rests = elstm_detector_rests(channels->rest);
    state->run = crossed && !rests ? (uint8_t)(state->run + 1u) : (uint8_t)0;
    if (state->run >= detector->debounce) {
        state->run = 0;
        state->alarm = (uint8_t)(1u - state->alarm);
        if (channels->rest != NULL) {
            *channels->rest = state->alarm != 0u ? detector->hold : detector->cooldown;
        }
    }
}

/* Whether neither the alarm nor the score of the row before speaks of a fault. */
ELSTM_KERNEL int elstm_detector_calm(const elstm_detector_t *detector, const elstm_alarm_t *state,
                                     const elstm_channels_t *channels)
{
    const int32_t high = elstm_detector_threshold(detector, state, channels->running);
    return state->alarm == 0u && state->score <= elstm_detector_low(detector, high);
}

/* A standardized value by what was learnt of its level and spread, Q5.10; a level within its limit.
 * calm: 1 where the value is learnt from.
 */
ELSTM_KERNEL int32_t elstm_adapt(const elstm_detector_t *detector, const elstm_channels_t *channels, uint8_t row,
                                 int32_t z, int calm)
{
    const uint8_t bits = detector->adapt;
    if (bits != 0u) {
        const int32_t moved = (z - (channels->learnt[row] >> bits)) * (channels->learnt[detector->rows + row] >> bits);
        z = elstm_saturate_16(elstm_rounding_shift(moved, 10)); /* |moved| <= (2**15 + 3072) * 2**12 */
    }
    if (row >= detector->channels) {
        z = elstm_clamp(z, -detector->level_limit, detector->level_limit);
    }
    if (bits != 0u && calm) {
        int32_t *mean = &channels->learnt[row];
        int32_t *gain = &channels->learnt[detector->rows + row];
        const int32_t size = z < 0 ? -z : z;
        const uint32_t most = ELSTM_ONE + (uint32_t)detector->adapt_limit;
        const int32_t limit = (int32_t)((uint32_t)detector->adapt_limit << bits); /* < 2**30 */
        *mean = elstm_clamp(*mean + z, -limit, limit);
        *gain = elstm_clamp(*gain + detector->usual[row] - size, (int32_t)(ELSTM_ONE * ELSTM_ONE / most << bits),
                            (int32_t)(most << bits));
    }
    return z;
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
    int32_t square = z * z;
    if (detector->knee != NULL) { /* Huber's loss, and its slope */
        const int32_t knee = detector->knee[row];
        if (z > knee || z < -knee) {
            square = knee * (2 * (z < 0 ? -z : z) - knee);
            z = z < 0 ? -knee : knee;
        }
    }
    smoothed += elstm_rounding_shift((z * 64 - smoothed) * alpha, 8);
    energy += elstm_rounding_shift(((square >> 8) - energy) * alpha, 8);
    channels->smoothed[row] = smoothed;
    channels->energy[row] = energy;
    return elstm_part(detector, smoothed, energy);
}

/* The part of the score that a channel has, Q19.12; of a missing channel as it was last. */
ELSTM_KERNEL int32_t elstm_detector_contribution(const elstm_detector_t *detector, const elstm_channels_t *channels,
                                                 uint8_t channel)
{
    int32_t sum = 0;
    if (elstm_detector_stuck(detector, channels, channel) != 0u) {
        return ELSTM_STUCK;
    }
    for (uint16_t row = channel; row < detector->rows; row = (uint16_t)(row + detector->channels)) {
        sum += elstm_part(detector, channels->smoothed[row], channels->energy[row]);
    }
    return sum;
}

#endif
