/* mlperf.c: the ASCII commands of MLCommons Tiny's runner, in place of protocol.c and firmware.c.
 *
 * Commands end with '%': name, timestamp, profile, db load N, db HEX, db print, infer N W, results, help.
 * The input of an inference is one call of the model, as codes; each inference begins at reset.
 */
#include "firmware_model.h"
#include "port.h"

#define COMMAND_BYTES 80
#define INPUT_BYTES (MODEL_READ_ROWS * MODEL_FEATURES * MODEL_INPUT_BITS / 8)
#define OUTPUTS (MODEL_WRITTEN_ROWS * MODEL_OUTPUTS)
#define SHOWN_BYTES 8 /* of a line of db print */
#define DIGITS 10

static model_state_t state;
static model_input_t input[MODEL_READ_ROWS * MODEL_FEATURES];
static model_output_t output[OUTPUTS];
static struct {
    char text[COMMAND_BYTES + 1];
    uint8_t length;
    uint16_t expected; /* bytes that db load announced */
    uint16_t loaded;
    uint32_t cycles; /* of the last look at the counter, and those that are no whole microsecond */
    uint32_t rest;
    uint32_t microseconds; /* since the start; wraps after 71 minutes */
} runner;

static uint16_t length_of(const char *text)
{
    uint16_t length = 0;
    while (text[length] != '\0') {
        length++;
    }
    return length;
}

