// Integer kernels for microcontrollers: exactly the operations of qhw's exact graph, on mantissas.
//
// A feature map is channels last: height x width pixels, each with all of its channels. Mantissas lie in 2, 4, 8, 16,
// 32 or 64 bits, two's complement or unsigned. Below 8 bits a pixel's channels are packed, the first one in the lowest
// bits, and every pixel begins at a byte of its own; the spare bits of its last byte are 0. 16 bits and more are
// aligned and little-endian. Rows may lie further apart than they are long, so that a region of a larger map is one.
//
// Sums are exact: the graph proves the range of what a kernel rounds or stores, and arithmetic modulo 2^32 (2^64 where
// `wide` says so) is then exact, whatever the partial sums do.
#ifndef QHW_KERNELS_H
#define QHW_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// How mantissas lie in memory.
typedef struct {
    uint8_t bits;      // 2, 4, 8, 16, 32 or 64
    uint8_t is_signed; // two's complement, else unsigned
} qhw_type;

// The part of the feature maps that a call works on.
typedef struct {
    uint16_t in_height, in_width;   // pixels of the input that are there; what lies around them is mantissa 0
    uint16_t out_height, out_width; // pixels that are computed
    int16_t pad_top, pad_left;      // output pixel (0, 0) has its first tap at input pixel (-pad_top, -pad_left)
    uint32_t in_row_bytes, out_row_bytes; // from a row to the next one
} qhw_region;

// To nearest, ties: RND up, RND_ZERO to zero, RND_MIN_INF down, RND_INF away from zero, RND_CONV to even.
// TRN down, TRN_ZERO to zero, CEIL up, UP away from zero.
enum { QHW_RND, QHW_RND_ZERO, QHW_RND_MIN_INF, QHW_RND_INF, QHW_RND_CONV, QHW_TRN, QHW_TRN_ZERO, QHW_CEIL, QHW_UP };

// Beyond the range: the nearest bound, zero, modulo 2^width, or wrapped in sign and magnitude.
enum { QHW_SAT, QHW_SAT_ZERO, QHW_WRAP, QHW_WRAP_SM };

enum {
    QHW_KEEP,   // v as it is
    QHW_ROUND,  // v shifted right by shift[c] (left where it is negative), rounded, brought into the range
    QHW_COUNT,  // levels[how many thresholds v has reached (>=)]
    QHW_LOOK_UP // levels[v - first]
};

// What becomes of a sum before it is stored: v = sum * multiplier[c] + addend[c], then one of the four above.
typedef struct {
    qhw_type type; // of what is stored
    uint8_t kind;  // QHW_KEEP ... QHW_LOOK_UP
    uint8_t wide;  // v needs 64 bits: addend and thresholds are int64_t, else int32_t
    uint8_t rounding, overflow;
    uint8_t width;      // bits of the range that WRAP and WRAP_SM wrap into
    uint8_t multiplier_step, addend_step, shift_step; // 1: one number per channel, 0: one for all
    const int32_t *multiplier; // NULL: 1
    const void *addend;        // NULL: 0
    const int8_t *shift;
    const void *thresholds; // (channels or 1, count), rising
    const void *levels;     // (channels or 1, count + 1) or (channels or 1, entries), in the type that is stored
    uint32_t count;         // thresholds, or entries of a table
    uint32_t threshold_step, level_step; // from a channel to the next one; 0: one row for all
    int64_t first;                       // what entry 0 of a table stands for
    int64_t low, high;                   // bounds for SAT, SAT_ZERO
} qhw_output;

// Convolution (cross-correlation), grouped, strided, dilated; also a matrix product with constant weights, which is a
// convolution with one pixel, or, of a flattened map, with as many taps as the map has pixels.
// Weights: [out channel][kernel row][kernel column][in channel of its group], each tap packed and padded to a byte like
// a pixel. Depthwise (qhw_depthwise): [kernel row][kernel column][channel], groups = in = out channels.
// Kernels with a layout of their own say so where they are declared.
typedef struct {
    qhw_type in, weight;
    uint16_t in_channels, out_channels, groups;
    uint16_t kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width;
    uint8_t wide_sum; // sums of products in 64 bits
    const void *weights;
    qhw_output output;
} qhw_conv_layer;

// scratch: as many bytes, aligned to 8, as the host reserved for the kernel (qhw/flows/mcu/kernels.py says how many).
typedef void qhw_conv_kernel(const qhw_conv_layer *layer, const qhw_region *region, const void *in, void *out,
                             void *scratch);
