/* harness.h: what an executor calls in a model's C; expanded once a model in the generated edge_harness.c.
 * The state and all arrays belong to the caller; x and raw hold one row after another.
 */
#ifndef EDGE_HARNESS_H
#define EDGE_HARNESS_H

#include <stddef.h>
#include <stdint.h>

/* One state for the emulated cores; a host process allocates its own. */
#define HARNESS_STATE(name)                                                                                    \
    name##_state_t name##_harness_state;                                                                       \
    const uint32_t name##_harness_state_bytes = (uint32_t)sizeof(name##_state_t);

/* A streaming network.  x_code, y_code: the types of its codes. */
#define HARNESS_STREAM(name, NAME, x_code, y_code)                                                             \
    HARNESS_STATE(name)                                                                                        \
    void name##_harness_run(name##_state_t *state, const x_code *x, y_code *y, uint32_t steps);                \
    void name##_harness_run(name##_state_t *state, const x_code *x, y_code *y, uint32_t steps)                 \
    {                                                                                                          \
        for (uint32_t t = 0; t < steps; t++) {                                                                 \
            name##_step(state, x, y);                                                                          \
            x += NAME##_FEATURES;                                                                              \
            y += NAME##_OUTPUTS;                                                                               \
        }                                                                                                      \
    }                                                                                                          \
    void name##_harness_reset(name##_state_t *state);                                                          \
    void name##_harness_reset(name##_state_t *state)                                                           \
    {                                                                                                          \
        name##_reset(state);                                                                                   \
    }

/* A network that takes a window at a time, and nothing from one to the next. */
#define HARNESS_WINDOW(name, NAME, x_code, y_code)                                                             \
    HARNESS_STATE(name)                                                                                        \
    void name##_harness_run(name##_state_t *state, const x_code *x, y_code *y, uint32_t windows);              \
    void name##_harness_run(name##_state_t *state, const x_code *x, y_code *y, uint32_t windows)               \
    {                                                                                                          \
        for (uint32_t window = 0; window < windows; window++) {                                                \
            name##_window(state, x, y);                                                                        \
            x += NAME##_WINDOW * NAME##_FEATURES;                                                              \
            y += NAME##_ROWS * NAME##_OUTPUTS;                                                                 \
        }                                                                                                      \
    }                                                                                                          \
    void name##_harness_reset(name##_state_t *state);                                                          \
    void name##_harness_reset(name##_state_t *state)                                                           \
    {                                                                                                          \
        (void)state;                                                                                           \
    }

/* raw: integers of the sensors.  rows: score, alarm, threshold and the contributions of each row. */
#define HARNESS_DETECTOR(name, NAME)                                                                           \
    void name##_harness_detect(name##_state_t *state, const int32_t *raw, int32_t *rows, uint32_t steps);      \
    void name##_harness_detect(name##_state_t *state, const int32_t *raw, int32_t *rows, uint32_t steps)       \
    {                                                                                                          \
        for (uint32_t t = 0; t < steps; t++) {                                                                 \
            rows[1] = name##_detect(state, raw, &rows[0]);                                                     \
            rows[2] = name##_threshold(state);                                                                 \
            for (uint32_t channel = 0; channel < NAME##_FEATURES; channel++) {                                 \
                rows[3u + channel] = name##_contribution(state, (uint8_t)channel);                             \
            }                                                                                                  \
            raw += NAME##_FEATURES;                                                                            \
            rows += 3 + NAME##_FEATURES;                                                                       \
        }                                                                                                      \
    }

#endif
