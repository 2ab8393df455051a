/* port.h: all that a board provides to the firmware.
 *
 * Flags of a board, with -D: PORT_CLOCK_HZ, PORT_RX_BYTES, and of protocol.h PROTOCOL_PAYLOAD, PROTOCOL_SLOTS.
 */
#ifndef PORT_H
#define PORT_H

#include <stdint.h>

#ifndef PORT_CLOCK_HZ
#define PORT_CLOCK_HZ 0 /* of port_cycles; 0: unknown */
#endif

/* Bytes that arrive and are kept while nobody calls port_read: an interrupt's ring, a FIFO, or any large number
 * up to 65535 where the line itself waits.  The host sends no more ahead; 0: one frame at a time.
 */
#ifndef PORT_RX_BYTES
#define PORT_RX_BYTES 0
#endif

void port_start(void);                                 /* clocks and the serial line; returns once */
int port_read(void);                                   /* the next byte received, 0 .. 255, or -1: none is there */
void port_write(const uint8_t *bytes, uint16_t count); /* waits until all are handed over; count may be 0 */
uint32_t port_cycles(void);      /* free-running counter of cycles or timer ticks, wraps; 0 where there is none */
uint32_t port_boot_id(void);     /* differs from boot to boot where the board can tell; else a constant */
uint16_t port_stack_used(void);  /* deepest use of the stack in bytes since start; 0 where it is not known */

#endif