qhw_conv_kernel qhw_conv;           // inputs of up to 8 bits (16 if signed), weights of up to 8, sums in 32 bits
qhw_conv_kernel qhw_conv_wide;      // inputs and weights of any bits, sums in 64 bits
qhw_conv_kernel qhw_depthwise;      // as qhw_conv
qhw_conv_kernel qhw_depthwise_wide; // as qhw_conv_wide

// Element by element: of one map, or of two with the same pixels and channels.
typedef struct {
    qhw_type in, other; // other: of the second map
    uint16_t channels;
    uint8_t in_shift, other_shift; // left shifts that align the exponents before an addition
    qhw_output output;
} qhw_elementwise_layer;

void qhw_elementwise(const qhw_elementwise_layer *layer, const qhw_region *region, const void *in, void *out);
// out may be in or other, where it has as many bits, 8 or more. Rows are in_row_bytes and other_row_bytes apart.
void qhw_add(const qhw_elementwise_layer *layer, const qhw_region *region, const void *in, const void *other,
             uint32_t other_row_bytes, void *out);
void qhw_mul(const qhw_elementwise_layer *layer, const qhw_region *region, const void *in, const void *other,
             uint32_t other_row_bytes, void *out);

// Windows of one channel, or, with across, of all channels together (one result per pixel).
typedef struct {
    qhw_type in;
    uint16_t channels;
    uint16_t kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width;
    uint8_t across;
    qhw_output output;
} qhw_pool_layer;

void qhw_max_pool(const qhw_pool_layer *layer, const qhw_region *region, const void *in, void *out);
void qhw_sum_pool(const qhw_pool_layer *layer, const qhw_region *region, const void *in, void *out);

// Matrix product of two maps, or a map and a constant that lies like one: for every batch,
// out (rows, columns) = a (rows, depth) x b (depth, columns). Logical tensors are row-major and lie channels last:
// element n of a tensor with P pixels is channel n / P of pixel n % P.
typedef struct {
    qhw_type a, b;
    uint16_t batches, rows, depth, columns;
    uint16_t a_channels, b_channels, out_channels;
    uint32_t a_pixels, b_pixels, out_pixels;
    uint32_t a_batch, b_batch; // elements from a batch to the next one; 0: the same for all
    const void *bias;          // one number per column, int64_t if output.wide, else int32_t; NULL: none
    qhw_output output;
} qhw_matmul_layer;

void qhw_matmul(const qhw_matmul_layer *layer, const void *a, const void *b, void *out);

// Moves of codes, which change none; out may have more bits than in.
typedef struct {
    qhw_type in, out;
    uint16_t in_channels, out_channels;
    uint16_t height, width, channels;         // of what is moved
    uint16_t in_row, in_column, in_channel;   // its first element in the input
    uint16_t out_row, out_column, out_channel; // and in the output
    uint16_t in_row_step, in_column_step, in_channel_step, out_row_step, out_column_step; // out channels: 1
    uint32_t in_row_bytes, out_row_bytes;
} qhw_copy_layer;

void qhw_copy(const qhw_copy_layer *layer, const void *in, void *out);

// A whole map with one mantissa.
void qhw_fill(qhw_type type, uint32_t channels, uint32_t pixels, int64_t value, void *out);

// Every pixel, as often as factors say, along both axes.
typedef struct {
    qhw_type type;
    uint16_t channels, height, width, row_factor, column_factor;
} qhw_upsample_layer;

void qhw_upsample(const qhw_upsample_layer *layer, const void *in, void *out);

// The same elements, row-major, in another shape: channels x pixels before and after.
typedef struct {
    qhw_type type;
    uint32_t in_channels, in_pixels, out_channels, out_pixels;
} qhw_reshape_layer;

void qhw_reshape(const qhw_reshape_layer *layer, const void *in, void *out);

// Axes in another order: element (i0, i1, i2, i3) of the output is element sum(i * stride) of the input, row-major.
typedef struct {
    qhw_type type;
    uint32_t shape[4], stride[4]; // of the output's axes, channels first; axes that it lacks have length 1
    uint32_t in_channels, in_pixels;
} qhw_transpose_layer;

void qhw_transpose(const qhw_transpose_layer *layer, const void *in, void *out);

#ifdef __cplusplus
}
#endif
#endif
