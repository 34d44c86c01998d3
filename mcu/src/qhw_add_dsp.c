// The residual addition of two maps of bytes, four channels at a time: one multiplication aligns and adds a pair, one
// more rounds it.
#include "qhw_finish_dsp.h"

// A sum is rounded by one multiplication: the upper word of sum * multiplier + addend. Sums are formed some bits further
// left than the layer says, so that one that is only saturated, or shifted left, takes a multiplication of 32 bits too.
#define EXTRA_BITS 4

typedef struct {
    uint64_t addend;
    int32_t multiplier, low, high;
} rounding;

static rounding rounding_of(const qhw_output *o) {
    int shift = o->shift[0];
    uint64_t extra = 0; // what makes the floor that rounding
    if (shift <= 0)
        extra = 0;
    else if (o->rounding == QHW_RND || o->rounding == QHW_RND_CONV || o->rounding == QHW_RND_INF)
        extra = UINT64_C(1) << (shift - 1);
    else if (o->rounding == QHW_RND_MIN_INF || o->rounding == QHW_RND_ZERO)
        extra = (UINT64_C(1) << (shift - 1)) - 1u;
    else if (o->rounding == QHW_CEIL || o->rounding == QHW_UP)
        extra = (UINT64_C(1) << shift) - 1u;
    int64_t addend = !o->addend ? 0 : o->wide ? *(const int64_t *)o->addend : *(const int32_t *)o->addend;
    uint32_t multiplier = o->multiplier ? (uint32_t)o->multiplier[0] : 1u;
    rounding r = {((uint64_t)addend + extra) << (32 - shift), (int32_t)(multiplier << (32 - EXTRA_BITS - shift)),
                  (int32_t)o->low, (int32_t)o->high};
    return r;
}

QHW_INLINE uint8_t code(const rounding *r, int32_t sum, int32_t low, int32_t high, uint32_t even) {
    uint64_t v = (uint64_t)((int64_t)sum * r->multiplier) + r->addend;
    uint32_t upper = (uint32_t)(v >> 32);
    if (even)
        upper &= ~qhw_is_zero((uint32_t)v);
    return (uint8_t)qhw_clamped((int32_t)upper, low, high);
}

QHW_INLINE void add_row(const rounding *rounding_, uint32_t factors, const uint8_t *a, const uint8_t *b, uint8_t *to,
                        uint32_t count, int32_t low, int32_t high, unsigned a_signed, unsigned b_signed,
                        uint32_t even) {
    rounding r = *rounding_;
    for (const uint8_t *end = a + count; a != end; a += 4, b += 4, to += 4) {
        qhw_four x = qhw_widened(a, 8, a_signed), y = qhw_widened(b, 8, b_signed);
        to[0] = code(&r, qhw_smlad(qhw_bottoms(x.even, y.even), factors, 0), low, high, even);
        to[1] = code(&r, qhw_smlad(qhw_bottoms(x.odd, y.odd), factors, 0), low, high, even);
        to[2] = code(&r, qhw_smlad(qhw_tops(x.even, y.even), factors, 0), low, high, even);
        to[3] = code(&r, qhw_smlad(qhw_tops(x.odd, y.odd), factors, 0), low, high, even);
    }
}

#define ROW(a_signed, b_signed)                                                                                        \
    if (!even)                                                                                                         \
        add_row(&r, factors, a, b, to, count, r.low, r.high, a_signed, b_signed, 0);                                   \
    else if (r.low == 0 && r.high == 255)                                                                              \
        add_row(&r, factors, a, b, to, count, 0, 255, a_signed, b_signed, 1);                                          \
    else if (r.low == -128 && r.high == 127)                                                                           \
        add_row(&r, factors, a, b, to, count, -128, 127, a_signed, b_signed, 1);                                       \
    else                                                                                                               \
        add_row(&r, factors, a, b, to, count, r.low, r.high, a_signed, b_signed, 1)

void qhw_add_dsp(const qhw_elementwise_layer *layer, const qhw_region *region, const void *in, const void *other,
                 uint32_t other_row_bytes, void *out) {
    rounding r = rounding_of(&layer->output);
    int even = layer->output.rounding == QHW_RND_CONV && layer->output.shift[0] > 0;
    uint32_t factors = 1u << (layer->in_shift + EXTRA_BITS) | 1u << (layer->other_shift + EXTRA_BITS) << 16;
    uint32_t count = (uint32_t)layer->channels * region->out_width;
    for (uint32_t row = 0; row < region->out_height; row++) {
        const uint8_t *a = (const uint8_t *)in + row * region->in_row_bytes;
        const uint8_t *b = (const uint8_t *)other + row * other_row_bytes;
        uint8_t *to = (uint8_t *)out + row * region->out_row_bytes;
        if (layer->in.is_signed) {
            if (layer->other.is_signed) {
                ROW(1, 1);
            } else {
                ROW(1, 0);
            }
        } else if (layer->other.is_signed) {
            ROW(0, 1);
        } else {
            ROW(0, 0);
        }
    }
}
