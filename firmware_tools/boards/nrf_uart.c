/* nrf_uart.c: UART0 of nRF51 and nRF52 (reference manuals, chapter UART).
 * Defines: UART_BASE, UART_BAUD 115200, PIN_TX, PIN_RX (32 and more: port 1); HFCLK_BASE where the crystal must
 * be started.
 */
#include "board.h"

#define START_RX REGISTER(UART_BASE + 0x000u)
#define START_TX REGISTER(UART_BASE + 0x008u)
#define RX_READY REGISTER(UART_BASE + 0x108u)
#define TX_READY REGISTER(UART_BASE + 0x11Cu)
#define INTERRUPT_SET REGISTER(UART_BASE + 0x304u)
#define ENABLE REGISTER(UART_BASE + 0x500u)
#define PIN_SELECT_TX REGISTER(UART_BASE + 0x50Cu)
#define PIN_SELECT_RX REGISTER(UART_BASE + 0x514u)
#define RX_BYTE REGISTER(UART_BASE + 0x518u)
#define TX_BYTE REGISTER(UART_BASE + 0x51Cu)
#define BAUD REGISTER(UART_BASE + 0x524u)

#define PORT_OF(pin) (0x50000000u + 0x300u * ((pin) / 32u))
#define PIN_CONTROL(pin) REGISTER(PORT_OF(pin) + 0x700u + 4u * ((pin) % 32u))
#define PIN_SET(pin) REGISTER(PORT_OF(pin) + 0x508u)

typedef char uart_speed_is_known[UART_BAUD == 115200 ? 1 : -1];

static uint8_t sending;

void uart_start(void)
{
#ifdef HFCLK_BASE
    REGISTER(HFCLK_BASE) = 1u; /* the internal oscillator is too far off for a UART */
    while (REGISTER(HFCLK_BASE + 0x100u) == 0u) {
    }
#endif
    PIN_SET(PIN_TX) = 1u << (PIN_TX % 32u); /* the line's idle level */
    PIN_CONTROL(PIN_TX) = 3u;               /* output */
    PIN_CONTROL(PIN_RX) = 0u;               /* input */
    PIN_SELECT_TX = PIN_TX;
    PIN_SELECT_RX = PIN_RX;
    BAUD = 0x01D7E000u; /* 115200 */
    ENABLE = 4u;
    INTERRUPT_SET = 1u << 2; /* on RX_READY */
    START_TX = 1u;
    START_RX = 1u;
}

int uart_read(void)
{
    if (RX_READY == 0u) {
        return -1;
    }
    RX_READY = 0u;
    return (int)(uint8_t)RX_BYTE;
}

void uart_write(uint8_t byte)
{
    while (sending != 0u && TX_READY == 0u) {
    }
    TX_READY = 0u;
    sending = 1;
    TX_BYTE = byte;
}
