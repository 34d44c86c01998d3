// The residual addition of two maps of bytes, four channels at a time: one multiplication aligns and adds a pair, one
// more rounds it.
#include "qhw_finish_dsp.h"

static inline int32_t rounded(uint64_t addend, int32_t multiplier, int32_t sum, uint32_t even) {
    uint64_t v = (uint64_t)((int64_t)sum * multiplier) + addend;
    return (int32_t)((uint32_t)(v >> 32) & ~(even & (uint32_t)((uint32_t)v == 0)));
}

#define CODE(sum) (uint8_t) qhw_clamped(rounded(addend, multiplier, sum, even), low, high)

QHW_INLINE void add_row(const qhw_rounding *r, uint32_t factors, const uint8_t *a, const uint8_t *b, uint8_t *to,
                        uint32_t count, int32_t low, int32_t high, unsigned a_signed, unsigned b_signed,
                        uint32_t even) {
    uint64_t addend = (uint64_t)(uint32_t)r->addend_high << 32 | r->addend_low;
    int32_t multiplier = r->multiplier;
    for (const uint8_t *end = a + count; a != end; a += 4, b += 4, to += 4) {
        qhw_four x = qhw_widened(a, 8, a_signed), y = qhw_widened(b, 8, b_signed);
        to[0] = CODE(qhw_smlad((x.even & 0xFFFFu) | y.even << 16, factors, 0));
        to[1] = CODE(qhw_smlad((x.odd & 0xFFFFu) | y.odd << 16, factors, 0));
        to[2] = CODE(qhw_smlad(x.even >> 16 | (y.even & 0xFFFF0000u), factors, 0));
        to[3] = CODE(qhw_smlad(x.odd >> 16 | (y.odd & 0xFFFF0000u), factors, 0));
    }
}

#define ROW(a_signed, b_signed)                                                                                        \
    if (!packed->ties_to_even)                                                                                         \
        add_row(r, factors, a, b, to, count, low, high, a_signed, b_signed, 0);                                        \
    else if (low == 0 && high == 255)                                                                                  \
        add_row(r, factors, a, b, to, count, 0, 255, a_signed, b_signed, 1);                                           \
    else if (low == -128 && high == 127)                                                                               \
        add_row(r, factors, a, b, to, count, -128, 127, a_signed, b_signed, 1);                                        \
    else                                                                                                               \
        add_row(r, factors, a, b, to, count, low, high, a_signed, b_signed, 1)

void qhw_add_dsp(const qhw_elementwise_layer *layer, const qhw_packed *packed, const qhw_region *region, const void *in,
                 const void *other, uint32_t other_row_bytes, void *out) {
    const qhw_rounding *r = qhw_roundings(packed);
    uint32_t factors = 1u << layer->in_shift | 1u << layer->other_shift << 16;
    uint32_t count = (uint32_t)layer->channels * region->out_width;
    int32_t low = (int32_t)layer->output.low, high = (int32_t)layer->output.high;
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
