/* protocol.c: the device's side of PROTOCOL.md.
 *
 * A request is performed once: its reply is kept, and a repetition gets that reply.  Numbers on the line and in
 * the model's codes and state are little-endian.
 */
#include "protocol.h"

#include <string.h>
#include "firmware_model.h"
#include "port.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "codes and states cross the line as they lie in memory: the core must be little-endian"
#endif
#if PROTOCOL_PAYLOAD < 48
#error "PROTOCOL_PAYLOAD must be 48 or more: hello does not fit"
#endif

#define PAYLOAD(least) ((least) > PROTOCOL_PAYLOAD ? (least) : PROTOCOL_PAYLOAD)
#define REQUEST_BYTES PAYLOAD(MODEL_REQUEST_BYTES)
#define REPLY_BYTES PAYLOAD(MODEL_REPLY_BYTES)
#define HEADER_BYTES 6 /* command, tag, session, sequence number */
#define CRC_BYTES 4
#define FRAME_BYTES(payload) (HEADER_BYTES + (payload) + CRC_BYTES)
#define RUN_READS (MODEL_READ_ROWS * MODEL_FEATURES * (MODEL_INPUT_BITS / 8))
#define RUN_WRITES (MODEL_WRITTEN_ROWS * MODEL_OUTPUTS * (MODEL_OUTPUT_BITS / 8))
#define RAW_ROW (4 * MODEL_FEATURES)
#define TEXT_BYTES 48
#define REFUSED 0xFFFFu

enum { HELLO = 1, RESET, RUN, DETECT, RUN_RAW, SAVE, RESTORE, STATISTICS, ECHO };
enum { BAD_FRAME = 1, BAD_SESSION, BAD_ORDER, BAD_COMMAND };
enum { REPLY = 0x80, REFUSAL = 0xFF };

static struct {
    uint32_t steps; /* since the reset; windows for a network with a window */
    model_state_t state;
} kept;

/* of the code types, so that a row is read and written where it lies */
static model_input_t request_codes[(FRAME_BYTES(REQUEST_BYTES) * 8 + MODEL_INPUT_BITS - 8) / MODEL_INPUT_BITS];
static model_output_t slot_codes[PROTOCOL_SLOTS]
                                [(FRAME_BYTES(REPLY_BYTES) * 8 + MODEL_OUTPUT_BITS - 8) / MODEL_OUTPUT_BITS];

static struct {
    uint64_t cycles;
    uint32_t least;
    uint32_t most;
    uint32_t timed;
    uint32_t bad_frames;
} counted;

static struct {
    uint16_t session; /* 0: none */
    uint16_t next;    /* sequence number of the next request */
    uint16_t count;   /* bytes received of the frame, also those that found no room */
    uint16_t slot_bytes[PROTOCOL_SLOTS];
    uint8_t left; /* COBS: bytes until the next code */
    uint8_t zero; /* COBS: a zero stands before the next block */
    uint8_t turn;   /* the slot of the next reply */
    uint8_t stored; /* replies kept of this session */
} link;

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] | (uint16_t)((uint16_t)at[1] << 8));
}

static uint32_t get32(const uint8_t *at)
{
    return get16(at) | (uint32_t)get16(at + 2) << 16;
}

static uint8_t *put(uint8_t *at, uint32_t value, uint8_t bytes)
{
    for (uint8_t byte = 0; byte < bytes; byte++) {
        *at++ = (uint8_t)value;
        value >>= 8;
    }
    return at;
}

/* CRC-32 of IEEE 802.3; bit by bit, since a table would lie in RAM on AVR. */
static uint32_t crc32(const uint8_t *bytes, uint16_t count)
{
    uint32_t crc = 0xFFFFFFFFu;
    while (count-- != 0u) {
        crc ^= *bytes++;
        for (uint8_t bit = 0; bit < 8u; bit++) {
            crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
        }
    }
    return ~crc;
}

