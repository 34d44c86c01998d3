// io.h on the machine that compiled it.
#include <stdio.h>
#include <stdlib.h>

#include "io.h"

static FILE *files[8];

int qhw_open(const char *name, int to_write) {
    for (int file = 0; file < 8; file++)
        if (!files[file]) {
            files[file] = fopen(name, to_write ? "wb" : "rb");
            return files[file] ? file : -1;
        }
    return -1;
}

uint32_t qhw_read(int file, void *to, uint32_t bytes) {
    return (uint32_t)fread(to, 1, bytes, files[file]);
}

uint32_t qhw_write(int file, const void *from, uint32_t bytes) {
    return (uint32_t)fwrite(from, 1, bytes, files[file]);
}

void qhw_close(int file) {
    fclose(files[file]);
    files[file] = NULL;
}

void qhw_say(const char *text) {
    fputs(text, stderr);
}

void qhw_exit(int status) {
    exit(status);
}

uint32_t qhw_ticks(void) {
    return 0;
}

uint32_t qhw_stack_bytes(void) {
    return 0;
}
