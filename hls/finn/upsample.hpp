// Copies of every element.
#pragma once

#include <hls_stream.h>

// A call takes an image of InH x InW pixels of InC words each, and repeats each pixel and row.
template <unsigned InH, unsigned OutH, unsigned InW, unsigned OutW, unsigned InC, unsigned OutC, typename T>
void upsample_nn(hls::stream<T>& in, hls::stream<T>& out) {
    static_assert(OutH % InH == 0 && OutW % InW == 0 && InC == OutC, "whole factors, of height and width");
    for (unsigned row = 0; row < InH; ++row) {
        T words[InW * InC];
        for (T& word : words) word = in.read();
        for (unsigned copy = 0; copy < OutH / InH; ++copy)
            for (unsigned column = 0; column < OutW; ++column)
                for (unsigned part = 0; part < InC; ++part)
                    out.write(words[column / (OutW / InW) * InC + part]);
    }
}
