/* elstm_softmax.c: softmax in integers, as each runtime computes it.
 *
 * -ffunction-sections and --gc-sections drop what a network does not call.
 *
 * Deviations from MISRA C:2012:
 *   10.1  >> of negative values: must be arithmetic; elstm_fixed.h does not compile elsewhere
 *   18.4  advisory: pointers advance through codes that lie in the order of use
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "elstm_softmax.h"

#include "elstm_activations.h"

/* exp(-2**e) in Q0.31 for e = -2 .. 4 */
static const int32_t elstm_exp_factors_32[7] = {
    1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242,
};

/* exp of x <= 0 in Q5.26, as Q0.31. */
static int32_t elstm_exp_on_negative_32(int32_t x)
{
    const int32_t quarter = (int32_t)1 << 24;
    const int32_t remainder = (int32_t)((uint32_t)x & (uint32_t)(quarter - 1)) - quarter;
    const int32_t u = remainder * 32 + ((int32_t)1 << 28);
    const int32_t u2 = elstm_high_multiply(u, u);
    const int32_t u3 = elstm_high_multiply(u2, u);
    const int32_t u4 = elstm_high_multiply(u2, u2);
    const int32_t cubic = elstm_high_multiply(elstm_rounding_shift(u4, 2) + u3, 715827883);
    const int32_t tail = elstm_rounding_shift(cubic + u2, 1);
    const int32_t k = remainder - x;
    int32_t y = 1895147668 + elstm_high_multiply(u + tail, 1895147668);
    for (uint8_t e = 0; e < 7u; e++) {
        if (((uint32_t)k & ((uint32_t)quarter << e)) != 0u) {
            y = elstm_high_multiply(y, elstm_exp_factors_32[e]);
        }
    }
    return x == 0 ? INT32_MAX : y;
}

static int32_t elstm_saturate_32(int64_t x)
{
    return x > INT32_MAX ? INT32_MAX : (x < INT32_MIN ? INT32_MIN : (int32_t)x);
}

/* 2**31 / total as Q0.31 and how often to halve it; total: 2**19 .. 2**28 - 1 in Q12.19. */
static int32_t elstm_reciprocal_32(int32_t total, uint8_t *halvings)
{
    const uint8_t headroom = (uint8_t)(32u - elstm_bit_length((uint64_t)total));
    const int32_t half = total * ((int32_t)1 << (headroom - 1u)); /* 2**30 .. 2**31 - 1 */
    int32_t value = 1515870810 + elstm_high_multiply(half, -1010580540);
    for (uint8_t turn = 0; turn < 3u; turn++) {
        const int32_t error = ((int32_t)1 << 29) - elstm_high_multiply(half, value);
        value += elstm_saturate_32((int64_t)elstm_high_multiply(value, error) * 4);
    }
    *halvings = (uint8_t)(12u - headroom);
    return elstm_saturate_32((int64_t)value * 2);
}

static int32_t elstm_largest_8(const int8_t *x, const elstm_softmax_shape_t *shape)
{
    int32_t largest = *x;
    for (uint16_t entry = 1; entry < shape->entries; entry++) {
        x += shape->x_step;
        largest = *x > largest ? *x : largest;
    }
    return largest;
}

/* exp of a difference of codes that is not below ``lowest``, Q0.31. */
static int32_t elstm_power_32(const elstm_softmax_fixed_t *layer, int32_t difference)
{
    const int32_t shifted = (int32_t)(difference * ((int64_t)1 << (uint8_t)layer->scale.shift));
    return elstm_exp_on_negative_32(elstm_high_multiply(shifted, layer->scale.multiplier));
}

void elstm_softmax_by_polynomial(const elstm_softmax_fixed_t *layer, const int8_t *x, int8_t *y)
{
    const elstm_softmax_shape_t *const shape = &layer->shape;
    for (uint16_t column = 0; column < shape->columns; column++) {
        const int8_t *code = x + column;
        int8_t *share = y + column;
        const int32_t largest = elstm_largest_8(code, shape);
        int32_t total = 0;
        for (uint16_t entry = 0; entry < shape->entries; entry++) {
            const int32_t difference = *code - largest;
            if (difference >= layer->lowest) {
                total += elstm_rounding_shift(elstm_power_32(layer, difference), 12);
            }
            code += shape->x_step;
        }
        uint8_t halvings;
        const int32_t reciprocal = elstm_reciprocal_32(total, &halvings);
        code = x + column;
        for (uint16_t entry = 0; entry < shape->entries; entry++) {
            const int32_t difference = *code - largest;
            *share = -128;
            if (difference >= layer->lowest) {
                const int32_t product = elstm_high_multiply(elstm_power_32(layer, difference), reciprocal);
                *share = elstm_code(elstm_rounding_shift(product, (uint8_t)(halvings + 23u)), -128);
            }
            code += shape->x_step;
            share += shape->y_step;
        }
    }
}

/* A number significand * 2**exponent, 0 or more. */
typedef struct {
    uint64_t significand;
    int16_t exponent;
} elstm_float_t;

