// The channels of several streams, one stream after the other for each pixel.
#pragma once

#include <hls_stream.h>

#include <cstddef>

template <unsigned WORDS, typename From, typename To>
void move_words(hls::stream<From>& in, hls::stream<To>& out) {
    for (unsigned word = 0; word < WORDS; ++word) {
        const From given = in.read();
        To taken;
        for (std::size_t lane = 0; lane < given.size(); ++lane) taken[lane] = given[lane];
        out.write(taken);
    }
}

// A call moves a pixel: so many words of each input.
template <unsigned... WORDS, typename To, typename... From>
void StreamingConcat(hls::stream<To>& out, hls::stream<From>&... in) {
    (move_words<WORDS>(in, out), ...);
}