/* Send a header and payload of `count` bytes; four bytes of room must follow. */
static void send(uint8_t *frame, uint16_t count)
{
    static const uint8_t end = 0;
    put(frame + count, crc32(frame, count), CRC_BYTES);
    count = (uint16_t)(count + CRC_BYTES);
    for (;;) {
        uint8_t run = 0;
        while (run < 254u && run < count && frame[run] != 0u) {
            run++;
        }
        const uint8_t code = (uint8_t)(run + 1u);
        port_write(&code, 1);
        port_write(frame, run);
        frame += run;
        count = (uint16_t)(count - run);
        if (count == 0u) {
            break;
        }
        if (run < 254u) { /* a zero, which the next block stands for */
            frame++;
            count--;
        }
    }
    port_write(&end, 1);
}

/* Answer that a request is not performed; the frame lies where the request did. */
static void refuse(uint8_t reason)
{
    uint8_t *frame = (uint8_t *)request_codes;
    if (reason == BAD_FRAME) {
        put(frame, 0, HEADER_BYTES);
    }
    frame[0] = REFUSAL;
    uint8_t *at = put(frame + HEADER_BYTES, reason, 1);
    at = put(at, link.session, 2);
    at = put(at, link.next, 2);
    at = put(at, port_boot_id(), 4);
    send(frame, (uint16_t)(at - frame));
}

static uint8_t *put_text(uint8_t *at, const char *text)
{
    for (uint8_t byte = 0; byte < TEXT_BYTES && text[byte] != '\0'; byte++) {
        *at++ = (uint8_t)text[byte];
    }
    return at;
}

static uint8_t *put_facts(uint8_t *at)
{
    static const uint8_t hash[8] = MODEL_HASH;
    at = put(at, PROTOCOL_VERSION, 1);
    at = put(at, PROTOCOL_SLOTS, 1);
    at = put(at, MODEL_INPUT_BITS, 1);
    at = put(at, MODEL_OUTPUT_BITS, 1);
    at = put(at, MODEL_FEATURES, 2);
    at = put(at, MODEL_OUTPUTS, 2);
    at = put(at, MODEL_WINDOW, 2);
    at = put(at, MODEL_WRITTEN_ROWS, 2);
    at = put(at, MODEL_RAW, 1);
    at = put(at, MODEL_DETECTOR, 1);
    at = put(at, link.stored, 1);
    at = put(at, REQUEST_BYTES, 2);
    at = put(at, REPLY_BYTES, 2);
    at = put(at, PORT_RX_BYTES, 2);
    at = put(at, (uint32_t)sizeof kept, 4);
    at = put(at, PORT_CLOCK_HZ, 4);
    at = put(at, port_boot_id(), 4);
    memcpy(at, hash, sizeof hash);
    return at + sizeof hash;
}

/* Open the session that the header names and say what is here; asked again, it changes nothing. */
static void hello(uint16_t count)
{
    uint8_t *frame = (uint8_t *)request_codes;
    uint8_t *at = frame + HEADER_BYTES;
    const uint8_t part = count != 0u ? *at : 0u;
    if (get16(frame + 2) != link.session) {
        link.session = get16(frame + 2);
        link.next = 0;
        link.stored = 0;
    }
    frame[0] = HELLO | REPLY;
    at = part == 0u ? put_facts(at) : put_text(at, part == 1u ? MODEL_NAME : MODEL_BUILD);
    send(frame, (uint16_t)(at - frame));
}

static void timed(uint32_t cycles)
{
    counted.cycles += cycles;
    counted.least = cycles < counted.least ? cycles : counted.least;
    counted.most = cycles > counted.most ? cycles : counted.most;
    counted.timed++;
    kept.steps++;
}

static void clear_statistics(void)
{
    memset(&counted, 0, sizeof counted);
    counted.least = 0xFFFFFFFFu;
}

static uint16_t run(uint16_t count, model_output_t *y)
{
    const model_input_t *x = request_codes + HEADER_BYTES * 8 / MODEL_INPUT_BITS;
    const uint16_t calls = (uint16_t)(count / RUN_READS);
    if (calls == 0u || count % RUN_READS != 0u || calls > REPLY_BYTES / RUN_WRITES) {
        return REFUSED;
    }
    for (uint16_t call = 0; call < calls; call++) {
        const uint32_t start = port_cycles();
        MODEL_RUN(&kept.state, x, y);
        timed(port_cycles() - start);
        x += MODEL_READ_ROWS * MODEL_FEATURES;
        y += MODEL_WRITTEN_ROWS * MODEL_OUTPUTS;
    }
    return (uint16_t)(calls * RUN_WRITES);
}

