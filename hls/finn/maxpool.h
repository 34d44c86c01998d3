// Sums over a whole image.
#pragma once

#include <ap_int.h>
#include <hls_stream.h>

#include "interpret.hpp"

// The sum of each channel over ImgDim x ImgDim pixels.
template <unsigned ImgDim, unsigned NumChannels, typename ActType, unsigned PE, typename AccType>
void AccPool_Batch(hls::stream<ap_uint<PE * ActType::width>>& in,
                   hls::stream<ap_uint<PE * AccType::width>>& out, unsigned images) {
    for (unsigned image = 0; image < images; ++image) {
        AccType sums[NumChannels];
        for (AccType& sum : sums) sum = 0;
        for (unsigned pixel = 0; pixel < ImgDim * ImgDim; ++pixel)
            for (unsigned channel = 0; channel < NumChannels; channel += PE) {
                const auto inputs = Slice<ActType>()(in.read());
                for (unsigned pe = 0; pe < PE; ++pe) sums[channel + pe] += inputs(pe);
            }
        for (unsigned channel = 0; channel < NumChannels; channel += PE) {
            ap_uint<PE * AccType::width> result = 0;
            for (unsigned pe = 0; pe < PE; ++pe)
                result.range((pe + 1) * AccType::width - 1, pe * AccType::width) = sums[channel + pe].range();
            out.write(result);
        }
    }
}
