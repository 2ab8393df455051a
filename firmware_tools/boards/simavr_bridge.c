/* simavr_bridge.c: an ATmega in simavr whose USART0 is a TCP connection.
 *
 * Arguments: MCU, its clock in Hz, the ELF, the number of a listening socket, address and value of a 32-bit
 * word to set in RAM.  One client at a time; the machine runs on between clients.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <simavr/avr_uart.h>
#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>

enum { CYCLES_A_LOOK = 2000, BUFFER_BYTES = 4096 };

static int client = -1, paused;
static uint8_t sent[BUFFER_BYTES], waiting[BUFFER_BYTES];
static size_t sent_count, waiting_count, waiting_at;

static void on_output(struct avr_irq_t *irq, uint32_t value, void *unused)
{
    (void)irq, (void)unused;
    if (sent_count < BUFFER_BYTES) {
        sent[sent_count++] = (uint8_t)value;
    }
}

static void on_flow(struct avr_irq_t *irq, uint32_t value, void *off)
{
    (void)irq, (void)value;
    paused = off != NULL;
}

static void drop_client(void)
{
    shutdown(client, SHUT_RDWR);
    client = -1;
    sent_count = waiting_count = waiting_at = 0;
}

static void look_at_socket(int listener, struct avr_irq_t *input)
{
    const int now = 1;
    if (client < 0) {
        client = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        sent_count = 0;
        if (client >= 0) {
            setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &now, sizeof now);
        }
        return;
    }
    if (waiting_at == waiting_count) {
        const ssize_t got = recv(client, waiting, BUFFER_BYTES, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN)) {
            drop_client();
            return;
        }
        waiting_at = 0;
        waiting_count = got > 0 ? (size_t)got : 0;
    }
    while (waiting_at < waiting_count && !paused) {
        avr_raise_irq(input, waiting[waiting_at++]);
    }
    if (sent_count > 0) {
        const ssize_t put = send(client, sent, sent_count, MSG_NOSIGNAL);
        if (put > 0) {
            sent_count -= (size_t)put;
            memmove(sent, sent + put, sent_count);
        } else if (errno != EAGAIN) {
            drop_client();
        }
    }
}

static avr_t *start_machine(char **arguments)
{
    elf_firmware_t firmware;
    memset(&firmware, 0, sizeof firmware);
    if (elf_read_firmware(arguments[3], &firmware) != 0) {
        fprintf(stderr, "simavr cannot read %s\n", arguments[3]);
        exit(1);
    }
    avr_t *avr = avr_make_mcu_by_name(arguments[1]);
    if (avr == NULL) {
        fprintf(stderr, "simavr does not know the MCU %s\n", arguments[1]);
        exit(1);
    }
    avr_init(avr);
    firmware.frequency = (uint32_t)strtoul(arguments[2], NULL, 10);
    avr_load_firmware(avr, &firmware);
    avr->log = LOG_ERROR;
    const uint32_t seed = (uint32_t)strtoul(arguments[6], NULL, 10);
    memcpy(avr->data + strtoul(arguments[5], NULL, 10), &seed, sizeof seed);
    return avr;
}

int main(int count, char **arguments)
{
    if (count != 7) {
        fprintf(stderr, "usage: simavr_bridge MCU HZ ELF SOCKET ADDRESS VALUE\n");
        return 2;
    }
    avr_t *avr = start_machine(arguments);
    const int listener = atoi(arguments[4]);
    uint32_t flags = 0; /* neither prints nor sleeps */
    avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
    struct avr_irq_t *uart = avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), 0);
    avr_irq_register_notify(uart + UART_IRQ_OUTPUT, on_output, NULL);
    avr_irq_register_notify(uart + UART_IRQ_OUT_XON, on_flow, NULL);
    avr_irq_register_notify(uart + UART_IRQ_OUT_XOFF, on_flow, &paused);
    avr_cycle_count_t next = 0;
    for (;;) {
        const int state = avr_run(avr);
        if (state == cpu_Done || state == cpu_Crashed) {
            fprintf(stderr, "the AVR has crashed at 0x%x\n", (unsigned)avr->pc);
            return 1;
        }
        if (avr->cycle >= next) {
            next = avr->cycle + CYCLES_A_LOOK;
            look_at_socket(listener, uart + UART_IRQ_INPUT);
        }
    }
}
