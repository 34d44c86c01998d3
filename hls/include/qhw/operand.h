// What the bits of one element stand for: operand formats, and what is left of one once it is read.
//
// A format here is a structure with
//     width            bits of an element (in an array or a stream: ap_[u]fixed or ap_[u]int of that width)
//     mantissa_width   bits of the widest mantissa, sign included
//     has_zero         whether a code stands for 0
//     read_t, read()   an element as scaled<> (a multiplier takes it) or powers<> (shifts and additions do)
//     ordinal()        an element as an integer that orders as the numbers do
// Mantissas are integers; the power of two that a mantissa of 1 stands for is the tensor's own affair.
#ifndef INCLUDE_QHW_OPERAND_H_
#define INCLUDE_QHW_OPERAND_H_

#include "raw.h"
// A project that looks numbers up has them beside this file.
#if __has_include("tables.h")
#include "tables.h"
#endif

namespace qhw {

// Bits that hold 0 to n; at least one, since there is no ap_uint<0>.
constexpr int bits_for(unsigned long long n) {
    int bits = 1;
    while (n >>= 1)
        bits++;
    return bits;
}

constexpr int larger(int a, int b) { return a > b ? a : b; }

// The bits of an element of format F, whatever type carries them.
template <class F, class x_T> ap_uint<F::width> bits_of(const x_T &x) {
    #pragma HLS INLINE
    static_assert(x_T::width == F::width, "the elements have another width than their format");
    ap_uint<F::width> bits;
    bits.range(F::width - 1, 0) = x.range(F::width - 1, 0);
    return bits;
}

// significand * 2^shift: a significand of S bits, sign included, and a shift of 0 to LARGEST.
template <int S, int LARGEST> struct scaled {
    static const int significand_width = S, largest_shift = LARGEST;
    static const int mantissa_width = S + LARGEST;
    ap_int<S> significand;
    ap_uint<bits_for(LARGEST)> shift;

    ap_int<mantissa_width> mantissa() const {
        #pragma HLS INLINE
        ap_int<mantissa_width> wide = significand;
        return LARGEST == 0 ? wide : ap_int<mantissa_width>(wide << shift);
    }
};

// A sum of at most K powers of two of either sign, 2^0 to 2^LARGEST. It is multiplied by shifting and adding;
// there is no operator* for it, and none can be added from outside.
template <int K, int LARGEST> struct powers {
    static const int count = K, largest_shift = LARGEST, shift_width = bits_for(LARGEST);
    static const int growth = LARGEST + (K > 1 ? bits_for(K - 1) : 0) + 1; // of a product over its other factor
    static const int mantissa_width = growth + 2;
    ap_uint<K * shift_width> shift;
    ap_uint<K> present, negative;

    template <class T> void operator*(const T &) const = delete;
    template <class T> friend void operator*(const T &, const powers &) = delete;

    // No power at all.
    static powers zero() {
        #pragma HLS INLINE
        powers none;
        none.shift = 0;
        none.present = 0;
        none.negative = 0;
        return none;
    }

    void set(int i, bool is_present, bool is_negative, unsigned bits) {
        #pragma HLS INLINE
        shift.range((i + 1) * shift_width - 1, i * shift_width) = bits;
        present[i] = is_present;
        negative[i] = is_negative;
    }

    // x of S bits times this number: K shifts, K additions or subtractions.
    template <int S> ap_int<S + growth> of(const ap_int<S> &x) const {
        #pragma HLS INLINE
        typedef ap_int<S + growth> sum_t;
        sum_t sum = 0;
        for (int i = 0; i < K; i++) {
            #pragma HLS UNROLL
            ap_uint<shift_width> bits = shift.range((i + 1) * shift_width - 1, i * shift_width);
            sum_t term = x;
            if (LARGEST > 0)
                term = term << bits;
            if (present[i])
                sum = negative[i] ? sum_t(sum - term) : sum_t(sum + term);
        }
        return sum;
    }

    ap_int<mantissa_width> mantissa() const {
        #pragma HLS INLINE
        return of(ap_int<2>(1));
    }
};

// A sign bit in front of a magnitude, as an integer: the order of every such code.
template <int W> ap_int<W + 1> signed_magnitude(const ap_uint<W> &bits) {
    #pragma HLS INLINE
    ap_int<W + 1> magnitude = bits.range(W - 2, 0);
    return bits[W - 1] ? ap_int<W + 1>(-magnitude) : magnitude;
}

// Two's complement or unsigned, of W bits: fixed point, by its mantissa.
template <int W, bool SIGNED = true> struct integer {
    static const int width = W, mantissa_width = W + !SIGNED;
    static const bool has_zero = true;
    typedef scaled<mantissa_width, 0> read_t;

    template <class x_T> static ap_int<mantissa_width> ordinal(const x_T &x) {
        #pragma HLS INLINE
        ap_uint<W> bits = bits_of<integer>(x);
        return SIGNED ? ap_int<mantissa_width>(ap_int<W>(bits)) : ap_int<mantissa_width>(bits);
    }
    template <class x_T> static read_t read(const x_T &x) {
        #pragma HLS INLINE
        read_t number;
        number.significand = ordinal(x);
        number.shift = 0;
        return number;
    }
};

// A sign bit and W-1 bits of magnitude: the code of a k-hot number, read as the integer that it is.
template <int W> struct sign_magnitude {
    static const int width = W, mantissa_width = W;
    static const bool has_zero = true;
    typedef scaled<mantissa_width, 0> read_t;

    template <class x_T> static ap_int<W + 1> ordinal(const x_T &x) {
        #pragma HLS INLINE
        return signed_magnitude<W>(bits_of<sign_magnitude>(x));
    }
    template <class x_T> static read_t read(const x_T &x) {
        #pragma HLS INLINE
        read_t number;
        number.significand = ordinal(x);
        number.shift = 0;
        return number;
    }
};

// A code without a circuit of its own: TABLE has the mantissa of every code.
template <class TABLE> struct listed {
    static const int width = TABLE::width, mantissa_width = TABLE::mantissa_width;
    static const bool has_zero = TABLE::has_zero;
    typedef scaled<mantissa_width, 0> read_t;

    template <class x_T> static ap_int<mantissa_width> ordinal(const x_T &x) {
        #pragma HLS INLINE
        return TABLE::number(bits_of<listed>(x).to_uint());
    }
    template <class x_T> static read_t read(const x_T &x) {
        #pragma HLS INLINE
        read_t number;
        number.significand = ordinal(x);
        number.shift = 0;
        return number;
    }
};

// The mantissa of an element of format F.
template <class F, class x_T> ap_int<F::mantissa_width> mantissa(const x_T &x) {
    #pragma HLS INLINE
    return F::read(x).mantissa();
}

} // namespace qhw
#endif
