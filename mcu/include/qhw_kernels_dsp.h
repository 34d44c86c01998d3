// Kernels for cores with DSP instructions (Cortex-M4, M7, M33): the same results as their portable counterparts, with
// weights in an order of their own. qhw/flows/mcu/dsp.py packs them, and says where a kernel is exact.
#ifndef QHW_KERNELS_DSP_H
#define QHW_KERNELS_DSP_H

#include "qhw_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

// The rounding of a sum as one multiplication: the upper word of sum * multiplier + addend, of 64 bits. The shift and
// the rounding mode are in its numbers.
typedef struct {
    uint32_t addend_low;
    int32_t addend_high;
    int32_t multiplier;
} qhw_rounding;

// What `weights` of a layer points to, aligned to 4 bytes: this, then the weights, then a rounding per output channel.
typedef struct {
    uint32_t rounding;     // bytes from here to them; 0: there are none, and sums end as the layer's output says
    uint16_t ties_to_even; // a lower word of 0 is a tie, which goes to the even neighbour
    uint16_t chunk;        // units of 4 taps whose sums fit into the fields that a kernel sums in
} qhw_packed;

// Convolution; groups of channels that are no multiple of 4 take padding. Per group and block of 4 output channels
// (0, 1, 2, 3; the last block is filled with weights of 0), and per unit of 4 taps (0, 1, 2, 3; a tap is a place of the
// kernel and an input channel, the channel fastest; filled with 0 at the end), little-endian:
//  - qhw_conv_dsp8, 4 words: taps 0 and 2 of channels 0 and 1, of 2 and 3; taps 1 and 3 likewise. The bytes are: channel
//    0 (or 2) of the first tap, plus 128; channel 1 (or 3) of it; the same of the second tap.
//  - qhw_conv_dsp4, 2 words: taps 0 and 2, taps 1 and 3; one in each half, channel 0 in the lowest nibble. Channels 0
//    to 2 hold weight + 8, channel 3 two's complement.
//  - qhw_conv_dsp2, 1 word of 16 numbers n: for i = 0 to 3 (taps 0 and 2 of channels 0 and 1, of channels 2 and 3; taps
//    1 and 3 likewise), n[2i] and n[2i + 8] hold weight + 2 of the first channel for both taps, n[2i + 7] and n[2i + 15]
//    the second channel in two's complement (indices modulo 16).
qhw_conv_kernel qhw_conv_dsp8;
qhw_conv_kernel qhw_conv_dsp4;
qhw_conv_kernel qhw_conv_dsp2;

// Depthwise convolution, channels a multiple of 4, one output channel per input channel: int16_t weights
// [block of 4 channels][kernel row][kernel column][channels 0, 2, 1, 3 of the block].
qhw_conv_kernel qhw_depthwise_dsp;

// As qhw_add, of maps of bytes with a multiple of 4 channels, rounded and saturated alike in all channels.
void qhw_add_dsp(const qhw_elementwise_layer *layer, const qhw_region *region, const void *in, const void *other,
                 uint32_t other_row_bytes, void *out);

#ifdef __cplusplus
}
#endif
#endif
