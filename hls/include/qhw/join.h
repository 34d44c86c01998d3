// One tensor behind another, whatever their shapes: mantissa by mantissa, in the order in which they travel.
#ifndef INCLUDE_QHW_JOIN_H_
#define INCLUDE_QHW_JOIN_H_

#include "raw.h"

namespace qhw {

// CONFIG_T has n_first and n_second.
template <class a_T, class b_T, class y_T, class CONFIG_T>
void join(a_T a[CONFIG_T::n_first], b_T b[CONFIG_T::n_second], y_T y[CONFIG_T::n_first + CONFIG_T::n_second]) {
    #pragma HLS PIPELINE
    for (unsigned i = 0; i < CONFIG_T::n_first; i++) {
        #pragma HLS UNROLL
        y[i] = from_raw<y_T>(raw(a[i]));
    }
    for (unsigned i = 0; i < CONFIG_T::n_second; i++) {
        #pragma HLS UNROLL
        y[CONFIG_T::n_first + i] = from_raw<y_T>(raw(b[i]));
    }
}

// The elements of a stream's packs in packs of another size, which divides theirs.
template <unsigned N, class data_T, class res_T> void repacked(hls::stream<data_T> &data, hls::stream<res_T> &res) {
    static_assert(unsigned(data_T::size) % unsigned(res_T::size) == 0, "packs of a size that divides");
    for (unsigned i = 0; i < N / data_T::size; i++) {
        data_T x = data.read();
        for (unsigned part = 0; part < data_T::size / res_T::size; part++) {
            #pragma HLS PIPELINE II=1
            res_T y;
            for (unsigned j = 0; j < res_T::size; j++) {
                #pragma HLS UNROLL
                y[j] = from_raw<typename res_T::value_type>(raw(x[part * res_T::size + j]));
            }
            res.write(y);
        }
    }
}

template <class a_T, class b_T, class y_T, class CONFIG_T>
void join(hls::stream<a_T> &a, hls::stream<b_T> &b, hls::stream<y_T> &y) {
    repacked<CONFIG_T::n_first>(a, y);
    repacked<CONFIG_T::n_second>(b, y);
}

} // namespace qhw
#endif
