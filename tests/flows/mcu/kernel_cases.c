// Runs kernels on cases from a file, so that one firmware takes any number of them. Every case is words of 32 bits
// (kernel_cases.py writes them), then its arrays; what the kernel wrote and how many ticks it took goes to another file.
#include <stddef.h>

#include "io.h"
#include "qhw_kernels_dsp.h"

enum { CONV_LAYER = 14, OUTPUT = 18, REGION = 8, ARRAYS = 8 };
enum { IN, OTHER, WEIGHTS, MULTIPLIER, ADDEND, SHIFT, THRESHOLDS, LEVELS };

typedef struct {
    uint32_t kernel, shifts[2], channels, other_signed, other_row_bytes;
    int32_t conv[CONV_LAYER], output[OUTPUT], region[REGION];
    uint32_t bytes[ARRAYS], scratch_bytes, out_bytes;
} head;

static qhw_conv_kernel *const KERNELS[] = {qhw_conv,      qhw_depthwise, qhw_conv_dsp8,
                                           qhw_conv_dsp4, qhw_conv_dsp2, qhw_depthwise_dsp};
enum { ADD = 6, ADD_DSP = 7 };

static uint64_t memory[1 << 18];

static void *taken(uint32_t bytes, uint32_t *used) {
    void *at = memory + *used;
    *used += (bytes + 15u) / 8u;
    return at;
}

static const void *array(int file, uint32_t bytes, uint32_t *used) {
    if (!bytes)
        return NULL;
    void *at = taken(bytes, used);
    qhw_read(file, at, bytes);
    return at;
}

static qhw_output output_of(const int32_t *f, const void *const *arrays) {
    qhw_output o = {{(uint8_t)f[0], (uint8_t)f[1]}, (uint8_t)f[2], (uint8_t)f[3], (uint8_t)f[4], (uint8_t)f[5],
                    (uint8_t)f[6], (uint8_t)f[7], (uint8_t)f[8], (uint8_t)f[9], arrays[MULTIPLIER], arrays[ADDEND],
                    arrays[SHIFT], arrays[THRESHOLDS], arrays[LEVELS], (uint32_t)f[10], (uint32_t)f[11],
                    (uint32_t)f[12], f[13], f[14], f[15]};
    return o;
}

static void run(const head *h, const void *const *arrays, void *out, void *scratch) {
    const int32_t *c = h->conv, *r = h->region;
    qhw_region region = {(uint16_t)r[0], (uint16_t)r[1], (uint16_t)r[2], (uint16_t)r[3],
                         (int16_t)r[4],  (int16_t)r[5],  (uint32_t)r[6], (uint32_t)r[7]};
    qhw_type in = {(uint8_t)c[0], (uint8_t)c[1]}, weight = {(uint8_t)c[2], (uint8_t)c[3]};
    if (h->kernel >= ADD) {
        qhw_type other = {in.bits, (uint8_t)h->other_signed};
        qhw_elementwise_layer layer = {in, other, (uint16_t)h->channels, (uint8_t)h->shifts[0], (uint8_t)h->shifts[1],
                                       output_of(h->output, arrays)};
        if (h->kernel == ADD)
            qhw_add(&layer, &region, arrays[IN], arrays[OTHER], h->other_row_bytes, out);
        else
            qhw_add_dsp(&layer, &region, arrays[IN], arrays[OTHER], h->other_row_bytes, out);
        return;
    }
    qhw_conv_layer layer = {in, weight, (uint16_t)c[4], (uint16_t)c[5], (uint16_t)c[6], (uint16_t)c[7], (uint16_t)c[8],
                            (uint16_t)c[9], (uint16_t)c[10], (uint16_t)c[11], (uint16_t)c[12], (uint8_t)c[13],
                            arrays[WEIGHTS], output_of(h->output, arrays)};
    KERNELS[h->kernel](&layer, &region, arrays[IN], out, scratch);
}

int main(void) {
    int from = qhw_open("cases.bin", 0), to = qhw_open("results.bin", 1);
    head h;
    while (qhw_read(from, &h, sizeof h) == sizeof h) {
        uint32_t used = 0;
        const void *arrays[ARRAYS];
        for (int i = 0; i < ARRAYS; i++)
            arrays[i] = array(from, h.bytes[i], &used);
        uint8_t *out = taken(h.out_bytes, &used), *scratch = taken(h.scratch_bytes, &used);
        uint8_t *guard = scratch + h.scratch_bytes;
        for (int i = 0; i < 4; i++)
            guard[i] = out[h.out_bytes + i] = 0xA5;
        uint32_t begin = qhw_ticks();
        run(&h, arrays, out, scratch);
        uint32_t result[2] = {qhw_ticks() - begin, 1};
        for (int i = 0; i < 4; i++)
            if (guard[i] != 0xA5 || out[h.out_bytes + i] != 0xA5)
                result[1] = 0;
        qhw_write(to, result, sizeof result);
        qhw_write(to, out, h.out_bytes);
    }
    qhw_close(from);
    qhw_close(to);
    return 0;
}
