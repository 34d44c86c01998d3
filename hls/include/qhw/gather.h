// Moves codes: any transposition, slice, padding or repacking, by a table of source positions.
#ifndef INCLUDE_QHW_GATHER_H_
#define INCLUDE_QHW_GATHER_H_

#include "raw.h"

namespace qhw {

// res[i] = data[position[i]], mantissa by mantissa; position n_in stands for padding with the mantissa `value`.
template <class data_T, class res_T, class CONFIG_T>
void gather(data_T data[CONFIG_T::n_in], res_T res[CONFIG_T::n_out], typename CONFIG_T::position_t position[CONFIG_T::n_out]) {
    #pragma HLS PIPELINE
    for (unsigned i = 0; i < CONFIG_T::n_out; i++) {
        unsigned from = position[i].to_uint();
        if (from < CONFIG_T::n_in)
            res[i] = from_raw<res_T>(raw(data[from]));
        else
            res[i] = from_raw<res_T>(ap_int<64>(CONFIG_T::value));
    }
}

template <class data_T, class res_T, class CONFIG_T>
void gather(hls::stream<data_T> &data, hls::stream<res_T> &res, typename CONFIG_T::position_t position[CONFIG_T::n_out]) {
    typedef typename data_T::value_type x_T;
    typedef typename res_T::value_type y_T;
    x_T whole[CONFIG_T::n_in];
    y_T moved[CONFIG_T::n_out];
    read_all<CONFIG_T::n_in>(data, whole);
    gather<x_T, y_T, CONFIG_T>(whole, moved, position);
    write_all<CONFIG_T::n_out>(moved, res);
}

// The same, with constants among the tensor's elements: position n_in + i stands for constant[i].
template <class data_T, class res_T, class CONFIG_T>
void gather(data_T data[CONFIG_T::n_in], res_T res[CONFIG_T::n_out], typename CONFIG_T::position_t position[CONFIG_T::n_out],
            typename CONFIG_T::constant_t constant[CONFIG_T::n_constant]) {
    #pragma HLS PIPELINE
    for (unsigned i = 0; i < CONFIG_T::n_out; i++) {
        unsigned from = position[i].to_uint();
        if (from < CONFIG_T::n_in)
            res[i] = from_raw<res_T>(raw(data[from]));
        else
            res[i] = from_raw<res_T>(raw(constant[from - CONFIG_T::n_in]));
    }
}

template <class data_T, class res_T, class CONFIG_T>
void gather(hls::stream<data_T> &data, hls::stream<res_T> &res, typename CONFIG_T::position_t position[CONFIG_T::n_out],
            typename CONFIG_T::constant_t constant[CONFIG_T::n_constant]) {
    typedef typename data_T::value_type x_T;
    typedef typename res_T::value_type y_T;
    x_T whole[CONFIG_T::n_in];
    y_T moved[CONFIG_T::n_out];
    read_all<CONFIG_T::n_in>(data, whole);
    gather<x_T, y_T, CONFIG_T>(whole, moved, position, constant);
    write_all<CONFIG_T::n_out>(moved, res);
}

} // namespace qhw
#endif
