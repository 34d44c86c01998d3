// The inner loops of qhw_conv_dsp.c.
#ifndef QHW_DOT_DSP_H
#define QHW_DOT_DSP_H

#include <stdint.h>

// Columns: for a unit of 4 taps, 4 words: taps (0, 2) of the first pixel and of the second, taps (1, 3) of both.
#define QHW_UNIT 4u

// Products of two columns, from x to end, with the weights of a block of 4 channels, summed as they are stored: 8 sums
// (4 channels of the first pixel, then of the second), or 4 (2 registers of each). At least one unit.
typedef void qhw_dot(const uint32_t *x, const uint32_t *w, const uint32_t *end, int32_t *sums);
qhw_dot qhw_dot_8;
qhw_dot qhw_dot_4;
qhw_dot qhw_dot_2;

#endif
