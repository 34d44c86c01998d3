// What a test firmware needs of its surroundings: files of the host, a counter of instructions, and the stack's depth.
// semihosting.c gives it under QEMU, host.c on the machine that compiled it.
#ifndef QHW_IO_H
#define QHW_IO_H

#include <stdint.h>

int qhw_open(const char *name, int to_write); // -1 where it fails
uint32_t qhw_read(int file, void *to, uint32_t bytes); // how many bytes were read
uint32_t qhw_write(int file, const void *from, uint32_t bytes);
void qhw_close(int file);
void qhw_say(const char *text);
void qhw_exit(int status);

uint32_t qhw_ticks(void); // of the counter of instructions, modulo 2^32; 0 on the host
uint32_t qhw_stack_bytes(void); // the most that the stack has held; 0 on the host

#endif
