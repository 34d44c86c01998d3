// What CMSIS-NN takes of CMSIS-Core for GCC: the DSP instructions by their names, as CMSIS-Core's cmsis_gcc.h defines them.
#ifndef CMSIS_COMPILER_H
#define CMSIS_COMPILER_H

#include <stdint.h>

#define __STATIC_INLINE static inline
#define __STATIC_FORCEINLINE __attribute__((always_inline)) static inline
#define __ASM __asm
#define __RESTRICT __restrict
#define __ALIGNED(x) __attribute__((aligned(x)))

#define __PKHBT(a, b, shift)                                                                                           \
    __extension__({                                                                                                    \
        uint32_t result, a_ = (a), b_ = (b);                                                                           \
        __asm("pkhbt %0, %1, %2, lsl %3" : "=r"(result) : "r"(a_), "r"(b_), "I"(shift));                               \
        result;                                                                                                        \
    })
#define __PKHTB(a, b, shift)                                                                                           \
    __extension__({                                                                                                    \
        uint32_t result, a_ = (a), b_ = (b);                                                                           \
        if ((shift) == 0)                                                                                              \
            __asm("pkhtb %0, %1, %2" : "=r"(result) : "r"(a_), "r"(b_));                                               \
        else                                                                                                           \
            __asm("pkhtb %0, %1, %2, asr %3" : "=r"(result) : "r"(a_), "r"(b_), "I"(shift));                           \
        result;                                                                                                        \
    })
#define __SXTB16_RORn(a, rotation)                                                                                     \
    __extension__({                                                                                                    \
        uint32_t result, a_ = (a);                                                                                     \
        __asm volatile("sxtb16 %0, %1, ROR %2" : "=r"(result) : "r"(a_), "i"(rotation));                               \
        result;                                                                                                        \
    })
#define __SXTAB16_RORn(a, b, rotation)                                                                                 \
    __extension__({                                                                                                    \
        uint32_t result, a_ = (a), b_ = (b);                                                                           \
        __asm volatile("sxtab16 %0, %1, %2, ROR %3" : "=r"(result) : "r"(a_), "r"(b_), "i"(rotation));                 \
        result;                                                                                                        \
    })

__STATIC_FORCEINLINE uint32_t __ROR(uint32_t a, uint32_t bits) {
    bits %= 32U;
    return bits == 0U ? a : (a >> bits) | (a << (32U - bits));
}

__STATIC_FORCEINLINE uint32_t __SXTB16(uint32_t a) {
    uint32_t result;
    __asm("sxtb16 %0, %1" : "=r"(result) : "r"(a));
    return result;
}

__STATIC_FORCEINLINE uint32_t __SXTAB16(uint32_t a, uint32_t b) {
    uint32_t result;
    __asm("sxtab16 %0, %1, %2" : "=r"(result) : "r"(a), "r"(b));
    return result;
}

__STATIC_FORCEINLINE uint32_t __SMLAD(uint32_t a, uint32_t b, uint32_t sum) {
    uint32_t result;
    __asm volatile("smlad %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

__STATIC_FORCEINLINE uint32_t __SMUAD(uint32_t a, uint32_t b) {
    uint32_t result;
    __asm volatile("smuad %0, %1, %2" : "=r"(result) : "r"(a), "r"(b));
    return result;
}

#endif
