/* posix_port.c: a process as a board; it speaks on its standard input and output and ends with its input. */
#define _POSIX_C_SOURCE 200112L

#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "port.h"

#define WAIT_MS 100

static uint8_t received[4096];
static uint8_t sent[4096];
static struct {
    ssize_t count; /* of `received` */
    ssize_t at;
    uint16_t waiting; /* bytes of `sent` that are not written */
} line;

static void flush(void)
{
    uint16_t at = 0;
    while (at < line.waiting) {
        const ssize_t done = write(STDOUT_FILENO, sent + at, (size_t)(line.waiting - at));
        if (done < 0) {
            exit(0);
        }
        at = (uint16_t)(at + done);
    }
    line.waiting = 0;
}

void port_start(void)
{
}

/* Answers are written before it waits for the next byte. */
int port_read(void)
{
    if (line.at == line.count) {
        struct pollfd input = {STDIN_FILENO, POLLIN, 0};
        flush();
        if (poll(&input, 1, WAIT_MS) <= 0) {
            return -1;
        }
        line.at = 0;
        line.count = read(STDIN_FILENO, received, sizeof received);
        if (line.count <= 0) {
            exit(0);
        }
    }
    return received[line.at++];
}

void port_write(const uint8_t *bytes, uint16_t count)
{
    for (uint16_t byte = 0; byte < count; byte++) {
        if (line.waiting == sizeof sent) {
            flush();
        }
        sent[line.waiting++] = bytes[byte];
    }
}

/* Nanoseconds. */
uint32_t port_cycles(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)now.tv_sec * 1000000000u + (uint32_t)now.tv_nsec;
}

uint32_t port_boot_id(void)
{
    return (uint32_t)getpid();
}

uint16_t port_stack_used(void)
{
    return 0;
}
