// Convolution over one or two spatial axes, padded, strided, dilated, in groups: every window is one
// matrix-vector product of matvec.h. Tensors are height x width x channel; one spatial axis is a height of 1.
//
// CONFIG_T has what matvec.h asks for, but for n_in and n_out, and
//     in_height, in_width, n_chan, out_height, out_width, n_filt, n_group
//     filt_height, filt_width, stride_height, stride_width, dilation_height, dilation_width
//     pad_top, pad_bottom, pad_left, pad_right      of mantissa 0
// weight[((f * filt_height + kh) * filt_width + kw) * (n_chan / n_group) + c] is the code for filter f. The reuse
// factor counts cycles per window: any divisor of the weights' number.
#ifndef INCLUDE_QHW_CONV_H_
#define INCLUDE_QHW_CONV_H_

#include "matvec.h"

namespace qhw {

template <class CONFIG_T> struct window_of {
    static const unsigned height = CONFIG_T::filt_height, width = CONFIG_T::filt_width, chan = CONFIG_T::n_chan;
    static const unsigned span_height = CONFIG_T::dilation_height * (height - 1) + 1;
    static const unsigned span_width = CONFIG_T::dilation_width * (width - 1) + 1;
    static const unsigned n_weight = height * width * (chan / CONFIG_T::n_group) * CONFIG_T::n_filt;
    typedef patch<height * width, chan / CONFIG_T::n_group, CONFIG_T::n_group, CONFIG_T::n_filt> patch_t;
};

// Which taps of the window at (top, left) are inside the tensor.
template <class CONFIG_T>
void find_inside(int top, int left, bool inside[CONFIG_T::filt_height * CONFIG_T::filt_width]) {
    #pragma HLS INLINE
    for (unsigned kh = 0; kh < CONFIG_T::filt_height; kh++) {
        #pragma HLS UNROLL
        for (unsigned kw = 0; kw < CONFIG_T::filt_width; kw++) {
            #pragma HLS UNROLL
            int h = top + int(kh * CONFIG_T::dilation_height), w = left + int(kw * CONFIG_T::dilation_width);
            inside[kh * CONFIG_T::filt_width + kw] =
                h >= 0 && h < int(CONFIG_T::in_height) && w >= 0 && w < int(CONFIG_T::in_width);
        }
    }
}

// From and to whole tensors, one window after the other.
template <class data_T, class res_T, class CONFIG_T, class w_T, class b_T, class... array_T>
void conv(data_T data[CONFIG_T::in_height * CONFIG_T::in_width * CONFIG_T::n_chan],
          res_T res[CONFIG_T::out_height * CONFIG_T::out_width * CONFIG_T::n_filt],
          const w_T weight[window_of<CONFIG_T>::n_weight], const b_T bias[CONFIG_T::n_filt],
          const array_T *...arrays) {
    typedef window_of<CONFIG_T> window_t;
    static const unsigned n_chan = CONFIG_T::n_chan, n_filt = CONFIG_T::n_filt;
    data_T pixel[window_t::patch_t::n_pixel];
    #pragma HLS ARRAY_PARTITION variable=pixel complete
    bool inside[window_t::patch_t::n_tap];
    #pragma HLS ARRAY_PARTITION variable=inside complete
    res_T y[n_filt];
    #pragma HLS ARRAY_PARTITION variable=y complete
Rows:
    for (unsigned oh = 0; oh < CONFIG_T::out_height; oh++) {
    Columns:
        for (unsigned ow = 0; ow < CONFIG_T::out_width; ow++) {
            if (CONFIG_T::reuse_factor == 1) {
                #pragma HLS PIPELINE II=1
            }
            int top = int(oh * CONFIG_T::stride_height) - int(CONFIG_T::pad_top);
            int left = int(ow * CONFIG_T::stride_width) - int(CONFIG_T::pad_left);
            find_inside<CONFIG_T>(top, left, inside);
            for (unsigned tap = 0; tap < window_t::patch_t::n_tap; tap++) {
                #pragma HLS UNROLL
                int h = top + int(tap / window_t::width * CONFIG_T::dilation_height);
                int w = left + int(tap % window_t::width * CONFIG_T::dilation_width);
                for (unsigned c = 0; c < n_chan; c++) {
                    #pragma HLS UNROLL
                    pixel[tap * n_chan + c] =
                        inside[tap] ? data[(h * int(CONFIG_T::in_width) + w) * n_chan + c] : data_T(0);
                }
            }
            matrix<CONFIG_T, typename window_t::patch_t>(pixel, inside, y, weight, bias, arrays...);
            for (unsigned f = 0; f < n_filt; f++) {
                #pragma HLS UNROLL
                res[(oh * CONFIG_T::out_width + ow) * n_filt + f] = y[f];
            }
        }
    }
}

// One more column enters the window from the right: a pixel, and above it those of the rows before, which the
// line buffer holds. That moves up by one row in this column.
template <class CONFIG_T, unsigned ROWS, unsigned COLUMNS, class x_T>
void shift_in(const x_T pixel[CONFIG_T::n_chan], unsigned column, x_T line[ROWS][COLUMNS][CONFIG_T::n_chan],
              x_T window[CONFIG_T::filt_height][window_of<CONFIG_T>::span_width][CONFIG_T::n_chan]) {
    #pragma HLS INLINE
    static const unsigned before = window_of<CONFIG_T>::span_height - 1, right = window_of<CONFIG_T>::span_width - 1;
    for (unsigned c = 0; c < CONFIG_T::n_chan; c++) {
        #pragma HLS UNROLL
        for (unsigned kh = 0; kh < CONFIG_T::filt_height; kh++) {
            #pragma HLS UNROLL
            for (unsigned w = 0; w < right; w++) {
                #pragma HLS UNROLL
                window[kh][w][c] = window[kh][w + 1][c];
            }
            unsigned row = kh * CONFIG_T::dilation_height;
            window[kh][right][c] = row < before ? line[row % ROWS][column][c] : pixel[c];
        }
        for (unsigned row = 0; row < before; row++) {
            #pragma HLS UNROLL
            line[row][column][c] = row + 1 < before ? line[(row + 1) % ROWS][column][c] : pixel[c];
        }
    }
}

// From and to streams, a pixel in each pack: walks over the padded tensor, keeps the rows that a window spans but
// for the last one, and writes a result where a window ends.
template <class data_T, class res_T, class CONFIG_T, class w_T, class b_T, class... array_T>
void conv(hls::stream<data_T> &data, hls::stream<res_T> &res, const w_T weight[window_of<CONFIG_T>::n_weight],
          const b_T bias[CONFIG_T::n_filt], const array_T *...arrays) {
    typedef typename data_T::value_type x_T;
    typedef typename res_T::value_type y_T;
    typedef window_of<CONFIG_T> window_t;
    static_assert(data_T::size == CONFIG_T::n_chan && res_T::size == CONFIG_T::n_filt, "a pack holds one pixel");
    static const unsigned span_height = window_t::span_height, span_width = window_t::span_width;
    static const unsigned n_chan = CONFIG_T::n_chan, rows = span_height > 1 ? span_height - 1 : 1;
    // As far as the last window reaches, and at least to the last pixel.
    static const unsigned end_height = larger(int((CONFIG_T::out_height - 1) * CONFIG_T::stride_height + span_height),
                                              int(CONFIG_T::pad_top + CONFIG_T::in_height));
    static const unsigned end_width = larger(int((CONFIG_T::out_width - 1) * CONFIG_T::stride_width + span_width),
                                             int(CONFIG_T::pad_left + CONFIG_T::in_width));
    x_T line[rows][end_width][n_chan];
    #pragma HLS ARRAY_PARTITION variable=line complete dim=1
    #pragma HLS ARRAY_RESHAPE variable=line complete dim=3
    x_T window[window_t::height][span_width][n_chan];
    #pragma HLS ARRAY_PARTITION variable=window complete dim=0
    x_T pixel[window_t::patch_t::n_pixel];
    #pragma HLS ARRAY_PARTITION variable=pixel complete
    bool inside[window_t::patch_t::n_tap];
    #pragma HLS ARRAY_PARTITION variable=inside complete
    y_T y[CONFIG_T::n_filt];
    #pragma HLS ARRAY_PARTITION variable=y complete

    // The row and column in which the next window ends.
    unsigned next_h = span_height - 1, written_h = 0;
Rows:
    for (unsigned h = 0; h < end_height; h++) {
        unsigned next_w = span_width - 1, written_w = 0;
    Columns:
        for (unsigned w = 0; w < end_width; w++) {
            if (CONFIG_T::reuse_factor == 1) {
                #pragma HLS PIPELINE II=1
            }
            x_T entering[n_chan];
            #pragma HLS ARRAY_PARTITION variable=entering complete
            bool real = h >= CONFIG_T::pad_top && h - CONFIG_T::pad_top < CONFIG_T::in_height &&
                        w >= CONFIG_T::pad_left && w - CONFIG_T::pad_left < CONFIG_T::in_width;
            data_T pack;
            if (real)
                pack = data.read();
            for (unsigned c = 0; c < n_chan; c++) {
                #pragma HLS UNROLL
                entering[c] = real ? pack[c] : x_T(0);
            }
            shift_in<CONFIG_T, rows, end_width>(entering, w, line, window);
            if (h == next_h && w == next_w && written_h < CONFIG_T::out_height && written_w < CONFIG_T::out_width) {
                for (unsigned tap = 0; tap < window_t::patch_t::n_tap; tap++) {
                    #pragma HLS UNROLL
                    for (unsigned c = 0; c < n_chan; c++) {
                        #pragma HLS UNROLL
                        pixel[tap * n_chan + c] =
                            window[tap / window_t::width][tap % window_t::width * CONFIG_T::dilation_width][c];
                    }
                }
                find_inside<CONFIG_T>(int(h) - int(span_height - 1 + CONFIG_T::pad_top),
                                      int(w) - int(span_width - 1 + CONFIG_T::pad_left), inside);
                matrix<CONFIG_T, typename window_t::patch_t>(pixel, inside, y, weight, bias, arrays...);
                res_T result;
                for (unsigned f = 0; f < CONFIG_T::n_filt; f++) {
                    #pragma HLS UNROLL
                    result[f] = y[f];
                }
                res.write(result);
                written_w++;
                next_w += CONFIG_T::stride_width;
            }
        }
        if (h == next_h) {
            written_h++;
            next_h += CONFIG_T::stride_height;
        }
    }
}

} // namespace qhw
#endif
