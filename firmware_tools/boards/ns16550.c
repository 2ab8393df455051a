/* ns16550.c: the 16550 UART.  Defines: UART_BASE, UART_BAUD, UART_CLOCK_HZ. */
#include "board.h"

#define UART(offset) (*(volatile uint8_t *)(uintptr_t)(UART_BASE + (offset)))
#define DIVIDER (UART_CLOCK_HZ / 16u / UART_BAUD)

void uart_start(void)
{
    UART(3) = 0x80u; /* the divider's latch */
    UART(0) = (uint8_t)DIVIDER;
    UART(1) = (uint8_t)(DIVIDER >> 8);
    UART(3) = 0x03u; /* 8 bits, no parity, 1 stop bit */
    UART(2) = 0x01u; /* FIFOs on */
    UART(1) = 0x00u; /* no interrupts */
}

int uart_read(void)
{
    return (UART(5) & 0x01u) != 0u ? (int)UART(0) : -1;
}

void uart_write(uint8_t byte)
{
    while ((UART(5) & 0x20u) == 0u) {
    }
    UART(0) = byte;
}
