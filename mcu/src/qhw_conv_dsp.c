// Convolution with SMLAD, two products per instruction: two output pixels at a time are widened to 16 bits, and
// multiplied by the weights of four output channels, whose eight sums stay in registers.
//
// Weights of 8 and 4 bits are not taken apart before they are multiplied. A half word holds several channels,
// w0 + 16 w1 + 256 w2 + ..., and so does the sum of its products. Clearing the upmost channel and multiplying again
// gives the sum without it, and the difference is that channel's, exactly, modulo 2^32. Weights of 2 bits are summed two
// channels at a time in one register, w0 + 2^14 w1, and the sums are taken apart after `chunk` units, before the lower
// one can leave its 14 bits.
#include "qhw_dot_dsp.h"
#include "qhw_finish_dsp.h"

typedef struct {
    uint32_t *to; // the next unit of a pixel's column
    int32_t sum;  // of the taps so far
} column;

QHW_INLINE int32_t put(uint32_t *to, qhw_four four, int32_t sum) {
    to[0] = four.even;
    to[2] = four.odd;
    return qhw_smlad(four.even, 0x00010001u, qhw_smlad(four.odd, 0x00010001u, sum));
}

// Taps that lie one behind the other, into a column; their sum on top of one.
typedef int32_t put_kernel(uint32_t *to, const uint8_t *from, uint32_t units, int32_t sum);

QHW_INLINE int32_t put_run(uint32_t *to, const uint8_t *from, uint32_t units, int32_t sum, unsigned bits,
                           unsigned is_signed) {
    if (units & 1u) {
        sum = put(to, qhw_widened(from, bits, is_signed), sum);
        from += bits / 2u;
        to += QHW_UNIT;
    }
    for (const uint8_t *end = from + (units & ~1u) * bits / 2u; from != end; from += bits, to += 2 * QHW_UNIT) {
        sum = put(to, qhw_widened(from, bits, is_signed), sum);
        sum = put(to + QHW_UNIT, qhw_widened(from + bits / 2u, bits, is_signed), sum);
    }
    return sum;
}

#define PUT(name, bits, is_signed)                                                                                     \
    static int32_t name(uint32_t *to, const uint8_t *from, uint32_t units, int32_t sum) {                              \
        return put_run(to, from, units, sum, bits, is_signed);                                                         \
    }

PUT(put_u8, 8, 0)
PUT(put_s8, 8, 1)
PUT(put_u4, 4, 0)
PUT(put_s4, 4, 1)
PUT(put_u2, 2, 0)
PUT(put_s2, 2, 1)

static put_kernel *put_of(uint32_t bits, int is_signed) {
    if (bits == 8)
        return is_signed ? put_s8 : put_u8;
    if (bits == 4)
        return is_signed ? put_s4 : put_u4;
    return is_signed ? put_s2 : put_u2;
}

QHW_INLINE void put_zeros(column *c, uint32_t units) {
    for (; units; units--, c->to += QHW_UNIT)
        c->to[0] = c->to[2] = 0;
}

// What the taps of an output pixel are read with.
typedef struct {
    const qhw_conv_layer *layer;
    const qhw_region *region;
    const uint8_t *in;
    uint32_t pixel_bytes, depth; // depth: input channels of a group
    uint32_t units;              // of a column
    uint8_t *bytes;              // a column's taps as bytes, where a tap is no whole unit
    int is_point;                // a kernel of 1 x 1
    put_kernel *put;             // for the taps, or the column as bytes
} reader;

static inline void put_taps(const reader *r, column *c, const uint8_t *from, uint32_t units) {
    c->sum = r->put(c->to, from, units, c->sum);
    c->to += units * QHW_UNIT;
}

static inline const uint8_t *tap_of(const reader *r, int32_t y, int32_t x, uint32_t group) {
    return r->in + (uint32_t)y * r->region->in_row_bytes + (uint32_t)x * r->pixel_bytes +
           group * r->depth * r->layer->in.bits / 8u;
}

// The columns of the kernel that lie inside the map are one run, if they are next to each other.
static inline int32_t inside(int32_t at, int32_t low, int32_t high) {
    return at < low ? low : at > high ? high : at;
}

