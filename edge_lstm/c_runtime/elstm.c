/* elstm.c: raw integers to codes, the detector, and the tables of the activations.
 *
 * Deviations from MISRA C:2012:
 *   10.1        >> of negative values: must be arithmetic; below, an array of -1 entries does not compile
 *   15.5, 17.8  advisory: early returns and advancing parameters, where the cure reads worse
 *   18.4        advisory: pointers advance through weights that lie in the order of use
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "elstm_activations.h"
#include <string.h>

/* 65536 * sigmoid((i - 256) / 24), as TensorFlow Lite Micro and CMSIS-NN round it from the middle on; NUMERICS.md, 3 */
const uint16_t elstm_sigmoid_table[513] = {
    1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 6, 6, 6, 6,
    7, 7, 7, 7, 8, 8, 8, 9, 9, 10, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 16, 16, 17, 18, 19, 19, 20, 21,
    22, 23, 24, 25, 26, 27, 28, 29, 31, 32, 33, 35, 36, 38, 39, 41, 43, 45, 47, 48, 51, 53, 55, 57, 60, 62,
    65, 68, 71, 74, 77, 80, 83, 87, 91, 94, 98, 103, 107, 111, 116, 121, 126, 132, 137, 143, 149, 155, 162,
    169, 176, 184, 191, 199, 208, 217, 226, 235, 245, 256, 267, 278, 290, 302, 315, 328, 342, 357, 372, 387,
    404, 421, 439, 457, 476, 497, 517, 539, 562, 586, 610, 636, 663, 691, 720, 750, 782, 815, 849, 884, 922,
    960, 1000, 1042, 1086, 1131, 1179, 1228, 1279, 1332, 1388, 1446, 1506, 1568, 1633, 1701, 1771, 1845, 1921,
    2000, 2082, 2168, 2257, 2350, 2446, 2546, 2650, 2758, 2870, 2987, 3108, 3234, 3364, 3500, 3640, 3786,
    3937, 4095, 4257, 4426, 4601, 4783, 4971, 5166, 5368, 5577, 5793, 6017, 6248, 6488, 6736, 6992, 7256,
    7529, 7812, 8103, 8403, 8713, 9033, 9362, 9702, 10051, 10411, 10781, 11162, 11553, 11955, 12367, 12791,
    13225, 13671, 14127, 14594, 15072, 15561, 16061, 16572, 17093, 17625, 18167, 18719, 19281, 19853, 20434,
    21025, 21624, 22232, 22848, 23472, 24104, 24742, 25387, 26038, 26695, 27356, 28023, 28693, 29367, 30043,
    30723, 31403, 32085, 32768, 33451, 34133, 34813, 35493, 36169, 36843, 37513, 38180, 38841, 39498, 40149,
    40794, 41432, 42064, 42688, 43304, 43912, 44511, 45102, 45683, 46255, 46817, 47369, 47911, 48443, 48964,
    49475, 49975, 50464, 50942, 51409, 51865, 52311, 52745, 53169, 53581, 53983, 54374, 54755, 55125, 55485,
    55834, 56174, 56503, 56823, 57133, 57433, 57724, 58007, 58280, 58544, 58800, 59048, 59288, 59519, 59743,
    59959, 60168, 60370, 60565, 60753, 60935, 61110, 61279, 61441, 61599, 61750, 61896, 62036, 62172, 62302,
    62428, 62549, 62666, 62778, 62886, 62990, 63090, 63186, 63279, 63368, 63454, 63536, 63615, 63691, 63765,
    63835, 63903, 63968, 64030, 64090, 64148, 64204, 64257, 64308, 64357, 64405, 64450, 64494, 64536, 64576,
    64614, 64652, 64687, 64721, 64754, 64786, 64816, 64845, 64873, 64900, 64926, 64950, 64974, 64997, 65019,
    65039, 65060, 65079, 65097, 65115, 65132, 65149, 65164, 65179, 65194, 65208, 65221, 65234, 65246, 65258,
    65269, 65280, 65291, 65301, 65310, 65319, 65328, 65337, 65345, 65352, 65360, 65367, 65374, 65381, 65387,
    65393, 65399, 65404, 65410, 65415, 65420, 65425, 65429, 65433, 65438, 65442, 65445, 65449, 65453, 65456,
    65459, 65462, 65465, 65468, 65471, 65474, 65476, 65479, 65481, 65483, 65485, 65488, 65489, 65491, 65493,
    65495, 65497, 65498, 65500, 65501, 65503, 65504, 65505, 65507, 65508, 65509, 65510, 65511, 65512, 65513,
    65514, 65515, 65516, 65517, 65517, 65518, 65519, 65520, 65520, 65521, 65522, 65522, 65523, 65523, 65524,
    65524, 65525, 65525, 65526, 65526, 65526, 65527, 65527, 65528, 65528, 65528, 65529, 65529, 65529, 65529,
    65530, 65530, 65530, 65530, 65531, 65531, 65531, 65531, 65531, 65532, 65532, 65532, 65532, 65532, 65532,
    65533, 65533, 65533, 65533, 65533, 65533, 65533, 65533, 65534, 65534, 65534, 65534, 65534, 65534, 65534,
    65534, 65534, 65534, 65535, 65535,
};

