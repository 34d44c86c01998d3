// The inner loops of convolutions: in assembly for GCC and Clang, since eight sums, their operands and the pointers need
// all registers that there are, and since a Cortex-M7 issues two instructions at a time only where the second does not
// wait for the first: what is loaded, or cut out of a word of weights, is used two multiplications later.
#include "qhw_dot_dsp.h"

#include "qhw_simd.h"

#if QHW_ASSEMBLY

// r0: x, r1: w, r2 and r3: a word of each column, r4 to r7 and r8 to r11: the sums of both, r12 and lr: weights. The
// stack holds what r2 and r3 were: of blocks the qhw_blocks and where x ends, of one where x ends and where the sums go.
// A pass takes two units; an odd number of them begins in the middle.
#define BEGIN "mov r4, #0\n\tmov r6, #0\n\tmov r8, #0\n\tmov r10, #0\n\t"
#define BEGIN_8 BEGIN "mov r5, #0\n\tmov r7, #0\n\tmov r9, #0\n\tmov r11, #0\n\t"
#define IF_EVEN "tst r12, #16\n\tbeq 1f\n\t"

#define SUM(sum, a, b) "smlad " #sum ", " #a ", " #b ", " #sum "\n\t"
#define TAPS "ldrd r2, r3, [r0], #8\n\t"
#define WEIGHTS "ldr lr, [r1], #4\n\t"

// All blocks: x begins anew for each. `apart` takes the sums of a half word's channels apart, in front of their store.
#define BLOCKS(pair, apart)                                                                                            \
    ".syntax unified\n\tpush {r2-r11, lr}\n"                                                                          \
    "0:\n\tldr r2, [sp, #4]\n\tsub r12, r2, r0\n\t" BEGIN_8 IF_EVEN TAPS WEIGHTS "b 2f\n1:\n\t" TAPS WEIGHTS pair      \
        TAPS WEIGHTS pair TAPS WEIGHTS "2:\n\t" pair TAPS WEIGHTS pair                                                  \
    "ldr r2, [sp, #4]\n\tcmp r0, r2\n\tbne 1b\n\tldr r12, [sp]\n\tldrd r2, r3, [r12, #4]\n\t" apart                   \
    "ldrd r2, r3, [r12, #12]\n\tadd r3, r2\n\tstmia r2!, {r4-r7}\n\tstmia r3, {r8-r11}\n\tstr r2, [r12, #12]\n\t"    \
    "ldr r0, [r12]\n\tldr r3, [r12, #20]\n\tcmp r2, r3\n\tbcc 0b\n\tadd sp, #8\n\tpop {r4-r11, pc}\n"

#define APART_8(a0, a1, a2, a3, offset)                                                                                \
    "sub " #a1 ", " #a0 "\n\tsub " #a3 ", " #a2 "\n\tasr " #a1 ", " #a1 ", #8\n\tasr " #a3 ", " #a3 ", #8\n\t"        \
    "sub " #a0 ", " #offset "\n\tsub " #a2 ", " #offset "\n\t"
#define APART_4(a0, a1, a2, a3, offset)                                                                                \
    "sub " #a3 ", " #a2 "\n\tsub " #a2 ", " #a1 "\n\tsub " #a1 ", " #a0 "\n\tasr " #a3 ", " #a3 ", #12\n\t"           \
    "sub " #a0 ", " #offset "\n\trsb " #a1 ", " #offset ", " #a1 ", asr #4\n\t"                                       \
    "rsb " #a2 ", " #offset ", " #a2 ", asr #8\n\t"

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

__attribute__((naked, noinline)) void qhw_dot_8(const uint32_t *x, const uint32_t *w, qhw_blocks *blocks,
                                                const uint32_t *end) {
    __asm__ volatile(BLOCKS(PAIR_8, APART_8(r4, r5, r6, r7, r2) APART_8(r8, r9, r10, r11, r3)));
}

