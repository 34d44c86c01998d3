// Matrix products of which one operand or both are computed, one matrix-vector product of matvec.h per row.
//
// CONFIG_T has what matvec.h asks for (n_in: columns of a; n_out: columns of b), and
//     n_batch, n_row       matrices, and rows of a in each
// a[(batch * n_row + row) * n_in + i]; b[(batch * n_out + o) * n_in + i], that is, b travels column by column.
#ifndef INCLUDE_QHW_MATMUL_H_
#define INCLUDE_QHW_MATMUL_H_

#include "matvec.h"

namespace qhw {

template <class CONFIG_T> struct matmul_of {
    static const unsigned n_b = CONFIG_T::n_in * CONFIG_T::n_out;
    static const unsigned size_a = CONFIG_T::n_batch * CONFIG_T::n_row * CONFIG_T::n_in;
    static const unsigned size_b = CONFIG_T::n_batch * n_b;
    static const unsigned size_y = CONFIG_T::n_batch * CONFIG_T::n_row * CONFIG_T::n_out;
    typedef patch<1, CONFIG_T::n_in, 1, CONFIG_T::n_out> patch_t;
};

template <class CONFIG_T, class a_T, class b_T, class y_T, class bias_T, class... array_T>
void multiply_rows(const a_T a[matmul_of<CONFIG_T>::size_a], const b_T b[matmul_of<CONFIG_T>::size_b],
                   y_T y[matmul_of<CONFIG_T>::size_y], const bias_T bias[CONFIG_T::n_out], const array_T *...arrays) {
    static const unsigned n_in = CONFIG_T::n_in, n_out = CONFIG_T::n_out, n_b = matmul_of<CONFIG_T>::n_b;
    const bool inside[1] = {true};
    b_T columns[n_b];
    a_T row[n_in];
    #pragma HLS ARRAY_PARTITION variable=row complete
    y_T result[n_out];
    #pragma HLS ARRAY_PARTITION variable=result complete
Matrices:
    for (unsigned batch = 0; batch < CONFIG_T::n_batch; batch++) {
        for (unsigned i = 0; i < n_b; i++) {
            #pragma HLS PIPELINE II=1
            columns[i] = b[batch * n_b + i];
        }
    Rows:
        for (unsigned r = batch * CONFIG_T::n_row; r < (batch + 1) * CONFIG_T::n_row; r++) {
            for (unsigned i = 0; i < n_in; i++) {
                #pragma HLS UNROLL
                row[i] = a[r * n_in + i];
            }
            matrix<CONFIG_T, typename matmul_of<CONFIG_T>::patch_t>(row, inside, result, columns, bias, arrays...);
            for (unsigned o = 0; o < n_out; o++) {
                #pragma HLS UNROLL
                y[r * n_out + o] = result[o];
            }
        }
    }
}

// Both operands computed.
template <class a_T, class b_T, class y_T, class CONFIG_T, class bias_T, class... array_T>
void matmul(a_T a[matmul_of<CONFIG_T>::size_a], b_T b[matmul_of<CONFIG_T>::size_b], y_T y[matmul_of<CONFIG_T>::size_y],
            const bias_T bias[CONFIG_T::n_out], const array_T *...arrays) {
    multiply_rows<CONFIG_T>(a, b, y, bias, arrays...);
}

template <class a_T, class b_T, class y_T, class CONFIG_T, class bias_T, class... array_T>
void matmul(hls::stream<a_T> &a, hls::stream<b_T> &b, hls::stream<y_T> &y, const bias_T bias[CONFIG_T::n_out],
            const array_T *...arrays) {
    typename a_T::value_type left[matmul_of<CONFIG_T>::size_a];
    typename b_T::value_type right[matmul_of<CONFIG_T>::size_b];
    typename y_T::value_type result[matmul_of<CONFIG_T>::size_y];
    read_all<matmul_of<CONFIG_T>::size_a>(a, left);
    read_all<matmul_of<CONFIG_T>::size_b>(b, right);
    multiply_rows<CONFIG_T>(left, right, result, bias, arrays...);
    write_all<matmul_of<CONFIG_T>::size_y>(result, y);
}

// The right operand is constant, a matrix for each batch.
template <class a_T, class y_T, class CONFIG_T, class w_T, class bias_T, class... array_T>
void matmul_right(a_T a[matmul_of<CONFIG_T>::size_a], y_T y[matmul_of<CONFIG_T>::size_y], const w_T *weight,
                  const bias_T *bias, const array_T *...arrays) {
    multiply_rows<CONFIG_T>(a, weight, y, bias, arrays...);
}

template <class a_T, class y_T, class CONFIG_T, class w_T, class bias_T, class... array_T>
void matmul_right(hls::stream<a_T> &a, hls::stream<y_T> &y, const w_T *weight, const bias_T *bias,
                  const array_T *...arrays) {
    typename a_T::value_type left[matmul_of<CONFIG_T>::size_a];
    typename y_T::value_type result[matmul_of<CONFIG_T>::size_y];
    read_all<matmul_of<CONFIG_T>::size_a>(a, left);
    multiply_rows<CONFIG_T>(left, weight, result, bias, arrays...);
    write_all<matmul_of<CONFIG_T>::size_y>(result, y);
}

// The left operand is constant.
template <class b_T, class y_T, class CONFIG_T, class w_T, class bias_T, class... array_T>
void matmul_left(b_T b[matmul_of<CONFIG_T>::size_b], y_T y[matmul_of<CONFIG_T>::size_y], const w_T *weight,
                 const bias_T *bias, const array_T *...arrays) {
    multiply_rows<CONFIG_T>(weight, b, y, bias, arrays...);
}

template <class b_T, class y_T, class CONFIG_T, class w_T, class bias_T, class... array_T>
void matmul_left(hls::stream<b_T> &b, hls::stream<y_T> &y, const w_T *weight, const bias_T *bias,
                 const array_T *...arrays) {
    typename b_T::value_type right[matmul_of<CONFIG_T>::size_b];
    typename y_T::value_type result[matmul_of<CONFIG_T>::size_y];
    read_all<matmul_of<CONFIG_T>::size_b>(b, right);
    multiply_rows<CONFIG_T>(weight, right, result, bias, arrays...);
    write_all<matmul_of<CONFIG_T>::size_y>(result, y);
}

} // namespace qhw
#endif
