/* elstm.h: integer LSTM networks in C99: no heap, no float, no memory of its own.
 *
 * Every function returns the codes of its Python namesake; spec: NUMERICS.md of edge-lstm.  Constants come
 * from an exporter that has proven that no sum can overflow; nothing is checked again here.
 * Pointers must not be null and must not overlap, unless a comment says otherwise.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_H
#define ELSTM_H

#include <stdint.h>

#define ELSTM_API_VERSION 4

#ifdef __cplusplus
extern "C" {
#endif

/* Weights are read word by word. */
#ifdef __GNUC__
#define ELSTM_ALIGNED __attribute__((aligned(4)))
#else
#define ELSTM_ALIGNED
#endif

/* A factor multiplier * 2**(shift - 31); multiplier is 0 or 2**30 .. 2**31 - 1, shift is -31 .. 30.
 * What it multiplies is below 2**bits; 0: nothing is known.
 * In a dense layer of profile litert: a float32 multiplier * 2**shift; multiplier is 2**23 .. 2**24 - 1,
 * shift is -62 .. 0.
 */
typedef struct {
    int32_t multiplier;
    int8_t shift;
    uint8_t bits;
} elstm_requantizer_t;

/* One LSTM layer; gates in the order i, f, g, o. */
typedef struct {
    const int8_t *weights; /* [units]: four rows over the features, then four over the units; elstm_four_rows */
    const int32_t *bias;   /* [units][input's gates, hidden's gates], their zero points folded in */
    elstm_requantizer_t input[4];     /* of each gate, to Q3.12 */
    elstm_requantizer_t recurrent[4]; /* of each gate, to Q3.12 */
    elstm_requantizer_t hidden;       /* shift is -31 .. 0 */
    uint16_t features;
    uint16_t units;
    int16_t cell_clip;         /* the cell is kept within -cell_clip .. cell_clip; 0: no clip */
    int8_t cell_power;         /* the cell's scale is 2**cell_power, -15 .. -9 */
    int8_t hidden_zero_point;
} elstm_lstm_t;

/* One dense layer without activation. */
typedef struct {
    const int8_t *weights;                   /* four rows at a time, see elstm_four_rows; the last ones row by row */
    const int32_t *bias;                     /* [outputs], the input's zero point folded in */
    const elstm_requantizer_t *requantizers; /* one, or one a row */
    uint16_t features;
    uint16_t outputs;
    uint8_t per_row;                         /* 1: one requantizer a row, 0: one for all */
    int8_t output_zero_point;
} elstm_dense_t;

/* The raw integer of a sensor that stands for a missing value. */
#define ELSTM_MISSING INT32_MIN

/* Bits of a fine code below the point of an int8 code: int16 reaches four times beyond its range. */
#define ELSTM_FINE_BITS 6

/* How raw integers of one sensor become fine codes: (raw * multiplier + bias) >> shift, saturated to 16 bits. */
typedef struct {
    int64_t bias;       /* -2**62 .. 2**62 */
    int32_t multiplier; /* 2**30 .. 2**31 - 1 */
    int32_t low;        /* raw integers below count as low, -2**30 or more */
    int32_t high;       /* raw integers above count as high, 2**30 or less; between them 32 bits hold the result */
    uint8_t shift;      /* 15 .. 47 */
} elstm_scaler_t;

/* The detector's constants; their ranges keep every sum within 32 bits.  Scored rows: a residual of each channel,
 * then, where level_limit is not 0, a level of each.
 */
