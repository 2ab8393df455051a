/* board.h: what a board's serial driver gives to the shared start-up code, which makes port.h of it. */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

void uart_start(void);         /* clocks, pins, speed UART_BAUD; with UART_IRQ: interrupt on receipt */
int uart_read(void);           /* the next byte received, or -1: none is there; never waits; ends its interrupt */
void uart_write(uint8_t byte); /* waits until the byte is handed over */

#endif
