// Operands that take no multiplier: k-hot weights, powers of two, binary and ternary numbers.
#ifndef INCLUDE_QHW_KHOT_H_
#define INCLUDE_QHW_KHOT_H_

#include "operand.h"

namespace qhw {

// Weights of W bits with at most K ones (with CSD: K signed digits), stored as the shifts that they cost
// (qhw/formats/shifts.py writes them). From the lowest bit: K shifts of shift_width bits, all ones standing for
// no digit, then one sign bit, or with CSD one for every digit. Or powers<> themselves, where a weight needs no
// storage.
template <int W, int K, bool CSD = false> struct khot {
    static const int positions = CSD ? W : W - 1;
    static const int shift_width = bits_for(positions);
    static const int width = K * shift_width + (CSD ? K : 1);
    typedef powers<K, positions - 1> read_t;
    static const int mantissa_width = read_t::mantissa_width;
    static const bool has_zero = true;

    static read_t read(const read_t &x) {
        #pragma HLS INLINE
        return x;
    }
    template <class x_T> static read_t read(const x_T &x) {
        #pragma HLS INLINE
        ap_uint<width> bits = bits_of<khot>(x);
        read_t number = read_t::zero();
        for (int i = 0; i < K; i++) {
            #pragma HLS UNROLL
            ap_uint<shift_width> shift = bits.range((i + 1) * shift_width - 1, i * shift_width);
            bool none = shift == ap_uint<shift_width>(-1);
            number.set(i, !none, bits[K * shift_width + (CSD ? i : 0)], shift);
        }
        return number;
    }
};

// Powers of two: a sign bit, if SIGNED, and E bits of exponent. Mantissas count in units of the smallest
// power: field f is 2^(f - 1) and field 0 is 0, or without ZERO field f is 2^f.
template <int E, bool SIGNED = true, bool ZERO = true> struct pow2 {
    static const int width = E + SIGNED, fraction_width = 0;
    static const bool has_zero = ZERO, subnormals = true, is_signed = SIGNED;
    typedef powers<1, (1 << E) - 1 - ZERO> read_t;
    static const int mantissa_width = read_t::mantissa_width;

    template <class x_T> static ap_int<E + 2> ordinal(const x_T &x) {
        #pragma HLS INLINE
        ap_uint<width> bits = bits_of<pow2>(x);
        ap_int<E + 2> field = bits.range(E - 1, 0);
        ap_int<E + 2> magnitude = field + !ZERO;
        return SIGNED && bits[width - 1] ? ap_int<E + 2>(-magnitude) : magnitude;
    }
    static read_t read(const read_t &x) {
        #pragma HLS INLINE
        return x;
    }
    template <class x_T> static read_t read(const x_T &x) {
        #pragma HLS INLINE
        ap_uint<width> bits = bits_of<pow2>(x);
        ap_uint<E> field = bits.range(E - 1, 0);
        bool present = !ZERO || field != 0;
        read_t number = read_t::zero();
        number.set(0, present, SIGNED && bits[width - 1], (ZERO && present ? ap_uint<E>(field - 1) : field).to_uint());
        return number;
    }
};

// -1 (code 0) and 1 (code 1).
struct binary {
    static const int width = 1;
    static const bool has_zero = false;
    typedef powers<1, 0> read_t;
    static const int mantissa_width = read_t::mantissa_width;

    template <class x_T> static ap_uint<1> ordinal(const x_T &x) {
        #pragma HLS INLINE
        return bits_of<binary>(x);
    }
    static read_t read(const read_t &x) {
        #pragma HLS INLINE
        return x;
    }
    template <class x_T> static read_t read(const x_T &x) {
        #pragma HLS INLINE
        read_t number = read_t::zero();
        number.set(0, true, bits_of<binary>(x) == 0, 0);
        return number;
    }
};

// -1, 0 and 1 in two bits of two's complement.
struct ternary {
    static const int width = 2;
    static const bool has_zero = true;
    typedef powers<1, 0> read_t;
    static const int mantissa_width = read_t::mantissa_width;

    template <class x_T> static ap_int<2> ordinal(const x_T &x) {
        #pragma HLS INLINE
        return ap_int<2>(bits_of<ternary>(x));
    }
    static read_t read(const read_t &x) {
        #pragma HLS INLINE
        return x;
    }
    template <class x_T> static read_t read(const x_T &x) {
        #pragma HLS INLINE
        ap_uint<2> bits = bits_of<ternary>(x);
        read_t number = read_t::zero();
        number.set(0, bits[0], bits[1], 0);
        return number;
    }
};

} // namespace qhw
#endif
