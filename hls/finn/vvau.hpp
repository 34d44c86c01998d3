// A depthwise product: a window of each channel by itself, PE channels at a time.
#pragma once

#include <ap_int.h>
#include <hls_stream.h>

#include "interpret.hpp"

// Windows come in blocks of PE channels, a kernel position a word; weights come for every word.
template <unsigned Channels, unsigned Window, unsigned SIMD, unsigned PE, unsigned MMV, typename TSrcI,
          typename TDstI, typename TWeightI, typename TW, typename TI, typename TO, typename TA, typename R>
void Vector_Vector_Activate_Stream_Batch(hls::stream<TI>& in, hls::stream<TO>& out,
                                         hls::stream<ap_uint<PE * SIMD * TW::width>>& weights,
                                         const TA& activation, int vectors, const R&) {
    static_assert(SIMD == 1 && MMV == 1, "finn-hlslib takes one kernel position and one pixel at a time");
    for (int vector = 0; vector < vectors; ++vector)
        for (unsigned fold = 0; fold < Channels / PE; ++fold) {
            decltype(activation.init(0, 0)) sums[PE];
            for (unsigned pe = 0; pe < PE; ++pe) sums[pe] = activation.init(fold, pe);
            for (unsigned position = 0; position < Window; ++position) {
                const auto inputs = TSrcI()(in.read());
                const auto rows = Slice<TW>()(weights.read());
                for (unsigned pe = 0; pe < PE; ++pe) sums[pe] += TWeightI()(rows(pe)) * inputs(pe);
            }
            TO result = 0;
            for (unsigned pe = 0; pe < PE; ++pe) {
                const auto value = activation.activate(fold, pe, sums[pe]);
                result.range((pe + 1) * value.width - 1, pe * value.width) = value.range();
            }
            out.write(result);
        }
}
