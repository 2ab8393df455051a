/* elstm.c: the LSTM and the dense layer of 8-bit codes, and the detector.
 *
 * A network calls the functions of one profile; -ffunction-sections and --gc-sections drop the other's.
 *
 * Deviations from MISRA C:2012:
 *   10.1        >> of negative values: must be arithmetic; below, an array of -1 entries does not compile
 *   15.5, 17.8  advisory: early returns and advancing parameters, where the cure reads worse
 *   18.4        advisory: pointers advance through weights that lie in the order of use
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "elstm.h"
#include <string.h>

#if ELSTM_API_VERSION != 1
#error "elstm.c is of elstm API 1: copy elstm.h and elstm.c from the same export"
#endif

#include "elstm_fixed.h"

/* What storing x in a float32 does. */
static inline uint64_t elstm_round_to_24_bits(uint64_t x)
{
    const uint8_t length = elstm_bit_length(x);
    const uint8_t spare = length > 24u ? (uint8_t)(length - 24u) : (uint8_t)0;
    return elstm_round_to_even(x, spare) << spare;
}

/* rint(float32(acc) * float32(multiplier * 2**shift)), computed on the magnitude: ties to even have no sign.
 * The result is cut to +-2**16, far outside int8.
 */
static inline int32_t elstm_requantize_float(int32_t acc, elstm_requantizer_t r)
{
    const uint64_t magnitude = acc < 0 ? (uint64_t)0 - (uint64_t)(int64_t)acc : (uint64_t)acc;
    const uint64_t product = elstm_round_to_24_bits(elstm_round_to_24_bits(magnitude) * (uint64_t)r.multiplier);
    const uint64_t rounded = elstm_round_to_even(product, (uint8_t)-r.shift);
    const int32_t cut = rounded < 65536u ? (int32_t)rounded : (int32_t)65536;
    return acc < 0 ? -cut : cut;
}

/* 65536 * sigmoid(i / 24), as TensorFlow Lite Micro and CMSIS-NN round it; NUMERICS.md, 3 */
const uint16_t elstm_sigmoid_table[256] = {
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
    65535,
};

/* exp(-2**e) in Q0.15 for e = -2 .. 4 */
const int16_t elstm_exp_factors[7] = {25520, 19875, 12055, 4435, 600, 11, 0};

/* term = requantize(bias + weights * x), Q3.12, for the four gates of one unit.
 * weights: [columns][gate].  Returns the weights of the next unit.
 */
static inline const int8_t *elstm_gate_terms(int32_t term[GATES], const int8_t *weights, const int8_t *x,
                                             uint16_t columns, const int32_t bias[GATES],
                                             const elstm_requantizer_t r[GATES])
{
    int32_t i = bias[GATE_I], f = bias[GATE_F], g = bias[GATE_G], o = bias[GATE_O];
    for (const int8_t *const end = x + columns; x != end; x++) {
        const int32_t code = (int32_t)*x;
        i += (int32_t)weights[GATE_I] * code;
        f += (int32_t)weights[GATE_F] * code;
        g += (int32_t)weights[GATE_G] * code;
        o += (int32_t)weights[GATE_O] * code;
        weights += GATES;
    }
    term[GATE_I] = elstm_requantize(i, r[GATE_I]);
    term[GATE_F] = elstm_requantize(f, r[GATE_F]);
    term[GATE_G] = elstm_requantize(g, r[GATE_G]);
    term[GATE_O] = elstm_requantize(o, r[GATE_O]);
    return weights;
}

/* h = o * tanh(c) in hidden codes. */
static inline int8_t elstm_hidden(const elstm_lstm_t *layer, int32_t o, int32_t squashed)
{
    return elstm_code(elstm_requantize(o * squashed, layer->hidden), layer->hidden_zero_point);
}

void elstm_lstm_reset(const elstm_lstm_t *layer, int8_t *hidden, int16_t *cell)
{
    memset(hidden, layer->hidden_zero_point, layer->units);
    memset(cell, 0, layer->units * sizeof *cell);
}

void elstm_lstm_step_tflm(const elstm_lstm_t *layer, const int8_t *x, const int8_t *hidden, int8_t *next,
                          int16_t *cell)
{
    const int8_t *kernel = layer->kernel, *recurrent_kernel = layer->recurrent_kernel;
    const int32_t *input_bias = layer->input_bias, *recurrent_bias = layer->recurrent_bias;
    for (uint16_t unit = 0; unit < layer->units; unit++) {
        int32_t a[GATES], b[GATES];
        kernel = elstm_gate_terms(a, kernel, x, layer->features, input_bias, layer->input);
        recurrent_kernel =
            elstm_gate_terms(b, recurrent_kernel, hidden, layer->units, recurrent_bias, layer->recurrent);
        const int32_t i = elstm_sigmoid_by_table(elstm_combine_tflm(a[GATE_I], b[GATE_I]), 0);
        const int32_t f = elstm_sigmoid_by_table(elstm_combine_tflm(a[GATE_F], b[GATE_F]), 0);
        const int32_t g = elstm_tanh_by_table(elstm_combine_tflm(a[GATE_G], b[GATE_G]), 0);
        const int32_t o = elstm_sigmoid_by_table(elstm_combine_tflm(a[GATE_O], b[GATE_O]), 0);
        const int32_t c =
            elstm_update_cell_tflm(cell[unit], i, f, g, layer->cell_power, layer->cell_clip);
        cell[unit] = (int16_t)c;
        next[unit] = elstm_hidden(layer, o, elstm_tanh_by_table(c, (int8_t)(12 + layer->cell_power)));
        input_bias += GATES;
        recurrent_bias += GATES;
    }
}

