// The end of sums on cores with DSP instructions.
#ifndef QHW_FINISH_DSP_H
#define QHW_FINISH_DSP_H

#include "qhw_internal.h"
#include "qhw_kernels_dsp.h"
#include "qhw_simd.h"

static inline const qhw_rounding *qhw_roundings(const qhw_packed *packed) {
    return packed->rounding ? (const qhw_rounding *)((const uint8_t *)packed + packed->rounding) : NULL;
}

// 1 where a is 0. GCC's own way takes an instruction more.
static inline uint32_t qhw_is_zero(uint32_t a) {
#if QHW_ASSEMBLY
    uint32_t zeros;
    __asm__("clz %0, %1" : "=r"(zeros) : "r"(a));
    return zeros >> 5;
#else
    return a == 0;
#endif
}

// Rounded, not yet saturated.
QHW_INLINE int32_t qhw_rounded(const qhw_rounding *r, int32_t sum, uint32_t even) {
    uint64_t addend = (uint64_t)(uint32_t)r->addend_high << 32 | r->addend_low;
    uint64_t v = (uint64_t)((int64_t)sum * r->multiplier) + addend;
    uint32_t upper = (uint32_t)(v >> 32);
    return (int32_t)(even ? upper & ~qhw_is_zero((uint32_t)v) : upper);
}

static inline int32_t qhw_clamped(int32_t v, int32_t low, int32_t high) {
    return v < low ? low : v > high ? high : v;
}

// All sums of a pixel, channel by channel.
void qhw_finish_pixel(const qhw_output *output, const qhw_packed *packed, const int32_t *sums, uint32_t channels,
                      void *pixel);

#endif
