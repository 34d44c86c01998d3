// io.h under QEMU: raw semihosting calls (Arm, "Semihosting for AArch32 and AArch64"), so that no C library's stdio is
// linked; the start-up code of a Cortex-M; and the counter of the MPS2 board (QHW_COUNTER is its address).
#include "io.h"

extern uint32_t __data_load[], __data_start[], __data_end[], __bss_start[], __bss_end[];
extern uint32_t __stack_top[], __stack_limit[];
int main(void);

#define STACK_FILL 0xC5C5C5C5u

enum { SYS_OPEN = 0x01, SYS_CLOSE = 0x02, SYS_WRITE0 = 0x04, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_EXIT_EXTENDED = 0x20 };

static int call(int operation, const void *argument) {
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static uint32_t length(const char *text) {
    uint32_t n = 0;
    while (text[n])
        n++;
    return n;
}

int qhw_open(const char *name, int to_write) {
    uintptr_t block[3] = {(uintptr_t)name, to_write ? 5 : 1, length(name)}; // "wb", "rb"
    return call(SYS_OPEN, block);
}

uint32_t qhw_read(int file, void *to, uint32_t bytes) {
    uintptr_t block[3] = {(uintptr_t)file, (uintptr_t)to, bytes};
    return bytes - (uint32_t)call(SYS_READ, block);
}

uint32_t qhw_write(int file, const void *from, uint32_t bytes) {
    uintptr_t block[3] = {(uintptr_t)file, (uintptr_t)from, bytes};
    return bytes - (uint32_t)call(SYS_WRITE, block);
}

void qhw_close(int file) {
    uintptr_t block[1] = {(uintptr_t)file};
    call(SYS_CLOSE, block);
}

void qhw_say(const char *text) {
    call(SYS_WRITE0, text);
}

void qhw_exit(int status) {
    uint32_t block[2] = {0x20026, (uint32_t)status}; // ADP_Stopped_ApplicationExit
    call(SYS_EXIT_EXTENDED, block);
    for (;;) {
    }
}

uint32_t qhw_ticks(void) {
    return *(volatile uint32_t *)QHW_COUNTER;
}

uint32_t qhw_stack_bytes(void) {
    uint32_t *lowest = __stack_limit;
    while (lowest < __stack_top && *lowest == STACK_FILL)
        lowest++;
    return (uint32_t)((char *)__stack_top - (char *)lowest);
}

void Reset_Handler(void) {
    uint32_t *stack;
    __asm__ volatile("mov %0, sp" : "=r"(stack));
    for (uint32_t *word = __stack_limit; word < stack - 8; word++)
        *word = STACK_FILL;
    for (uint32_t *from = __data_load, *to = __data_start; to < __data_end;)
        *to++ = *from++;
    for (uint32_t *to = __bss_start; to < __bss_end;)
        *to++ = 0;
#if defined(__ARM_FP)
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; // CPACR: the FPU on
    __asm__ volatile("dsb\n isb");
#endif
    qhw_exit(main());
}

static void fault(void) {
    qhw_say("the firmware ran into a fault\n");
    qhw_exit(70);
}

__attribute__((section(".vectors"), used)) void *const vectors[16] = {
    __stack_top, Reset_Handler, fault, fault, fault, fault, fault, fault, 0, 0, 0, fault, fault, 0, fault, fault};