/* Round a significand of up to 52 bits to 24, ties to even; 2**24 may be left. */
static elstm_float_t elstm_round_float(uint64_t significand, int32_t exponent)
{
    const uint8_t length = elstm_bit_length(significand);
    const uint8_t spare = length > 24u ? (uint8_t)(length - 24u) : (uint8_t)0;
    const elstm_float_t rounded = {elstm_round_to_even(significand, spare), (int16_t)(exponent + spare)};
    return rounded;
}

/* a + b.  A term that lies 26 bits or more below the other is under half of its last place: 26 bits say the
 * same.
 */
static elstm_float_t elstm_add_float(elstm_float_t a, elstm_float_t b)
{
    const int32_t gap = elstm_clamp(a.exponent - b.exponent, -26, 26);
    if (gap >= 0) {
        return elstm_round_float((a.significand << gap) + b.significand, a.exponent - gap);
    }
    return elstm_round_float(a.significand + (b.significand << -gap), b.exponent + gap);
}

static elstm_float_t elstm_power_float(const elstm_softmax_float_t *layer, int32_t below)
{
    const elstm_float_t power = {(uint64_t)layer->significands[below], layer->exponents[below]};
    return power;
}

/* A float32 to the nearest integer, ties up; below 2**-38 it is 0. */
static int32_t elstm_nearest(elstm_float_t x)
{
    if (x.exponent < -62) {
        return 0;
    }
    const uint8_t shift = (uint8_t)-x.exponent;
    return (int32_t)((x.significand + ((uint64_t)1 << (shift - 1u))) >> shift);
}

void elstm_softmax_by_float(const elstm_softmax_float_t *layer, const int8_t *x, int8_t *y)
{
    const elstm_softmax_shape_t *const shape = &layer->shape;
    for (uint16_t column = 0; column < shape->columns; column++) {
        const int8_t *code = x + column;
        int8_t *share = y + column;
        const int32_t largest = elstm_largest_8(code, shape);
        elstm_float_t total = elstm_power_float(layer, largest - *code);
        for (uint16_t entry = 1; entry < shape->entries; entry++) {
            code += shape->x_step;
            total = elstm_add_float(total, elstm_power_float(layer, largest - *code));
        }
        /* 256 / total, whose rounding has no ties */
        const uint64_t reciprocal = (((uint64_t)1 << 48) / total.significand + 1u) >> 1;
        code = x + column;
        for (uint16_t entry = 0; entry < shape->entries; entry++) {
            const elstm_float_t power = elstm_power_float(layer, largest - *code);
            const int32_t exponent = power.exponent + 8 - 47 - total.exponent;
            *share = elstm_code(elstm_nearest(elstm_round_float(power.significand * reciprocal, exponent)), -128);
            code += shape->x_step;
            share += shape->y_step;
        }
    }
}

/* A table of 513 entries at int16 x, with linear interpolation over 7 bits. */
static int32_t elstm_look_up(const int16_t *table, int32_t x)
{
    const int32_t index = 256 + (x >> 7);
    const int32_t low = table[index];
    return low + (((table[index + 1] - low) * (x - (x >> 7) * 128) + 64) >> 7);
}

/* exp of a difference of codes, Q0.15. */
static int32_t elstm_power_16(const elstm_softmax_table_t *layer, int32_t difference)
{
    const int32_t scaled = elstm_requantize(difference, layer->scale);
    return elstm_look_up(layer->exponential, elstm_saturate_16(scaled + 32767));
}

void elstm_softmax_by_table(const elstm_softmax_table_t *layer, const int16_t *x, int16_t *y)
{
    const elstm_softmax_shape_t *const shape = &layer->shape;
    for (uint16_t column = 0; column < shape->columns; column++) {
        const int16_t *code = x + column;
        int16_t *share = y + column;
        int32_t largest = *code;
        for (uint16_t entry = 0; entry < shape->entries; entry++) {
            largest = *code > largest ? *code : largest;
            code += shape->x_step;
        }
        int32_t total = 0; /* below 2**31: at most 65535 entries */
        code = x + column;
        for (uint16_t entry = 0; entry < shape->entries; entry++) {
            total += elstm_power_16(layer, *code - largest);
            code += shape->x_step;
        }
        const uint8_t headroom = (uint8_t)(32u - elstm_bit_length((uint64_t)total));
        const int64_t mantissa = (((int64_t)total << (headroom - 1u)) + 8192) >> 14; /* Q1.16 of 1 .. 2 */
        const int32_t reciprocal = elstm_look_up(layer->reciprocal, elstm_saturate_16((int32_t)mantissa - 98304));
        const uint8_t right = (uint8_t)(31u - headroom);
        code = x + column;
        for (uint16_t entry = 0; entry < shape->entries; entry++) {
            const int32_t product = elstm_power_16(layer, *code - largest) * reciprocal;
            *share = (int16_t)elstm_clamp((product + ((int32_t)1 << (right - 1u))) >> right, 0, 32767);
            code += shape->x_step;
            share += shape->y_step;
        }
    }
}
