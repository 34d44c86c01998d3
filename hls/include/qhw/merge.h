// Element-wise operations on two tensors of one length, exact up to the operation that ends them.
#ifndef INCLUDE_QHW_MERGE_H_
#define INCLUDE_QHW_MERGE_H_

#include "convert.h"
#include "elementwise.h"
#include "kulisch.h"

namespace qhw {

// a + b, rounded (ties to even) and saturated to the fixed-point type y_T.
template <class y_T> struct saturated;
template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> struct saturated<ap_fixed<W, I, Q, O, N>> {
    typedef ap_fixed<W, I, AP_RND_CONV, AP_SAT> type;
};
template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> struct saturated<ap_ufixed<W, I, Q, O, N>> {
    typedef ap_ufixed<W, I, AP_RND_CONV, AP_SAT> type;
};
template <class y_T, class a_T, class b_T> y_T add_saturated(const a_T &a, const b_T &b) {
    #pragma HLS INLINE
    return from_raw<y_T>(raw(typename saturated<y_T>::type(a + b)));
}

// a * 2^a_shift + b * 2^b_shift, in mantissas. CONFIG_T has a_format, b_format, a_shift, b_shift, accum_t.
struct add_op {
    template <class CONFIG_T, class a_T, class b_T>
    static ap_int<CONFIG_T::accum_t::width> sum(const a_T &a, const b_T &b) {
        #pragma HLS INLINE
        typedef ap_int<CONFIG_T::accum_t::width> sum_t;
        sum_t left = mantissa<typename CONFIG_T::a_format>(a), right = mantissa<typename CONFIG_T::b_format>(b);
        return sum_t(left << CONFIG_T::a_shift) + sum_t(right << CONFIG_T::b_shift);
    }
};

// a * b, in mantissas. CONFIG_T has a_format, b_format, accum_t.
struct multiply_op {
    template <class CONFIG_T, class a_T, class b_T>
    static ap_int<CONFIG_T::accum_t::width> sum(const a_T &a, const b_T &b) {
        #pragma HLS INLINE
        return product<typename CONFIG_T::a_format, typename CONFIG_T::b_format>(a, b);
    }
};

template <class op, class y_T, class CONFIG_T, class a_T, class b_T, class... array_T>
y_T merged(const a_T &a, const b_T &b, unsigned k, const array_T *...arrays) {
    #pragma HLS INLINE
    typedef typename CONFIG_T::accum_t accum_t;
    return CONFIG_T::finish::template one<accum_t, y_T, CONFIG_T>(
        from_raw<accum_t>(op::template sum<CONFIG_T>(a, b)), k, arrays...);
}

// Every pair of elements; CONFIG_T::finish and its members are those of matvec.h, n_param those of elementwise.h.
template <class op, class a_T, class b_T, class y_T, class CONFIG_T, class... array_T>
void merge(a_T a[CONFIG_T::n_in], b_T b[CONFIG_T::n_in], y_T y[CONFIG_T::n_in], const array_T *...arrays) {
    #pragma HLS PIPELINE
    for (unsigned i = 0; i < CONFIG_T::n_in; i++) {
        #pragma HLS UNROLL
        y[i] = merged<op, y_T, CONFIG_T>(a[i], b[i], i % CONFIG_T::n_param, arrays...);
    }
}

template <class op, class a_T, class b_T, class y_T, class CONFIG_T, class... array_T>
void merge(hls::stream<a_T> &a, hls::stream<b_T> &b, hls::stream<y_T> &y, const array_T *...arrays) {
    static_assert(a_T::size == b_T::size && a_T::size == y_T::size, "packs of one size");
    for (unsigned i = 0; i < CONFIG_T::n_in / a_T::size; i++) {
        #pragma HLS PIPELINE II=1
        a_T left = a.read();
        b_T right = b.read();
        y_T result;
        for (unsigned j = 0; j < a_T::size; j++) {
            #pragma HLS UNROLL
            result[j] = merged<op, typename y_T::value_type, CONFIG_T>(
                left[j], right[j], (i * a_T::size + j) % CONFIG_T::n_param, arrays...);
        }
        y.write(result);
    }
}

} // namespace qhw
#endif
