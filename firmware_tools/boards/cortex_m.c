/* cortex_m.c: start-up of a Cortex-M and port.h on a serial driver.  Defines: UART_IRQ, PORT_CLOCK_HZ. */
#include "port.h"

#include "board.h"
#include "memory.h"
#include "ring.h"

#define SYSTICK_CONTROL REGISTER(0xE000E010u)
#define SYSTICK_RELOAD REGISTER(0xE000E014u)
#define SYSTICK_VALUE REGISTER(0xE000E018u)
#define INTERRUPT_STATE REGISTER(0xE000ED04u) /* bit 26: the SysTick interrupt is pending */
#define NVIC_ENABLE REGISTER(0xE000E100u + 4u * (UART_IRQ / 32u))
#define NVIC_DISABLE REGISTER(0xE000E180u + 4u * (UART_IRQ / 32u))
#define UART_BIT (1u << (UART_IRQ % 32u))
#define CPACR REGISTER(0xE000ED88u)
#define VTOR REGISTER(0xE000ED08u)
#define CCR REGISTER(0xE000ED14u)

void board_reset(void);
void board_fault(void);
void systick_interrupt(void);
void uart_interrupt(void);
int main(void);

__attribute__((section(".noinit"))) uint32_t port_seed; /* an emulator may set it before the start */
__attribute__((section(".noinit"))) static uint32_t boots; /* survives a reset */
static volatile uint32_t wraps; /* of SysTick */
static ring_t received;

typedef void handler_t(void);
__attribute__((section(".vectors"), used)) static const struct {
    const void *stack;
    handler_t *handler[15 + UART_IRQ + 1];
} vectors = {
    stack_top,
    {board_reset, board_fault, board_fault, board_fault, board_fault, board_fault, board_fault,
     [14] = systick_interrupt, [15 + UART_IRQ] = uart_interrupt},
};

void board_reset(void)
{
    memory_start(__builtin_frame_address(0));
#if !defined(__ARM_ARCH_6M__)
    VTOR = (uint32_t)&vectors; /* a bootloader may have had its own */
#endif
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    CPACR |= 0xFu << 20; /* the registers of FPU and MVE */
#endif
#ifdef __ARM_FEATURE_MVE
    CCR |= 1u << 19; /* LOB: loops whose end is predicted */
#endif
    __asm volatile("dsb\n\tisb" ::: "memory");
    boots++;
    (void)main();
}

void board_fault(void)
{
    for (;;) { /* silent: the host reports a board that does not answer */
    }
}

void systick_interrupt(void)
{
    wraps++;
}

/* A full ring leaves bytes in the UART until port_read makes room. */
void uart_interrupt(void)
{
    while (!ring_is_full(&received)) {
        const int byte = uart_read();
        if (byte < 0) {
            return;
        }
        ring_put(&received, (uint8_t)byte);
    }
    NVIC_DISABLE = UART_BIT;
}

void port_start(void)
{
    SYSTICK_RELOAD = 0xFFFFFFu;
    SYSTICK_VALUE = 0;
    SYSTICK_CONTROL = 7u; /* the core's clock, interrupt, on */
    uart_start();
    NVIC_ENABLE = UART_BIT;
}

/* Where nothing has come the core sleeps until the next interrupt, which wakes it though it is masked. */
int port_read(void)
{
    __asm volatile("cpsid i" ::: "memory");
    const int stopped = ring_is_full(&received);
    const int byte = ring_take(&received);
    if (stopped) {
        NVIC_ENABLE = UART_BIT;
    }
    if (byte < 0) {
        __asm volatile("dsb\n\twfi");
    }
    __asm volatile("cpsie i" ::: "memory");
    return byte;
}

void port_write(const uint8_t *bytes, uint16_t count)
{
    for (; count > 0u; count--) {
        uart_write(*bytes++);
    }
}

/* The interrupt comes where the counter reaches 0, so that 0 is the first cycle of the next round. */
uint32_t port_cycles(void)
{
    for (;;) {
        const uint32_t before = wraps;
        const uint32_t passed = (0u - SYSTICK_VALUE) & 0xFFFFFFu;
        const uint32_t uncounted = (INTERRUPT_STATE >> 26) & 1u & (passed < 0x800000u);
        if (before == wraps) {
            return ((before + uncounted) << 24) + passed;
        }
    }
}

uint32_t port_boot_id(void)
{
    return port_seed + boots;
}

uint16_t port_stack_used(void)
{
    return stack_used();
}
