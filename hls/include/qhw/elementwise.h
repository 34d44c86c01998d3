// Element-wise operations with constants that repeat along the tensor: the channel is the last axis, so
// element i of a tensor uses parameter i % n_param (1: one for the tensor, n_in: one per element).
#ifndef INCLUDE_QHW_ELEMENTWISE_H_
#define INCLUDE_QHW_ELEMENTWISE_H_

#include "raw.h"

namespace qhw {

// x * multiplier + offset, exact; the result type rounds and saturates where a Requant follows.
struct affine_op {
    template <class x_T, class y_T, class CONFIG_T>
    static y_T one(const x_T &x, unsigned k, const typename CONFIG_T::multiplier_t *multiplier,
                   const typename CONFIG_T::offset_t *offset) {
        #pragma HLS INLINE
        return y_T(x * multiplier[k] + offset[k]);
    }
};

// x * multiplier, exact.
struct scale_op {
    template <class x_T, class y_T, class CONFIG_T>
    static y_T one(const x_T &x, unsigned k, const typename CONFIG_T::multiplier_t *multiplier) {
        #pragma HLS INLINE
        return y_T(x * multiplier[k]);
    }
};

enum overflow_mode { saturate, saturate_zero, wrap, wrap_sm };
enum rounding_mode { cast, ceiling, away };

// To fewer bits, for what the result type alone cannot say: a shift per channel (shift[k] counts how far the
// mantissa moves left before the binary point of aligned_t), bounds of its own, rounding up or away from zero, and
// shifts beyond the width of either side.
struct requant_op {
    template <class CONFIG_T> static typename CONFIG_T::rounded_t rounded(const typename CONFIG_T::aligned_t &x) {
        #pragma HLS INLINE
        if (CONFIG_T::rounding == ceiling || (CONFIG_T::rounding == away && x > 0))
            return -typename CONFIG_T::rounded_t(-x);
        return typename CONFIG_T::rounded_t(x);
    }
    template <class x_T, class y_T, class CONFIG_T>
    static y_T one(const x_T &x, unsigned k, const typename CONFIG_T::shift_t *shift) {
        #pragma HLS INLINE
        typename raw_of<typename CONFIG_T::aligned_t>::type wide = raw(x);
        wide = wide << shift[k].to_uint();
        typename raw_of<typename CONFIG_T::rounded_t>::type m =
            raw(rounded<CONFIG_T>(from_raw<typename CONFIG_T::aligned_t>(wide)));
        const typename raw_of<typename CONFIG_T::rounded_t>::type low = CONFIG_T::low, high = CONFIG_T::high;
        if (CONFIG_T::overflow == saturate || CONFIG_T::overflow == saturate_zero) {
            if (m < low)
                m = CONFIG_T::overflow == saturate ? low : decltype(m)(0);
            else if (m > high)
                m = CONFIG_T::overflow == saturate ? high : decltype(m)(0);
        }
        if (CONFIG_T::overflow == wrap_sm) {
            ap_int<y_T::width> wrapped = m;
            if (wrapped != m && above_sign<y_T, CONFIG_T>(wide) != (wrapped < 0))
                wrapped = ~wrapped;
            m = wrapped;
        }
        return from_raw<y_T>(m);
    }

