// Runs CMSIS-NN's kernels for 8 bits on layers from a file, as tests/flows/mcu/kernel_cases.c does with ours, and says how
// many ticks each took and what it gave.
#include "arm_nnfunctions.h"
#include "io.h"

enum { CONVOLUTION, DEPTHWISE, FULLY_CONNECTED };

typedef struct {
    int32_t kind, rows, columns, in_channels, out_channels, kernel_rows, kernel_columns, pad_rows, pad_columns;
    int32_t in_offset, out_offset; // of signed bytes: -(zero point) of the input, zero point of the output
} head;

static uint64_t memory[1 << 18];
static uint32_t used;

static void *taken(uint32_t bytes) {
    void *at = memory + used;
    used += (bytes + 7u) / 8u;
    return at;
}

static void *array(int file, int32_t bytes) {
    void *at = taken((uint32_t)bytes);
    qhw_read(file, at, (uint32_t)bytes);
    return at;
}

int main(void) {
    int from = qhw_open("layers.bin", 0), to = qhw_open("results.bin", 1);
    head h;
    while (qhw_read(from, &h, sizeof h) == sizeof h) {
        used = 0;
        int32_t depth = h.kind == DEPTHWISE ? 1 : h.in_channels;
        int32_t weights_bytes = h.out_channels * h.kernel_rows * h.kernel_columns * depth;
        int32_t out_rows = h.rows + 2 * h.pad_rows - h.kernel_rows + 1;
        int32_t out_columns = h.columns + 2 * h.pad_columns - h.kernel_columns + 1;
        int8_t *in = array(from, h.rows * h.columns * h.in_channels), *weights = array(from, weights_bytes);
        int32_t *bias = array(from, 4 * h.out_channels), *multiplier = array(from, 4 * h.out_channels);
        int32_t *shift = array(from, 4 * h.out_channels);
        uint32_t out_bytes = (uint32_t)(out_rows * out_columns * h.out_channels);
        int8_t *out = taken(out_bytes);
        cmsis_nn_dims in_dims = {1, h.rows, h.columns, h.in_channels};
        cmsis_nn_dims filter = {h.out_channels, h.kernel_rows, h.kernel_columns, h.in_channels};
        cmsis_nn_dims bias_dims = {1, 1, 1, h.out_channels}, out_dims = {1, out_rows, out_columns, h.out_channels};
        cmsis_nn_per_channel_quant_params per_channel = {multiplier, shift};
        cmsis_nn_context context = {NULL, 0};
        cmsis_nn_tile one = {1, 1}, pad = {h.pad_columns, h.pad_rows};
        cmsis_nn_activation range = {-128, 127};
        uint32_t begin = 0, ticks = 0;
        int status = 1;
        if (h.kind == CONVOLUTION) {
            cmsis_nn_conv_params params = {h.in_offset, h.out_offset, one, pad, one, range};
            context.size = arm_convolve_wrapper_s8_get_buffer_size(&params, &in_dims, &filter, &out_dims);
            context.buf = taken((uint32_t)context.size);
            begin = qhw_ticks();
            status = arm_convolve_wrapper_s8(&context, &params, &per_channel, &in_dims, in, &filter, weights, &bias_dims,
                                             bias, &out_dims, out);
            ticks = qhw_ticks() - begin;
        } else if (h.kind == DEPTHWISE) {
            cmsis_nn_dw_conv_params params = {h.in_offset, h.out_offset, 1, one, pad, one, range};
            filter.n = 1;
            context.size = arm_depthwise_conv_wrapper_s8_get_buffer_size(&params, &in_dims, &filter, &out_dims);
            context.buf = taken((uint32_t)context.size);
            begin = qhw_ticks();
            status = arm_depthwise_conv_wrapper_s8(&context, &params, &per_channel, &in_dims, in, &filter, weights,
                                                   &bias_dims, bias, &out_dims, out);
            ticks = qhw_ticks() - begin;
        } else {
            cmsis_nn_fc_params params = {h.in_offset, 0, h.out_offset, range};
            cmsis_nn_per_tensor_quant_params per_tensor = {multiplier[0], shift[0]};
            cmsis_nn_dims flat = {h.in_channels, 1, 1, h.out_channels};
            begin = qhw_ticks();
            status = arm_fully_connected_s8(&context, &params, &per_tensor, &in_dims, in, &flat, weights, &bias_dims, bias,
                                            &out_dims, out);
            ticks = qhw_ticks() - begin;
        }
        uint32_t result[2] = {ticks, (uint32_t)status};
        qhw_write(to, result, sizeof result);
        qhw_write(to, out, out_bytes);
    }
    qhw_close(from);
    qhw_close(to);
    return 0;
}
