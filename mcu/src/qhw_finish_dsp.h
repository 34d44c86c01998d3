// The end of sums on cores with DSP instructions.
#ifndef QHW_FINISH_DSP_H
#define QHW_FINISH_DSP_H

#include "qhw_internal.h"
#include "qhw_kernels_dsp.h"
#include "qhw_simd.h"

static inline const qhw_rounding *qhw_roundings(const qhw_packed *packed) {
    return packed->rounding ? (const qhw_rounding *)((const uint8_t *)packed + packed->rounding) : NULL;
}

// Rounded, not yet saturated; moves on to the next rounding and sum.
QHW_INLINE int32_t qhw_rounded(const qhw_rounding **rounding, const int32_t **sums, uint32_t even) {
#if QHW_ASSEMBLY
    uint32_t low, multiplier;
    int32_t upper, sum;
    __asm__("ldrd %[low], %[upper], [%[r]], #8\n\tldr %[m], [%[r]], #4\n\tldr %[sum], [%[sums]], #4\n\t"
            "smlal %[low], %[upper], %[sum], %[m]"
            : [low] "=&r"(low), [upper] "=&r"(upper), [m] "=&r"(multiplier), [sum] "=&r"(sum), [r] "+r"(*rounding),
              [sums] "+r"(*sums)
            :
            : "memory");
    if (even)
        __asm__("clz %[low], %[low]\n\tbic %[upper], %[upper], %[low], lsr #5" : [low] "+r"(low), [upper] "+r"(upper));
    return upper;
#else
    const qhw_rounding *r = (*rounding)++;
    uint64_t addend = (uint64_t)(uint32_t)r->addend_high << 32 | r->addend_low;
    uint64_t v = (uint64_t)((int64_t)*(*sums)++ * r->multiplier) + addend;
    uint32_t upper = (uint32_t)(v >> 32);
    return (int32_t)(even ? upper & ~qhw_is_zero((uint32_t)v) : upper);
#endif
}

static inline int32_t qhw_clamped(int32_t v, int32_t low, int32_t high) {
    return v < low ? low : v > high ? high : v;
}

// A multiple of 4 channels of a pixel from the first one on, rounded to even into the whole range of a type.
typedef void qhw_fours(const qhw_rounding *r, const int32_t *sums, uint32_t channels, uint8_t *to);

// NULL where a layer is not rounded so.
qhw_fours *qhw_usual_fours(const qhw_output *output, const qhw_packed *packed);

// Channels from `first` on, a multiple of 4, in any way that there is.
void qhw_finish_any(const qhw_output *output, const qhw_packed *packed, uint32_t first, uint32_t channels, int32_t *sums,
                    uint8_t *pixel);

// All sums of a pixel, channel by channel; they may be overwritten. `fours`: as qhw_usual_fours says.
QHW_INLINE void qhw_finish_pixel(const qhw_output *output, const qhw_packed *packed, qhw_fours *fours, int32_t *sums,
                                 uint32_t channels, uint8_t *pixel) {
    uint32_t whole = fours ? channels & ~3u : 0;
    if (whole)
        fours(qhw_roundings(packed), sums, whole, pixel);
    if (channels > whole)
        qhw_finish_any(output, packed, whole, channels - whole, sums + whole, pixel);
}

// The sums of four channels, from `first` on, of pixels side by side.
void qhw_finish_four(const qhw_output *output, const qhw_packed *packed, qhw_fours *fours, uint32_t first, int32_t *sums,
                     uint32_t pixels, void *pixel, uint32_t pixel_bytes);

#endif
