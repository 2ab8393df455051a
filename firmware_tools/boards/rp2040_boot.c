/* rp2040_boot.c: the 256 bytes that the RP2040's ROM loads from flash, checks and runs: they let the core read
 * flash as memory, by the command 03h that every flash knows, and start the image behind them
 * (data sheet, chapters 2.8.1 and 4.10).
 */
#include <stdint.h>

void rp2040_boot(void);

__attribute__((naked, used, section(".boot"))) void rp2040_boot(void)
{
    __asm volatile("ldr r3, =0x18000000\n\t" /* the flash's serial interface */
                   "movs r1, #0\n\t"
                   "str r1, [r3, #0x08]\n\t" /* SSIENR: off */
                   "movs r1, #4\n\t"
                   "str r1, [r3, #0x14]\n\t" /* BAUDR: a quarter of the system clock */
                   "ldr r1, =0x001F0300\n\t"
                   "str r1, [r3, #0x00]\n\t" /* CTRLR0: 32 bits a frame, a read with command and address */
                   "movs r1, #0\n\t"
                   "str r1, [r3, #0x04]\n\t" /* CTRLR1: one frame */
                   "ldr r0, =0x180000F4\n\t"
                   "ldr r1, =0x03000218\n\t"
                   "str r1, [r0]\n\t" /* SPI_CTRLR0: command 03h of 8 bits, address of 24 */
                   "movs r1, #1\n\t"
                   "str r1, [r3, #0x08]\n\t" /* SSIENR: on */
                   "ldr r0, =0x10000100\n\t"
                   "ldr r1, =0xE000ED08\n\t"
                   "str r0, [r1]\n\t" /* VTOR: the image's vectors */
                   "ldmia r0!, {r1, r2}\n\t"
                   "msr msp, r1\n\t"
                   "bx r2\n\t"
                   ".balign 4\n\t"
                   ".ltorg\n\t"
                   ".space 252 - (. - rp2040_boot)\n\t"
                   ".word 0x5173B336"); /* CRC-32 of the 252 bytes, as the ROM computes it */
}
