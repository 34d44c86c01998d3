// Exact products, and their sum in one fixed-point accumulator (Kulisch): nothing is rounded before the end.
#ifndef INCLUDE_QHW_KULISCH_H_
#define INCLUDE_QHW_KULISCH_H_

#include "khot.h"
#include "minifloat.h"

namespace qhw {

// Significand product, shifted by the sum of the exponents.
template <int SA, int LA, int SB, int LB>
ap_int<SA + LA + SB + LB> times(const scaled<SA, LA> &a, const scaled<SB, LB> &b) {
    #pragma HLS INLINE
    ap_int<SA + LA + SB + LB> product = a.significand * b.significand;
    return LA + LB == 0 ? product : decltype(product)(product << (a.shift + b.shift));
}

// Shifts and additions of the significand, shifted by its exponent.
template <int S, int L, int K, int LARGEST>
ap_int<S + L + powers<K, LARGEST>::growth> times(const scaled<S, L> &a, const powers<K, LARGEST> &b) {
    #pragma HLS INLINE
    ap_int<S + L + powers<K, LARGEST>::growth> product = b.of(a.significand);
    return L == 0 ? product : decltype(product)(product << a.shift);
}

template <int S, int L, int K, int LARGEST>
ap_int<S + L + powers<K, LARGEST>::growth> times(const powers<K, LARGEST> &a, const scaled<S, L> &b) {
    #pragma HLS INLINE
    return times(b, a);
}

template <int KA, int LA, int KB, int LB>
ap_int<powers<KA, LA>::mantissa_width + powers<KB, LB>::growth> times(const powers<KA, LA> &a,
                                                                      const powers<KB, LB> &b) {
    #pragma HLS INLINE
    return b.of(a.mantissa());
}

// The product of an element of format A and one of format B, as an integer: the product of their mantissas.
template <class A, class B, class a_T, class b_T> auto product(const a_T &a, const b_T &b) {
    #pragma HLS INLINE
    return times(A::read(a), B::read(b));
}

// sum + a * b. Bits above the accumulator's are dropped: what counts is that the last sum fits.
template <class A, class B, int W, class a_T, class b_T>
ap_int<W> multiply_add(const ap_int<W> &sum, const a_T &a, const b_T &b) {
    #pragma HLS INLINE
    return sum + ap_int<W>(product<A, B>(a, b));
}

// The exact sum of N products, in an accumulator of W bits that holds it.
template <class A, class B, int W, unsigned N, class a_T, class b_T>
ap_int<W> dot(const a_T a[N], const b_T b[N]) {
    #pragma HLS INLINE
    ap_int<W> sum = 0;
    for (unsigned i = 0; i < N; i++) {
        #pragma HLS UNROLL
        sum = multiply_add<A, B, W>(sum, a[i], b[i]);
    }
    return sum;
}

} // namespace qhw
#endif
