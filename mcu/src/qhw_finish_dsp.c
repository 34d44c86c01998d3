#include "qhw_finish_dsp.h"

#define CODE() ((uint32_t)qhw_clamped(qhw_rounded(&r, &sums, 1), low, high) & mask)

// Four channels at a time, the whole range of a type, ties to even.
QHW_INLINE void fours(const qhw_rounding *r, const int32_t *sums, uint32_t channels, uint8_t *to, unsigned bits,
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
}

#define FOURS(name, bits, is_signed)                                                                                   \
    static void name(const qhw_rounding *r, const int32_t *sums, uint32_t channels, uint8_t *to) {                     \
        fours(r, sums, channels, to, bits, is_signed);                                                                 \
    }

FOURS(fours_u8, 8, 0)
FOURS(fours_s8, 8, 1)
FOURS(fours_u4, 4, 0)
FOURS(fours_s4, 4, 1)
FOURS(fours_u2, 2, 0)
FOURS(fours_s2, 2, 1)

qhw_fours *qhw_usual_fours(const qhw_output *o, const qhw_packed *packed) {
    qhw_type type = o->type;
    if (!packed->rounding || !packed->ties_to_even || type.bits > 8 || o->high - o->low != (1 << type.bits) - 1)
        return NULL;
    if (type.bits == 8)
        return type.is_signed ? fours_s8 : fours_u8;
    if (type.bits == 4)
        return type.is_signed ? fours_s4 : fours_u4;
    return type.is_signed ? fours_s2 : fours_u2;
}

void qhw_finish_any(const qhw_output *o, const qhw_packed *packed, uint32_t first, uint32_t channels, int32_t *sums,
                    uint8_t *pixel) {
    const qhw_rounding *r = qhw_roundings(packed);
    if (!r) {
        for (uint32_t c = 0; c < channels && o->wide; c++)
            qhw_store(o->type, pixel, first + c, qhw_finish64(o, (uint64_t)(int64_t)sums[c], first + c));
        for (uint32_t c = 0; c < channels && !o->wide; c += QHW_CHUNK)
            qhw_finish_chunk(o, first + c, qhw_chunk(c, channels), sums + c, pixel);
        return;
    }
    const int32_t *left = sums;
    uint8_t *to = pixel + first * o->type.bits / 8u;
    uint32_t bits = o->type.bits, mask = (1u << bits) - 1u, even = packed->ties_to_even;
    int32_t low = (int32_t)o->low, high = (int32_t)o->high;
    r += first;
    for (uint16_t *words = (uint16_t *)to; bits == 16 && channels; channels--)
        *words++ = (uint16_t)qhw_clamped(even ? qhw_rounded(&r, &left, 1) : qhw_rounded(&r, &left, 0), low, high);
    for (uint32_t at = 0, byte = 0; channels; channels--) {
        int32_t v = qhw_clamped(even ? qhw_rounded(&r, &left, 1) : qhw_rounded(&r, &left, 0), low, high);
        byte |= ((uint32_t)v & mask) << at;
        at += bits;
        if (at == 8 || channels == 1) {
            *to++ = (uint8_t)byte;
            at = byte = 0;
        }
    }
}

#define PIXELS(bits, is_signed)                                                                                        \
    for (; pixels; pixels--, sums += 4, to += pixel_bytes)                                                             \
        fours(r, sums, 4, to, bits, is_signed);

void qhw_finish_four(const qhw_output *output, const qhw_packed *packed, qhw_fours *usual, uint32_t first, int32_t *sums,
                     uint32_t pixels, void *pixel, uint32_t pixel_bytes) {
    qhw_type type = output->type;
    uint8_t *to = pixel;
    if (!usual) {
        for (; pixels; pixels--, sums += 4, to += pixel_bytes)
            qhw_finish_any(output, packed, first, 4, sums, to);
        return;
    }
    const qhw_rounding *r = qhw_roundings(packed) + first;
    to += first * type.bits / 8u;
    if (type.bits == 8 && !type.is_signed) {
        PIXELS(8, 0)
    } else if (type.bits == 8) {
        PIXELS(8, 1)
    } else {
        for (; pixels; pixels--, sums += 4, to += pixel_bytes)
            usual(r, sums, 4, to);
    }
}
