// Convolution in portable C: the taps of an output pixel are gathered, then multiplied by each channel's weights.
#include "qhw_internal.h"

// Channels of a tap with the spare weights of its last byte, which are 0.
static uint32_t padded_depth(const qhw_conv_layer *layer) {
    uint32_t each = layer->weight.bits < 8 ? 8u / layer->weight.bits : 1u;
    uint32_t depth = layer->in_channels / layer->groups;
    return (depth + each - 1u) / each * each;
}

// Where a tap lies in the input; NULL where it is padding.
static const uint8_t *tap_at(const qhw_conv_layer *layer, const qhw_region *region, const void *in, int32_t row,
                             int32_t column) {
    if (row < 0 || column < 0 || row >= region->in_height || column >= region->in_width)
        return NULL;
    return (const uint8_t *)in + (uint32_t)row * region->in_row_bytes +
           (uint32_t)column * qhw_pixel_bytes(layer->in, layer->in_channels);
}

static void *out_pixel(const qhw_conv_layer *layer, const qhw_region *region, void *out, uint32_t row, uint32_t column) {
    return (uint8_t *)out + row * region->out_row_bytes +
           column * qhw_pixel_bytes(layer->output.type, layer->out_channels);
}

// [group][tap][channel] of one output pixel, as 16-bit numbers.
static void gather(const qhw_conv_layer *layer, const qhw_region *region, const void *in, uint32_t row, uint32_t column,
                   int16_t *taps) {
    uint32_t depth = layer->in_channels / layer->groups, padded = padded_depth(layer);
    uint32_t places = (uint32_t)layer->kernel_height * layer->kernel_width;
    for (uint32_t place = 0; place < places; place++) {
        int32_t y = (int32_t)(row * layer->stride_height) - region->pad_top +
                    (int32_t)(place / layer->kernel_width * layer->dilation_height);
        int32_t x = (int32_t)(column * layer->stride_width) - region->pad_left +
                    (int32_t)(place % layer->kernel_width * layer->dilation_width);
        const uint8_t *pixel = tap_at(layer, region, in, y, x);
        for (uint32_t group = 0; group < layer->groups; group++) {
            int16_t *to = taps + (group * places + place) * padded;
            if (!pixel) {
                memset(to, 0, padded * sizeof *to);
                continue;
            }
            uint32_t first = group * depth;
            if (layer->in.bits == 8 && layer->in.is_signed)
                for (uint32_t c = 0; c < depth; c++)
                    to[c] = ((const int8_t *)pixel)[first + c];
            else if (layer->in.bits == 8)
                for (uint32_t c = 0; c < depth; c++)
                    to[c] = pixel[first + c];
            else
                for (uint32_t c = 0; c < depth; c++)
                    to[c] = (int16_t)qhw_load(layer->in, pixel, first + c);
            for (uint32_t c = depth; c < padded; c++)
                to[c] = 0;
        }
    }
}

static int32_t dot8(const int16_t *x, const int8_t *w, uint32_t count) {
    int32_t sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += x[i] * w[i];
    return sum;
}

static int32_t dot_u8(const int16_t *x, const uint8_t *w, uint32_t count) {
    int32_t sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += x[i] * w[i];
    return sum;
}

// Weights of 4 and 2 bits: a byte holds 2 or 4 of them.
static int32_t dot4(const int16_t *x, const uint8_t *w, uint32_t count, int32_t sign) {
    int32_t sum = 0;
    for (uint32_t i = 0; i < count; i += 2) {
        int32_t byte = *w++;
        sum += x[i] * (((byte & 15) ^ sign) - sign);
        sum += x[i + 1] * (((byte >> 4) ^ sign) - sign);
    }
    return sum;
}

static int32_t dot2(const int16_t *x, const uint8_t *w, uint32_t count, int32_t sign) {
    int32_t sum = 0;
    for (uint32_t i = 0; i < count; i += 4) {
        int32_t byte = *w++;
        sum += x[i] * (((byte & 3) ^ sign) - sign);
        sum += x[i + 1] * (((byte >> 2 & 3) ^ sign) - sign);
        sum += x[i + 2] * (((byte >> 4 & 3) ^ sign) - sign);
        sum += x[i + 3] * (((byte >> 6) ^ sign) - sign);
    }
    return sum;
}

void qhw_conv(const qhw_conv_layer *layer, const qhw_region *region, const void *in, void *out, void *scratch) {
    uint32_t count = padded_depth(layer) * layer->kernel_height * layer->kernel_width;
    uint32_t each = layer->out_channels / layer->groups, row_bytes = count * layer->weight.bits / 8u;
    int32_t sign = layer->weight.is_signed ? 1 << (layer->weight.bits - 1) : 0;
    int16_t *taps = scratch;
    int32_t chunk[QHW_CHUNK];
    for (uint32_t row = 0; row < region->out_height; row++) {
        for (uint32_t column = 0; column < region->out_width; column++) {
            void *pixel = out_pixel(layer, region, out, row, column);
            gather(layer, region, in, row, column, taps);
            const uint8_t *weights = layer->weights;
            for (uint32_t c = 0; c < layer->out_channels; c++) {
                const int16_t *x = taps + c / each * count;
                int32_t sum = layer->weight.bits == 4   ? dot4(x, weights, count, sign)
                              : layer->weight.bits == 2 ? dot2(x, weights, count, sign)
                              : sign                    ? dot8(x, (const int8_t *)weights, count)
                                                        : dot_u8(x, weights, count);
                qhw_put(&layer->output, (uint64_t)(int64_t)sum, c, layer->out_channels, chunk, pixel);
                weights += row_bytes;
            }
        }
    }
}

