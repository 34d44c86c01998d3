// Sums and maxima over sliding windows (padded, overlapping, dilated) and over axes.
// Tensors are height x width x channel; one spatial axis is a height of 1.
#ifndef INCLUDE_QHW_POOL_H_
#define INCLUDE_QHW_POOL_H_

#include "raw.h"

namespace qhw {

struct sum_op {
    template <class acc_T, class x_T> static acc_T first(const x_T &x) { return acc_T(x); }
    template <class acc_T, class x_T> static acc_T next(const acc_T &acc, const x_T &x) { return acc_T(acc + x); }
};

struct max_op {
    template <class acc_T, class x_T> static acc_T first(const x_T &x) { return acc_T(x); }
    template <class acc_T, class x_T> static acc_T next(const acc_T &acc, const x_T &x) {
        return x > acc ? acc_T(x) : acc;
    }
};

// One window of one channel, from the last ROWS rows of a tensor (all of them, or a ring).
template <class op, class CONFIG_T, unsigned ROWS, class data_T>
typename CONFIG_T::accum_t window(int top, int left, unsigned c,
                                  const data_T line[ROWS][CONFIG_T::in_width][CONFIG_T::n_chan]) {
    #pragma HLS INLINE
    typename CONFIG_T::accum_t acc = 0;
    bool empty = true;
    for (int kh = 0; kh < int(CONFIG_T::kernel_height); kh++) {
        #pragma HLS UNROLL
        for (int kw = 0; kw < int(CONFIG_T::kernel_width); kw++) {
            #pragma HLS UNROLL
            int h = top + kh * int(CONFIG_T::dilation_height), w = left + kw * int(CONFIG_T::dilation_width);
            if (h >= 0 && h < int(CONFIG_T::in_height) && w >= 0 && w < int(CONFIG_T::in_width)) {
                const data_T x = line[h % ROWS][w][c];
                acc = empty ? op::template first<typename CONFIG_T::accum_t>(x)
                            : op::template next<typename CONFIG_T::accum_t>(acc, x);
                empty = false;
            }
        }
    }
    return acc;
}

template <class op, class data_T, class res_T, class CONFIG_T>
void pool(data_T data[CONFIG_T::in_height * CONFIG_T::in_width * CONFIG_T::n_chan],
          res_T res[CONFIG_T::out_height * CONFIG_T::out_width * CONFIG_T::n_chan]) {
    #pragma HLS PIPELINE
    data_T image[CONFIG_T::in_height][CONFIG_T::in_width][CONFIG_T::n_chan];
    #pragma HLS ARRAY_PARTITION variable=image complete dim=0
    for (unsigned h = 0; h < CONFIG_T::in_height; h++)
        for (unsigned w = 0; w < CONFIG_T::in_width; w++)
            for (unsigned c = 0; c < CONFIG_T::n_chan; c++)
                image[h][w][c] = data[(h * CONFIG_T::in_width + w) * CONFIG_T::n_chan + c];
    for (unsigned oh = 0; oh < CONFIG_T::out_height; oh++)
        for (unsigned ow = 0; ow < CONFIG_T::out_width; ow++)
            for (unsigned c = 0; c < CONFIG_T::n_chan; c++)
                res[(oh * CONFIG_T::out_width + ow) * CONFIG_T::n_chan + c] =
                    res_T(window<op, CONFIG_T, CONFIG_T::in_height, data_T>(
                        int(oh * CONFIG_T::stride_height) - int(CONFIG_T::pad_top),
                        int(ow * CONFIG_T::stride_width) - int(CONFIG_T::pad_left), c, image));
}

// Keeps the last rows that a window can span, walks over the padded tensor, and writes a result where a window
// ends. A window that ends in the padding below or to the right is written without reading.
template <class op, class data_T, class res_T, class CONFIG_T>
void pool(hls::stream<data_T> &data, hls::stream<res_T> &res) {
    typedef typename data_T::value_type x_T;
    static const unsigned span_height = CONFIG_T::dilation_height * (CONFIG_T::kernel_height - 1) + 1;
    static const unsigned span_width = CONFIG_T::dilation_width * (CONFIG_T::kernel_width - 1) + 1;
    static const unsigned rows = span_height < CONFIG_T::in_height ? span_height : CONFIG_T::in_height;
    x_T line[rows][CONFIG_T::in_width][CONFIG_T::n_chan];
    #pragma HLS ARRAY_PARTITION variable=line complete dim=1
    #pragma HLS ARRAY_PARTITION variable=line complete dim=3
    for (unsigned h = 0; h < (CONFIG_T::out_height - 1) * CONFIG_T::stride_height + span_height ||
                         h < CONFIG_T::pad_top + CONFIG_T::in_height;
         h++) {
        for (unsigned w = 0; w < (CONFIG_T::out_width - 1) * CONFIG_T::stride_width + span_width ||
                             w < CONFIG_T::pad_left + CONFIG_T::in_width;
             w++) {
            #pragma HLS PIPELINE
            int ih = int(h) - int(CONFIG_T::pad_top), iw = int(w) - int(CONFIG_T::pad_left);
            if (ih >= 0 && ih < int(CONFIG_T::in_height) && iw >= 0 && iw < int(CONFIG_T::in_width)) {
                data_T x = data.read();
                for (unsigned c = 0; c < CONFIG_T::n_chan; c++) {
                    #pragma HLS UNROLL
                    line[ih % rows][iw][c] = x[c];
                }
            }
            int top = int(h) - int(span_height) + 1, left = int(w) - int(span_width) + 1;
            if (top >= 0 && left >= 0 && top % int(CONFIG_T::stride_height) == 0 &&
                left % int(CONFIG_T::stride_width) == 0 &&
                top / int(CONFIG_T::stride_height) < int(CONFIG_T::out_height) &&
                left / int(CONFIG_T::stride_width) < int(CONFIG_T::out_width)) {
                res_T y;
                for (unsigned c = 0; c < CONFIG_T::n_chan; c++) {
                    #pragma HLS UNROLL
                    y[c] = typename res_T::value_type(window<op, CONFIG_T, rows, x_T>(
                        top - int(CONFIG_T::pad_top), left - int(CONFIG_T::pad_left), c, line));
                }
                res.write(y);
            }
        }
    }
}

// A tensor as outer x n x inner, reduced over n.
template <class op, class data_T, class res_T, class CONFIG_T>
void reduce(data_T data[CONFIG_T::outer * CONFIG_T::n * CONFIG_T::inner], res_T res[CONFIG_T::outer * CONFIG_T::inner]) {
    #pragma HLS PIPELINE
    for (unsigned o = 0; o < CONFIG_T::outer; o++) {
        for (unsigned i = 0; i < CONFIG_T::inner; i++) {
            typename CONFIG_T::accum_t acc =
                op::template first<typename CONFIG_T::accum_t>(data[o * CONFIG_T::n * CONFIG_T::inner + i]);
            for (unsigned k = 1; k < CONFIG_T::n; k++)
                acc = op::template next<typename CONFIG_T::accum_t>(
                    acc, data[(o * CONFIG_T::n + k) * CONFIG_T::inner + i]);
            res[o * CONFIG_T::inner + i] = res_T(acc);
        }
    }
}

template <class op, class data_T, class res_T, class CONFIG_T>
void reduce(hls::stream<data_T> &data, hls::stream<res_T> &res) {
    typedef typename data_T::value_type x_T;
    typedef typename res_T::value_type y_T;
    if (unsigned(CONFIG_T::inner) == data_T::size && unsigned(CONFIG_T::inner) == res_T::size) {
        for (unsigned o = 0; o < CONFIG_T::outer; o++) {
            typename CONFIG_T::accum_t acc[CONFIG_T::inner];
            #pragma HLS ARRAY_PARTITION variable=acc complete
            for (unsigned k = 0; k < CONFIG_T::n; k++) {
                #pragma HLS PIPELINE II=1
                data_T x = data.read();
                for (unsigned i = 0; i < data_T::size; i++) {
                    #pragma HLS UNROLL
                    acc[i % CONFIG_T::inner] =
                        k == 0 ? op::template first<typename CONFIG_T::accum_t>(x[i])
                               : op::template next<typename CONFIG_T::accum_t>(acc[i % CONFIG_T::inner], x[i]);
                }
            }
            res_T y;
            for (unsigned i = 0; i < res_T::size; i++) {
                #pragma HLS UNROLL
                y[i] = y_T(acc[i % CONFIG_T::inner]);
            }
            res.write(y);
        }
        return;
    }
    x_T whole[CONFIG_T::outer * CONFIG_T::n * CONFIG_T::inner];
    y_T reduced[CONFIG_T::outer * CONFIG_T::inner];
    read_all<CONFIG_T::outer * CONFIG_T::n * CONFIG_T::inner>(data, whole);
    reduce<op, x_T, y_T, CONFIG_T>(whole, reduced);
    write_all<CONFIG_T::outer * CONFIG_T::inner>(reduced, res);
}

} // namespace qhw
#endif
