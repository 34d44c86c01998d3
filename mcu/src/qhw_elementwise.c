// Operations element by element: rounding, tables, residual additions, products.
#include "qhw_internal.h"

typedef uint64_t combine(const qhw_elementwise_layer *layer, int64_t a, int64_t b);

static uint64_t sum_of(const qhw_elementwise_layer *layer, int64_t a, int64_t b) {
    return ((uint64_t)a << layer->in_shift) + ((uint64_t)b << layer->other_shift);
}

static uint64_t product_of(const qhw_elementwise_layer *layer, int64_t a, int64_t b) {
    (void)layer;
    return (uint64_t)a * (uint64_t)b;
}

void qhw_elementwise(const qhw_elementwise_layer *layer, const qhw_region *region, const void *in, void *out) {
    uint32_t in_bytes = qhw_pixel_bytes(layer->in, layer->channels);
    uint32_t out_bytes = qhw_pixel_bytes(layer->output.type, layer->channels);
    for (uint32_t row = 0; row < region->out_height; row++) {
        const uint8_t *from = (const uint8_t *)in + row * region->in_row_bytes;
        uint8_t *to = (uint8_t *)out + row * region->out_row_bytes;
        for (uint32_t column = 0; column < region->out_width; column++, from += in_bytes, to += out_bytes)
            for (uint32_t c = 0; c < layer->channels; c++)
                qhw_finish(&layer->output, (uint64_t)qhw_load(layer->in, from, c), c, to);
    }
}

static inline void both(const qhw_elementwise_layer *layer, const qhw_region *region, const void *in,
                        const void *other, uint32_t other_row_bytes, void *out, combine *combined) {
    uint32_t in_bytes = qhw_pixel_bytes(layer->in, layer->channels);
    uint32_t other_bytes = qhw_pixel_bytes(layer->other, layer->channels);
    uint32_t out_bytes = qhw_pixel_bytes(layer->output.type, layer->channels);
    for (uint32_t row = 0; row < region->out_height; row++) {
        const uint8_t *a = (const uint8_t *)in + row * region->in_row_bytes;
        const uint8_t *b = (const uint8_t *)other + row * other_row_bytes;
        uint8_t *to = (uint8_t *)out + row * region->out_row_bytes;
        for (uint32_t column = 0; column < region->out_width; column++, a += in_bytes, b += other_bytes, to += out_bytes)
            for (uint32_t c = 0; c < layer->channels; c++) {
                int64_t first = qhw_load(layer->in, a, c), second = qhw_load(layer->other, b, c);
                qhw_finish(&layer->output, combined(layer, first, second), c, to);
            }
    }
}

void qhw_add(const qhw_elementwise_layer *layer, const qhw_region *region, const void *in, const void *other,
             uint32_t other_row_bytes, void *out) {
    both(layer, region, in, other, other_row_bytes, out, sum_of);
}

void qhw_mul(const qhw_elementwise_layer *layer, const qhw_region *region, const void *in, const void *other,
             uint32_t other_row_bytes, void *out) {
    both(layer, region, in, other, other_row_bytes, out, product_of);
}
