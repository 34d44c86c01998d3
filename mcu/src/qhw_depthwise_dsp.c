// Depthwise convolution, four channels at a time: a tap's four mantissas are widened to 16 bits in two or three
// instructions, and each is multiplied and added by one.
#include "qhw_finish_dsp.h"

// The taps of the kernel that lie inside the map.
typedef struct {
    const uint8_t *first; // the upmost, leftmost one
    uint32_t rows, columns;
    uint32_t row_step, column_step; // bytes of the map
    const int16_t *weight;          // of the first tap
    uint32_t weight_row_step;
} window;

#define TAP(from, weight)                                                                                              \
    do {                                                                                                               \
        qhw_four four = qhw_widened(from, bits, is_signed);                                                            \
        uint32_t even = qhw_word(weight), odd = qhw_word((weight) + 2);                                                \
        s0 = qhw_smlabb(four.even, even, s0);                                                                          \
        s1 = qhw_smlabb(four.odd, odd, s1);                                                                            \
        s2 = qhw_smlatt(four.even, even, s2);                                                                          \
        s3 = qhw_smlatt(four.odd, odd, s3);                                                                            \
    } while (0)

#if QHW_ASSEMBLY
#define BYTE_TAP(extend, offset)                                                                                       \
    "ldr %[x], [%[tap]" offset "]\n\tldrd %[even], %[odd], [%[w]], #8\n\t" extend " %[y], %[x], ror #8\n\t" extend      \
    " %[x], %[x]\n\tsmlabb %[s0], %[x], %[even], %[s0]\n\tsmlatt %[s2], %[x], %[even], %[s2]\n\t"                      \
    "smlabb %[s1], %[y], %[odd], %[s1]\n\tsmlatt %[s3], %[y], %[odd], %[s3]\n\t"
#define THREE_BYTE_TAPS(extend)                                                                                        \
    __asm__ volatile(BYTE_TAP(extend, "") BYTE_TAP(extend, ", %[step]") BYTE_TAP(extend, ", %[step], lsl #1")          \
                     : [s0] "+r"(s0), [s1] "+r"(s1), [s2] "+r"(s2), [s3] "+r"(s3), [w] "+r"(weight), [x] "=&r"(x),      \
                       [y] "=&r"(y), [even] "=&r"(even), [odd] "=&r"(odd)                                              \
                     : [tap] "r"(row), [step] "r"(step)                                                                \
                     : "memory")
#endif

// Three taps side by side, the most frequent case.
#define THREE_TAPS()                                                                                                   \
    do {                                                                                                               \
        TAP(row, weight);                                                                                              \
        TAP(row + step, weight + 4);                                                                                   \
        TAP(row + 2 * step, weight + 8);                                                                               \
        weight += 12;                                                                                                  \
    } while (0)

QHW_INLINE void four_sums(const window *taps, const int16_t *weight, uint32_t channel, unsigned bits,
                          unsigned is_signed, int32_t *sums) {
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    const uint8_t *row = taps->first + channel * bits / 8u;
    uint32_t step = taps->column_step, row_step = taps->row_step, columns = taps->columns;
    uint32_t weight_step = taps->weight_row_step - 4u * columns;
    if (columns == 3) {
        for (uint32_t i = taps->rows; i; i--, row += row_step, weight += weight_step) {
#if QHW_ASSEMBLY
            uint32_t x, y, even, odd;
            if (bits == 8 && is_signed)
                THREE_BYTE_TAPS("sxtb16");
            else if (bits == 8)
                THREE_BYTE_TAPS("uxtb16");
            else
                THREE_TAPS();
#else
            THREE_TAPS();
#endif
        }
    } else {
        for (uint32_t i = taps->rows; i; i--, row += row_step, weight += weight_step) {
            const uint8_t *tap = row;
            for (uint32_t j = columns; j; j--, tap += step, weight += 4)
                TAP(tap, weight);
        }
    }
    sums[channel] = s0;
    sums[channel + 1] = s1;
    sums[channel + 2] = s2;
    sums[channel + 3] = s3;
}

#define ALL_SUMS(bits, is_signed)                                                                                      \
    for (uint32_t c = 0; c < channels; c += 4, weights += block)                                                       \
        four_sums(taps, weights, c, bits, is_signed, sums);

// block: weights of four channels.
static void all_sums(const window *taps, qhw_type type, uint32_t channels, uint32_t block, int32_t *sums) {
    const int16_t *weights = taps->weight;
    if (type.bits == 8) {
        if (type.is_signed)
            ALL_SUMS(8, 1)
        else
            ALL_SUMS(8, 0)
    } else if (type.bits == 4) {
        if (type.is_signed)
            ALL_SUMS(4, 1)
        else
            ALL_SUMS(4, 0)
    } else if (type.is_signed) {
        ALL_SUMS(2, 1)
    } else {
        ALL_SUMS(2, 0)
    }
}

// The first tap that lies at 0 or behind it, and how many from there on lie in front of `size`.
static uint32_t inside(int32_t at, int32_t size, int32_t taps, int32_t step, uint32_t *first) {
    int32_t begin = at < 0 ? (step - 1 - at) / step : 0;
    int32_t end = at < size ? (size - at + step - 1) / step : 0;
    end = end < taps ? end : taps;
    *first = (uint32_t)begin;
    return end > begin ? (uint32_t)(end - begin) : 0;
}

void qhw_depthwise_dsp(const qhw_conv_layer *layer, const qhw_region *region, const void *in, void *out,
                       void *scratch) {
    const qhw_packed *packed = layer->weights;
    uint32_t channels = layer->in_channels, pixel_bytes = qhw_pixel_bytes(layer->in, channels);
    uint32_t out_bytes = qhw_pixel_bytes(layer->output.type, channels);
    window taps;
    taps.row_step = layer->dilation_height * region->in_row_bytes;
    taps.column_step = layer->dilation_width * pixel_bytes;
    taps.weight_row_step = 4u * layer->kernel_width;
    for (uint32_t row = 0; row < region->out_height; row++) {
        uint8_t *to = (uint8_t *)out + row * region->out_row_bytes;
        int32_t y = (int32_t)(row * layer->stride_height) - region->pad_top;
        uint32_t i, j;
        taps.rows = inside(y, region->in_height, layer->kernel_height, layer->dilation_height, &i);
        int32_t x = -region->pad_left;
        for (uint32_t column = 0; column < region->out_width; column++, x += layer->stride_width, to += out_bytes) {
            taps.columns = inside(x, region->in_width, layer->kernel_width, layer->dilation_width, &j);
            taps.first = (const uint8_t *)in + (y + (int32_t)(i * layer->dilation_height)) * (int32_t)region->in_row_bytes +
                         (x + (int32_t)(j * layer->dilation_width)) * (int32_t)pixel_bytes;
            taps.weight = (const int16_t *)(packed + 1) + i * taps.weight_row_step + 4u * j;
            all_sums(&taps, layer->in, channels, taps.weight_row_step * layer->kernel_height, scratch);
            qhw_finish_pixel(&layer->output, packed, scratch, channels, to);
        }
    }
}