__attribute__((naked, noinline)) void qhw_dot_4(const uint32_t *x, const uint32_t *w, qhw_blocks *blocks,
                                                const uint32_t *end) {
    __asm__ volatile(BLOCKS(PAIR_4, APART_4(r4, r5, r6, r7, r2) APART_4(r8, r9, r10, r11, r3)));
}

__attribute__((naked, noinline)) void qhw_dot_2(const uint32_t *x, const uint32_t *w, const uint32_t *end,
                                                int32_t *sums) {
    __asm__ volatile(".syntax unified\n\tpush {r2-r11, lr}\n\tsub r12, r2, r0\n\t" BEGIN
                     "movw r5, #0xC003\n\tmovt r5, #0xC003\n\t" IF_EVEN LOAD_2 "b 2f\n1:\n\t" LOAD_2 UNIT_2(LOAD_2)
                     "2:\n\t" UNIT_2("") "ldr r2, [sp]\n\tcmp r0, r2\n\tbne 1b\n\tldr r3, [sp, #4]\n\t"
                     "stmia r3, {r4, r6, r8, r10}\n\tadd sp, #8\n\tpop {r4-r11, pc}\n");
}

#else

static inline int32_t less(int32_t a, int32_t b) {
    return (int32_t)((uint32_t)a - (uint32_t)b);
}

void qhw_dot_8(const uint32_t *x, const uint32_t *w, qhw_blocks *blocks, const uint32_t *end) {
    for (int32_t *sums = blocks->sums; sums < blocks->last; sums += 4) {
        int32_t a[2][4] = {{0}, {0}};
        for (x = blocks->x; x != end; x += 2, w += 2)
            for (unsigned pixel = 0; pixel < 2; pixel++) {
                a[pixel][0] = qhw_smlad(qhw_uxtb16(w[0]), x[pixel], a[pixel][0]);
                a[pixel][1] = qhw_smlad(w[0], x[pixel], a[pixel][1]);
                a[pixel][2] = qhw_smlad(qhw_uxtb16(w[1]), x[pixel], a[pixel][2]);
                a[pixel][3] = qhw_smlad(w[1], x[pixel], a[pixel][3]);
            }
        for (unsigned pixel = 0; pixel < 2; pixel++) {
            int32_t *to = (int32_t *)((uint8_t *)sums + pixel * blocks->stride), offset = blocks->offsets[pixel];
            to[0] = less(a[pixel][0], offset);
            to[1] = less(a[pixel][1], a[pixel][0]) >> 8;
            to[2] = less(a[pixel][2], offset);
            to[3] = less(a[pixel][3], a[pixel][2]) >> 8;
        }
    }
}

void qhw_dot_4(const uint32_t *x, const uint32_t *w, qhw_blocks *blocks, const uint32_t *end) {
    for (int32_t *sums = blocks->sums; sums < blocks->last; sums += 4) {
        int32_t a[2][4] = {{0}, {0}};
        for (x = blocks->x; x != end; x += 2, w++) {
            uint32_t three = *w & ~0xF000F000u, two = qhw_uxtb16(*w), one = two & 0x000F000Fu;
            for (unsigned pixel = 0; pixel < 2; pixel++) {
                a[pixel][0] = qhw_smlad(one, x[pixel], a[pixel][0]);
                a[pixel][1] = qhw_smlad(two, x[pixel], a[pixel][1]);
                a[pixel][2] = qhw_smlad(three, x[pixel], a[pixel][2]);
                a[pixel][3] = qhw_smlad(*w, x[pixel], a[pixel][3]);
            }
        }
        for (unsigned pixel = 0; pixel < 2; pixel++) {
            int32_t *to = (int32_t *)((uint8_t *)sums + pixel * blocks->stride), offset = blocks->offsets[pixel];
            to[0] = less(a[pixel][0], offset);
            to[1] = (less(a[pixel][1], a[pixel][0]) >> 4) - offset;
            to[2] = (less(a[pixel][2], a[pixel][1]) >> 8) - offset;
            to[3] = less(a[pixel][3], a[pixel][2]) >> 12;
        }
    }
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
