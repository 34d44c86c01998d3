// Pools over windows, and reductions, which are pools with one window.
#include "qhw_internal.h"

// The sum or maximum of channels [first, last) over the window of an output pixel; padding is left out of both.
static uint64_t pooled(const qhw_pool_layer *layer, const qhw_region *region, const void *in, uint32_t row,
                       uint32_t column, uint32_t first, uint32_t last, int is_max) {
    uint32_t in_bytes = qhw_pixel_bytes(layer->in, layer->channels);
    uint64_t sum = 0;
    int64_t highest = INT64_MIN;
    for (uint32_t i = 0; i < layer->kernel_height; i++) {
        int32_t y = (int32_t)(row * layer->stride_height + i * layer->dilation_height) - region->pad_top;
        if (y < 0 || y >= region->in_height)
            continue;
        for (uint32_t j = 0; j < layer->kernel_width; j++) {
            int32_t x = (int32_t)(column * layer->stride_width + j * layer->dilation_width) - region->pad_left;
            if (x < 0 || x >= region->in_width)
                continue;
            const uint8_t *from = (const uint8_t *)in + (uint32_t)y * region->in_row_bytes + (uint32_t)x * in_bytes;
            for (uint32_t c = first; c < last; c++) {
                int64_t value = qhw_load(layer->in, from, c);
                sum += (uint64_t)value;
                highest = value > highest ? value : highest;
            }
        }
    }
    return is_max ? (uint64_t)highest : sum;
}

static void pool(const qhw_pool_layer *layer, const qhw_region *region, const void *in, void *out, int is_max) {
    uint32_t results = layer->across ? 1u : layer->channels;
    uint32_t out_bytes = qhw_pixel_bytes(layer->output.type, results);
    for (uint32_t row = 0; row < region->out_height; row++) {
        uint8_t *to = (uint8_t *)out + row * region->out_row_bytes;
        for (uint32_t column = 0; column < region->out_width; column++, to += out_bytes)
            for (uint32_t c = 0; c < results; c++) {
                uint32_t last = layer->across ? layer->channels : c + 1u;
                qhw_finish(&layer->output, pooled(layer, region, in, row, column, c, last, is_max), c, to);
            }
    }
}

void qhw_max_pool(const qhw_pool_layer *layer, const qhw_region *region, const void *in, void *out) {
    pool(layer, region, in, out, 1);
}

void qhw_sum_pool(const qhw_pool_layer *layer, const qhw_region *region, const void *in, void *out) {
    pool(layer, region, in, out, 0);
}
