/* qemu.c: what runs beside a model on a Cortex-M in QEMU: it reads requests from standard input, serves them
 * and writes replies to standard output.  Words are little-endian.
 *
 * A request is request_t; QEMU_WRITE is followed by size bytes.  Replies: QEMU_READ: size bytes; QEMU_WRITE:
 * none; QEMU_CALL: reply_t.  A fault replies with its own status and ends the machine.
 */
#include <stddef.h>
#include <stdint.h>

enum { QEMU_READ, QEMU_WRITE, QEMU_CALL };
enum { QEMU_RETURNED = 0x600D, QEMU_FAULTED = 0xBAD };
enum { SYS_OPEN = 0x01, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_EXIT = 0x18 };
enum { OPEN_TO_READ = 1, OPEN_TO_WRITE = 5, APPLICATION_EXIT = 0x20026 };

typedef struct {
    uint32_t kind;
    uint32_t address;
    uint32_t size;
    uint32_t arguments[5];
} request_t;

typedef struct {
    uint32_t status;
    uint32_t result; /* of the call, or the program counter of the fault */
    uint32_t ticks;  /* of the system timer during the call, or the fault's status register */
} reply_t;

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define CPACR REGISTER(0xE000ED88u)
#define CCR REGISTER(0xE000ED14u)
#define CFSR REGISTER(0xE000ED28u)
#define COUNTER_CONTROL REGISTER(0x58100000u)
#define TIMER 0x58000000u /* its first word: the low half of the counter */
#define STACK_TOP 0x30010000u

void qemu_start(void);
void qemu_fault(void);
void qemu_report(const uint32_t *frame);
void qemu_nothing(void);

static uint32_t loop_stack[256] __attribute__((aligned(8)));
static uint32_t in_handle, out_handle;

__attribute__((section(".vectors"), used)) static const struct {
    const void *stack;
    void (*entry[15])(void);
} vectors = {loop_stack + 256, {qemu_start, qemu_fault, qemu_fault, qemu_fault, qemu_fault, qemu_fault, qemu_fault}};

static uint32_t semihosting(uint32_t operation, const void *parameters)
{
    register uint32_t r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = parameters;
    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static uint32_t open_file(const char *name, uint32_t length, uint32_t mode)
{
    const uint32_t parameters[3] = {(uint32_t)name, mode, length};
    return semihosting(SYS_OPEN, parameters);
}

/* Read or write all bytes; the end of the input ends the machine. */
static void transfer(uint32_t operation, uint32_t handle, uint32_t address, uint32_t bytes)
{
    while (bytes != 0u) {
        const uint32_t parameters[3] = {handle, address, bytes};
        const uint32_t left = semihosting(operation, parameters);
        if (left >= bytes) {
            semihosting(SYS_EXIT, (const void *)APPLICATION_EXIT);
        }
        address += bytes - left;
        bytes = left;
    }
}

#define IN_REGISTER __attribute__((unused)) /* r0, r1 */

/* Call on a stack of its own; the timer is read right before the call and right behind it.
 * Returns the ticks between, and the function's result in the lower half.
 */
__attribute__((naked)) static uint64_t timed_call(IN_REGISTER uint32_t function,
                                                  IN_REGISTER const uint32_t arguments[5])
{
    __asm("push {r4, r5, r6, r7, r12, lr}\n\t"
          "mov r4, sp\n\t"
          "mov r12, r0\n\t"
          "ldr r5, =%c0\n\t"
          "ldr r6, =%c1\n\t"
          "ldr r7, [r1, #16]\n\t"
          "str r7, [r5, #-8]!\n\t"
          "ldm r1, {r0-r3}\n\t"
          "mov sp, r5\n\t"
          "ldr r7, [r6]\n\t"
          "blx r12\n\t"
          "ldr r1, [r6]\n\t"
          "subs r1, r1, r7\n\t"
          "mov sp, r4\n\t"
          "pop {r4, r5, r6, r7, r12, pc}\n\t"
          ".ltorg" ::"i"(STACK_TOP), "i"(TIMER));
}

__attribute__((naked, used)) void qemu_nothing(void)
{
    __asm("bx lr");
}

__attribute__((naked)) void qemu_fault(void)
{
    __asm("mrs r0, msp\n\t"
          "b qemu_report");
}

__attribute__((used)) void qemu_report(const uint32_t *frame)
{
    const reply_t reply = {QEMU_FAULTED, frame[6], CFSR};
    transfer(SYS_WRITE, out_handle, (uint32_t)&reply, sizeof reply);
    semihosting(SYS_EXIT, (const void *)APPLICATION_EXIT);
}

static void serve(const request_t *request)
{
    if (request->kind == QEMU_CALL) {
        const uint64_t returned = timed_call(request->address, request->arguments);
        const reply_t reply = {QEMU_RETURNED, (uint32_t)returned, (uint32_t)(returned >> 32)};
        transfer(SYS_WRITE, out_handle, (uint32_t)&reply, sizeof reply);
    } else if (request->kind == QEMU_WRITE) {
        transfer(SYS_READ, in_handle, request->address, request->size);
    } else {
        transfer(SYS_WRITE, out_handle, request->address, request->size);
    }
}

void qemu_start(void)
{
    CPACR |= 0xFu << 20;   /* MVE and its registers */
    CCR |= 1u << 19;       /* LOB: loops whose end is predicted */
    COUNTER_CONTROL |= 1u; /* the counter of the system timer */
    __asm volatile("dsb\n\tisb" ::: "memory");
    in_handle = open_file("/dev/stdin", 10, OPEN_TO_READ);
    out_handle = open_file("/dev/stdout", 11, OPEN_TO_WRITE);
    for (;;) {
        request_t request;
        transfer(SYS_READ, in_handle, (uint32_t)&request, sizeof request);
        serve(&request);
    }
}
