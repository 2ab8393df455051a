/* protocol.h: the device's side of PROTOCOL.md: bytes in by protocol_byte, bytes out by port_write. */
#ifndef PROTOCOL_H
#define PROTOCOL_H

#include <stdint.h>

#define PROTOCOL_VERSION 2

/* Bytes of a payload, 48 or more; a model whose rows are longer gets what they need. */
#ifndef PROTOCOL_PAYLOAD
#define PROTOCOL_PAYLOAD 48
#endif

/* The last replies that are kept, 1 .. 255: as many requests can be on their way. */
#ifndef PROTOCOL_SLOTS
#define PROTOCOL_SLOTS 3
#endif

/* Set the model's state after power-on, without a session; call once, after port_start. */
void protocol_start(void);

/* Take the next byte that the host sent; where it ends a frame, answer it. */
void protocol_byte(uint8_t byte);

#endif
