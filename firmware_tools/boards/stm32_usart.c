/* stm32_usart.c: a USART of STM32F2 and F4 on port A (reference manual RM0390, chapters 6, 7 and 25).
 * Defines: UART_BASE, UART_BAUD, PORT_CLOCK_HZ (of its bus), UART_CLOCK_BIT (of APB1), PIN_TX, PIN_RX, PIN_FUNCTION.
 */
#include "board.h"

#define AHB1_CLOCKS REGISTER(0x40023830u)
#define APB1_CLOCKS REGISTER(0x40023840u)
#define PORT_A_MODE REGISTER(0x40020000u)
#define PORT_A_FUNCTION(pin) REGISTER(0x40020020u + 4u * ((pin) / 8u))
#define STATUS REGISTER(UART_BASE + 0x00u) /* bit 5: a byte has come, 7: room for one */
#define DATA REGISTER(UART_BASE + 0x04u)
#define BAUD REGISTER(UART_BASE + 0x08u)
#define CONTROL REGISTER(UART_BASE + 0x0Cu)

static void give_pin(uint32_t pin)
{
    PORT_A_MODE = (PORT_A_MODE & ~(3u << (2u * pin))) | (2u << (2u * pin));
    PORT_A_FUNCTION(pin) |= (uint32_t)PIN_FUNCTION << (4u * (pin % 8u));
}

void uart_start(void)
{
    AHB1_CLOCKS |= 1u; /* port A */
    APB1_CLOCKS |= 1u << UART_CLOCK_BIT;
    give_pin(PIN_TX);
    give_pin(PIN_RX);
    BAUD = (PORT_CLOCK_HZ + UART_BAUD / 2u) / UART_BAUD;
    CONTROL = 1u << 13 | 1u << 5 | 1u << 3 | 1u << 2; /* on, interrupt on receipt, transmit, receive */
}

int uart_read(void)
{
    return (STATUS & (1u << 5)) != 0u ? (int)(uint8_t)DATA : -1;
}

void uart_write(uint8_t byte)
{
    while ((STATUS & (1u << 7)) == 0u) {
    }
    DATA = byte;
}
