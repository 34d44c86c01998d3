// An element times a constant plus a constant, for operands of any formats: exact up to the operation that ends it.
#ifndef INCLUDE_QHW_AFFINE_H_
#define INCLUDE_QHW_AFFINE_H_

#include "convert.h"
#include "elementwise.h"
#include "kulisch.h"

namespace qhw {

// (x * multiplier << product_shift) + offset, in mantissas. CONFIG_T has x_format, w_format, accum_t,
// product_shift, and finish with its members and arrays, as in matvec.h.
struct exact_affine_op {
    template <class x_T, class y_T, class CONFIG_T, class w_T, class b_T, class... array_T>
    static y_T one(const x_T &x, unsigned k, const w_T *multiplier, const b_T *offset, const array_T *...arrays) {
        #pragma HLS INLINE
        typedef typename CONFIG_T::accum_t accum_t;
        typedef ap_int<accum_t::width> sum_t;
        sum_t scaled = product<typename CONFIG_T::x_format, typename CONFIG_T::w_format>(x, multiplier[k]);
        sum_t total = sum_t(scaled << CONFIG_T::product_shift) + sum_t(raw(offset[k]));
        return CONFIG_T::finish::template one<accum_t, y_T, CONFIG_T>(from_raw<accum_t>(total), k, arrays...);
    }
};

} // namespace qhw
#endif
