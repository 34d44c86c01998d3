#include "qhw_finish_dsp.h"

#define CODE() ((uint32_t)qhw_clamped(qhw_rounded(&r, &sums, 1), low, high) & mask)

// Four channels at a time, the whole range of a type, ties to even.
QHW_INLINE uint8_t *fours(const qhw_rounding *r, const int32_t *sums, uint32_t channels, uint8_t *to, unsigned bits,
                             unsigned is_signed) {
    int32_t low = is_signed ? -(1 << (bits - 1)) : 0, high = (1 << (bits - is_signed)) - 1;
    uint32_t mask = is_signed ? (1u << bits) - 1u : ~0u;
    for (const int32_t *end = sums + channels; sums != end; to += bits / 2u) {
        uint32_t codes = CODE();
        codes |= CODE() << bits;
        codes |= CODE() << (2 * bits);
        codes |= CODE() << (3 * bits);
        memcpy(to, &codes, bits / 2u);
    }
    return to;
}

static uint8_t *by_fours(qhw_type type, const qhw_rounding *r, const int32_t *sums, uint32_t channels, uint8_t *to) {
    if (type.bits == 8)
        return type.is_signed ? fours(r, sums, channels, to, 8, 1) : fours(r, sums, channels, to, 8, 0);
    if (type.bits == 4)
        return type.is_signed ? fours(r, sums, channels, to, 4, 1) : fours(r, sums, channels, to, 4, 0);
    return type.is_signed ? fours(r, sums, channels, to, 2, 1) : fours(r, sums, channels, to, 2, 0);
}

void qhw_finish_pixel(const qhw_output *output, const qhw_packed *packed, int32_t *sums, uint32_t channels, void *pixel) {
    const qhw_rounding *r = qhw_roundings(packed);
    if (!r) {
        for (uint32_t c = 0; c < channels && output->wide; c++)
            qhw_store(output->type, pixel, c, qhw_finish64(output, (uint64_t)(int64_t)sums[c], c));
        for (uint32_t c = 0; c < channels && !output->wide; c += QHW_CHUNK)
            qhw_finish_chunk(output, c, qhw_chunk(c, channels), sums + c, pixel);
        return;
    }
    const int32_t *left = sums;
    uint8_t *to = pixel;
    uint32_t bits = output->type.bits, even = packed->ties_to_even, whole = channels & ~3u;
    int32_t low = (int32_t)output->low, high = (int32_t)output->high, range = (1 << bits) - 1;
    if (even && high - low == range) {
        to = by_fours(output->type, r, left, whole, to);
        r += whole;
        left += whole;
        channels -= whole;
    }
    for (uint32_t at = 0, byte = 0; channels; channels--) {
        int32_t v = qhw_clamped(even ? qhw_rounded(&r, &left, 1) : qhw_rounded(&r, &left, 0), low, high);
        byte |= ((uint32_t)v & (uint32_t)range) << at;
        at += bits;
        if (at == 8 || channels == 1) {
            *to++ = (uint8_t)byte;
            at = byte = 0;
        }
    }
}
