// Elements as one word, the first in the lowest bits.
#pragma once

#include <ap_int.h>

#include <cstddef>

template <typename T, std::size_t N>
ap_uint<N * T::width> flatten(const T (&elements)[N]) {
    ap_uint<N * T::width> word = 0;
    for (std::size_t lane = 0; lane < N; ++lane)
        word.range((lane + 1) * T::width - 1, lane * T::width) = elements[lane].range();
    return word;
}
