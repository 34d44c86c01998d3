// A convolution by shifts and additions alone, for weights with few ones (k-hot): measured beside the kernels that
// multiply, on layers from a file. Stride 1, 8-bit inputs without a sign, 4 channels at a time, 8 pixels at a time.
//
// Sums of two pixels lie in one register, 16 bits each. The taps that have the same power of two in their weight are
// summed first, those of negative weights subtracted; then 8 sums of 32 bits take what was summed, shifted. So a one
// of a weight takes an index, 4 loads (one instruction) and 4 additions for 8 pixels, and a weight of 0 nothing.
#include "io.h"
#include "qhw_finish_dsp.h"

enum { PIXELS = 8, WORDS = PIXELS / 2 };

typedef struct {
    int32_t rows, columns, in_channels, out_channels, kernel, pad;
    uint32_t weights_bytes;
} head;

// A tap of a place in the kernel and 4 channels, of two pixels: the words of 4 taps, `WORDS` apart.
QHW_INLINE void put_four(uint32_t *to, uint32_t first, uint32_t second) {
    uint32_t even = qhw_uxtb16(first), odd = qhw_uxtb16_odd(first);
    uint32_t other = qhw_uxtb16(second), other_odd = qhw_uxtb16_odd(second);
    to[0] = qhw_bottoms(even, other);
    to[WORDS] = qhw_bottoms(odd, other_odd);
    to[2 * WORDS] = qhw_tops(even, other);
    to[3 * WORDS] = qhw_tops(odd, other_odd);
}

// The taps of two pixels next to each other, the left one at (y, x) of the input.
static void put_pair(const head *h, const uint8_t *in, int32_t y, int32_t x, uint32_t *to) {
    for (int32_t i = 0; i < h->kernel; i++, y++) {
        int is_row = y >= 0 && y < h->rows;
        for (int32_t j = 0; j < h->kernel; j++) {
            int is_first = is_row && x + j >= 0 && x + j < h->columns;
            int is_second = is_row && x + j + 1 >= 0 && x + j + 1 < h->columns;
            const uint8_t *from = in + (y * h->columns + x + j) * h->in_channels;
            const uint8_t *next = from + h->in_channels;
            if (is_first && is_second)
                for (int32_t c = 0; c < h->in_channels; c += 4, to += 4 * WORDS)
                    put_four(to, qhw_word(from + c), qhw_word(next + c));
            else
                for (int32_t c = 0; c < h->in_channels; c += 4, to += 4 * WORDS)
                    put_four(to, is_first ? qhw_word(from + c) : 0, is_second ? qhw_word(next + c) : 0);
        }
    }
}

// The sum of two pixels' taps, 4 times, with one more of each: by the place of the tap, in bytes.
#define TERM(operation)                                                                                                \
    __asm__("ldrh %[at], [%[s]], #2\n\tadd %[at], %[x]\n\tldm %[at], {r8-r11}\n\t" operation " %[a], %[a], r8\n\t"      \
            operation " %[b], %[b], r9\n\t" operation " %[c], %[c], r10\n\t" operation " %[d], %[d], r11"               \
            : [at] "=&r"(at), [s] "+r"(s), [a] "+r"(a), [b] "+r"(b), [c] "+r"(c), [d] "+r"(d)                          \
            : [x] "r"(x)                                                                                               \
            : "r8", "r9", "r10", "r11", "memory")

#define TERMS(operation)                                                                                               \
    do {                                                                                                               \
        const uint16_t *end = s + 1 + *s;                                                                              \
        s++;                                                                                                           \
        for (const uint16_t *odd = s + ((end - s) & 3); s != odd;)                                                     \
            TERM(operation);                                                                                           \
        while (s != end) {                                                                                             \
            TERM(operation);                                                                                           \
            TERM(operation);                                                                                           \
            TERM(operation);                                                                                           \
            TERM(operation);                                                                                           \
        }                                                                                                              \
    } while (0)

#define TAKE(i, word)                                                                                                  \
    do {                                                                                                               \
        found[i] = (uint32_t)(int16_t)(word) + (found[i] << shift);                                                    \
        found[(i) + 1] = (uint32_t)((int32_t)(word) >> 16) + (found[(i) + 1] << shift);                                \
    } while (0)

// The sums of one channel. Its weights: how many powers of two there are; for each, the largest first: how far the sum
// before is shifted for it, the number of positive taps, these, the number of negative ones, these.
static __attribute__((noinline)) const uint16_t *sums_of(const uint32_t *x, const uint16_t *s, int32_t *sums, uint32_t stride) {
    uint32_t found[PIXELS] = {0};
    for (uint32_t powers = *s++; powers; powers--) {
        uint32_t shift = *s++, a = 0, b = 0, c = 0, d = 0, at;
        TERMS("sadd16");
        TERMS("ssub16");
        TAKE(0, a);
        TAKE(2, b);
        TAKE(4, c);
        TAKE(6, d);
    }
    for (uint32_t i = 0; i < PIXELS; i++)
        sums[i * stride] = (int32_t)found[i];
    return s;
}

static void convolve(const head *h, const uint8_t *in, const qhw_packed *packed, uint8_t *out, uint32_t *x,
                     int32_t *sums) {
    qhw_output output = {.type = {8, 0}, .low = 0, .high = 255};
    uint32_t channels = (uint32_t)h->out_channels;
    qhw_fours *fours = qhw_usual_fours(&output, packed);
    for (int32_t row = 0; row < h->rows; row++)
        for (int32_t column = 0; column < h->columns; column += PIXELS) {
            for (int32_t i = 0; i < WORDS; i++)
                put_pair(h, in, row - h->pad, column + 2 * i - h->pad, x + i);
            const uint16_t *s = (const uint16_t *)(packed + 1);
            for (uint32_t c = 0; c < channels; c++)
                s = sums_of(x, s, sums + c, channels);
            for (uint32_t i = 0; i < PIXELS; i++, out += channels)
                qhw_finish_pixel(&output, packed, fours, sums + i * channels, channels, out);
        }
}

static uint64_t memory[1 << 18];
static uint32_t used;

static void *taken(uint32_t bytes) {
    void *at = memory + used;
    used += (bytes + 7u) / 8u;
    return at;
}

int main(void) {
    int from = qhw_open("layers.bin", 0), to = qhw_open("results.bin", 1);
    head h;
    while (qhw_read(from, &h, sizeof h) == sizeof h) {
        used = 0;
        uint32_t pixels = (uint32_t)(h.rows * h.columns), taps = (uint32_t)(h.kernel * h.kernel * h.in_channels);
        uint32_t in_bytes = pixels * (uint32_t)h.in_channels, out_bytes = pixels * (uint32_t)h.out_channels;
        uint8_t *in = taken(in_bytes), *out = taken(out_bytes);
        void *weights = taken(h.weights_bytes);
        uint32_t *x = taken(4 * WORDS * taps);
        int32_t *sums = taken(4u * PIXELS * (uint32_t)h.out_channels);
        qhw_read(from, in, in_bytes);
        qhw_read(from, weights, h.weights_bytes);
        uint32_t begin = qhw_ticks();
        convolve(&h, in, weights, out, x, sums);
        uint32_t ticks = qhw_ticks() - begin;
        qhw_write(to, &ticks, sizeof ticks);
        qhw_write(to, out, out_bytes);
    }
    qhw_close(from);
    qhw_close(to);
    return 0;
}