void qhw_conv_wide(const qhw_conv_layer *layer, const qhw_region *region, const void *in, void *out, void *scratch) {
    int32_t chunk[QHW_CHUNK];
    (void)scratch;
    uint32_t depth = layer->in_channels / layer->groups, each = layer->out_channels / layer->groups;
    uint32_t places = (uint32_t)layer->kernel_height * layer->kernel_width;
    uint32_t tap_bytes = qhw_pixel_bytes(layer->weight, depth);
    for (uint32_t row = 0; row < region->out_height; row++) {
        for (uint32_t column = 0; column < region->out_width; column++) {
            void *pixel = out_pixel(layer, region, out, row, column);
            for (uint32_t c = 0; c < layer->out_channels; c++) {
                uint64_t sum = 0;
                for (uint32_t place = 0; place < places; place++) {
                    int32_t y = (int32_t)(row * layer->stride_height) - region->pad_top +
                                (int32_t)(place / layer->kernel_width * layer->dilation_height);
                    int32_t x = (int32_t)(column * layer->stride_width) - region->pad_left +
                                (int32_t)(place % layer->kernel_width * layer->dilation_width);
                    const uint8_t *from = tap_at(layer, region, in, y, x);
                    if (!from)
                        continue;
                    const uint8_t *weights = (const uint8_t *)layer->weights + (c * places + place) * tap_bytes;
                    for (uint32_t k = 0; k < depth; k++)
                        sum += (uint64_t)qhw_load(layer->in, from, c / each * depth + k) *
                               (uint64_t)qhw_load(layer->weight, weights, k);
                }
                qhw_put(&layer->output, sum, c, layer->out_channels, chunk, pixel);
            }
        }
    }
}

void qhw_depthwise(const qhw_conv_layer *layer, const qhw_region *region, const void *in, void *out, void *scratch) {
    uint32_t channels = layer->in_channels, tap_bytes = qhw_pixel_bytes(layer->weight, channels);
    int32_t *sums = scratch;
    for (uint32_t row = 0; row < region->out_height; row++) {
        for (uint32_t column = 0; column < region->out_width; column++) {
            const uint8_t *weights = layer->weights;
            memset(sums, 0, channels * sizeof *sums);
            for (uint32_t i = 0; i < layer->kernel_height; i++) {
                for (uint32_t j = 0; j < layer->kernel_width; j++, weights += tap_bytes) {
                    int32_t y = (int32_t)(row * layer->stride_height + i * layer->dilation_height) - region->pad_top;
                    int32_t x = (int32_t)(column * layer->stride_width + j * layer->dilation_width) - region->pad_left;
                    const uint8_t *from = tap_at(layer, region, in, y, x);
                    if (!from)
                        continue;
                    if (layer->in.bits == 8 && !layer->in.is_signed && layer->weight.bits == 8 && layer->weight.is_signed)
                        for (uint32_t c = 0; c < channels; c++)
                            sums[c] += from[c] * ((const int8_t *)weights)[c];
                    else
                        for (uint32_t c = 0; c < channels; c++)
                            sums[c] += (int32_t)qhw_load(layer->in, from, c) * (int32_t)qhw_load(layer->weight, weights, c);
                }
            }
            void *pixel = out_pixel(layer, region, out, row, column);
            if (layer->output.wide) {
                for (uint32_t c = 0; c < channels; c++)
                    qhw_store(layer->output.type, pixel, c, qhw_finish64(&layer->output, (uint64_t)(int64_t)sums[c], c));
                continue;
            }
            for (uint32_t c = 0; c < channels; c += QHW_CHUNK)
                qhw_finish_chunk(&layer->output, c, qhw_chunk(c, channels), sums + c, pixel);
        }
    }
}

void qhw_depthwise_wide(const qhw_conv_layer *layer, const qhw_region *region, const void *in, void *out,
                        void *scratch) {
    int32_t chunk[QHW_CHUNK];
    (void)scratch;
    uint32_t tap_bytes = qhw_pixel_bytes(layer->weight, layer->in_channels);
    for (uint32_t row = 0; row < region->out_height; row++) {
        for (uint32_t column = 0; column < region->out_width; column++) {
            void *pixel = out_pixel(layer, region, out, row, column);
            for (uint32_t c = 0; c < layer->in_channels; c++) {
                const uint8_t *weights = layer->weights;
                uint64_t sum = 0;
                for (uint32_t i = 0; i < layer->kernel_height; i++) {
                    for (uint32_t j = 0; j < layer->kernel_width; j++, weights += tap_bytes) {
                        int32_t y = (int32_t)(row * layer->stride_height + i * layer->dilation_height) - region->pad_top;
                        int32_t x = (int32_t)(column * layer->stride_width + j * layer->dilation_width) - region->pad_left;
                        const uint8_t *from = tap_at(layer, region, in, y, x);
                        if (from)
                            sum += (uint64_t)qhw_load(layer->in, from, c) * (uint64_t)qhw_load(layer->weight, weights, c);
                    }
                }
                qhw_put(&layer->output, sum, c, layer->in_channels, chunk, pixel);
            }
        }
    }
}
