/* riscv.c: start-up of a 32-bit RISC-V in machine mode and port.h on a serial driver with a FIFO of its own.
 * Defines: TIMER_ADDRESS, the low half of mtime.
 */
#include "port.h"

#include "board.h"
#include "memory.h"

void board_reset(void);
void board_start(void);
int main(void);

__attribute__((section(".noinit"))) uint32_t port_seed; /* an emulator may set it before the start */
__attribute__((section(".noinit"))) static uint32_t boots; /* survives a reset */

__attribute__((naked, used, section(".text.start"))) void board_reset(void)
{
    __asm volatile("la sp, stack_top\n\t"
                   "j board_start");
}

__attribute__((used)) void board_start(void)
{
    memory_start(__builtin_frame_address(0));
    boots++;
    (void)main();
}

void port_start(void)
{
    uart_start();
}

int port_read(void)
{
    return uart_read();
}

void port_write(const uint8_t *bytes, uint16_t count)
{
    for (; count > 0u; count--) {
        uart_write(*bytes++);
    }
}

uint32_t port_cycles(void)
{
    return REGISTER(TIMER_ADDRESS);
}

uint32_t port_boot_id(void)
{
    return port_seed + boots;
}

uint16_t port_stack_used(void)
{
    return stack_used();
}
