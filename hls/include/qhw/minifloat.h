// Floating point of a few bits, as an operand.
#ifndef INCLUDE_QHW_MINIFLOAT_H_
#define INCLUDE_QHW_MINIFLOAT_H_

#include "operand.h"

namespace qhw {

// A sign bit, E bits of exponent and M of mantissa, from the top. Mantissas count in units of the smallest
// subnormal, so the bias is not needed here: a field f > 0 is (2^M + m) << (f - 1), field 0 is m (0 without
// subnormals). Codes that stand for infinity or NaN never travel and are not told apart.
template <int E, int M, bool SUBNORMALS = true> struct minifloat {
    static const int width = 1 + E + M, fraction_width = M;
    static const int significand_width = M + 2, largest_shift = (1 << E) - 2;
    static const int mantissa_width = significand_width + largest_shift;
    static const bool has_zero = true, subnormals = SUBNORMALS, is_signed = true;
    typedef scaled<significand_width, largest_shift> read_t;

    template <class x_T> static ap_int<width + 1> ordinal(const x_T &x) {
        #pragma HLS INLINE
        return signed_magnitude<width>(bits_of<minifloat>(x));
    }
    template <class x_T> static read_t read(const x_T &x) {
        #pragma HLS INLINE
        ap_uint<width> bits = bits_of<minifloat>(x);
        ap_uint<E> field = bits.range(E + M - 1, M);
        bool normal = field != 0;
        ap_uint<M + 1> magnitude = normal || SUBNORMALS ? bits : ap_uint<width>(0);
        magnitude[M] = normal;
        ap_int<M + 2> positive = magnitude;
        read_t number;
        number.significand = bits[width - 1] ? ap_int<M + 2>(-positive) : positive;
        number.shift = normal ? ap_uint<E>(field - 1) : field;
        return number;
    }
};

} // namespace qhw
#endif
