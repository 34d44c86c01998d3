// Mantissas of fixed-point values, and whole tensors from and to streams.
#ifndef INCLUDE_QHW_RAW_H_
#define INCLUDE_QHW_RAW_H_

#include "ap_fixed.h"
#include "ap_int.h"
#include "hls_stream.h"

namespace qhw {

// The integer type that holds the bits of a fixed-point or integer type.
template <class T> struct raw_of;
template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> struct raw_of<ap_fixed<W, I, Q, O, N>> {
    typedef ap_int<W> type;
};
template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> struct raw_of<ap_ufixed<W, I, Q, O, N>> {
    typedef ap_uint<W> type;
};
template <int W> struct raw_of<ap_int<W>> {
    typedef ap_int<W> type;
};
template <int W> struct raw_of<ap_uint<W>> {
    typedef ap_uint<W> type;
};

// The mantissa of a value: its bits, read as an integer.
template <class T> typename raw_of<T>::type raw(const T &x) {
    #pragma HLS INLINE
    typename raw_of<T>::type bits;
    bits.range(T::width - 1, 0) = x.range(T::width - 1, 0);
    return bits;
}

// The value with that mantissa; the low bits are kept.
template <class T, class M> T from_raw(const M &mantissa) {
    #pragma HLS INLINE
    typename raw_of<T>::type bits = mantissa;
    T x;
    x.range(T::width - 1, 0) = bits.range(T::width - 1, 0);
    return x;
}

template <unsigned N, class pack_T> void read_all(hls::stream<pack_T> &data, typename pack_T::value_type buffer[N]) {
    for (unsigned i = 0; i < N / pack_T::size; i++) {
        #pragma HLS PIPELINE II=1
        pack_T pack = data.read();
        for (unsigned j = 0; j < pack_T::size; j++) {
            #pragma HLS UNROLL
            buffer[i * pack_T::size + j] = pack[j];
        }
    }
}

template <unsigned N, class pack_T> void write_all(typename pack_T::value_type buffer[N], hls::stream<pack_T> &res) {
    for (unsigned i = 0; i < N / pack_T::size; i++) {
        #pragma HLS PIPELINE II=1
        pack_T pack;
        for (unsigned j = 0; j < pack_T::size; j++) {
            #pragma HLS UNROLL
            pack[j] = buffer[i * pack_T::size + j];
        }
        res.write(pack);
    }
}

} // namespace qhw
#endif
