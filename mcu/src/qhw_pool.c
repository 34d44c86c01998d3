// Pools over windows, and reductions, which are pools with one window.
#include "qhw_internal.h"

// Where tap (i, j) of an output pixel lies; NULL where it is padding, which neither sums nor maxima look at.
static const uint8_t *tap_at(const qhw_pool_layer *layer, const qhw_region *region, const void *in, uint32_t row,
                             uint32_t column, uint32_t i, uint32_t j) {
    int32_t y = (int32_t)(row * layer->stride_height + i * layer->dilation_height) - region->pad_top;
    int32_t x = (int32_t)(column * layer->stride_width + j * layer->dilation_width) - region->pad_left;
    if (y < 0 || x < 0 || y >= region->in_height || x >= region->in_width)
        return NULL;
    return (const uint8_t *)in + (uint32_t)y * region->in_row_bytes +
           (uint32_t)x * qhw_pixel_bytes(layer->in, layer->channels);
}

// The sum or maximum of channels [first, last) over the window of an output pixel.
static uint64_t pooled(const qhw_pool_layer *layer, const qhw_region *region, const void *in, uint32_t row,
                       uint32_t column, uint32_t first, uint32_t last, int is_max) {
    uint64_t sum = 0;
    int64_t highest = INT64_MIN;
    for (uint32_t i = 0; i < layer->kernel_height; i++)
        for (uint32_t j = 0; j < layer->kernel_width; j++) {
            const uint8_t *from = tap_at(layer, region, in, row, column, i, j);
            for (uint32_t c = first; from && c < last; c++) {
                int64_t value = qhw_load(layer->in, from, c);
                sum += (uint64_t)value;
                highest = value > highest ? value : highest;
            }
        }
    return is_max ? (uint64_t)highest : sum;
}

// The same of a chunk of channels, in 32 bits.
static void pool_chunk(const qhw_pool_layer *layer, const qhw_region *region, const void *in, uint32_t row,
                       uint32_t column, uint32_t first, uint32_t count, int is_max, int32_t *chunk) {
    int32_t values[QHW_CHUNK];
    for (uint32_t c = 0; c < count; c++)
        chunk[c] = is_max ? INT32_MIN : 0;
    for (uint32_t i = 0; i < layer->kernel_height; i++)
        for (uint32_t j = 0; j < layer->kernel_width; j++) {
            const uint8_t *from = tap_at(layer, region, in, row, column, i, j);
            if (!from)
                continue;
            qhw_load_chunk(layer->in, from, first, count, values);
            if (is_max)
                for (uint32_t c = 0; c < count; c++)
                    chunk[c] = values[c] > chunk[c] ? values[c] : chunk[c];
            else
                for (uint32_t c = 0; c < count; c++)
                    chunk[c] = (int32_t)((uint32_t)chunk[c] + (uint32_t)values[c]);
        }
}

static void pool(const qhw_pool_layer *layer, const qhw_region *region, const void *in, void *out, int is_max) {
    uint32_t results = layer->across ? 1u : layer->channels;
    uint32_t out_bytes = qhw_pixel_bytes(layer->output.type, results);
    int is_narrow = !layer->across && !layer->output.wide && (layer->in.bits < 32 || (layer->in.bits == 32 && layer->in.is_signed));
    int32_t chunk[QHW_CHUNK];
    for (uint32_t row = 0; row < region->out_height; row++) {
        uint8_t *to = (uint8_t *)out + row * region->out_row_bytes;
        for (uint32_t column = 0; column < region->out_width; column++, to += out_bytes) {
            for (uint32_t c = 0; is_narrow && c < results; c += QHW_CHUNK) {
                pool_chunk(layer, region, in, row, column, c, qhw_chunk(c, results), is_max, chunk);
                qhw_finish_chunk(&layer->output, c, qhw_chunk(c, results), chunk, to);
            }
            for (uint32_t c = 0; !is_narrow && c < results; c++) {
                uint32_t last = layer->across ? layer->channels : c + 1u;
                uint64_t result = pooled(layer, region, in, row, column, c, last, is_max);
                qhw_put(&layer->output, result, c, results, chunk, to);
            }
        }
    }
}

void qhw_max_pool(const qhw_pool_layer *layer, const qhw_region *region, const void *in, void *out) {
    pool(layer, region, in, out, 1);
}

void qhw_sum_pool(const qhw_pool_layer *layer, const qhw_region *region, const void *in, void *out) {
    pool(layer, region, in, out, 0);
}