typedef struct {
    const elstm_scaler_t *scalers;  /* [channels] */
    const int16_t *forms;           /* [channels][lags + 1][channels], the present row first; null: the fine codes */
    const int32_t *residual_weight; /* [rows] */
    const int32_t *output_weight;   /* [channels] */
    const int32_t *offset;          /* [rows] */
    const int16_t *whitening;       /* [channels][channels] of the residuals, or null: none */
    const int16_t *knee;            /* [rows] Q5.10, 1 .. 32767: beyond it Huber's likelihood; or null */
    const int16_t *usual;           /* [rows] Q5.10: mean deviations of normal rows; null where adapt is 0 */
    const uint16_t *stuck;          /* [channels]: equal rows after which a channel is stuck, 0: never; or null */
    int32_t base;                   /* threshold = score_mean + base + (excess * gain >> 8), 0 .. 2**31 - 1 */
    int32_t excess;                 /* mean excess after a reset, 0 .. 2**31 - 1 */
    int32_t gain;                   /* 0 .. 2**24; 0: the excess stays */
    int32_t score_mean;             /* running mean of the scores after a reset, 0 .. 2**31 - 1 */
    uint16_t warmup;                /* rows after a reset without a score, 1 .. 65535; lags, ahead or more */
    uint16_t alpha;                 /* weight of a new sample in both averages, 1 .. 256 of 256 */
    uint16_t smoothed_gain;         /* of 256, 0 .. 256 */
    uint16_t energy_gain;           /* of 256, 0 .. 256 */
    uint16_t clear;                 /* an alarm ends below threshold * clear / 256, 1 .. 256 */
    uint16_t hold;                  /* rows for which an alarm lasts at least */
    uint16_t cooldown;              /* rows after an alarm in which none starts */
    int16_t adapt_limit;            /* Q5.10, 0 .. 3072: how far level and spread may move */
    int16_t level_limit;            /* Q5.10, 0 .. 32767; 0: no levels */
    int16_t start;                  /* the fine code of all inputs after a reset */
    int16_t output_zero_point;
    uint8_t channels;               /* 1 .. 127 */
    uint8_t rows;                   /* channels, or 2 * channels */
    uint8_t lags;                   /* 0 .. 32 */
    uint8_t forms_shift;            /* 0 .. 15 */
    uint8_t shift;                  /* 0 .. 20 */
    uint8_t whitening_shift;        /* 0 .. 15 */
    uint8_t rate;                   /* the excess moves by 1 / 2**rate, 0 .. 20 */
    uint8_t depth;                  /* the mean of the scores moves by 1 / 2**depth, 0 .. 20; 0: it stays 0 */
    uint8_t adapt;                  /* level and spread move by 1 / 2**adapt, 0 .. 18; 0: they stay */
    uint8_t debounce;               /* rows in a row that start or end an alarm, 1 .. 255 */
    uint8_t output_bits;            /* 8 or 16, of the network's output codes */
    uint8_t ahead;                  /* rows between what the network has read and what it writes of, 0 .. 16 */
    uint8_t context;                /* channels of residual_weight 0, which are read but not scored */
} elstm_detector_t;

/* What the detector keeps of the whole row. */
typedef struct {
    int32_t score;      /* Q19.12, of the last row that was scored */
    int32_t excess;     /* running mean of score - base between base and threshold */
    uint32_t saturated; /* values since the reset that lay outside the range of the codes */
    uint16_t seen;      /* rows since the reset, up to warmup */
    uint8_t run;        /* rows in a row on the other side of the threshold */
    uint8_t alarm;      /* 0 or 1 */
} elstm_alarm_t;

/* What the detector keeps of each channel, and what it keeps for options: null where they are off. */
typedef struct {
    int32_t *smoothed; /* [rows] Q5.16: running means, in spreads of normal data */
    int32_t *energy;   /* [rows] Q10.12: running means of the squares */
    int16_t *residual; /* [channels] Q5.10: of the last row, 0 where the channel was missing */
    int16_t *fine;     /* [lags + 1][channels]: of the last present raw integers, then of the rows before */
    void *forecast;    /* [ahead, or 1][channels] of int8_t or int16_t: the network's codes for the rows to come, the
                          next row first; for the last row where ahead is 0 */
    int32_t *learnt;   /* [2][rows] Q10 with adapt more bits: of the levels, and of one through the spreads */
    int32_t *running;  /* [2]: the running mean of the scores, Q19.12, and its depth bits below */
    uint16_t *still;   /* [channels]: rows in a row with the fine code of the row before, up to stuck */
    uint16_t *rest;    /* [1]: rows for which the alarm stays as it is */
} elstm_channels_t;

/* Set x[k] to the fine code where raw[k] is present: the codes of an int16 input. */
void elstm_scale_16(const elstm_scaler_t *scalers, const int32_t *raw, int16_t *x, uint16_t channels);

/* Set x[k] to the int8 code, sat8(rounding_shift(fine, ELSTM_FINE_BITS)), where raw[k] is present. */
void elstm_scale_8(const elstm_scaler_t *scalers, const int32_t *raw, int8_t *x, uint16_t channels);

#ifdef __cplusplus
}
#endif

#endif
