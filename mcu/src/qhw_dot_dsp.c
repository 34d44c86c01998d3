// The inner loops of convolutions: in assembly for GCC and Clang, since eight sums, their operands and the pointers need
// all registers that there are, and since a Cortex-M7 issues two instructions at a time only where the second does not
// wait for the first: what is loaded, or cut out of a word of weights, is used two multiplications later.
#include "qhw_dot_dsp.h"

#include "qhw_simd.h"

#if QHW_ASSEMBLY

// r0: x, r1: w, r2 and r3: a word of each column, r4 to r7 and r8 to r11: the sums of both, r12 and lr: weights. The
// stack holds where x ends and where the sums go. A pass takes two units; an odd number of them begins in the middle.
#define ENTER                                                                                                          \
    ".syntax unified\n\tpush {r2-r11, lr}\n\tsub r12, r2, r0\n\tmov r4, #0\n\tmov r6, #0\n\tmov r8, #0\n\t"            \
    "mov r10, #0\n\t"
#define ENTER_8 ENTER "mov r5, #0\n\tmov r7, #0\n\tmov r9, #0\n\tmov r11, #0\n\t"
#define IF_EVEN "tst r12, #16\n\tbeq 1f\n\t"
#define AGAIN "ldr r2, [sp]\n\tcmp r0, r2\n\tbne 1b\n\tldr r3, [sp, #4]\n\t"
#define LEAVE "add sp, #8\n\tpop {r4-r11, pc}\n"

#define SUM(sum, a, b) "smlad " #sum ", " #a ", " #b ", " #sum "\n\t"
#define TAPS "ldrd r2, r3, [r0], #8\n\t"
#define WEIGHTS "ldr lr, [r1], #4\n\t"
#define PASS(pair)                                                                                                     \
    ENTER_8 IF_EVEN TAPS WEIGHTS "b 2f\n1:\n\t" TAPS WEIGHTS pair TAPS WEIGHTS pair TAPS WEIGHTS "2:\n\t" pair TAPS     \
        WEIGHTS pair AGAIN "stmia r3, {r4-r11}\n\t" LEAVE

#define PAIR_8                                                                                                         \
    SUM(r5, lr, r2)                                                                                                    \
    "uxtb16 r12, lr\n\t" SUM(r9, lr, r3) WEIGHTS SUM(r8, r12, r3) SUM(r7, lr, r2) SUM(r4, r12, r2)                     \
        "uxtb16 r12, lr\n\t" SUM(r11, lr, r3) SUM(r6, r12, r2) SUM(r10, r12, r3)

#define PAIR_4                                                                                                         \
    "bic r12, lr, #0xF000F000\n\t" SUM(r7, lr, r2) SUM(r11, lr, r3)                                                    \
    "uxtb16 lr, lr\n\t" SUM(r6, r12, r2) SUM(r10, r12, r3) SUM(r5, lr, r2)                                             \
        "and r12, lr, #0x000F000F\n\t" SUM(r9, lr, r3) SUM(r4, r12, r2) SUM(r8, r12, r3)

// r5: mask, r7: weights, r9 and r12: cut out of them, r11 and lr: the unit's second words. `next` loads for another.
#define UNIT_2(next)                                                                                                   \
    "and r9, r5, r7\n\tand r12, r5, r7, ror #4\n\t" SUM(r8, r9, r3) SUM(r4, r9, r2)                                    \
    "ldrd r11, lr, [r0], #8\n\tand r9, r5, r7, ror #8\n\t" SUM(r6, r12, r2) SUM(r10, r12, r3)                          \
        "and r12, r5, r7, ror #12\n\t" SUM(r4, r9, r11) next SUM(r10, r12, lr) SUM(r6, r12, r11) SUM(r8, r9, lr)
#define LOAD_2 TAPS "ldr r7, [r1], #4\n\t"

#pragma GCC diagnostic ignored "-Wunused-parameter" // assembly takes them by their registers

__attribute__((naked, noinline)) void qhw_dot_8(const uint32_t *x, const uint32_t *w, const uint32_t *end,
                                                int32_t *sums) {
    __asm__ volatile(PASS(PAIR_8));
}

__attribute__((naked, noinline)) void qhw_dot_4(const uint32_t *x, const uint32_t *w, const uint32_t *end,
                                                int32_t *sums) {
    __asm__ volatile(PASS(PAIR_4));
}

__attribute__((naked, noinline)) void qhw_dot_2(const uint32_t *x, const uint32_t *w, const uint32_t *end,
                                                int32_t *sums) {
    __asm__ volatile(ENTER "movw r5, #0xC003\n\tmovt r5, #0xC003\n\t" IF_EVEN LOAD_2 "b 2f\n1:\n\t" LOAD_2 UNIT_2(LOAD_2)
                     "2:\n\t" UNIT_2("") AGAIN "stmia r3, {r4, r6, r8, r10}\n\t" LEAVE);
}

#else

void qhw_dot_8(const uint32_t *x, const uint32_t *w, const uint32_t *end, int32_t *sums) {
    int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
    for (; x != end; x += 2, w += 2) {
        uint32_t low = qhw_uxtb16(w[0]), high = qhw_uxtb16(w[1]);
        a0 = qhw_smlad(low, x[0], a0);
        a1 = qhw_smlad(w[0], x[0], a1);
        a2 = qhw_smlad(high, x[0], a2);
        a3 = qhw_smlad(w[1], x[0], a3);
        b0 = qhw_smlad(low, x[1], b0);
        b1 = qhw_smlad(w[0], x[1], b1);
        b2 = qhw_smlad(high, x[1], b2);
        b3 = qhw_smlad(w[1], x[1], b3);
    }
    int32_t found[8] = {a0, a1, a2, a3, b0, b1, b2, b3};
    memcpy(sums, found, sizeof found);
}

void qhw_dot_4(const uint32_t *x, const uint32_t *w, const uint32_t *end, int32_t *sums) {
    int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
    for (; x != end; x += 2, w++) {
        uint32_t all = *w, three = all & ~0xF000F000u, two = qhw_uxtb16(all), one = two & 0x000F000Fu;
        a0 = qhw_smlad(one, x[0], a0);
        a1 = qhw_smlad(two, x[0], a1);
        a2 = qhw_smlad(three, x[0], a2);
        a3 = qhw_smlad(all, x[0], a3);
        b0 = qhw_smlad(one, x[1], b0);
        b1 = qhw_smlad(two, x[1], b1);
        b2 = qhw_smlad(three, x[1], b2);
        b3 = qhw_smlad(all, x[1], b3);
    }
    int32_t found[8] = {a0, a1, a2, a3, b0, b1, b2, b3};
    memcpy(sums, found, sizeof found);
}

void qhw_dot_2(const uint32_t *x, const uint32_t *w, const uint32_t *end, int32_t *sums) {
    int32_t a0 = 0, a2 = 0, b0 = 0, b2 = 0;
    for (; x != end; w++)
        for (unsigned rotation = 0; rotation < 16; rotation += 8, x += 2) {
            uint32_t first = qhw_rotated(*w, rotation) & 0xC003C003u;
            uint32_t second = qhw_rotated(*w, rotation + 4) & 0xC003C003u;
            a0 = qhw_smlad(first, x[0], a0);
            a2 = qhw_smlad(second, x[0], a2);
            b0 = qhw_smlad(first, x[1], b0);
            b2 = qhw_smlad(second, x[1], b2);
        }
    int32_t found[4] = {a0, a2, b0, b2};
    memcpy(sums, found, sizeof found);
}

#endif
