/* memory.h: RAM at start, and how deep the stack has been: what lies below it is painted and read back. */
#ifndef MEMORY_H
#define MEMORY_H

#include <stdint.h>

enum { STACK_PAINT = 0xA5, CALLER_BYTES = 64 };

extern uint8_t stack_limit[], stack_top[]; /* from the linker, as all names here */

/* The deepest use in bytes. */
static inline uint16_t stack_used(void)
{
    const uint8_t *byte = stack_limit;
    while (byte < stack_top && *byte == STACK_PAINT) {
        byte++;
    }
    return (uint16_t)(stack_top - byte);
}

#ifndef __AVR__ /* avr-libc does this itself */
extern uint32_t data_start[], data_end[], data_in_flash[], bss_start[], bss_end[];

/* Fill data and bss, paint the stack below the caller's frame. */
static inline void memory_start(const uint8_t *frame)
{
    const volatile uint32_t *from = data_in_flash;
    for (volatile uint32_t *to = data_start; to < data_end;) {
        *to++ = *from++;
    }
    for (volatile uint32_t *to = bss_start; to < bss_end;) {
        *to++ = 0;
    }
    for (volatile uint8_t *byte = stack_limit; byte < frame - CALLER_BYTES; byte++) {
        *byte = STACK_PAINT;
    }
}
#endif

#endif