static void put_units(const reader *r, column *c, int32_t y, int32_t x, uint32_t group) {
    const qhw_conv_layer *l = r->layer;
    int32_t width = l->kernel_width, per_tap = (int32_t)r->depth / 4;
    int32_t first = inside(-x, 0, width), last = inside(r->region->in_width - x, first, width);
    int run = l->groups == 1 && l->dilation_width == 1;
    for (int32_t i = 0; i < l->kernel_height; i++, y += l->dilation_height) {
        if (y < 0 || y >= r->region->in_height) {
            put_zeros(c, (uint32_t)(width * per_tap));
            continue;
        }
        const uint8_t *row = r->in + (uint32_t)y * r->region->in_row_bytes + group * r->depth * l->in.bits / 8u;
        if (run) {
            put_zeros(c, (uint32_t)(first * per_tap));
            put_taps(r, c, row + (uint32_t)(x + first) * r->pixel_bytes, (uint32_t)((last - first) * per_tap));
            put_zeros(c, (uint32_t)((width - last) * per_tap));
            continue;
        }
        for (int32_t j = 0, at = x; j < width; j++, at += l->dilation_width) {
            if (at < 0 || at >= r->region->in_width)
                put_zeros(c, (uint32_t)per_tap);
            else
                put_taps(r, c, row + (uint32_t)at * r->pixel_bytes, (uint32_t)per_tap);
        }
    }
}

QHW_INLINE void copy(uint8_t *to, const uint8_t *from, uint32_t bytes) {
    if (bytes < 4) {
        if (bytes & 2u)
            memcpy(to, from, 2);
        if (bytes & 1u)
            to[bytes - 1] = from[bytes - 1];
        return;
    }
    uint32_t last = bytes - 4u; // the last word may overlap the one in front of it
    for (uint32_t at = 0; at < last; at += 4)
        memcpy(to + at, from + at, 4);
    memcpy(to + last, from + last, 4);
}

static uint8_t *cleared(uint8_t *to, uint32_t bytes) {
    for (; bytes; bytes--)
        *to++ = 0;
    return to;
}

// The rows of a window whose columns lie one behind the other.
static void put_runs(const reader *r, uint8_t *to, int32_t y, int32_t x) {
    const qhw_conv_layer *l = r->layer;
    int32_t width = l->kernel_width, height = r->region->in_height;
    int32_t first = inside(-x, 0, width), last = inside(r->region->in_width - x, first, width);
    uint32_t before = (uint32_t)first * r->depth, run = (uint32_t)(last - first) * r->depth;
    uint32_t row_bytes = r->region->in_row_bytes, whole = (uint32_t)width * r->depth;
    const uint8_t *column = r->in + (uint32_t)(x + first) * r->pixel_bytes;
    for (uint32_t i = l->kernel_height; i; i--, y += l->dilation_height) {
        if (y < 0 || y >= height) {
            to = cleared(to, whole);
            continue;
        }
        if (run != whole)
            cleared(to, whole);
        copy(to + before, column + (uint32_t)y * row_bytes, run);
        to += whole;
    }
}

static void put_codes(const reader *r, uint8_t *to, int32_t y, int32_t x, uint32_t group) {
    const qhw_conv_layer *l = r->layer;
    int32_t width = l->kernel_width;
    for (int32_t i = 0; i < l->kernel_height; i++, y += l->dilation_height) {
        if (y < 0 || y >= r->region->in_height) {
            to = cleared(to, (uint32_t)width * r->depth);
            continue;
        }
        const uint8_t *row = r->in + (uint32_t)y * r->region->in_row_bytes;
        for (int32_t j = 0, at = x; j < width; j++, at += l->dilation_width) {
            if (at < 0 || at >= r->region->in_width) {
                to = cleared(to, r->depth);
                continue;
            }
            const uint8_t *pixel = row + (uint32_t)at * r->pixel_bytes;
            for (uint32_t k = group * r->depth, end = k + r->depth; k < end; k++)
                *to++ = (uint8_t)qhw_load(l->in, pixel, k);
        }
    }
}

static int32_t put_bytes(const reader *r, uint32_t *words, int32_t y, int32_t x, uint32_t group) {
    const qhw_conv_layer *l = r->layer;
    if (l->groups == 1 && l->dilation_width == 1 && l->in.bits == 8)
        put_runs(r, r->bytes, y, x);
    else
        put_codes(r, r->bytes, y, x, group);
    return r->put(words, r->bytes, r->units, 0);
}