    // The bit above the result's sign as it was before rounding: ap_fixed wraps in sign and magnitude by that one.
    template <class y_T, class CONFIG_T>
    static bool above_sign(const typename raw_of<typename CONFIG_T::aligned_t>::type &wide) {
        #pragma HLS INLINE
        typedef typename CONFIG_T::aligned_t aligned_t;
        const int place = int(aligned_t::width) - int(aligned_t::iwidth) + int(y_T::width);
        const int last = int(aligned_t::width) - 1;
        return place >= 0 && wide[place < last ? (place < 0 ? 0 : place) : last];
    }
};

// To fewer bits by a mode of ap_fixed that the result type may not carry (AP_WRAP_SM).
struct cast_op {
    template <class x_T, class y_T, class CONFIG_T> static y_T one(const x_T &x, unsigned) {
        #pragma HLS INLINE
        return from_raw<y_T>(raw(typename CONFIG_T::cast_t(x)));
    }
};

// The mantissa as it is, in a type that holds it.
struct keep_op {
    template <class x_T, class y_T, class CONFIG_T> static y_T one(const x_T &x, unsigned) {
        #pragma HLS INLINE
        return from_raw<y_T>(raw(x));
    }
};

// How many of n_threshold rising thresholds x has reached: all compared at once while they are few, by
// bisection where they are many.
template <class x_T, class t_T, unsigned N> unsigned reached(const x_T &x, const t_T *threshold) {
    #pragma HLS INLINE
    unsigned count = 0;
    if (N < 16) {
        for (unsigned i = 0; i < N; i++) {
            #pragma HLS UNROLL
            count += x >= threshold[i];
        }
        return count;
    }
    unsigned rest = N;
    while (rest > 0) {
        #pragma HLS LOOP_TRIPCOUNT min=4 max=16
        unsigned half = rest / 2;
        if (x >= threshold[count + half]) {
            count += half + 1;
            rest -= half + 1;
        } else {
            rest = half;
        }
    }
    return count;
}

// levels[number of thresholds reached]; n_level is n_threshold + 1.
struct threshold_op {
    template <class x_T, class y_T, class CONFIG_T>
    static y_T one(const x_T &x, unsigned k, const typename CONFIG_T::threshold_t *threshold,
                   const typename CONFIG_T::level_t *level) {
        #pragma HLS INLINE
        unsigned n = reached<x_T, typename CONFIG_T::threshold_t, CONFIG_T::n_threshold>(
            x, threshold + k * CONFIG_T::n_threshold);
        return from_raw<y_T>(raw(level[(CONFIG_T::shared_level ? 0 : k) * (CONFIG_T::n_threshold + 1) + n]));
    }
};

// The same where the levels count up or down from one number: no table of levels is kept.
struct count_op {
    template <class x_T, class y_T, class CONFIG_T>
    static y_T one(const x_T &x, unsigned k, const typename CONFIG_T::threshold_t *threshold) {
        #pragma HLS INLINE
        int n = reached<x_T, typename CONFIG_T::threshold_t, CONFIG_T::n_threshold>(
            x, threshold + k * CONFIG_T::n_threshold);
        return from_raw<y_T>(ap_int<64>(CONFIG_T::base + CONFIG_T::step * n));
    }
};

// table[k][mantissa of x - first].
struct table_op {
    template <class x_T, class y_T, class CONFIG_T>
    static y_T one(const x_T &x, unsigned k, const typename CONFIG_T::table_t *table) {
        #pragma HLS INLINE
        int entry = raw(x).to_int() - CONFIG_T::first;
        return from_raw<y_T>(raw(table[k * CONFIG_T::n_entry + entry]));
    }
};

// Every element through one operation; arrays are its constants.
template <class op, class data_T, class res_T, class CONFIG_T, class... array_T>
void each(data_T data[CONFIG_T::n_in], res_T res[CONFIG_T::n_in], array_T *...arrays) {
    #pragma HLS PIPELINE
    for (unsigned i = 0; i < CONFIG_T::n_in; i++) {
        #pragma HLS UNROLL
        res[i] = op::template one<data_T, res_T, CONFIG_T>(data[i], i % CONFIG_T::n_param, arrays...);
    }
}

template <class op, class data_T, class res_T, class CONFIG_T, class... array_T>
void each(hls::stream<data_T> &data, hls::stream<res_T> &res, array_T *...arrays) {
    typedef typename data_T::value_type x_T;
    typedef typename res_T::value_type y_T;
    for (unsigned i = 0; i < CONFIG_T::n_in / data_T::size; i++) {
        #pragma HLS PIPELINE II=1
        data_T x = data.read();
        res_T y;
        for (unsigned j = 0; j < data_T::size; j++) {
            #pragma HLS UNROLL
            y[j] = op::template one<x_T, y_T, CONFIG_T>(x[j], (i * data_T::size + j) % CONFIG_T::n_param, arrays...);
        }
        res.write(y);
    }
}

} // namespace qhw
#endif
