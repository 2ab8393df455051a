/* rp2040_uart.c: UART0 of the RP2040 on its crystal (data sheet, chapters 2.14 to 2.16, 2.19, 4.2).
 * Defines: UART_BASE, UART_BAUD, PORT_CLOCK_HZ (12 MHz, the crystal's).
 */
#include "board.h"

#define CRYSTAL_CONTROL REGISTER(0x40024000u)
#define CRYSTAL_STATUS REGISTER(0x40024004u) /* bit 31: stable */
#define CRYSTAL_STARTUP REGISTER(0x4002400Cu)
#define REFERENCE_CLOCK REGISTER(0x40008030u)
#define REFERENCE_SELECTED REGISTER(0x40008038u)
#define PERIPHERAL_CLOCK REGISTER(0x40008048u)
#define RESETS REGISTER(0x4000C000u)
#define RESETS_DONE REGISTER(0x4000C008u)
#define PIN_0_FUNCTION REGISTER(0x40014004u)
#define PIN_1_FUNCTION REGISTER(0x4001400Cu)
#define DATA REGISTER(UART_BASE + 0x00u)
#define FLAGS REGISTER(UART_BASE + 0x18u) /* bit 4: nothing received, 5: no room */
#define BAUD_WHOLE REGISTER(UART_BASE + 0x24u)
#define BAUD_64THS REGISTER(UART_BASE + 0x28u)
#define LINE REGISTER(UART_BASE + 0x2Cu)
#define CONTROL REGISTER(UART_BASE + 0x30u)
#define INTERRUPTS REGISTER(UART_BASE + 0x38u)

#define BLOCKS (1u << 5 | 1u << 8 | 1u << 22) /* IO bank, pads, UART0 */
#define BAUD_DIVIDER ((8u * PORT_CLOCK_HZ / UART_BAUD + 1u) / 2u) /* in 64ths */

static void start_clocks(void)
{
    CRYSTAL_STARTUP = 47u; /* times 256 cycles: 1 ms */
    CRYSTAL_CONTROL = 0xFABAA0u; /* on, 1 to 15 MHz */
    while ((CRYSTAL_STATUS & (1u << 31)) == 0u) {
    }
    REFERENCE_CLOCK = 2u; /* the crystal; the system clock follows */
    while (REFERENCE_SELECTED != 1u << 2) {
    }
    PERIPHERAL_CLOCK = 1u << 11; /* the system clock */
}

void uart_start(void)
{
    start_clocks();
    RESETS &= ~BLOCKS;
    while ((RESETS_DONE & BLOCKS) != BLOCKS) {
    }
    PIN_0_FUNCTION = 2u; /* UART0 TX */
    PIN_1_FUNCTION = 2u; /* UART0 RX */
    BAUD_WHOLE = BAUD_DIVIDER / 64u;
    BAUD_64THS = BAUD_DIVIDER % 64u;
    LINE = 3u << 5;         /* 8 bits, no FIFO: an interrupt a byte */
    INTERRUPTS = 1u << 4;   /* on receipt */
    CONTROL = 1u << 9 | 1u << 8 | 1u; /* receive, transmit, on */
}

int uart_read(void)
{
    return (FLAGS & (1u << 4)) == 0u ? (int)(uint8_t)DATA : -1;
}

void uart_write(uint8_t byte)
{
    while ((FLAGS & (1u << 5)) != 0u) {
    }
    DATA = byte;
}