// One column, into lane 0 or 1 of the words; the sum of its taps.
static int32_t put_column(const reader *r, uint32_t *words, uint32_t row, uint32_t col, uint32_t group) {
    const qhw_conv_layer *l = r->layer;
    int32_t y = (int32_t)(row * l->stride_height) - r->region->pad_top;
    int32_t x = (int32_t)(col * l->stride_width) - r->region->pad_left;
    if (r->bytes)
        return put_bytes(r, words, y, x, group);
    if (r->is_point && y >= 0 && y < r->region->in_height && x >= 0 && x < r->region->in_width)
        return r->put(words, tap_of(r, y, x, group), r->units, 0);
    column c = {words, 0};
    put_units(r, &c, y, x, group);
    return c.sum;
}

static inline int32_t less(int32_t a, int32_t b) {
    return (int32_t)((uint32_t)a - (uint32_t)b);
}

// The lower of two sums in a register, which is signed if inputs are; the upper one is what is left.
QHW_INLINE int32_t lower_of(int32_t a, int is_signed) {
    int32_t bias = is_signed ? 0x2000 : 0;
    return ((a + bias) & 0x3FFF) - bias;
}

QHW_INLINE int32_t upper_of(int32_t a, int is_signed) {
    return (is_signed ? a + 0x2000 : a) >> 14;
}

