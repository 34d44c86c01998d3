// The inner loops of qhw_conv_dsp.c.
#ifndef QHW_DOT_DSP_H
#define QHW_DOT_DSP_H

#include <stdint.h>

// Columns: for a unit of 4 taps, 4 words: taps (0, 2) of the first pixel and of the second, taps (1, 3) of both.
#define QHW_UNIT 4u

// Blocks of 4 output channels, for two pixels.
typedef struct {
    const uint32_t *x;  // the first unit of both columns
    int32_t offsets[2]; // of each pixel: what its sums have on top, since weights are stored with half their range on top
    int32_t *sums;      // 4 of the first pixel and, `stride` bytes further on, of the second; moves on block by block
    uint32_t stride;
    const int32_t *last; // the block that reaches it is the last one
} qhw_blocks;

// Sums of both columns, from x to end, with the weights of all blocks. At least one unit, and one block.
typedef void qhw_dot(const uint32_t *x, const uint32_t *w, qhw_blocks *blocks, const uint32_t *end);
qhw_dot qhw_dot_8;
qhw_dot qhw_dot_4;

// Products of one block with weights of 2 bits, summed as they are stored: 2 registers of each pixel.
void qhw_dot_2(const uint32_t *x, const uint32_t *w, const uint32_t *end, int32_t *sums);

#endif