#if MODEL_RAW
/* Read a row of raw integers, which lies at any address. */
static const uint8_t *get_row(int32_t *raw, const uint8_t *at)
{
    for (uint16_t feature = 0; feature < MODEL_FEATURES; feature++) {
        const uint32_t value = get32(at);
        memcpy(&raw[feature], &value, sizeof value);
        at += sizeof value;
    }
    return at;
}

/* Scale each row to codes that take the place of the first rows, then run them. */
static uint16_t run_raw(const uint8_t *payload, uint16_t count, model_output_t *y)
{
    model_input_t *x = request_codes + HEADER_BYTES * 8 / MODEL_INPUT_BITS;
    const uint16_t rows = (uint16_t)(count / RAW_ROW);
    if (count % RAW_ROW != 0u || rows > REPLY_BYTES / RUN_WRITES) {
        return REFUSED;
    }
    for (uint16_t row = 0; row < rows; row++) {
        int32_t raw[MODEL_FEATURES];
        payload = get_row(raw, payload);
        for (uint16_t feature = 0; feature < MODEL_FEATURES; feature++) {
            x[feature] = MODEL_INPUT_ZERO_POINT;
        }
        MODEL_SCALE(raw, x);
        x += MODEL_FEATURES;
    }
    return run((uint16_t)(rows * RUN_READS), y);
}
#endif

#if MODEL_DETECTOR
static uint16_t detect(const uint8_t *payload, uint16_t count, uint8_t *at)
{
    const uint8_t *first = at;
    const uint16_t rows = (uint16_t)(count / RAW_ROW);
    if (rows == 0u || count % RAW_ROW != 0u || rows > REPLY_BYTES / (9 + 4 * MODEL_FEATURES)) {
        return REFUSED;
    }
    for (uint16_t row = 0; row < rows; row++) {
        int32_t raw[MODEL_FEATURES];
        int32_t score;
        payload = get_row(raw, payload);
        const uint32_t start = port_cycles();
        const uint8_t alarm = MODEL_DETECT(&kept.state, raw, &score);
        timed(port_cycles() - start);
        at = put(at, (uint32_t)score, 4);
        at = put(at, alarm, 1);
        at = put(at, (uint32_t)MODEL_THRESHOLD(&kept.state), 4);
        for (uint8_t channel = 0; channel < MODEL_FEATURES; channel++) {
            at = put(at, (uint32_t)MODEL_CONTRIBUTION(&kept.state, channel), 4);
        }
    }
    return (uint16_t)(at - first);
}
#endif

/* payload: offset 4, count 1. */
static uint16_t save(const uint8_t *payload, uint16_t count, uint8_t *at)
{
    const uint32_t offset = get32(payload);
    if (count != 5u || offset > sizeof kept || payload[4] > sizeof kept - offset || payload[4] > REPLY_BYTES) {
        return REFUSED;
    }
    memcpy(at, (const uint8_t *)&kept + offset, payload[4]);
    return payload[4];
}

/* payload: offset 4, then the bytes. */
static uint16_t restore(const uint8_t *payload, uint16_t count)
{
    const uint32_t offset = get32(payload);
    if (count < 4u || offset > sizeof kept || count - 4u > sizeof kept - offset) {
        return REFUSED;
    }
    memcpy((uint8_t *)&kept + offset, payload + 4, count - 4u);
    return 0;
}

static uint16_t statistics(const uint8_t *payload, uint16_t count, uint8_t *at)
{
    const uint8_t *first = at;
    at = put(at, (uint32_t)counted.cycles, 4);
    at = put(at, (uint32_t)(counted.cycles >> 32), 4);
    at = put(at, counted.least, 4);
    at = put(at, counted.most, 4);
    at = put(at, counted.timed, 4);
    at = put(at, kept.steps, 4);
    at = put(at, counted.bad_frames, 4);
#if MODEL_DETECTOR
    at = put(at, kept.state.detector.saturated, 4);
#else
    at = put(at, 0, 4);
#endif
    at = put(at, port_stack_used(), 2);
    if (count != 0u && *payload != 0u) {
        clear_statistics();
    }
    return (uint16_t)(at - first);
}

