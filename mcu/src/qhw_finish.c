// Channels of a pixel by the chunk: loaded, finished and stored in loops that look at formats and modes once.
#include "qhw_internal.h"

void qhw_load_chunk(qhw_type type, const void *pixel, uint32_t first, uint32_t count, int32_t *values) {
    if (type.bits == 8 && type.is_signed) {
        const int8_t *from = (const int8_t *)pixel + first;
        for (uint32_t i = 0; i < count; i++)
            values[i] = from[i];
    } else if (type.bits == 8) {
        const uint8_t *from = (const uint8_t *)pixel + first;
        for (uint32_t i = 0; i < count; i++)
            values[i] = from[i];
    } else if (type.bits < 8) {
        uint32_t at = first * type.bits, mask = (1u << type.bits) - 1u;
        const uint8_t *from = (const uint8_t *)pixel + (at >> 3);
        int32_t sign = type.is_signed ? 1 << (type.bits - 1) : 0;
        uint32_t byte = 0;
        for (uint32_t i = 0; i < count; i++) {
            if (!(i * type.bits & 7u))
                byte = *from++;
            values[i] = (int32_t)((byte & mask) ^ (uint32_t)sign) - sign;
            byte >>= type.bits;
        }
    } else {
        for (uint32_t i = 0; i < count; i++)
            values[i] = (int32_t)qhw_load(type, pixel, first + i);
    }
}

static void store_chunk(qhw_type type, void *pixel, uint32_t first, uint32_t count, const int32_t *values) {
    if (type.bits == 8) {
        uint8_t *to = (uint8_t *)pixel + first;
        for (uint32_t i = 0; i < count; i++)
            to[i] = (uint8_t)values[i];
    } else if (type.bits < 8) {
        uint32_t mask = (1u << type.bits) - 1u, at = 0, byte = 0;
        uint8_t *to = (uint8_t *)pixel + (first * type.bits >> 3);
        for (uint32_t i = 0; i < count; i++) {
            byte |= ((uint32_t)values[i] & mask) << at;
            at += type.bits;
            if (at == 8 || i + 1 == count) {
                *to++ = (uint8_t)byte;
                byte = at = 0;
            }
        }
    } else {
        for (uint32_t i = 0; i < count; i++)
            qhw_store(type, pixel, first + i, values[i]);
    }
}

// The usual roundings, of a right shift, that saturate.
#define ROUND_ALL(rounded)                                                                                             \
    for (uint32_t i = 0; i < count; i++, shifts += o->shift_step) {                                                    \
        int32_t v = values[i], shift = *shifts, r = shift > 0 ? (rounded) : (int32_t)((uint32_t)v << -shift);          \
        values[i] = r < low ? low : r > high ? high : r;                                                               \
    }

static void round_chunk(const qhw_output *o, uint32_t first, uint32_t count, int32_t *values) {
    const int8_t *shifts = o->shift + first * o->shift_step;
    int32_t low = (int32_t)o->low, high = (int32_t)o->high;
    if (o->overflow != QHW_SAT) {
        for (uint32_t i = 0; i < count; i++, shifts += o->shift_step) {
            int32_t v = values[i], rounded = qhw_round32(v, *shifts, o->rounding);
            values[i] = (int32_t)qhw_bounded(o, rounded, *shifts > 0 ? v >> *shifts : rounded);
        }
    } else if (o->rounding == QHW_RND) {
        ROUND_ALL((v >> shift) + ((v >> (shift - 1)) & 1))
    } else if (o->rounding == QHW_TRN) {
        ROUND_ALL(v >> shift)
    } else if (o->rounding == QHW_RND_CONV) {
        ROUND_ALL(qhw_round32(v, shift, QHW_RND_CONV))
    } else {
        ROUND_ALL(qhw_round32(v, shift, o->rounding))
    }
}

static void count_chunk(const qhw_output *o, uint32_t first, uint32_t count, int32_t *values) {
    const int32_t *t = (const int32_t *)o->thresholds + first * o->threshold_step;
    uint32_t level = first * o->level_step;
    for (uint32_t i = 0; i < count; i++, t += o->threshold_step, level += o->level_step) {
        int32_t v = values[i];
        uint32_t reached = 0, left = o->count;
        while (left) { // the thresholds in front of `reached` are reached, those from reached + left on are not
            uint32_t half = left >> 1;
            if (v >= t[reached + half]) {
                reached += half + 1;
                left -= half + 1;
            } else {
                left = half;
            }
        }
        values[i] = (int32_t)qhw_load(o->type, o->levels, level + reached);
    }
}

void qhw_finish_chunk(const qhw_output *o, uint32_t first, uint32_t count, int32_t *values, void *pixel) {
    if (o->multiplier) {
        const int32_t *multiplier = o->multiplier + first * o->multiplier_step;
        for (uint32_t i = 0; i < count; i++, multiplier += o->multiplier_step)
            values[i] = (int32_t)((uint32_t)values[i] * (uint32_t)*multiplier);
    }
    if (o->addend) {
        const int32_t *addend = (const int32_t *)o->addend + first * o->addend_step;
        for (uint32_t i = 0; i < count; i++, addend += o->addend_step)
            values[i] = (int32_t)((uint32_t)values[i] + (uint32_t)*addend);
    }
    if (o->kind == QHW_ROUND) {
        round_chunk(o, first, count, values);
    } else if (o->kind == QHW_COUNT) {
        count_chunk(o, first, count, values);
    } else if (o->kind == QHW_LOOK_UP) {
        uint32_t level = first * o->level_step - (uint32_t)o->first;
        for (uint32_t i = 0; i < count; i++, level += o->level_step)
            values[i] = (int32_t)qhw_load(o->type, o->levels, level + (uint32_t)values[i]);
    }
    store_chunk(o->type, pixel, first, count, values);
}
