// The product of two computed matrices, or of one with a constant whose layout is a map's.
#include "qhw_internal.h"

// Element n, row-major, of a tensor that lies channels last.
static int64_t element(qhw_type type, const void *map, uint32_t channels, uint32_t pixels, uint32_t n) {
    const uint8_t *pixel = (const uint8_t *)map + n % pixels * qhw_pixel_bytes(type, channels);
    return qhw_load(type, pixel, n / pixels);
}

void qhw_matmul(const qhw_matmul_layer *layer, const void *a, const void *b, void *out) {
    uint32_t out_bytes = qhw_pixel_bytes(layer->output.type, layer->out_channels);
    int32_t chunk[QHW_CHUNK];
    for (uint32_t pixel = 0; pixel < layer->out_pixels; pixel++) {
        for (uint32_t channel = 0; channel < layer->out_channels; channel++) {
            uint32_t n = channel * layer->out_pixels + pixel, column = n % layer->columns;
            uint32_t row = n / layer->columns % layer->rows, batch = n / layer->columns / layer->rows;
            uint64_t sum = 0;
            for (uint32_t k = 0; k < layer->depth; k++) {
                uint32_t left = batch * layer->a_batch + row * layer->depth + k;
                uint32_t right = batch * layer->b_batch + k * layer->columns + column;
                sum += (uint64_t)element(layer->a, a, layer->a_channels, layer->a_pixels, left) *
                       (uint64_t)element(layer->b, b, layer->b_channels, layer->b_pixels, right);
            }
            uint8_t *to = (uint8_t *)out + pixel * out_bytes;
            if (layer->bias && layer->output.wide)
                sum += (uint64_t)((const int64_t *)layer->bias)[column];
            else if (layer->bias)
                sum += (uint64_t)(int64_t)((const int32_t *)layer->bias)[column];
            qhw_put(&layer->output, sum, channel, layer->out_channels, chunk, to);
        }
    }
}
