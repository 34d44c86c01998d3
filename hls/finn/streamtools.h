// Zeros between the pixels of an image.
#pragma once

#include <ap_int.h>
#include <hls_stream.h>

// A call writes OutW x OutH pixels: every StrideW-th of every StrideH-th row is read, the others are 0.
template <unsigned OutW, unsigned OutH, unsigned StrideW, unsigned StrideH, unsigned Channels, unsigned LANES,
          typename T>
void FMPadding_Pixel_Nonsquare(hls::stream<ap_uint<LANES * T::width>>& in,
                               hls::stream<ap_uint<LANES * T::width>>& out) {
    for (unsigned row = 0; row < OutH; ++row)
        for (unsigned column = 0; column < OutW; ++column)
            for (unsigned part = 0; part < Channels / LANES; ++part) {
                const bool is_read = row % StrideH == 0 && column % StrideW == 0;
                out.write(is_read ? in.read() : ap_uint<LANES * T::width>(0));
            }
}
