// What the portable kernels share: reading and writing mantissas, and the end of a sum.
#ifndef QHW_INTERNAL_H
#define QHW_INTERNAL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "qhw_kernels.h"

// Bytes of a pixel, or of a tap of weights.
static inline uint32_t qhw_pixel_bytes(qhw_type type, uint32_t channels) {
    return (channels * type.bits + 7u) >> 3;
}

// The mantissa of a channel of a pixel.
static inline int64_t qhw_load(qhw_type type, const void *pixel, uint32_t channel) {
    switch (type.bits) {
    case 64:
        return ((const int64_t *)pixel)[channel];
    case 32:
        return type.is_signed ? ((const int32_t *)pixel)[channel] : (int64_t)((const uint32_t *)pixel)[channel];
    case 16:
        return type.is_signed ? ((const int16_t *)pixel)[channel] : ((const uint16_t *)pixel)[channel];
    case 8:
        return type.is_signed ? ((const int8_t *)pixel)[channel] : ((const uint8_t *)pixel)[channel];
    default: {
        uint32_t at = channel * type.bits, mask = (1u << type.bits) - 1u;
        int32_t code = (int32_t)((((const uint8_t *)pixel)[at >> 3] >> (at & 7u)) & mask);
        return type.is_signed && (code >> (type.bits - 1)) ? code - (int32_t)mask - 1 : code;
    }
    }
}

// Writes a channel of a pixel; below 8 bits, channels must come in order, since the first one of a byte clears it.
static inline void qhw_store(qhw_type type, void *pixel, uint32_t channel, int64_t mantissa) {
    switch (type.bits) {
    case 64:
        ((int64_t *)pixel)[channel] = mantissa;
        break;
    case 32:
        ((uint32_t *)pixel)[channel] = (uint32_t)mantissa;
        break;
    case 16:
        ((uint16_t *)pixel)[channel] = (uint16_t)mantissa;
        break;
    case 8:
        ((uint8_t *)pixel)[channel] = (uint8_t)mantissa;
        break;
    default: {
        uint32_t at = channel * type.bits;
        uint8_t code = (uint8_t)(((uint32_t)mantissa & ((1u << type.bits) - 1u)) << (at & 7u));
        uint8_t *byte = (uint8_t *)pixel + (at >> 3);
        *byte = (at & 7u) ? (uint8_t)(*byte | code) : code;
    }
    }
}

// Whether a number is rounded up from its floor: rest is what was cut off, half the middle between two neighbours.
#define QHW_ROUNDS_UP(mode, negative, odd, rest, half)                                                                 \
    ((mode) == QHW_RND         ? (rest) >= (half)                                                                      \
     : (mode) == QHW_RND_CONV  ? (rest) > (half) || ((rest) == (half) && (odd))                                        \
     : (mode) == QHW_TRN       ? 0                                                                                     \
     : (mode) == QHW_RND_INF   ? (rest) > (half) || ((rest) == (half) && !(negative))                                  \
     : (mode) == QHW_RND_ZERO  ? (rest) > (half) || ((rest) == (half) && (negative))                                   \
     : (mode) == QHW_RND_MIN_INF ? (rest) > (half)                                                                     \
     : (mode) == QHW_TRN_ZERO  ? (negative) && (rest)                                                                  \
     : (mode) == QHW_CEIL      ? (rest) != 0                                                                           \
                               : !(negative) && (rest))

static inline int32_t qhw_round32(int32_t v, int shift, int mode) {
    if (shift <= 0)
        return (int32_t)((uint32_t)v << -shift);
    uint32_t rest = (uint32_t)v & ((1u << shift) - 1u), half = 1u << (shift - 1);
    int32_t floor = v >> shift;
    return floor + (QHW_ROUNDS_UP(mode, v < 0, floor & 1, rest, half) ? 1 : 0);
}