void elstm_lstm_step_litert(const elstm_lstm_t *layer, const int8_t *x, const int8_t *hidden, int8_t *next,
                            int16_t *cell)
{
    const int8_t *kernel = layer->kernel, *recurrent_kernel = layer->recurrent_kernel;
    const int32_t *input_bias = layer->input_bias, *recurrent_bias = layer->recurrent_bias;
    for (uint16_t unit = 0; unit < layer->units; unit++) {
        int32_t a[GATES], b[GATES];
        kernel = elstm_gate_terms(a, kernel, x, layer->features, input_bias, layer->input);
        recurrent_kernel =
            elstm_gate_terms(b, recurrent_kernel, hidden, layer->units, recurrent_bias, layer->recurrent);
        const int32_t i = elstm_sigmoid_by_polynomial(elstm_combine_litert(a[GATE_I], b[GATE_I]));
        const int32_t f = elstm_sigmoid_by_polynomial(elstm_combine_litert(a[GATE_F], b[GATE_F]));
        const int32_t g = elstm_tanh_by_polynomial(elstm_combine_litert(a[GATE_G], b[GATE_G]), 3);
        const int32_t o = elstm_sigmoid_by_polynomial(elstm_combine_litert(a[GATE_O], b[GATE_O]));
        const int32_t c =
            elstm_update_cell_litert(cell[unit], i, f, g, layer->cell_power, layer->cell_clip);
        cell[unit] = (int16_t)c;
        next[unit] = elstm_hidden(layer, o, elstm_tanh_by_polynomial(c, (uint8_t)(15 + layer->cell_power)));
        input_bias += GATES;
        recurrent_bias += GATES;
    }
}

static inline void elstm_dense(const elstm_dense_t *layer, const int8_t *x, int8_t *y,
                               int32_t (*scaling)(int32_t acc, elstm_requantizer_t r))
{
    const int8_t *row = layer->kernel;
    const elstm_requantizer_t *r = layer->requantizers;
    for (uint16_t output = 0; output < layer->outputs; output++) {
        const int32_t acc = elstm_dot(layer->bias[output], row, x, layer->features);
        y[output] = elstm_code(scaling(acc, *r), layer->output_zero_point);
        row += layer->features;
        r += layer->per_row;
    }
}

void elstm_dense_tflm(const elstm_dense_t *layer, const int8_t *x, int8_t *y)
{
    elstm_dense(layer, x, y, elstm_requantize);
}

void elstm_dense_litert(const elstm_dense_t *layer, const int8_t *x, int8_t *y)
{
    elstm_dense(layer, x, y, elstm_requantize_float);
}

void elstm_dense_tflite(const elstm_dense_t *layer, const int8_t *x, int8_t *y)
{
    elstm_dense(layer, x, y, elstm_requantize_ties_up);
}

void elstm_detector_reset(const elstm_detector_t *detector, elstm_alarm_t *state, const elstm_channels_t *channels)
{
    state->score = 0;
    state->excess = detector->excess;
    state->seen = 0;
    state->run = 0;
    state->alarm = 0;
    memset(channels->smoothed, 0, detector->channels * sizeof *channels->smoothed);
    memset(channels->residual, 0, detector->channels * sizeof *channels->residual);
    memset(channels->held, detector->input_zero_point, detector->channels);
    memset(channels->forecast, detector->output_zero_point, detector->channels);
}

static inline int elstm_is_present(const uint8_t *present, uint8_t channel)
{
    return present == NULL || present[channel] != 0u;
}

uint8_t elstm_detector_hold(const elstm_detector_t *detector, const elstm_channels_t *channels,
                            const int8_t *x, const uint8_t *present)
{
    uint8_t any = 0;
    for (uint8_t channel = 0; channel < detector->channels; channel++) {
        if (elstm_is_present(present, channel)) {
            channels->held[channel] = x[channel];
            any = 1;
        }
    }
    return any;
}

/* The standardized residual of one channel, Q5.10. */
static inline int32_t elstm_residual(const elstm_detector_t *detector, const elstm_channels_t *channels,
                                     uint8_t channel)
{
    const int32_t seen = (int32_t)channels->held[channel] - detector->input_zero_point;
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
                         const elstm_channels_t *channels, const uint8_t *present)
{
    if (state->seen < detector->warmup) {
        state->seen++;
        return;
    }
    for (uint8_t channel = 0; channel < detector->channels; channel++) {
        channels->residual[channel] = elstm_is_present(present, channel)
                                          ? (int16_t)elstm_residual(detector, channels, channel)
                                          : (int16_t)0;
    }
    int32_t score = 0; /* 127 * 2**24 at most */
    for (uint8_t channel = 0; channel < detector->channels; channel++) {
        if (elstm_is_present(present, channel)) {
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
