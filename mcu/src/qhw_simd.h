// The DSP instructions of a Cortex-M4, M7 or M33 that the kernels use, by their names; in C where there are none, so
// that the same kernels run, and are tested, everywhere.
#ifndef QHW_SIMD_H
#define QHW_SIMD_H

#include <stdint.h>
#include <string.h>

#if defined(__ARM_FEATURE_DSP) && __ARM_FEATURE_DSP
#include <arm_acle.h>

#define qhw_smlad(a, b, sum) ((int32_t)__smlad((int16x2_t)(a), (int16x2_t)(b), (sum)))
#define qhw_uxtb16(a) ((uint32_t)__uxtb16((uint8x4_t)(a)))
#define qhw_sxtb16(a) ((uint32_t)__sxtb16((int8x4_t)(a)))
#define qhw_ssub16(a, b) ((uint32_t)__ssub16((int16x2_t)(a), (int16x2_t)(b)))
#define qhw_smlabb(a, b, sum) ((int32_t)__smlabb((int32_t)(a), (int32_t)(b), (sum)))
#define qhw_smlatt(a, b, sum) ((int32_t)__smlatt((int32_t)(a), (int32_t)(b), (sum)))
#define qhw_smlabt(a, b, sum) ((int32_t)__smlabt((int32_t)(a), (int32_t)(b), (sum)))
#define qhw_smlatb(a, b, sum) ((int32_t)__smlatb((int32_t)(a), (int32_t)(b), (sum)))

#else

static inline int32_t qhw_bottom(uint32_t a) {
    return (int16_t)(uint16_t)a;
}

static inline int32_t qhw_top(uint32_t a) {
    return (int16_t)(uint16_t)(a >> 16);
}

static inline uint32_t qhw_both(int32_t bottom, int32_t top) {
    return ((uint32_t)bottom & 0xFFFFu) | (uint32_t)top << 16;
}

// sum + bottom * bottom + top * top, modulo 2^32
static inline int32_t qhw_smlad(uint32_t a, uint32_t b, int32_t sum) {
    return (int32_t)((uint32_t)sum + (uint32_t)(qhw_bottom(a) * qhw_bottom(b)) + (uint32_t)(qhw_top(a) * qhw_top(b)));
}

// bytes 0 and 2 as two numbers of 16 bits
static inline uint32_t qhw_uxtb16(uint32_t a) {
    return a & 0x00FF00FFu;
}

static inline uint32_t qhw_sxtb16(uint32_t a) {
    return qhw_both((int8_t)(uint8_t)a, (int8_t)(uint8_t)(a >> 16));
}

static inline uint32_t qhw_ssub16(uint32_t a, uint32_t b) {
    return qhw_both(qhw_bottom(a) - qhw_bottom(b), qhw_top(a) - qhw_top(b));
}

static inline int32_t qhw_smlabb(uint32_t a, uint32_t b, int32_t sum) {
    return (int32_t)((uint32_t)sum + (uint32_t)(qhw_bottom(a) * qhw_bottom(b)));
}

static inline int32_t qhw_smlatt(uint32_t a, uint32_t b, int32_t sum) {
    return (int32_t)((uint32_t)sum + (uint32_t)(qhw_top(a) * qhw_top(b)));
}

static inline int32_t qhw_smlabt(uint32_t a, uint32_t b, int32_t sum) {
    return (int32_t)((uint32_t)sum + (uint32_t)(qhw_bottom(a) * qhw_top(b)));
}

static inline int32_t qhw_smlatb(uint32_t a, uint32_t b, int32_t sum) {
    return (int32_t)((uint32_t)sum + (uint32_t)(qhw_top(a) * qhw_bottom(b)));
}

#endif

// Assembly where GCC makes more instructions than there need to be.
#if defined(__GNUC__) && defined(__thumb2__) && defined(__ARM_FEATURE_DSP)
#define QHW_ASSEMBLY 1
#else
#define QHW_ASSEMBLY 0
#endif

// Functions whose arguments are constants in each place, so that a loop is made for each.
#if defined(__GNUC__)
#define QHW_INLINE static inline __attribute__((always_inline))
#else
#define QHW_INLINE static inline
#endif

static inline uint32_t qhw_rotated(uint32_t a, unsigned bits) {
    return bits ? a >> bits | a << (32u - bits) : a;
}

// The lower halves of two words, the upper halves of two words: an instruction each, which GCC does not find.
static inline uint32_t qhw_bottoms(uint32_t a, uint32_t b) {
#if QHW_ASSEMBLY
    uint32_t both;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(both) : "r"(a), "r"(b));
    return both;
#else
    return (a & 0xFFFFu) | b << 16;
#endif
}

static inline uint32_t qhw_tops(uint32_t a, uint32_t b) {
#if QHW_ASSEMBLY
    uint32_t both;
    __asm__("pkhtb %0, %2, %1, asr #16" : "=r"(both) : "r"(a), "r"(b));
    return both;
#else
    return a >> 16 | (b & 0xFFFF0000u);
#endif
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

// 32 bits from any address; a single load on these cores.
static inline uint32_t qhw_word(const void *from) {
    uint32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

static inline uint32_t qhw_halfword(const void *from) {
    uint16_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

// Bytes 1 and 3 as two numbers of 16 bits: one instruction, which GCC does not make of a rotation and an extension.
static inline uint32_t qhw_uxtb16_odd(uint32_t a) {
#if QHW_ASSEMBLY
    uint32_t odd;
    __asm__("uxtb16 %0, %1, ror #8" : "=r"(odd) : "r"(a));
    return odd;
#else
    return qhw_uxtb16(qhw_rotated(a, 8));
#endif
}

static inline uint32_t qhw_sxtb16_odd(uint32_t a) {
#if QHW_ASSEMBLY
    uint32_t odd;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(odd) : "r"(a));
    return odd;
#else
    return qhw_sxtb16(qhw_rotated(a, 8));
#endif
}

// Two words of two 16-bit numbers each: channels (0, 2) and (1, 3) of four.
typedef struct {
    uint32_t even, odd;
} qhw_four;

// The four mantissas that begin at a byte.
QHW_INLINE qhw_four qhw_widened(const uint8_t *from, unsigned bits, unsigned is_signed) {
    qhw_four four;
    if (bits == 8) {
        uint32_t word = qhw_word(from);
        four.even = is_signed ? qhw_sxtb16(word) : qhw_uxtb16(word);
        four.odd = is_signed ? qhw_sxtb16_odd(word) : qhw_uxtb16_odd(word);
        return four;
    }
    uint32_t mask = bits == 4 ? 0x000F000Fu : 0x00030003u, sign = bits == 4 ? 0x00080008u : 0x00020002u;
    uint32_t word = bits == 4 ? qhw_halfword(from) : *from;
    if (is_signed)
        word ^= bits == 4 ? 0x8888u : 0xAAu; // code + half the range, which is subtracted below
    word |= word << (bits == 4 ? 8 : 12);    // mantissas 2 and 3 into the upper half
    four.even = word & mask;
    four.odd = word >> bits & mask;
    if (is_signed) {
        four.even = qhw_ssub16(four.even, sign);
        four.odd = qhw_ssub16(four.odd, sign);
    }
    return four;
}

#endif
