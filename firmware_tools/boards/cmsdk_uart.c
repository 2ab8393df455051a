/* cmsdk_uart.c: the UART of Arm's Cortex-M System Design Kit.  Defines: UART_BASE, UART_BAUD, PORT_CLOCK_HZ. */
#include "board.h"

#define DATA REGISTER(UART_BASE + 0x00u)
#define STATE REGISTER(UART_BASE + 0x04u) /* bit 0: transmit buffer full, 1: receive buffer full */
#define CONTROL REGISTER(UART_BASE + 0x08u)
#define INTERRUPT_CLEAR REGISTER(UART_BASE + 0x0Cu)
#define BAUD_DIVIDER REGISTER(UART_BASE + 0x10u)

void uart_start(void)
{
    BAUD_DIVIDER = PORT_CLOCK_HZ / UART_BAUD;
    CONTROL = 0x0Bu; /* transmit, receive, interrupt on receipt */
}

int uart_read(void)
{
    INTERRUPT_CLEAR = 2u;
    return (STATE & 2u) != 0u ? (int)(uint8_t)DATA : -1;
}

void uart_write(uint8_t byte)
{
    while ((STATE & 1u) != 0u) {
    }
    DATA = byte;
}
