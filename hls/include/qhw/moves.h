// Slices, frames and enlargements of a stream, pack by pack: what passes is never kept whole. Tensors are
// height x width x channel, a pixel in each pack; a tensor with fewer axes has a height, or both, of 1.
#ifndef INCLUDE_QHW_MOVES_H_
#define INCLUDE_QHW_MOVES_H_

#include "raw.h"

namespace qhw {

// Counts along one axis, and says where every STEPth place from FIRST on is, COUNT of them.
template <unsigned FIRST, unsigned STEP, unsigned COUNT> struct picked {
    unsigned next, left;
    picked() : next(FIRST), left(COUNT) {}
    bool here(unsigned place) const {
        #pragma HLS INLINE
        return left != 0 && place == next;
    }
    void pass(unsigned place) {
        #pragma HLS INLINE
        if (here(place)) {
            next += STEP;
            left--;
        }
    }
};

// Every step-th element from first on, along each axis. CONFIG_T has in_height, in_width, and out_, first_ and
// step_ height, width and chan.
template <class data_T, class res_T, class CONFIG_T> void slice(hls::stream<data_T> &data, hls::stream<res_T> &res) {
    static_assert(unsigned(res_T::size) == unsigned(CONFIG_T::out_chan), "a pack holds one pixel");
    typedef picked<CONFIG_T::first_height, CONFIG_T::step_height, CONFIG_T::out_height> rows_t;
    typedef picked<CONFIG_T::first_width, CONFIG_T::step_width, CONFIG_T::out_width> columns_t;
    rows_t rows;
Rows:
    for (unsigned h = 0; h < CONFIG_T::in_height; h++) {
        columns_t columns;
    Columns:
        for (unsigned w = 0; w < CONFIG_T::in_width; w++) {
            #pragma HLS PIPELINE II=1
            data_T x = data.read();
            if (rows.here(h) && columns.here(w)) {
                res_T y;
                for (unsigned c = 0; c < CONFIG_T::out_chan; c++) {
                    #pragma HLS UNROLL
                    y[c] = from_raw<typename res_T::value_type>(
                        raw(x[CONFIG_T::first_chan + c * CONFIG_T::step_chan]));
                }
                res.write(y);
            }
            columns.pass(w);
        }
        rows.pass(h);
    }
}

// The mantissa `value` around a tensor. CONFIG_T has in_ and out_ height, width and chan, pad_top, pad_left and
// pad_front.
template <class data_T, class res_T, class CONFIG_T> void frame(hls::stream<data_T> &data, hls::stream<res_T> &res) {
    static_assert(unsigned(data_T::size) == unsigned(CONFIG_T::in_chan), "a pack holds one pixel");
    typedef typename res_T::value_type y_T;
    const y_T value = from_raw<y_T>(ap_int<64>(CONFIG_T::value));
Rows:
    for (unsigned h = 0; h < CONFIG_T::out_height; h++) {
    Columns:
        for (unsigned w = 0; w < CONFIG_T::out_width; w++) {
            #pragma HLS PIPELINE II=1
            bool inside = h >= CONFIG_T::pad_top && h - CONFIG_T::pad_top < CONFIG_T::in_height &&
                          w >= CONFIG_T::pad_left && w - CONFIG_T::pad_left < CONFIG_T::in_width;
            data_T x;
            if (inside)
                x = data.read();
            res_T y;
            for (unsigned c = 0; c < CONFIG_T::out_chan; c++) {
                #pragma HLS UNROLL
                const unsigned front = CONFIG_T::pad_front, end = front + CONFIG_T::in_chan;
                y[c] = inside && c >= front && c < end ? from_raw<y_T>(raw(x[c >= front && c < end ? c - front : 0]))
                                                       : value;
            }
            res.write(y);
        }
    }
}

// Every pixel followed by copies of it, or by pixels of the mantissa `value`, along both axes: one row is kept.
// CONFIG_T has in_height, in_width, factor_height, factor_width and copies.
template <class data_T, class res_T, class CONFIG_T> void enlarge(hls::stream<data_T> &data, hls::stream<res_T> &res) {
    static_assert(unsigned(data_T::size) == unsigned(res_T::size), "packs of one size");
    typedef typename res_T::value_type y_T;
    const y_T value = from_raw<y_T>(ap_int<64>(CONFIG_T::value));
    data_T row[CONFIG_T::in_width];
Rows:
    for (unsigned h = 0; h < CONFIG_T::in_height; h++) {
    Below:
        for (unsigned below = 0; below < CONFIG_T::factor_height; below++) {
        Columns:
            for (unsigned w = 0; w < CONFIG_T::in_width; w++) {
            Beside:
                for (unsigned beside = 0; beside < CONFIG_T::factor_width; beside++) {
                    #pragma HLS PIPELINE II=1
                    bool first = below == 0 && beside == 0;
                    if (first)
                        row[w] = data.read();
                    data_T x = row[w];
                    res_T y;
                    for (unsigned c = 0; c < res_T::size; c++) {
                        #pragma HLS UNROLL
                        y[c] = first || CONFIG_T::copies ? from_raw<y_T>(raw(x[c])) : value;
                    }
                    res.write(y);
                }
            }
        }
    }
}

} // namespace qhw
#endif