/* From its middle on, once more: a linker that collects sections keeps the one that is read. */
const uint16_t elstm_sigmoid_half[258] = {
    32768, 33451, 34133, 34813, 35493, 36169, 36843, 37513, 38180, 38841, 39498, 40149, 40794, 41432, 42064,
    42688, 43304, 43912, 44511, 45102, 45683, 46255, 46817, 47369, 47911, 48443, 48964, 49475, 49975, 50464,
    50942, 51409, 51865, 52311, 52745, 53169, 53581, 53983, 54374, 54755, 55125, 55485, 55834, 56174, 56503,
    56823, 57133, 57433, 57724, 58007, 58280, 58544, 58800, 59048, 59288, 59519, 59743, 59959, 60168, 60370,
    60565, 60753, 60935, 61110, 61279, 61441, 61599, 61750, 61896, 62036, 62172, 62302, 62428, 62549, 62666,
    62778, 62886, 62990, 63090, 63186, 63279, 63368, 63454, 63536, 63615, 63691, 63765, 63835, 63903, 63968,
    64030, 64090, 64148, 64204, 64257, 64308, 64357, 64405, 64450, 64494, 64536, 64576, 64614, 64652, 64687,
    64721, 64754, 64786, 64816, 64845, 64873, 64900, 64926, 64950, 64974, 64997, 65019, 65039, 65060, 65079,
    65097, 65115, 65132, 65149, 65164, 65179, 65194, 65208, 65221, 65234, 65246, 65258, 65269, 65280, 65291,
    65301, 65310, 65319, 65328, 65337, 65345, 65352, 65360, 65367, 65374, 65381, 65387, 65393, 65399, 65404,
    65410, 65415, 65420, 65425, 65429, 65433, 65438, 65442, 65445, 65449, 65453, 65456, 65459, 65462, 65465,
    65468, 65471, 65474, 65476, 65479, 65481, 65483, 65485, 65488, 65489, 65491, 65493, 65495, 65497, 65498,
    65500, 65501, 65503, 65504, 65505, 65507, 65508, 65509, 65510, 65511, 65512, 65513, 65514, 65515, 65516,
    65517, 65517, 65518, 65519, 65520, 65520, 65521, 65522, 65522, 65523, 65523, 65524, 65524, 65525, 65525,
    65526, 65526, 65526, 65527, 65527, 65528, 65528, 65528, 65529, 65529, 65529, 65529, 65530, 65530, 65530,
    65530, 65531, 65531, 65531, 65531, 65531, 65532, 65532, 65532, 65532, 65532, 65532, 65533, 65533, 65533,
    65533, 65533, 65533, 65533, 65533, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534,
    65535, 65535, 65535,
};

/* exp(-2**e) in Q0.15 for e = -2 .. 4 */
const int16_t elstm_exp_factors[7] = {25520, 19875, 12055, 4435, 600, 11, 0};

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

static inline int32_t elstm_rounded(int32_t fine)
{
    return elstm_rounding_shift(fine, ELSTM_FINE_BITS);
}

void elstm_scale_16(const elstm_scaler_t *scalers, const int32_t *raw, int16_t *x, uint16_t channels)
{
    for (uint16_t channel = 0; channel < channels; channel++) {
        if (raw[channel] != ELSTM_MISSING) {
            x[channel] = (int16_t)elstm_fine(&scalers[channel], raw[channel]);
        }
    }
}

