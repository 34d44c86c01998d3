// From exact fixed-point numbers to codes, rounded once, and back.
#ifndef INCLUDE_QHW_CONVERT_H_
#define INCLUDE_QHW_CONVERT_H_

#include "elementwise.h"
#include "khot.h"
#include "minifloat.h"

namespace qhw {

// How a number between two neighbours is rounded: the names of qhw.formats.Rounding, those of ap_fixed first.
// To nearest, ties: RND up, RND_ZERO to zero, RND_MIN_INF down, RND_INF away from zero, RND_CONV to even.
// TRN down, TRN_ZERO to zero, CEIL up, UP away from zero.
enum conversion_mode { RND, RND_ZERO, RND_MIN_INF, RND_INF, RND_CONV, TRN, TRN_ZERO, CEIL, UP };

// Whether a magnitude is rounded up: odd is its last bit, half the first bit that is dropped, rest whether
// any further one is set.
inline bool rounds_up(conversion_mode mode, bool negative, bool odd, bool half, bool rest) {
    #pragma HLS INLINE
    switch (mode) {
    case RND:
        return half && (rest || !negative);
    case RND_ZERO:
        return half && rest;
    case RND_MIN_INF:
        return half && (rest || negative);
    case RND_INF:
        return half;
    case RND_CONV:
        return half && (rest || odd);
    case TRN:
        return negative && (half || rest);
    case TRN_ZERO:
        return false;
    case CEIL:
        return !negative && (half || rest);
    default:
        return half || rest;
    }
}

// The code of x * 2^-DOWN, x being an integer of A bits and the result counting in mantissas of F (a minifloat, or
// powers of two with zero). What lies beyond low or high becomes that bound; both are ordinals, that is, magnitude
// codes with a sign. Never -0, and nothing special as long as the bounds are numbers.
//
// The leading one is moved to the top, but no further than a subnormal reaches; then sign, field, fraction and the
// bits that decide the rounding stand in fixed places, and a carry of the rounding runs into the field by itself.
template <class F, int DOWN, int A>
ap_uint<F::width> encode(const ap_int<A> &x, conversion_mode mode, long long low, long long high) {
    #pragma HLS INLINE
    static_assert(F::has_zero, "a format without zero is reached through thresholds");
    const int fraction = F::fraction_width;
    const int left = DOWN < 0 ? -DOWN : 0, down = DOWN < 0 ? 0 : DOWN;
    const int wide = larger(A + left, larger(down, 2) + fraction + 1);
    // How far the leading one of the smallest normal number is from the top.
    const int furthest = wide - 1 - fraction - down;
    typedef ap_uint<wide> wide_t;

    bool negative = x < 0;
    wide_t magnitude = negative ? ap_uint<A>(-x) : ap_uint<A>(x);
    magnitude = magnitude << left;
    int zeros = magnitude.countLeadingZeros();
    bool below = zeros > furthest;
    ap_uint<bits_for(wide)> up = below ? furthest : zeros;
    magnitude = magnitude << up;

    bool coarse = below && !F::subnormals; // between zero and the smallest normal number there is none
    ap_uint<fraction + 1> kept = magnitude.range(wide - 1, wide - 1 - fraction);
    ap_uint<wide - 1 - fraction> dropped = magnitude.range(wide - 2 - fraction, 0);
    bool half = dropped[wide - 2 - fraction];
    dropped[wide - 2 - fraction] = 0;
    bool rest = dropped != 0;
    if (coarse) {
        ap_uint<wide - 1> all = magnitude.range(wide - 2, 0);
        half = all[wide - 2];
        all[wide - 2] = 0;
        rest = all != 0;
        kept = 0;
    }
    bool carry = rounds_up(mode, negative, kept[0], half, rest);

    const int code_width = larger(bits_for(furthest + 2) + fraction, F::width) + 2;
    ap_int<code_width> code = ap_int<code_width>(furthest - up.to_int()) << fraction;
    code = coarse ? ap_int<code_width>(ap_int<code_width>(carry) << fraction) : ap_int<code_width>(code + kept + carry);
    if (negative)
        code = -code;
    if (code < low)
        code = low;
    if (code > high)
        code = high;
    bool sign = code < 0;
    ap_uint<F::width> bits = sign ? ap_int<code_width>(-code) : code;
    if (F::is_signed)
        bits[F::width - 1] = sign;
    return bits;
}

template <class F, int DOWN, int A>
ap_uint<F::width> encode(const ap_uint<A> &x, conversion_mode mode, long long low, long long high) {
    #pragma HLS INLINE
    return encode<F, DOWN>(ap_int<A + 1>(x), mode, low, high);
}

// An element-wise operation or the end of a dot product: a fixed-point number to a code. CONFIG_T has
//     y_format      format of the code
//     conversion    conversion_mode
//     down          the last bit of x is 2^-down in mantissas of y_format
//     low, high     bounds, as ordinals
struct encode_op {
    template <class x_T, class y_T, class CONFIG_T> static y_T one(const x_T &x, unsigned) {
        #pragma HLS INLINE
        return from_raw<y_T>(encode<typename CONFIG_T::y_format, CONFIG_T::down>(raw(x), CONFIG_T::conversion,
                                                                                 CONFIG_T::low, CONFIG_T::high));
    }
};

// The same with a binary point per channel: x moves left by shift[k], at most largest_shift, first.
struct encode_shifted_op {
    template <class x_T, class y_T, class CONFIG_T, class shift_T>
    static y_T one(const x_T &x, unsigned k, const shift_T *shift) {
        #pragma HLS INLINE
        ap_int<x_T::width + 1 + CONFIG_T::largest_shift> mantissa = raw(x);
        mantissa = mantissa << shift[k].to_uint();
        return from_raw<y_T>(encode<typename CONFIG_T::y_format, CONFIG_T::down>(mantissa, CONFIG_T::conversion,
                                                                                 CONFIG_T::low, CONFIG_T::high));
    }
};

// A code to its mantissa, in a fixed-point type that holds it. CONFIG_T has x_format.
struct decode_op {
    template <class x_T, class y_T, class CONFIG_T> static y_T one(const x_T &x, unsigned) {
        #pragma HLS INLINE
        return from_raw<y_T>(mantissa<typename CONFIG_T::x_format>(x));
    }
};

// The larger of two codes of F, for pool and reduce; their accum_t is the type of the codes.
template <class F> struct max_code_op {
    template <class acc_T, class x_T> static acc_T first(const x_T &x) {
        #pragma HLS INLINE
        return acc_T(x);
    }
    template <class acc_T, class x_T> static acc_T next(const acc_T &acc, const x_T &x) {
        #pragma HLS INLINE
        return F::ordinal(x) > F::ordinal(acc) ? acc_T(x) : acc;
    }
};

} // namespace qhw
#endif
