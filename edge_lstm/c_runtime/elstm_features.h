/* elstm_features.h: features of raw samples, in integers; the rows are what NAME_detect takes.
 *
 * Fast channels bring int16 samples, of which none is missing; where samples were lost, reset the stage.
 * Slow channels bring int32 values, ELSTM_MISSING where a sample brings none.
 * Mirrors edge_lstm/extraction: the same integers, row by row.  No heap, no float.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ELSTM_FEATURES_H
#define ELSTM_FEATURES_H

#include "elstm.h"

#define ELSTM_FEATURES_VERSION 1

#ifdef __cplusplus
extern "C" {
#endif

/* Of a fast channel; mean, rms, std, peak and band are in 1/16 of a raw unit, crest and kurtosis in 1/256. */
enum {
    ELSTM_FAST_VALUE,        /* the last sample */
    ELSTM_FAST_MEAN,
    ELSTM_FAST_RMS,          /* with the mean */
    ELSTM_FAST_STD,          /* about the mean */
    ELSTM_FAST_PEAK,         /* largest distance from the mean */
    ELSTM_FAST_PEAK_TO_PEAK, /* raw units */
    ELSTM_FAST_CREST,        /* peak / std; 0 where std is */
    ELSTM_FAST_KURTOSIS,     /* 3 * 256 of normal noise; 0 of a constant */
    ELSTM_FAST_BAND          /* rms of the next of the channel's bands */
};

/* Of a slow channel, in its raw units. */
enum {
    ELSTM_SLOW_VALUE,        /* the last one since the row before */
    ELSTM_SLOW_DIFFERENCE,   /* to the value some rows ago */
    ELSTM_SLOW_LAG,          /* the value some rows ago */
    ELSTM_SLOW_ROLLING_MEAN, /* of the present values of the last rows */
    ELSTM_SLOW_ROLLING_STD   /* deviations beyond 2**24 count as that */
};

/* Highest power of the samples that a channel sums. */
enum { ELSTM_NO_POWERS = 0, ELSTM_SQUARES = 2, ELSTM_FOURTHS = 4 };

/* y = gain * (x - x two samples ago) + back[0] * y1 + back[1] * y2, all Q30; what a sum is cut by enters the next. */
typedef struct {
    int32_t gain;
    int32_t back[2];
} elstm_section_t;

/* A band-pass of two sections; no sample can bring an output to 2**29. */
typedef struct {
    elstm_section_t section[2];
    uint8_t fraction; /* bits of the outputs below the point, 10 .. 12 */
} elstm_band_t;

typedef struct {
    const elstm_band_t *bands; /* [band_count] */
    const uint8_t *kinds;      /* [kind_count]: a column each */
    uint8_t kind_count;
    uint8_t band_count;
    uint8_t powers;
} elstm_fast_t;

typedef struct {
    uint8_t kind;
    uint16_t rows; /* 1 .. 4096: how far it looks back */
} elstm_slow_feature_t;

typedef struct {
    const elstm_slow_feature_t *features; /* [feature_count]: a column each */
    uint8_t feature_count;
    uint16_t depth; /* rows that are kept, the present one included */
} elstm_slow_t;

/* The constants of a stage. */
typedef struct {
    const elstm_fast_t *fast; /* [fast_count] */
    const elstm_slow_t *slow; /* [slow_count] */
    uint8_t fast_count;
    uint8_t slow_count;
    uint16_t hop; /* samples a row, 1 .. 65535 */
} elstm_features_t;

/* What a fast channel keeps. */
typedef struct {
    uint64_t squares;    /* up to 2**46 */
    int64_t cubes;       /* within 2**61 */
    uint64_t fourths[2]; /* sums of the lower and of the upper words of x**4 */
    int32_t total;
    int16_t low;
    int16_t high;
    int16_t past[2]; /* the last two samples */
} elstm_fast_state_t;

typedef struct {
    uint64_t squares;   /* of the filtered samples in 1/16, below 2**62 */
    int32_t y[2][2];    /* the last two outputs of each section */
    int32_t rest[2];    /* what was cut off */
} elstm_band_state_t;

typedef struct {
    int32_t latest; /* value since the last row */
    uint16_t place; /* of the oldest row in its ring */
} elstm_slow_state_t;

/* What a stage keeps between samples. */
typedef struct {
    elstm_fast_state_t *fast; /* [fast_count] */
    elstm_band_state_t *bands; /* of all fast channels, in their order */
    elstm_slow_state_t *slow; /* [slow_count] */
    int32_t *past;            /* rings of all slow channels, depth values each */
} elstm_features_memory_t;

/* Samples since the last row, and whether there was one since the reset. */
typedef struct {
    uint16_t count;
    uint8_t started;
} elstm_features_progress_t;

/* The state after power-on; also after samples were lost. */
void elstm_features_reset(const elstm_features_t *features, const elstm_features_memory_t *memory,
                          elstm_features_progress_t *progress);

/* Take one sample of every channel; return 1 when it completes a row, which is then written, else 0.
 * sample: [fast_count], may be null without fast channels.  slow: [slow_count], or null where no value is there.
 * row: one int32 a column, ELSTM_MISSING where a slow channel has no value.
 */
uint8_t elstm_features_push(const elstm_features_t *features, const elstm_features_memory_t *memory,
                            elstm_features_progress_t *progress, const int16_t *sample, const int32_t *slow,
                            int32_t *row);

/* floor(sqrt(x)) */
uint16_t elstm_square_root_32(uint32_t x);
uint32_t elstm_square_root_64(uint64_t x);

#ifdef __cplusplus
}
#endif

#endif
