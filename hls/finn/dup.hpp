// One stream into several.
#pragma once

#include <hls_stream.h>

// A call copies a word, if there is one.
template <typename T, typename... To>
void StreamingDup(hls::stream<T>& in, hls::stream<To>&... out) {
    if (in.empty()) return;
    const T word = in.read();
    (out.write(word), ...);
}
