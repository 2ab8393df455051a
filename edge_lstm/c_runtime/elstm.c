/* elstm.c: the integer primitives of fixedpoint.py, name by name, and the layers made of them.
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

typedef char elstm_shift_is_arithmetic[((int32_t)-5 >> 1) == -3 && ((int64_t)-5 >> 1) == -3 ? 1 : -1];
enum { GATE_I, GATE_F, GATE_G, GATE_O, GATES };

static inline int32_t elstm_clamp(int32_t x, int32_t low, int32_t high)
{
    return x < low ? low : (x > high ? high : x);
}

static inline int32_t elstm_saturate_16(int32_t x)
{
    return elstm_clamp(x, -32767 - 1, 32767);
}

/* The signed value of 32 bits, without the conversion that C leaves to the compiler. */
static inline int32_t elstm_wrap_32(uint32_t x)
{
    return x <= (uint32_t)INT32_MAX ? (int32_t)x : -(int32_t)(UINT32_MAX - x) - 1;
}

/* x / 2**shift to nearest, ties away from zero; x is above -2**31, shift is 0 .. 31.
 * x >> 31 is -1 below zero: it turns the ties of floor(x / 2**shift + 1/2) away from zero.
 */
static inline int32_t elstm_rounding_shift(int32_t x, uint8_t shift)
{
    if (shift == 0u) {
        return x;
    }
    const int32_t twice = (x + (x >> 31)) >> (shift - 1u);
    return (twice >> 1) + (twice & 1);
}

/* (a * b + 2**30) >> 31, |product| <= 2**62; b is 0 or more. */
static inline int32_t elstm_high_multiply(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * (int64_t)b + ((int64_t)1 << 30)) >> 31);
}

static inline int32_t elstm_requantize(int32_t acc, elstm_requantizer_t r)
{
    if (r.shift > 0) {
        return elstm_high_multiply(elstm_wrap_32((uint32_t)acc << (uint8_t)r.shift), r.multiplier);
    }
    return elstm_rounding_shift(elstm_high_multiply(acc, r.multiplier), (uint8_t)-r.shift);
}

/* elstm_requantize whose second rounding takes ties up. */
static inline int32_t elstm_requantize_ties_up(int32_t acc, elstm_requantizer_t r)
{
    const int32_t high = r.shift > 0 ? elstm_requantize(acc, r) : elstm_high_multiply(acc, r.multiplier);
    const uint8_t right = r.shift < 0 ? (uint8_t)-r.shift : (uint8_t)0;
    return (int32_t)(((int64_t)high + (((int64_t)1 << right) >> 1)) >> right);
}

/* elstm_requantize for the multiplier 2**30: its product and first rounding are one addition.
 * acc is below 2**31 - 1, shift is 0 .. 31.
 */
static inline int32_t elstm_requantize_half(int32_t acc, uint8_t shift)
{
    return elstm_rounding_shift((acc + 1) >> 1, shift);
}

static inline uint8_t elstm_bit_length(uint64_t x)
{
    uint8_t length = 0;
    for (; x != 0u; x >>= 1) {
        length++;
    }
    return length;
}

