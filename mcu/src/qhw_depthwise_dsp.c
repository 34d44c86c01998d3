// Depthwise convolution, four channels at a time. A tap's four mantissas are widened to 16 bits in two or three
// instructions, and each is multiplied and added by one. Kernels of 3 x 3 with stride 1 go by strips of columns, where
// neighbours of one channel are brought together in a word first, so that an instruction multiplies two.
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

// --- 3 x 3, stride 1 -----------------------------------------------------------------------------

#define STRIP 16u                  // output columns
#define PAIRS (STRIP / 2u + 1u)    // of input columns
#define PLANE (3u * PAIRS)         // words of a channel: pair by pair, the row y of the input at place y modulo 3
#define CHANNEL_WEIGHTS 10u        // words: (w0, w1) and (w1, w2) of the rows 0, 1, 2, 0, 1

typedef struct {
    uint32_t planes[4 * PLANE];
    uint32_t weights[4 * CHANNEL_WEIGHTS];
    int32_t sums[4 * STRIP];
} strip;

static void put_weights(const int16_t *weights, uint32_t *to) {
    static const uint8_t place[4] = {0, 2, 1, 3};
    for (unsigned c = 0; c < 4; c++)
        for (unsigned i = 0; i < 5; i++) {
            const int16_t *w = weights + 12 * (i % 3u) + place[c];
            *to++ = qhw_bottoms((uint16_t)w[0], (uint16_t)w[4]);
            *to++ = qhw_bottoms((uint16_t)w[4], (uint16_t)w[8]);
        }
}

// Pairs of columns from x on of a row; what lies outside of the map is 0.
QHW_INLINE void put_row(const uint8_t *row, int32_t x, uint32_t width, uint32_t pixel_bytes, uint32_t pairs, uint32_t *to,
                        unsigned bits, unsigned is_signed) {
    const uint8_t *pixel = row + x * (int32_t)pixel_bytes;
    for (; pairs; pairs--, to += 3, x += 2, pixel += 2 * pixel_bytes) {
        qhw_four a = {0, 0}, b = {0, 0};
        if ((uint32_t)x < width)
            a = qhw_widened(pixel, bits, is_signed);
        if ((uint32_t)(x + 1) < width)
            b = qhw_widened(pixel + pixel_bytes, bits, is_signed);
        to[0] = qhw_bottoms(a.even, b.even);
        to[PLANE] = qhw_bottoms(a.odd, b.odd);
        to[2 * PLANE] = qhw_tops(a.even, b.even);
        to[3 * PLANE] = qhw_tops(a.odd, b.odd);
    }
}

static void put_typed_row(const uint8_t *row, int32_t x, uint32_t width, uint32_t pixel_bytes, uint32_t pairs,
                          uint32_t *to, qhw_type type) {
    if (type.bits == 8) {
        if (type.is_signed)
            put_row(row, x, width, pixel_bytes, pairs, to, 8, 1);
        else
            put_row(row, x, width, pixel_bytes, pairs, to, 8, 0);
    } else if (type.bits == 4) {
        if (type.is_signed)
            put_row(row, x, width, pixel_bytes, pairs, to, 4, 1);
        else
            put_row(row, x, width, pixel_bytes, pairs, to, 4, 0);
    } else if (type.is_signed) {
        put_row(row, x, width, pixel_bytes, pairs, to, 2, 1);
    } else {
        put_row(row, x, width, pixel_bytes, pairs, to, 2, 0);
    }
}

// Sums of a channel, two pixels at a time: every fourth number from `sums` on.
static void row_sums(const uint32_t *plane, const uint32_t *weights, uint32_t pairs, int32_t *sums) {
    uint32_t first0 = weights[0], last0 = weights[1], first1 = weights[2], last1 = weights[3], first2 = weights[4],
             last2 = weights[5];
    for (const int32_t *end = sums + 8 * pairs; sums != end; sums += 8, plane += 3) {
        int32_t a = qhw_smlad(plane[0], first0, 0), b = qhw_smlatb(plane[0], first0, 0);
        a = qhw_smlabt(plane[3], last0, a);
        b = qhw_smlad(plane[3], last0, b);
        a = qhw_smlad(plane[1], first1, a);
        b = qhw_smlatb(plane[1], first1, b);
        a = qhw_smlabt(plane[4], last1, a);
        b = qhw_smlad(plane[4], last1, b);
        a = qhw_smlad(plane[2], first2, a);
        b = qhw_smlatb(plane[2], first2, b);
        a = qhw_smlabt(plane[5], last2, a);
        b = qhw_smlad(plane[5], last2, b);
        sums[0] = a;
        sums[4] = b;
    }
}

static void by_strips(const qhw_conv_layer *layer, const qhw_region *region, const uint8_t *in, uint8_t *out, strip *s) {
    const qhw_packed *packed = layer->weights;
    uint32_t pixel_bytes = qhw_pixel_bytes(layer->in, layer->in_channels);
    uint32_t out_bytes = qhw_pixel_bytes(layer->output.type, layer->out_channels);
    qhw_fours *fours = qhw_usual_fours(&layer->output, packed);
    for (uint32_t channel = 0; channel < layer->in_channels; channel += 4) {
        const uint8_t *from = in + channel * layer->in.bits / 8u;
        put_weights((const int16_t *)(packed + 1) + 9u * channel, s->weights);
        for (uint32_t begin = 0; begin < region->out_width; begin += STRIP) {
            uint32_t columns = region->out_width - begin < STRIP ? region->out_width - begin : STRIP;
            uint32_t pairs = (columns + 1u) / 2u;
            for (uint32_t row = 0; row < region->out_height + 2u; row++) {
                int32_t y = (int32_t)row - region->pad_top, x = (int32_t)begin - region->pad_left;
                uint32_t width = y >= 0 && y < region->in_height ? region->in_width : 0; // a row outside has no columns
                put_typed_row(from + (width ? y : 0) * (int32_t)region->in_row_bytes, x, width, pixel_bytes, pairs + 1u,
                              s->planes + row % 3u, layer->in);
                if (row < 2)
                    continue;
                // The first row of the kernel meets input row - 2, which lies at place (row - 2) % 3 = (row + 1) % 3.
                const uint32_t *weights = s->weights + 2u * ((2u - row % 3u) % 3u);
                for (uint32_t c = 0; c < 4; c++)
                    row_sums(s->planes + c * PLANE, weights + c * CHANNEL_WEIGHTS, pairs, s->sums + c);
                qhw_finish_four(&layer->output, packed, fours, channel, s->sums, columns,
                                out + (row - 2u) * region->out_row_bytes + begin * out_bytes, out_bytes);
            }
        }
    }
}

static int is_plain_3x3(const qhw_conv_layer *l) {
    return l->kernel_height == 3 && l->kernel_width == 3 && l->stride_height == 1 && l->stride_width == 1 &&
           l->dilation_height == 1 && l->dilation_width == 1;
}

void qhw_depthwise_dsp(const qhw_conv_layer *layer, const qhw_region *region, const void *in, void *out,
                       void *scratch) {
    if (is_plain_3x3(layer)) {
        by_strips(layer, region, in, out, scratch);
        return;
    }
    const qhw_packed *packed = layer->weights;
    uint32_t channels = layer->in_channels, pixel_bytes = qhw_pixel_bytes(layer->in, channels);
    uint32_t out_bytes = qhw_pixel_bytes(layer->output.type, channels);
    qhw_fours *fours = qhw_usual_fours(&layer->output, packed);
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
            qhw_finish_pixel(&layer->output, packed, fours, scratch, channels, to);
        }
    }
}
