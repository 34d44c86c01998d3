// A matrix-vector product: PE outputs of SIMD inputs at a time.
#pragma once

#include <ap_int.h>
#include <hls_stream.h>

#include "interpret.hpp"

// Vectors of MatrixW inputs come once, in words of SIMD elements; weights for every step, PE rows of SIMD.
template <unsigned MatrixW, unsigned MatrixH, unsigned SIMD, unsigned PE, typename TSrcI, typename TDstI,
          typename TWeightI, typename TW, typename TI, typename TO, typename TA, typename R>
void Matrix_Vector_Activate_Stream_Batch(hls::stream<TI>& in, hls::stream<TO>& out,
                                         hls::stream<ap_uint<PE * SIMD * TW::width>>& weights,
                                         const TA& activation, int vectors, const R&) {
    constexpr unsigned STEPS = MatrixW / SIMD;
    for (int vector = 0; vector < vectors; ++vector) {
        TI words[STEPS];
        for (TI& word : words) word = in.read();
        for (unsigned fold = 0; fold < MatrixH / PE; ++fold) {
            decltype(activation.init(0, 0)) sums[PE];
            for (unsigned pe = 0; pe < PE; ++pe) sums[pe] = activation.init(fold, pe);
            for (const TI& word : words) {
                const auto inputs = TSrcI()(word);
                const auto rows = Slice<TW>()(weights.read());
                for (unsigned pe = 0; pe < PE; ++pe)
                    for (unsigned simd = 0; simd < SIMD; ++simd)
                        sums[pe] += TWeightI()(rows(pe * SIMD + simd)) * inputs(simd);
            }
            TO result = 0;
            for (unsigned pe = 0; pe < PE; ++pe) {
                const auto value = activation.activate(fold, pe, sums[pe]);
                result.range((pe + 1) * value.width - 1, pe * value.width) = value.range();
            }
            out.write(result);
        }
    }
}