static inline int64_t qhw_round64(int64_t v, int shift, int mode) {
    if (shift <= 0)
        return (int64_t)((uint64_t)v << -shift);
    uint64_t rest = (uint64_t)v & ((UINT64_C(1) << shift) - 1u), half = UINT64_C(1) << (shift - 1);
    int64_t floor = v >> shift;
    return floor + (QHW_ROUNDS_UP(mode, v < 0, floor & 1, rest, half) ? 1 : 0);
}

// Wrapped into `width` bits; WRAP_SM reflects at the bounds, and takes the bit above the sign before the rounding.
static inline int64_t qhw_wrap(const qhw_output *o, int64_t rounded, int64_t floor) {
    uint64_t mask = o->width < 64 ? (UINT64_C(1) << o->width) - 1u : ~UINT64_C(0);
    uint64_t code = (uint64_t)rounded & mask;
    int64_t wrapped = o->low < 0 && (code >> (o->width - 1)) ? (int64_t)(code | ~mask) : (int64_t)code;
    if (o->overflow == QHW_WRAP_SM && wrapped != rounded && ((floor >> o->width) & 1) != (wrapped < 0))
        return ~wrapped;
    return wrapped;
}

static inline int64_t qhw_bounded(const qhw_output *o, int64_t rounded, int64_t floor) {
    if (o->overflow == QHW_SAT)
        return rounded < o->low ? o->low : rounded > o->high ? o->high : rounded;
    if (o->overflow == QHW_SAT_ZERO)
        return rounded < o->low || rounded > o->high ? 0 : rounded;
    return qhw_wrap(o, rounded, floor);
}

// The end of a sum of 64 bits.
static inline int64_t qhw_finish64(const qhw_output *o, uint64_t sum, uint32_t channel) {
    if (o->multiplier)
        sum *= (uint64_t)(int64_t)o->multiplier[channel * o->multiplier_step];
    if (o->addend)
        sum += (uint64_t)((const int64_t *)o->addend)[channel * o->addend_step];
    int64_t v = (int64_t)sum;
    if (o->kind == QHW_ROUND) {
        int shift = o->shift[channel * o->shift_step];
        int64_t rounded = qhw_round64(v, shift, o->rounding);
        return qhw_bounded(o, rounded, shift > 0 ? v >> shift : rounded);
    }
    if (o->kind == QHW_COUNT) {
        const int64_t *t = (const int64_t *)o->thresholds + channel * o->threshold_step;
        uint32_t reached = 0, left = o->count;
        while (left) {
            uint32_t half = left >> 1;
            if (v >= t[reached + half]) {
                reached += half + 1;
                left -= half + 1;
            } else {
                left = half;
            }
        }
        return qhw_load(o->type, o->levels, channel * o->level_step + reached);
    }
    if (o->kind == QHW_LOOK_UP)
        return qhw_load(o->type, o->levels, channel * o->level_step + (uint32_t)(v - o->first));
    return v;
}

// Channels that are finished together; a chunk begins at a multiple of it.
#define QHW_CHUNK 32u

// Loads `count` channels from `first` on.
void qhw_load_chunk(qhw_type type, const void *pixel, uint32_t first, uint32_t count, int32_t *values);

// Finishes sums of 32 bits, `count` channels from `first` on, and stores them; the values are overwritten.
void qhw_finish_chunk(const qhw_output *o, uint32_t first, uint32_t count, int32_t *values, void *pixel);

static inline uint32_t qhw_chunk(uint32_t first, uint32_t channels) {
    return channels - first < QHW_CHUNK ? channels - first : QHW_CHUNK;
}

// The next sum of a pixel: finished at once where its layer is wide, else with its chunk. Channels come in order.
static inline void qhw_put(const qhw_output *o, uint64_t sum, uint32_t channel, uint32_t channels, int32_t *chunk,
                           void *pixel) {
    uint32_t at = channel % QHW_CHUNK;
    if (o->wide) {
        qhw_store(o->type, pixel, channel, qhw_finish64(o, sum, channel));
        return;
    }
    chunk[at] = (int32_t)sum;
    if (at + 1 == QHW_CHUNK || channel + 1 == channels)
        qhw_finish_chunk(o, channel - at, at + 1, chunk, pixel);
}

#endif
