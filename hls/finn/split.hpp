// The channels of a stream to several streams, as StreamingConcat would put them together.
#pragma once

#include "concat.hpp"

// A call moves a pixel: so many words to each output.
template <unsigned... WORDS, typename From, typename... To>
void StreamingSplit(hls::stream<From>& in, hls::stream<To>&... out) {
    (move_words<WORDS>(in, out), ...);
}