static int equal(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

static void put(const char *text)
{
    port_write((const uint8_t *)text, length_of(text));
}

static void put_number(uint32_t value, uint8_t least_digits)
{
    char digits[DIGITS + 1];
    uint8_t at = DIGITS;
    digits[at] = '\0';
    do {
        digits[--at] = (char)('0' + (int)(value % 10u));
        value /= 10u;
    } while (value > 0u || at + least_digits > DIGITS);
    put(digits + at);
}

static void put_byte(uint8_t byte)
{
    static const char hex[] = "0123456789abcdef";
    const char digits[3] = {hex[byte >> 4], hex[byte & 15u], '\0'};
    put(digits);
}

static void put_line(const char *before, uint32_t value, const char *after)
{
    put(before);
    put_number(value, 1);
    put(after);
    put("\r\n");
}

/* The counter wraps: it must be looked at more often than that. */
static void look_at_clock(void)
{
#if PORT_CLOCK_HZ >= 1000000
    const uint32_t now = port_cycles(), each = PORT_CLOCK_HZ / 1000000u;
    const uint32_t passed = now - runner.cycles;
    const uint32_t rest = runner.rest + passed % each;
    runner.microseconds += passed / each + rest / each;
    runner.rest = rest % each;
    runner.cycles = now;
#endif
}

static void timestamp(void)
{
    look_at_clock();
    put_line("m-lap-us-", runner.microseconds, ""); /* 0 on a board without a clock that counts them */
}

/* value / divisor; no board's library is asked for 64 bits. */
static uint32_t quotient(uint64_t value, uint32_t divisor)
{
    uint64_t rest = 0, result = 0;
    for (uint8_t bit = 0; bit < 64u; bit++) {
        rest = (rest << 1) | (value >> 63);
        value <<= 1;
        result <<= 1;
        if (rest >= divisor) {
            rest -= divisor;
            result |= 1u;
        }
    }
    return result < UINT32_MAX ? (uint32_t)result : UINT32_MAX;
}

/* Real values with six decimals. */
static void results(void)
{
    put("m-results-[");
    for (uint16_t k = 0; k < OUTPUTS; k++) {
        const int64_t nano = ((int64_t)output[k] - MODEL_OUTPUT_ZERO_POINT) * MODEL_OUTPUT_NANO_SCALE;
        const uint32_t micro = quotient((uint64_t)(nano < 0 ? -nano : nano) + 500u, 1000u);
        put(k == 0u ? "" : ",");
        put(nano < 0 ? "-" : "");
        put_number(micro / 1000000u, 1);
        put(".");
        put_number(micro % 1000000u, 6);
    }
    put("]\r\n");
}

static void infer_once(void)
{
    MODEL_RESET(&state);
    MODEL_RUN(&state, input, output);
    look_at_clock();
}

static void infer(uint32_t count, uint32_t warm_up)
{
    put_line("m-warmup-start-", warm_up, "");
    for (uint32_t turn = 0; turn < warm_up; turn++) {
        infer_once();
    }
    put("m-warmup-done\r\n");
    put_line("m-infer-start-", count, "");
    timestamp();
    for (uint32_t turn = 0; turn < count; turn++) {
        infer_once();
    }
    timestamp();
    put("m-infer-done\r\n");
    results();
}

/* The next word of *text, ended by a zero; empty at the end. */
static char *next_word(char **text)
{
    char *word = *text;
    while (*word == ' ' || *word == '\r' || *word == '\n') {
        word++;
    }
    char *end = word;
    while (*end != '\0' && *end != ' ') {
        end++;
    }
    *text = *end == '\0' ? end : end + 1;
    *end = '\0';
    return word;
}

/* A decimal number, or otherwise where the word is none. */
static uint32_t number(const char *word, uint32_t otherwise)
{
    uint32_t value = 0;
    if (*word == '\0') {
        return otherwise;
    }
    for (; *word >= '0' && *word <= '9' && value < 100000000u; word++) {
        value = value * 10u + (uint32_t)(*word - '0');
    }
    return *word == '\0' ? value : otherwise;
}

static int digit_of(char digit)
{
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    const char letter = (char)(digit | 0x20); /* lower case */
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

static void load(const char *hex)
{
    uint8_t *const bytes = (uint8_t *)input;
    if (length_of(hex) % 2u != 0u) {
        put("e-[Insufficent number of hex digits]\r\n");
        return;
    }
    for (; *hex != '\0' && runner.loaded < runner.expected; hex += 2) {
        const int high = digit_of(hex[0]), low = digit_of(hex[1]);
        if (high < 0 || low < 0) {
            put("e-[Invalid hex digit]\r\n");
            return;
        }
        bytes[runner.loaded++] = (uint8_t)(16 * high + low);
        if (runner.loaded == runner.expected) {
            put("m-load-done\r\n");
        }
    }
}

static void print_buffer(void)
{
    const uint8_t *const bytes = (const uint8_t *)input;
    for (uint16_t at = 0; at < runner.expected; at++) {
        put(at % SHOWN_BYTES == 0u ? "m-buffer-" : "-");
        put_byte(bytes[at]);
        put((at + 1u) % SHOWN_BYTES == 0u || at + 1u == runner.expected ? "\r\n" : "");
    }
}

static void buffer(char *rest)
{
    const char *const word = next_word(&rest);
    if (equal(word, "load")) {
        const uint32_t bytes = number(next_word(&rest), 0);
        if (bytes != INPUT_BYTES) {
            put_line("e-[This model takes ", INPUT_BYTES, " bytes]");
            return;
        }
        runner.expected = (uint16_t)bytes;
        runner.loaded = 0;
        put_line("m-[Expecting ", bytes, " bytes]");
    } else if (equal(word, "print")) {
        print_buffer();
    } else if (*word == '\0') {
        put("e-[Command 'db' requires a subcommand]\r\n");
    } else {
        load(word);
    }
}

static void perform(char *rest)
{
    const char *const word = next_word(&rest);
    if (equal(word, "name")) {
        put("m-name-dut-[" MODEL_NAME "]\r\n");
    } else if (equal(word, "timestamp")) {
        timestamp();
    } else if (equal(word, "profile")) {
        put("m-profile-[ULPMark for tinyML Firmware V0.0.1]\r\nm-model-[" MODEL_NAME "]\r\n");
    } else if (equal(word, "help")) {
        put(MODEL_BUILD "\r\nname timestamp profile db infer results\r\n");
    } else if (equal(word, "db")) {
        buffer(rest);
    } else if (equal(word, "infer")) {
        const uint32_t count = number(next_word(&rest), 1);
        if (count == 0u) {
            put("e-[Inference iterations must be >0]\r\n");
        } else {
            infer(count, number(next_word(&rest), 10));
        }
    } else if (equal(word, "results")) {
        results();
    } else {
        put("e-[Unknown command: ");
        put(word);
        put("]\r\n");
    }
}

int main(void)
{
    port_start();
    runner.cycles = port_cycles();
    put("m-init-done\r\nm-ready\r\n");
    for (;;) {
        const int byte = port_read();
        look_at_clock();
        if (byte == '%') {
            runner.text[runner.length] = '\0';
            runner.length = 0;
            perform(runner.text);
            put("m-ready\r\n");
        } else if (byte >= 0 && runner.length < COMMAND_BYTES) {
            runner.text[runner.length++] = (char)byte;
        }
    }
}
