// Moves of codes: they change none.
#include "qhw_internal.h"

void qhw_copy(const qhw_copy_layer *layer, const void *in, void *out) {
    uint32_t in_bytes = qhw_pixel_bytes(layer->in, layer->in_channels);
    uint32_t out_bytes = qhw_pixel_bytes(layer->out, layer->out_channels);
    uint32_t mask = layer->out.bits < 8 ? (1u << layer->out.bits) - 1u : 0;
    for (uint32_t row = 0; row < layer->height; row++) {
        for (uint32_t column = 0; column < layer->width; column++) {
            const uint8_t *from = (const uint8_t *)in + (layer->in_row + row * layer->in_row_step) * layer->in_row_bytes +
                                  (layer->in_column + column * layer->in_column_step) * in_bytes;
            uint8_t *to = (uint8_t *)out + (layer->out_row + row * layer->out_row_step) * layer->out_row_bytes +
                          (layer->out_column + column * layer->out_column_step) * out_bytes;
            if (layer->in.bits == 8 && layer->out.bits == 8 && layer->in_channel_step == 1) {
                memcpy(to + layer->out_channel, from + layer->in_channel, layer->channels);
                continue;
            }
            for (uint32_t c = 0; c < layer->channels; c++) {
                int64_t value = qhw_load(layer->in, from, layer->in_channel + c * layer->in_channel_step);
                if (mask) { // the byte may hold other channels already
                    uint32_t at = (layer->out_channel + c) * layer->out.bits;
                    uint8_t *byte = to + (at >> 3);
                    *byte = (uint8_t)((*byte & ~(mask << (at & 7u))) | (((uint32_t)value & mask) << (at & 7u)));
                } else {
                    qhw_store(layer->out, to, layer->out_channel + c, value);
                }
            }
        }
    }
}

void qhw_fill(qhw_type type, uint32_t channels, uint32_t pixels, int64_t value, void *out) {
    uint32_t bytes = qhw_pixel_bytes(type, channels);
    for (uint32_t pixel = 0; pixel < pixels; pixel++)
        for (uint32_t c = 0; c < channels; c++)
            qhw_store(type, (uint8_t *)out + pixel * bytes, c, value);
}

void qhw_upsample(const qhw_upsample_layer *layer, const void *in, void *out) {
    uint32_t bytes = qhw_pixel_bytes(layer->type, layer->channels);
    uint8_t *to = out;
    for (uint32_t row = 0; row < (uint32_t)layer->height * layer->row_factor; row++)
        for (uint32_t column = 0; column < (uint32_t)layer->width * layer->column_factor; column++, to += bytes) {
            uint32_t pixel = row / layer->row_factor * layer->width + column / layer->column_factor;
            memcpy(to, (const uint8_t *)in + pixel * bytes, bytes);
        }
}

void qhw_reshape(const qhw_reshape_layer *layer, const void *in, void *out) {
    uint32_t in_bytes = qhw_pixel_bytes(layer->type, layer->in_channels);
    uint32_t out_bytes = qhw_pixel_bytes(layer->type, layer->out_channels);
    uint32_t n = 0; // in the order of both tensors, so that channels are stored in order
    for (uint32_t channel = 0; channel < layer->out_channels; channel++)
        for (uint32_t pixel = 0; pixel < layer->out_pixels; pixel++, n++) {
            const uint8_t *from = (const uint8_t *)in + n % layer->in_pixels * in_bytes;
            int64_t value = qhw_load(layer->type, from, n / layer->in_pixels);
            qhw_store(layer->type, (uint8_t *)out + pixel * out_bytes, channel, value);
        }
}

void qhw_transpose(const qhw_transpose_layer *layer, const void *in, void *out) {
    uint32_t in_bytes = qhw_pixel_bytes(layer->type, layer->in_channels);
    uint32_t out_bytes = qhw_pixel_bytes(layer->type, layer->shape[0]);
    for (uint32_t channel = 0; channel < layer->shape[0]; channel++) {
        uint8_t *to = out;
        for (uint32_t i = 0; i < layer->shape[1]; i++)
            for (uint32_t j = 0; j < layer->shape[2]; j++)
                for (uint32_t k = 0; k < layer->shape[3]; k++, to += out_bytes) {
                    uint32_t n = channel * layer->stride[0] + i * layer->stride[1] + j * layer->stride[2] +
                                 k * layer->stride[3];
                    const uint8_t *from = (const uint8_t *)in + n % layer->in_pixels * in_bytes;
                    qhw_store(layer->type, to, channel, qhw_load(layer->type, from, n / layer->in_pixels));
                }
    }
}
