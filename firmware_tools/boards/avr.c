/* avr.c: port.h on an ATmega with USART0 and timer 1; start-up is avr-libc's.  Defines: PORT_CLOCK_HZ, UART_BAUD. */
#include "port.h"

#include "memory.h"
#include "ring.h"

#include <avr/interrupt.h>
#include <avr/io.h>
#include <util/atomic.h>

#ifdef USART_RX_vect
#define RECEIVED_vect USART_RX_vect
#else
#define RECEIVED_vect USART0_RX_vect
#endif
#define DOUBLE_SPEED_DIVIDER ((PORT_CLOCK_HZ + 4 * UART_BAUD) / (8 * UART_BAUD) - 1)

__attribute__((section(".noinit"))) uint32_t port_seed; /* an emulator may set it before the start */
__attribute__((section(".noinit"))) static uint32_t boots; /* survives a reset */
static volatile uint16_t wraps; /* of timer 1 */
static ring_t received;

void paint(void);

/* Before the C start-up: no stack is in use. */
__attribute__((naked, used, section(".init3"))) void paint(void)
{
    __asm volatile("ldi r30, lo8(stack_limit)\n\t"
                   "ldi r31, hi8(stack_limit)\n\t"
                   "ldi r24, %0\n\t"
                   "ldi r25, hi8(stack_top)\n"
                   "1:\n\t"
                   "st Z+, r24\n\t"
                   "cpi r30, lo8(stack_top)\n\t"
                   "cpc r31, r25\n\t"
                   "brlo 1b" ::"M"(STACK_PAINT)
                   : "r24", "r25", "r30", "r31", "memory");
}

ISR(TIMER1_OVF_vect)
{
    wraps++;
}

/* A full ring leaves bytes in the USART until port_read makes room. */
ISR(RECEIVED_vect)
{
    ring_put(&received, UDR0);
    if (ring_is_full(&received)) {
        UCSR0B &= (uint8_t)~_BV(RXCIE0);
    }
}

void port_start(void)
{
    boots++;
    UBRR0 = (uint16_t)DOUBLE_SPEED_DIVIDER;
    UCSR0A = _BV(U2X0);
    UCSR0C = _BV(UCSZ01) | _BV(UCSZ00);
    UCSR0B = _BV(RXCIE0) | _BV(RXEN0) | _BV(TXEN0);
    TCCR1B = _BV(CS10); /* timer 1 counts the core's clock */
    TIMSK1 = _BV(TOIE1);
    sei();
}

int port_read(void)
{
    int byte;
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE)
    {
        const int stopped = ring_is_full(&received);
        byte = ring_take(&received);
        if (stopped) {
            UCSR0B |= _BV(RXCIE0);
        }
    }
    return byte;
}

void port_write(const uint8_t *bytes, uint16_t count)
{
    for (; count > 0u; count--) {
        while ((UCSR0A & _BV(UDRE0)) == 0) {
        }
        UDR0 = *bytes++;
    }
}

uint32_t port_cycles(void)
{
    uint16_t low, high;
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE)
    {
        low = TCNT1;
        high = wraps;
        if ((TIFR1 & _BV(TOV1)) != 0 && low < 0x8000u) { /* wrapped, but not counted yet */
            high++;
        }
    }
    return (uint32_t)high << 16 | low;
}

uint32_t port_boot_id(void)
{
    return port_seed + boots;
}

uint16_t port_stack_used(void)
{
    return stack_used();
}