/* Perform one request once; returns the bytes written to `slot`, or REFUSED where nothing was changed. */
static uint16_t perform(uint16_t count, model_output_t *slot)
{
    const uint8_t *frame = (const uint8_t *)request_codes;
    const uint8_t *payload = frame + HEADER_BYTES;
    uint8_t *at = (uint8_t *)slot;
    switch (frame[0]) {
    case RESET:
        MODEL_RESET(&kept.state);
        kept.steps = 0;
        return 0;
    case RUN:
        return run(count, slot);
#if MODEL_DETECTOR
    case DETECT:
        return detect(payload, count, at);
#endif
#if MODEL_RAW
    case RUN_RAW:
        return run_raw(payload, count, slot);
#endif
    case SAVE:
        return save(payload, count, at);
    case RESTORE:
        return restore(payload, count);
    case STATISTICS:
        return statistics(payload, count, at);
    case ECHO:
        memcpy(at, payload, count <= REPLY_BYTES ? count : 0u);
        return count <= REPLY_BYTES ? count : REFUSED;
    default:
        return REFUSED;
    }
}

/* Answer a sound request with a payload of `count` bytes. */
static void answer(uint16_t count)
{
    const uint8_t *frame = (const uint8_t *)request_codes;
    if (frame[0] == HELLO) {
        hello(count);
        return;
    }
    if (link.session == 0u || get16(frame + 2) != link.session) {
        refuse(BAD_SESSION);
        return;
    }
    const uint16_t back = (uint16_t)(link.next - get16(frame + 4));
    if (back > link.stored) {
        refuse(BAD_ORDER);
        return;
    }
    const uint8_t slot = (uint8_t)((uint16_t)((uint16_t)(link.turn + PROTOCOL_SLOTS) - back) % PROTOCOL_SLOTS);
    uint8_t *reply = (uint8_t *)slot_codes[slot];
    if (back == 0u) {
        const uint16_t bytes = perform(count, slot_codes[slot] + HEADER_BYTES * 8 / MODEL_OUTPUT_BITS);
        if (bytes == REFUSED) {
            refuse(BAD_COMMAND);
            return;
        }
        link.slot_bytes[slot] = (uint16_t)(HEADER_BYTES + bytes);
        link.turn = (uint8_t)((link.turn + 1u) % PROTOCOL_SLOTS);
        link.stored = (uint8_t)(link.stored + (link.stored < PROTOCOL_SLOTS));
        link.next++;
    }
    memcpy(reply, frame, HEADER_BYTES);
    reply[0] |= REPLY;
    send(reply, link.slot_bytes[slot]);
}

static void keep(uint8_t byte)
{
    if (link.count < FRAME_BYTES(REQUEST_BYTES)) {
        ((uint8_t *)request_codes)[link.count++] = byte;
    } else {
        link.count = 0xFFFFu;
    }
}

/* Check the frame that has ended. */
static void frame_end(void)
{
    const uint8_t *frame = (const uint8_t *)request_codes;
    const uint16_t count = link.count;
    if (link.left == 0u && count != 0xFFFFu && count >= FRAME_BYTES(0)) {
        if (get32(frame + count - CRC_BYTES) == crc32(frame, (uint16_t)(count - CRC_BYTES))) {
            answer((uint16_t)(count - FRAME_BYTES(0)));
            return;
        }
    }
    counted.bad_frames++;
    refuse(BAD_FRAME);
}

void protocol_start(void)
{
    memset(&link, 0, sizeof link);
    MODEL_RESET(&kept.state);
    clear_statistics();
}

void protocol_byte(uint8_t byte)
{
    if (byte == 0u) {
        if (link.count != 0u || link.left != 0u || link.zero != 0u) {
            frame_end();
        }
        link.count = 0;
        link.left = 0;
        link.zero = 0;
    } else if (link.left == 0u) {
        if (link.zero != 0u) {
            keep(0);
        }
        link.left = (uint8_t)(byte - 1u);
        link.zero = byte != 255u;
    } else {
        keep(byte);
        link.left--;
    }
}
