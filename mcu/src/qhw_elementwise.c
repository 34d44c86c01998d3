// Operations element by element: rounding, tables, residual additions, products.
#include "qhw_internal.h"

// Whether a row may be taken for one pixel: no number of a layer depends on the channel, and no byte is split.
static int is_flat(const qhw_elementwise_layer *layer) {
    const qhw_output *o = &layer->output;
    int by_channel = o->multiplier_step || o->addend_step || (o->kind == QHW_ROUND && o->shift_step) ||
                     o->threshold_step || o->level_step;
    return !by_channel && layer->in.bits >= 8 && o->type.bits >= 8;
}

void qhw_elementwise(const qhw_elementwise_layer *layer, const qhw_region *region, const void *in, void *out) {
    uint32_t columns = is_flat(layer) ? 1u : region->out_width;
    uint32_t channels = is_flat(layer) ? (uint32_t)layer->channels * region->out_width : layer->channels;
    uint32_t in_bytes = qhw_pixel_bytes(layer->in, channels);
    uint32_t out_bytes = qhw_pixel_bytes(layer->output.type, channels);
    int32_t chunk[QHW_CHUNK];
    for (uint32_t row = 0; row < region->out_height; row++) {
        const uint8_t *from = (const uint8_t *)in + row * region->in_row_bytes;
        uint8_t *to = (uint8_t *)out + row * region->out_row_bytes;
        for (uint32_t column = 0; column < columns; column++, from += in_bytes, to += out_bytes) {
            if (layer->output.wide) {
                for (uint32_t c = 0; c < channels; c++)
                    qhw_put(&layer->output, (uint64_t)qhw_load(layer->in, from, c), c, channels, chunk, to);
                continue;
            }
            for (uint32_t c = 0; c < channels; c += QHW_CHUNK) {
                qhw_load_chunk(layer->in, from, c, qhw_chunk(c, channels), chunk);
                qhw_finish_chunk(&layer->output, c, qhw_chunk(c, channels), chunk, to);
            }
        }
    }
}

static inline void both(const qhw_elementwise_layer *layer, const qhw_region *region, const void *in,
                        const void *other, uint32_t other_row_bytes, void *out, int is_product) {
    int flat = is_flat(layer) && layer->other.bits >= 8;
    uint32_t columns = flat ? 1u : region->out_width;
    uint32_t channels = flat ? (uint32_t)layer->channels * region->out_width : layer->channels;
    uint32_t a_bytes = qhw_pixel_bytes(layer->in, channels), b_bytes = qhw_pixel_bytes(layer->other, channels);
    uint32_t out_bytes = qhw_pixel_bytes(layer->output.type, channels);
    int32_t chunk[QHW_CHUNK], second[QHW_CHUNK];
    for (uint32_t row = 0; row < region->out_height; row++) {
        const uint8_t *a = (const uint8_t *)in + row * region->in_row_bytes;
        const uint8_t *b = (const uint8_t *)other + row * other_row_bytes;
        uint8_t *to = (uint8_t *)out + row * region->out_row_bytes;
        for (uint32_t column = 0; column < columns; column++, a += a_bytes, b += b_bytes, to += out_bytes) {
            if (layer->output.wide) {
                for (uint32_t c = 0; c < channels; c++) {
                    uint64_t x = (uint64_t)qhw_load(layer->in, a, c), y = (uint64_t)qhw_load(layer->other, b, c);
                    uint64_t result = is_product ? x * y : (x << layer->in_shift) + (y << layer->other_shift);
                    qhw_put(&layer->output, result, c, channels, chunk, to);
                }
                continue;
            }
            for (uint32_t c = 0; c < channels; c += QHW_CHUNK) {
                uint32_t count = qhw_chunk(c, channels);
                qhw_load_chunk(layer->in, a, c, count, chunk);
                qhw_load_chunk(layer->other, b, c, count, second);
                for (uint32_t i = 0; i < count; i++) {
                    uint32_t x = (uint32_t)chunk[i], y = (uint32_t)second[i];
                    chunk[i] = (int32_t)(is_product ? x * y : (x << layer->in_shift) + (y << layer->other_shift));
                }
                qhw_finish_chunk(&layer->output, c, count, chunk, to);
            }
        }
    }
}

void qhw_add(const qhw_elementwise_layer *layer, const qhw_region *region, const void *in, const void *other,
             uint32_t other_row_bytes, void *out) {
    both(layer, region, in, other, other_row_bytes, out, 0);
}

void qhw_mul(const qhw_elementwise_layer *layer, const qhw_region *region, const void *in, const void *other,
             uint32_t other_row_bytes, void *out) {
    both(layer, region, in, other, other_row_bytes, out, 1);
}
