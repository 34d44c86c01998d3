// A test firmware: runs the network on the samples of in.bin, writes outputs to out.bin and, with QHW_OBSERVE, every
// map to maps.bin; stats.bin gets the ticks of the first run, the depth of the stack, and each step's ticks.
#include "io.h"
#include "model.h"

static int8_t result[QHW_OUTPUT_BYTES] __attribute__((aligned(8)));

#ifdef QHW_OBSERVE
static int maps;
static uint32_t began, spent[QHW_STEPS], sample;

void qhw_begin(unsigned step) {
    (void)step;
    began = qhw_ticks();
}

void qhw_end(unsigned step, const uint8_t *map, uint32_t rows, uint32_t row_bytes, uint32_t stride) {
    if (sample == 0)
        spent[step] += qhw_ticks() - began;
    for (uint32_t row = 0; row < rows; row++)
        qhw_write(maps, map + row * stride, row_bytes);
}
#endif

int main(void) {
    uint32_t count = 0, stats[2] = {0, 0};
    int in = qhw_open("in.bin", 0), out = qhw_open("out.bin", 1);
    if (in < 0 || out < 0 || qhw_read(in, &count, sizeof count) != sizeof count) {
        qhw_say("there is no in.bin, or no place for out.bin\n");
        return 3;
    }
#ifdef QHW_OBSERVE
    maps = qhw_open("maps.bin", 1);
#endif
    for (uint32_t n = 0; n < count; n++) {
        if (qhw_read(in, qhw_input(), QHW_INPUT_BYTES) != QHW_INPUT_BYTES) {
            qhw_say("in.bin is too short\n");
            return 3;
        }
        uint32_t before = qhw_ticks();
        qhw_run(qhw_input(), result);
        if (n == 0)
            stats[0] = qhw_ticks() - before;
        qhw_write(out, result, QHW_OUTPUT_BYTES);
#ifdef QHW_OBSERVE
        sample = n + 1;
#endif
    }
    stats[1] = qhw_stack_bytes();
    int file = qhw_open("stats.bin", 1);
    qhw_write(file, stats, sizeof stats);
#ifdef QHW_OBSERVE
    qhw_write(file, spent, sizeof spent);
    qhw_close(maps);
#endif
    qhw_close(file);
    qhw_close(out);
    qhw_close(in);
    return 0;
}