/* x / 2**shift to nearest, ties to even; shift is 0 .. 62. */
static inline uint64_t elstm_round_to_even(uint64_t x, uint8_t shift)
{
    const uint64_t quotient = x >> shift;
    const uint64_t remainder = x - (quotient << shift);
    const uint64_t half = ((uint64_t)1 << shift) >> 1;
    const int up = remainder > half || (remainder == half && half > 0u && (quotient & 1u) == 1u);
    return quotient + (up ? 1u : 0u);
}

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
static const uint16_t elstm_sigmoid_table[256] = {
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

/* The table at magnitude / 2**bits, interpolated: 2**bits times an entry.  bits is 9 or 8. */
static inline int32_t elstm_interpolate(int32_t magnitude, uint8_t bits)
{
    const int32_t index = magnitude >> bits;
    if (index >= 255) {
        return bits == 9u ? (int32_t)32767 << 10 : (int32_t)65535 << 8;
    }
    const int32_t weight = magnitude - (index << bits);
    const int32_t low = (int32_t)elstm_sigmoid_table[index];
    const int32_t high = (int32_t)elstm_sigmoid_table[index + 1];
    return (low << bits) + weight * (high - low);
}

/* x: int16 Q3.12.  Returns Q0.15. */
static inline int32_t elstm_sigmoid_by_table(int32_t x)
{
    const int32_t argument = x * 3;
    const int32_t value = elstm_interpolate(argument < 0 ? -argument : argument, 9);
    return (argument >= 0 ? value + 512 : ((int32_t)1 << 25) - value + 511) >> 10;
}

/* x: int16 with scale 2**(shift - 12), shift is -3 .. 3.  Returns Q0.15. */
static inline int32_t elstm_tanh_by_table(int32_t x, int8_t shift)
{
    const int32_t argument = shift >= 0 ? x * 3 * ((int32_t)1 << shift)
                                        : (x * 3 + ((int32_t)1 << (-shift - 1))) >> -shift;
    const int32_t value = elstm_interpolate(argument < 0 ? -argument : argument, 8);
    return (argument >= 0 ? value - ((int32_t)1 << 23) + 128 : -value + ((int32_t)1 << 23) + 127) >> 8;
}

/* exp(-2**e) in Q0.15 for e = -2 .. 4 */
static const int16_t elstm_exp_factors[7] = {25520, 19875, 12055, 4435, 600, 11, 0};

/* (a * b + 2**14) >> 15 for int16 values; -32768 * -32768 gives 32767. */
static inline int32_t elstm_half_multiply(int32_t a, int32_t b)
{
    const int32_t product = (a * b + ((int32_t)1 << 14)) >> 15;
    return product < 32767 ? product : 32767;
}

/* exp of x <= 0 in Q(integer_bits).(15 - integer_bits), as Q0.15; integer_bits is 1 .. 7. */
static inline int32_t elstm_exp_on_negative(int32_t x, uint8_t integer_bits)
{
    const uint8_t fraction_bits = (uint8_t)(15u - integer_bits);
    const int32_t quarter = (int32_t)1 << (fraction_bits - 2u);
    const int32_t remainder = (int32_t)((uint32_t)x & (uint32_t)(quarter - 1)) - quarter;
    const int32_t u = remainder * ((int32_t)1 << integer_bits) + 4096; /* -8192 .. 0, then -4096 .. 4096 */
    const int32_t u2 = elstm_half_multiply(u, u);
    const int32_t u3 = elstm_half_multiply(u2, u);
    const int32_t u4 = elstm_half_multiply(u2, u2);
    const int32_t cubic = elstm_half_multiply(elstm_rounding_shift(u4, 2) + u3, 10923);
    const int32_t tail = elstm_rounding_shift(cubic + u2, 1);
    const int32_t k = remainder - x;
    int32_t y = elstm_saturate_16(28918 + elstm_half_multiply(u + tail, 28918));
    const uint8_t factors = integer_bits < 5u ? (uint8_t)(integer_bits + 2u) : (uint8_t)7;
    for (uint8_t e = 0; e < factors; e++) {
        if (((uint32_t)k & ((uint32_t)quarter << e)) != 0u) {
            y = elstm_half_multiply(y, elstm_exp_factors[e]);
        }
    }
    if (integer_bits > 5u && x < -((int32_t)1 << (20u - integer_bits))) {
        y = 0;
    }
    return x == 0 ? 32767 : y;
}

/* 2 / (1 + y) for Q0.15 y in 0 .. 1, as Q2.13, by three Newton steps. */
static inline int32_t elstm_twice_reciprocal(int32_t y)
{
    const int32_t half = (y + 32768) >> 1;
    int32_t value = 23130 + elstm_half_multiply(half, -15420);
    for (uint8_t turn = 0; turn < 3u; turn++) {
        const int32_t error = 8192 - elstm_half_multiply(half, value);
        value += elstm_saturate_16(elstm_half_multiply(value, error) * 4);
    }
    return value;
}

/* x: int16 Q3.12.  Returns Q0.15. */
static inline int32_t elstm_sigmoid_by_polynomial(int32_t x)
{
    if (x == 0) {
        return 16384;
    }
    const int32_t exponential = elstm_exp_on_negative(x < 0 ? x : -x, 3);
    const int32_t positive = elstm_saturate_16(elstm_twice_reciprocal(exponential) * 2);
    return x > 0 ? positive : 32767 - positive;
}

/* x: int16 in Q(integer_bits).(15 - integer_bits), integer_bits is 0 .. 6.  Returns Q0.15. */
static inline int32_t elstm_tanh_by_polynomial(int32_t x, uint8_t integer_bits)
{
    if (x == 0) {
        return 0;
    }
    const int32_t exponential = elstm_exp_on_negative(x < 0 ? x : -x, (uint8_t)(integer_bits + 1u));
    const int32_t positive = elstm_saturate_16((elstm_twice_reciprocal(exponential) - 8192) * 4);
    return x > 0 ? positive : -positive;
}

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

/* Add the input and the recurrent term of a gate, int16 Q3.12. */
static inline int32_t elstm_combine_tflm(int32_t a, int32_t b)
{
    return elstm_saturate_16(elstm_saturate_16(a) + elstm_saturate_16(b));
}

/* As above; b is not saturated to 16 bits, but beyond +-65535 it decides the sum alone. */
static inline int32_t elstm_combine_litert(int32_t a, int32_t b)
{
    return elstm_saturate_16(elstm_saturate_16(a) + elstm_clamp(b, -65535, 65535));
}

static inline int32_t elstm_clip_cell(const elstm_lstm_t *layer, int32_t cell)
{
    const int32_t limit = layer->cell_clip;
    return limit != 0 ? elstm_clamp(cell, -limit, limit) : elstm_saturate_16(cell);
}

/* c' = f * c + i * g in cell codes.  |f * c| and |i * g| are below 2**30: each term fits 16 bits. */
static inline int32_t elstm_update_cell_tflm(const elstm_lstm_t *layer, int32_t cell, int32_t i, int32_t f, int32_t g)
{
    const int32_t kept = elstm_requantize_half(f * cell, 14);
    const int32_t fresh = elstm_requantize_half(i * g, (uint8_t)(29 + layer->cell_power));
    return elstm_clip_cell(layer, kept + fresh);
}

static inline int32_t elstm_update_cell_litert(const elstm_lstm_t *layer, int32_t cell, int32_t i, int32_t f,
                                               int32_t g)
{
    const int32_t kept = elstm_rounding_shift(f * cell, 15);
    const int32_t fresh = elstm_rounding_shift(i * g, (uint8_t)(30 + layer->cell_power));
    return elstm_clip_cell(layer, kept + fresh);
}

/* Shift to the zero point and saturate; the inner saturation changes nothing but keeps the sum in range. */
static inline int8_t elstm_code(int32_t x, int8_t zero_point)
{
    return (int8_t)elstm_clamp(elstm_saturate_16(x) + zero_point, -128, 127);
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
        const int32_t i = elstm_sigmoid_by_table(elstm_combine_tflm(a[GATE_I], b[GATE_I]));
        const int32_t f = elstm_sigmoid_by_table(elstm_combine_tflm(a[GATE_F], b[GATE_F]));
        const int32_t g = elstm_tanh_by_table(elstm_combine_tflm(a[GATE_G], b[GATE_G]), 0);
        const int32_t o = elstm_sigmoid_by_table(elstm_combine_tflm(a[GATE_O], b[GATE_O]));
        const int32_t c = elstm_update_cell_tflm(layer, cell[unit], i, f, g);
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
        const int32_t c = elstm_update_cell_litert(layer, cell[unit], i, f, g);
        cell[unit] = (int16_t)c;
        next[unit] = elstm_hidden(layer, o, elstm_tanh_by_polynomial(c, (uint8_t)(15 + layer->cell_power)));
        input_bias += GATES;
        recurrent_bias += GATES;
    }
}

/* acc = bias + row . x */
static inline int32_t elstm_dot(int32_t acc, const int8_t *row, const int8_t *x, uint16_t columns)
{
    for (const int8_t *const end = x + columns; x != end; x++) {
        acc += (int32_t)*row * (int32_t)*x;
        row++;
    }
    return acc;
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