// The sums of four channels over some units: of the first pixel, and `stride` further on of the second. `over` holds
// the sums of the taps of both pixels: what the offsets of the stored weights put on top, which is taken off again.
QHW_INLINE void dot_2(const uint32_t *x, const uint32_t *w, uint32_t units, uint32_t chunk, const int32_t *over,
                      int32_t *sums, uint32_t stride, int is_signed) {
    int32_t s0 = -2 * over[0], s1 = 0, s2 = s0, s3 = 0, t0 = -2 * over[1], t1 = 0, t2 = t0, t3 = 0;
    while (units) {
        uint32_t now = units < chunk ? units : chunk;
        int32_t a[4];
        qhw_dot_2(x, w, x + now * QHW_UNIT, a);
        s0 += lower_of(a[0], is_signed);
        s1 += upper_of(a[0], is_signed);
        s2 += lower_of(a[1], is_signed);
        s3 += upper_of(a[1], is_signed);
        t0 += lower_of(a[2], is_signed);
        t1 += upper_of(a[2], is_signed);
        t2 += lower_of(a[3], is_signed);
        t3 += upper_of(a[3], is_signed);
        x += now * QHW_UNIT;
        w += now;
        units -= now;
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
    sums += stride;
    sums[0] = t0;
    sums[1] = t1;
    sums[2] = t2;
    sums[3] = t3;
}

// The same of the first pixel alone: for matrix products, which have one, and for the last of an odd number.
#define ONE_8(i)                                                                                                       \
    do {                                                                                                               \
        uint32_t t = w[2 * (i)], u = w[2 * (i) + 1], p = x[2 * (i)];                                                   \
        a1 = qhw_smlad(t, p, a1);                                                                                      \
        a3 = qhw_smlad(u, p, a3);                                                                                      \
        a0 = qhw_smlad(qhw_uxtb16(t), p, a0);                                                                          \
        a2 = qhw_smlad(qhw_uxtb16(u), p, a2);                                                                          \
    } while (0)

#define ONE_4(i)                                                                                                       \
    do {                                                                                                               \
        uint32_t t = w[i], p = x[2 * (i)];                                                                             \
        a3 = qhw_smlad(t, p, a3);                                                                                      \
        a2 = qhw_smlad(t & ~0xF000F000u, p, a2);                                                                       \
        t = qhw_uxtb16(t);                                                                                             \
        a1 = qhw_smlad(t, p, a1);                                                                                      \
        a0 = qhw_smlad(t & 0x000F000Fu, p, a0);                                                                        \
    } while (0)

#define ONE_2(i, word, rotation)                                                                                       \
    do {                                                                                                               \
        uint32_t p = x[2 * (i)];                                                                                       \
        a0 = qhw_smlad(qhw_rotated(word, rotation) & 0xC003C003u, p, a0);                                              \
        a2 = qhw_smlad(qhw_rotated(word, (rotation) + 4) & 0xC003C003u, p, a2);                                        \
    } while (0)

QHW_INLINE void dot_8_single(const uint32_t *x, const uint32_t *w, uint32_t units, const int32_t *over, int32_t *sums,
                             uint32_t stride) {
    (void)stride;
    int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0;
    const uint32_t *end = x + units * QHW_UNIT;
    if (units & 1u) {
        ONE_8(0);
        ONE_8(1);
        x += QHW_UNIT;
        w += 4;
    }
    for (; x != end; x += 2 * QHW_UNIT, w += 8) {
        ONE_8(0);
        ONE_8(1);
        ONE_8(2);
        ONE_8(3);
    }
    sums[0] = less(a0, 128 * over[0]);
    sums[1] = less(a1, a0) >> 8;
    sums[2] = less(a2, 128 * over[0]);
    sums[3] = less(a3, a2) >> 8;
}

QHW_INLINE void dot_4_single(const uint32_t *x, const uint32_t *w, uint32_t units, const int32_t *over, int32_t *sums,
                             uint32_t stride) {
    (void)stride;
    int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0;
    const uint32_t *end = x + units * QHW_UNIT;
    if (units & 1u) {
        ONE_4(0);
        ONE_4(1);
        x += QHW_UNIT;
        w += 2;
    }
    for (; x != end; x += 2 * QHW_UNIT, w += 4) {
        ONE_4(0);
        ONE_4(1);
        ONE_4(2);
        ONE_4(3);
    }
    sums[0] = less(a0, 8 * over[0]);
    sums[1] = (less(a1, a0) >> 4) - 8 * over[0];
    sums[2] = (less(a2, a1) >> 8) - 8 * over[0];
    sums[3] = less(a3, a2) >> 12;
}

QHW_INLINE void dot_2_single(const uint32_t *x, const uint32_t *w, uint32_t units, uint32_t chunk,
                             const int32_t *over, int32_t *sums, uint32_t stride, int is_signed) {
    (void)stride;
    int32_t s0 = -2 * over[0], s1 = 0, s2 = s0, s3 = 0;
    while (units) {
        uint32_t now = units < chunk ? units : chunk;
        int32_t a0 = 0, a2 = 0;
        for (const uint32_t *end = x + now * QHW_UNIT; x != end; x += QHW_UNIT, w++) {
            ONE_2(0, *w, 0);
            ONE_2(1, *w, 8);
        }
        s0 += lower_of(a0, is_signed);
        s1 += upper_of(a0, is_signed);
        s2 += lower_of(a2, is_signed);
        s3 += upper_of(a2, is_signed);
        units -= now;
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

typedef void group_kernel(const uint32_t *x, const uint32_t *w, uint32_t units, uint32_t chunk, uint32_t channels,
                          const int32_t *over, int32_t *sums, uint32_t stride);

static void in_chunks(group_kernel *kernel, const uint32_t *x, const uint32_t *w, uint32_t units, uint32_t chunk,
                      uint32_t words, const int32_t *over, int32_t *sums, uint32_t stride) {
    static const int32_t nothing[2] = {0, 0};
    int32_t part[8] = {0};
    kernel(x, w, chunk, chunk, 4, over, sums, stride);
    for (uint32_t begin = chunk; begin < units; begin += chunk) {
        uint32_t now = units - begin < chunk ? units - begin : chunk;
        kernel(x + begin * QHW_UNIT, w + begin * words, now, now, 4, nothing, part, 4);
        for (uint32_t i = 0; i < 4; i++) {
            sums[i] += part[i];
            sums[stride + i] += part[4 + i];
        }
    }
}

// The sums of all channels of a group; in chunks where a field could not hold more, which weights of 2 bits see to
// themselves.
#define GROUP(name, dot, words)                                                                                        \
    static void name(const uint32_t *x, const uint32_t *w, uint32_t units, uint32_t chunk, uint32_t channels,          \
                     const int32_t *over, int32_t *sums, uint32_t stride) {                                            \
        const int32_t *end = sums + channels;                                                                          \
        for (; units <= chunk && sums < end; sums += 4, w += units * (words))                                          \
            dot(x, w, units, over, sums, stride);                                                                      \
        for (; sums < end; sums += 4, w += units * (words))                                                            \
            in_chunks(name, x, w, units, chunk, words, over, sums, stride);                                            \
    }

#define GROUP_2(name, dot, is_signed)                                                                                           \
    static void name(const uint32_t *x, const uint32_t *w, uint32_t units, uint32_t chunk, uint32_t channels,          \
                     const int32_t *over, int32_t *sums, uint32_t stride) {                                            \
        for (const int32_t *end = sums + channels; sums < end; sums += 4, w += units)                                  \
            dot(x, w, units, chunk, over, sums, stride, is_signed);                                                    \
    }

// Both pixels, all blocks in one go: `offset` is what weights are stored with on top.
#define PAIR(name, dot, words, offset)                                                                                 \
    static void name(const uint32_t *x, const uint32_t *w, uint32_t units, uint32_t chunk, uint32_t channels,          \
                     const int32_t *over, int32_t *sums, uint32_t stride) {                                            \
        const int32_t *end = sums + channels;                                                                          \
        qhw_blocks blocks = {x, {(offset) * over[0], (offset) * over[1]}, sums, stride * 4u, end};                     \
        if (units <= chunk)                                                                                            \
            dot(x, w, &blocks, x + units * QHW_UNIT);                                                                  \
        for (; units > chunk && sums < end; sums += 4, w += units * (words))                                           \
            in_chunks(name, x, w, units, chunk, words, over, sums, stride);                                            \
    }

PAIR(pair_8, qhw_dot_8, 4, 128)
PAIR(pair_4, qhw_dot_4, 2, 8)
GROUP(one_8, dot_8_single, 4)
GROUP(one_4, dot_4_single, 2)
GROUP_2(pair_2, dot_2, 0)
GROUP_2(one_2, dot_2_single, 0)
GROUP_2(pair_2_signed, dot_2, 1)
GROUP_2(one_2_signed, dot_2_single, 1)

// Scratch: the columns of two pixels; the sums of both; a column of bytes.
static void convolve(const qhw_conv_layer *layer, const qhw_region *region, const void *in, void *out, void *scratch,
                     group_kernel *pair, group_kernel *one, uint32_t words) {
    const qhw_packed *packed = layer->weights;
    uint32_t depth = layer->in_channels / layer->groups, channels = layer->out_channels / layer->groups;
    uint32_t taps = depth * layer->kernel_height * layer->kernel_width, units = (taps + 3u) / 4u;
    uint32_t *columns = scratch, stride = (layer->out_channels + 7u) & ~3u; // a group's last block may reach into
    int32_t *sums = (int32_t *)(columns + units * QHW_UNIT);              // what lies behind it
    reader r = {layer, region, in, qhw_pixel_bytes(layer->in, layer->in_channels), depth, units, NULL,
                taps == depth, put_of(depth % 4u ? 8 : layer->in.bits, layer->in.is_signed)};
    if (depth % 4u) {
        r.bytes = (uint8_t *)(sums + 2u * stride);
        cleared(r.bytes + taps, units * 4u - taps); // stays so
    }
    uint32_t out_bytes = qhw_pixel_bytes(layer->output.type, layer->out_channels);
    qhw_fours *fours = qhw_usual_fours(&layer->output, packed);
    uint32_t pixels = (uint32_t)region->out_height * region->out_width, row = 0, col = 0;
    while (pixels) {
        uint32_t now = pixels > 1 ? 2 : 1, rows[2], cols[2];
        for (uint32_t pixel = 0; pixel < now; pixel++) {
            rows[pixel] = row;
            cols[pixel] = col;
            if (++col == region->out_width) {
                col = 0;
                row++;
            }
        }
        const uint32_t *weights = (const uint32_t *)(packed + 1);
        for (uint32_t group = 0; group < layer->groups; group++) {
            int32_t totals[2] = {0, 0};
            for (uint32_t pixel = 0; pixel < now; pixel++)
                totals[pixel] = put_column(&r, columns + pixel, rows[pixel], cols[pixel], group);
            (now == 2 ? pair : one)(columns, weights, units, packed->chunk, channels, totals,
                                    sums + group * channels, stride);
            weights += (channels + 3u) / 4u * units * words;
        }
        for (uint32_t pixel = 0; pixel < now; pixel++)
            qhw_finish_pixel(&layer->output, packed, fours, sums + pixel * stride, layer->out_channels,
                             (uint8_t *)out + rows[pixel] * region->out_row_bytes + cols[pixel] * out_bytes);
        pixels -= now;
    }
}

void qhw_conv_dsp8(const qhw_conv_layer *layer, const qhw_region *region, const void *in, void *out, void *scratch) {
    convolve(layer, region, in, out, scratch, pair_8, one_8, 4);
}

void qhw_conv_dsp4(const qhw_conv_layer *layer, const qhw_region *region, const void *in, void *out, void *scratch) {
    convolve(layer, region, in, out, scratch, pair_4, one_4, 2);
}

void qhw_conv_dsp2(const qhw_conv_layer *layer, const qhw_region *region, const void *in, void *out, void *scratch) {
    if (layer->in.is_signed)
        convolve(layer, region, in, out, scratch, pair_2_signed, one_2_signed, 1);
    else
        convolve(layer, region, in, out, scratch, pair_2, one_2, 1);
}
