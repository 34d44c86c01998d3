// Matrix-vector product: operands of any formats, one exact accumulator per output, one rounding at its end.
//
// CONFIG_T has
//     n_in, n_out          length of the input and of the output
//     x_format, w_format   formats of the elements (operand.h)
//     accum_t              fixed-point type whose mantissa holds every exact sum
//     product_shift        bits that the sum of products moves left before the bias is added
//     reuse_factor         cycles per product, any divisor of n_in * n_out: as many products are made at once as
//                          are left
//     finish               operation of elementwise.h or convert.h from the accumulator to the result, with its
//                          own members and arrays
//     n_param              parameters in those arrays: 1, or n_out
// weight[o * n_in + i] is the code of input i's weight for output o; bias[o] is a mantissa of accum_t.
#ifndef INCLUDE_QHW_MATVEC_H_
#define INCLUDE_QHW_MATVEC_H_

#include "convert.h"
#include "elementwise.h"
#include "kulisch.h"

namespace qhw {

constexpr unsigned greatest_divisor(unsigned a, unsigned b) {
    while (b != 0) {
        unsigned rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

// How N_IN x N_OUT products are spread over R cycles: along the inputs first, so that an accumulator is ready
// as soon as possible. In one cycle, input q of those at hand is number q * cycles_in + (cycle of the output).
template <unsigned N_IN, unsigned N_OUT, unsigned R> struct folding {
    static_assert(R > 0 && N_IN * N_OUT % R == 0, "the reuse factor must divide the number of products");
    static const unsigned cycles = R;
    static const unsigned cycles_in = greatest_divisor(R, N_IN), cycles_out = R / cycles_in;
    static const unsigned inputs = N_IN / cycles_in, outputs = N_OUT / cycles_out; // at once
};

// What the products of one result read: N_TAP pixels of DEPTH channels in each of N_GROUP groups.
template <unsigned N_TAP, unsigned DEPTH, unsigned N_GROUP, unsigned N_OUT> struct patch {
    static const unsigned n_tap = N_TAP, depth = DEPTH, n_group = N_GROUP, n_out = N_OUT;
    static const unsigned n_in = N_TAP * DEPTH, n_pixel = n_in * N_GROUP, n_weight = n_in * N_OUT;
    static_assert(N_OUT % N_GROUP == 0, "the outputs must divide into the groups");
};

// The operand, or 0 where there is none: formats without zero (binary) are padded so.
template <int S, int L> scaled<S, L> if_inside(bool inside, const scaled<S, L> &x) {
    #pragma HLS INLINE
    scaled<S, L> padded = x;
    if (!inside)
        padded.significand = 0;
    return padded;
}
template <int K, int L> powers<K, L> if_inside(bool inside, const powers<K, L> &x) {
    #pragma HLS INLINE
    return inside ? x : powers<K, L>::zero();
}

// Every output of one patch; pixels that are not inside the tensor count as 0. Cycle after cycle, all of the
// outputs at hand take up all of the inputs at hand.
template <class CONFIG_T, class patch_T, class x_T, class y_T, class w_T, class b_T, class... array_T>
void matrix(const x_T pixel[patch_T::n_pixel], const bool inside[patch_T::n_tap], y_T y[patch_T::n_out],
            const w_T weight[patch_T::n_weight], const b_T bias[patch_T::n_out], const array_T *...arrays) {
    #pragma HLS INLINE
    typedef folding<patch_T::n_in, patch_T::n_out, CONFIG_T::reuse_factor> fold;
    typedef typename CONFIG_T::x_format x_F;
    typedef typename CONFIG_T::w_format w_F;
    typedef typename CONFIG_T::accum_t accum_t;
    typedef ap_int<accum_t::width> sum_t;
    static const unsigned at_once = fold::inputs * fold::outputs, per_group = patch_T::n_out / patch_T::n_group;
    #pragma HLS ARRAY_RESHAPE variable=weight block factor=at_once
    #pragma HLS ARRAY_PARTITION variable=bias complete
    sum_t sum[fold::outputs];
    #pragma HLS ARRAY_PARTITION variable=sum complete
    typename x_F::read_t operand[patch_T::n_group][fold::inputs];
    #pragma HLS ARRAY_PARTITION variable=operand complete dim=0

    unsigned cycle_in = 0, cycle_out = 0, place = 0;
Cycles:
    for (unsigned cycle = 0; cycle < fold::cycles; cycle++) {
        #pragma HLS PIPELINE II=1 rewind
        for (unsigned q = 0; q < fold::inputs; q++) {
            #pragma HLS UNROLL
            unsigned i = q * fold::cycles_in + cycle_in, tap = i / patch_T::depth, c = i % patch_T::depth;
            for (unsigned g = 0; g < patch_T::n_group; g++) {
                #pragma HLS UNROLL
                const x_T x = pixel[(tap * patch_T::n_group + g) * patch_T::depth + c];
                operand[g][q] = if_inside(x_F::has_zero || inside[tap], x_F::read(x));
            }
        }
        bool last = cycle_in + 1 == fold::cycles_in;
        for (unsigned p = 0; p < fold::outputs; p++) {
            #pragma HLS UNROLL
            unsigned o = p * fold::cycles_out + cycle_out;
            sum_t part = cycle_in == 0 ? sum_t(0) : sum[p];
            for (unsigned q = 0; q < fold::inputs; q++) {
                #pragma HLS UNROLL
                const w_T w = weight[p * fold::cycles_out * patch_T::n_in + q * fold::cycles_in + place];
                part += sum_t(times(operand[o / per_group][q], w_F::read(w)));
            }
            sum[p] = part;
            if (last) {
                sum_t total = sum_t(part << CONFIG_T::product_shift) + sum_t(raw(bias[o]));
                y[o] = CONFIG_T::finish::template one<accum_t, y_T, CONFIG_T>(
                    from_raw<accum_t>(total), CONFIG_T::n_param == 1 ? 0 : o, arrays...);
            }
        }
        cycle_in = last ? 0 : cycle_in + 1;
        cycle_out += last;
        place += last ? patch_T::n_in - fold::cycles_in + 1 : 1;
    }
}

template <class data_T, class res_T, class CONFIG_T, class w_T, class b_T, class... array_T>
void matvec(data_T data[CONFIG_T::n_in], res_T res[CONFIG_T::n_out],
            const w_T weight[CONFIG_T::n_in * CONFIG_T::n_out], const b_T bias[CONFIG_T::n_out],
            const array_T *...arrays) {
    #pragma HLS INLINE
    const bool inside[1] = {true};
    matrix<CONFIG_T, patch<1, CONFIG_T::n_in, 1, CONFIG_T::n_out>>(data, inside, res, weight, bias, arrays...);
}

template <class data_T, class res_T, class CONFIG_T, class w_T, class b_T, class... array_T>
void matvec(hls::stream<data_T> &data, hls::stream<res_T> &res,
            const w_T weight[CONFIG_T::n_in * CONFIG_T::n_out], const b_T bias[CONFIG_T::n_out],
            const array_T *...arrays) {
    typedef typename data_T::value_type x_T;
    typedef typename res_T::value_type y_T;
    x_T x[CONFIG_T::n_in];
    #pragma HLS ARRAY_PARTITION variable=x complete
    y_T y[CONFIG_T::n_out];
    #pragma HLS ARRAY_PARTITION variable=y complete
    read_all<CONFIG_T::n_in>(data, x);
    matvec<x_T, y_T, CONFIG_T>(x, y, weight, bias, arrays...);
    write_all<CONFIG_T::n_out>(y, res);
}

} // namespace qhw
#endif
