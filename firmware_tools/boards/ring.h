/* ring.h: bytes on their way from the receive interrupt to port_read.  Written by one, read by the other.
 * Defines: RING_BYTES, a power of two, 128 or less.
 */
#ifndef RING_H
#define RING_H

#include <stdint.h>

typedef char ring_bytes_is_a_power_of_two[(RING_BYTES & (RING_BYTES - 1)) == 0 && RING_BYTES <= 128 ? 1 : -1];

typedef struct {
    volatile uint8_t written; /* counts bytes; indices are its low bits */
    volatile uint8_t read;
    uint8_t bytes[RING_BYTES];
} ring_t;

static inline int ring_is_full(const ring_t *ring)
{
    return (uint8_t)(ring->written - ring->read) == RING_BYTES;
}

static inline void ring_put(ring_t *ring, uint8_t byte)
{
    const uint8_t at = ring->written;
    ring->bytes[at % RING_BYTES] = byte;
    __asm volatile("" ::: "memory"); /* the byte before the count */
    ring->written = (uint8_t)(at + 1u);
}

/* The oldest byte, or -1: none. */
static inline int ring_take(ring_t *ring)
{
    const uint8_t at = ring->read;
    if (at == ring->written) {
        return -1;
    }
    const int byte = ring->bytes[at % RING_BYTES];
    __asm volatile("" ::: "memory"); /* the byte before the count */
    ring->read = (uint8_t)(at + 1u);
    return byte;
}

#endif