void elstm_scale_8(const elstm_scaler_t *scalers, const int32_t *raw, int8_t *x, uint16_t channels)
{
    for (uint16_t channel = 0; channel < channels; channel++) {
        if (raw[channel] != ELSTM_MISSING) {
            x[channel] = (int8_t)elstm_saturate_8(elstm_rounded(elstm_fine(&scalers[channel], raw[channel])));
        }
    }
}

void elstm_detector_reset(const elstm_detector_t *detector, elstm_alarm_t *state, const elstm_channels_t *channels)
{
    state->score = 0;
    state->excess = detector->excess;
    state->saturated = 0;
    state->seen = 0;
    state->run = 0;
    state->alarm = 0;
    memset(channels->smoothed, 0, detector->channels * sizeof *channels->smoothed);
    memset(channels->residual, 0, detector->channels * sizeof *channels->residual);
    memset(channels->forecast, detector->output_zero_point, detector->channels);
    for (uint8_t channel = 0; channel < detector->channels; channel++) {
        channels->fine[channel] = (int16_t)(detector->input_zero_point * (1 << ELSTM_FINE_BITS));
    }
}

uint8_t elstm_detector_scale(const elstm_detector_t *detector, elstm_alarm_t *state,
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

/* The standardized residual of one channel, Q5.10. */
static inline int32_t elstm_residual(const elstm_detector_t *detector, const elstm_channels_t *channels,
                                     uint8_t channel)
{
    const int32_t code = elstm_saturate_8(elstm_rounded(channels->fine[channel]));
    const int32_t seen = code - detector->input_zero_point;
    const int32_t expected = (int32_t)channels->forecast[channel] - detector->output_zero_point;
    const int32_t acc = detector->input_weight[channel] * seen -
                        detector->output_weight[channel] * expected - detector->offset[channel];
    return elstm_saturate_16(elstm_rounding_shift(acc, detector->shift));
}

/* One row of the whitening matrix times the residuals, Q5.10. */
static inline int32_t elstm_whiten(const elstm_detector_t *detector, const int16_t *residual, uint8_t channel)
{
    const int16_t *row = detector->whitening + (uint16_t)channel * (uint16_t)detector->channels;
    int32_t acc = 0;
    for (uint8_t column = 0; column < detector->channels; column++) {
        acc += (int32_t)row[column] * (int32_t)residual[column];
    }
    return elstm_saturate_16(elstm_rounding_shift(acc, detector->whitening_shift));
}

int32_t elstm_detector_threshold(const elstm_detector_t *detector, const elstm_alarm_t *state)
{
    const int64_t rise = ((int64_t)state->excess * (int64_t)detector->gain) >> 8; /* < 2**47 */
    const int64_t sum = (int64_t)detector->base + rise;
    return sum < (int64_t)INT32_MAX ? (int32_t)sum : INT32_MAX;
}

/* Compare the score with the threshold: hysteresis, debounce, and the running mean excess. */
static inline void elstm_detector_alarm(const elstm_detector_t *detector, elstm_alarm_t *state)
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

void elstm_detector_step(const elstm_detector_t *detector, elstm_alarm_t *state,
                         const elstm_channels_t *channels, const int32_t *raw)
{
    if (state->seen < detector->warmup) {
        state->seen++;
        return;
    }
    for (uint8_t channel = 0; channel < detector->channels; channel++) {
        channels->residual[channel] = raw[channel] != ELSTM_MISSING
                                          ? (int16_t)elstm_residual(detector, channels, channel)
                                          : (int16_t)0;
    }
    int32_t score = 0; /* 127 * 2**24 at most */
    for (uint8_t channel = 0; channel < detector->channels; channel++) {
        if (raw[channel] != ELSTM_MISSING) {
            const int32_t z = detector->whitening == NULL
                                  ? (int32_t)channels->residual[channel]
                                  : elstm_whiten(detector, channels->residual, channel);
            const int32_t change = (z * 64 - channels->smoothed[channel]) * (int32_t)detector->alpha;
            channels->smoothed[channel] += elstm_rounding_shift(change, 8);
            const int32_t coarse = elstm_rounding_shift(channels->smoothed[channel], 6);
            score += (coarse * coarse) >> 6;
        }
    }
    state->score = score;
    elstm_detector_alarm(detector, state);
}
