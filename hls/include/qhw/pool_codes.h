// Sums and maxima of codes, for pool and reduce.
#ifndef INCLUDE_QHW_POOL_CODES_H_
#define INCLUDE_QHW_POOL_CODES_H_

#include "convert.h"
#include "pool.h"

namespace qhw {

// The sum of the mantissas of codes of F.
template <class F> struct sum_code_op {
    template <class acc_T, class x_T> static acc_T first(const x_T &x) {
        #pragma HLS INLINE
        return from_raw<acc_T>(mantissa<F>(x));
    }
    template <class acc_T, class x_T> static acc_T next(const acc_T &acc, const x_T &x) {
        #pragma HLS INLINE
        return acc_T(acc + from_raw<acc_T>(mantissa<F>(x)));
    }
};

} // namespace qhw
#endif
