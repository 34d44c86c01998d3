// One number of a window's numbers, for each channel by itself.
#pragma once

#include <hls_stream.h>
#include <hls_vector.h>

#include <cstddef>

template <typename V>
struct MaxPoolFunction;

template <typename T, std::size_t N>
struct MaxPoolFunction<hls::vector<T, N>> {
    template <typename In>
    static void pool(const In& word, bool is_first, hls::vector<T, N>& result) {
        for (std::size_t lane = 0; lane < N; ++lane)
            if (is_first || word[lane] > result[lane]) result[lane] = word[lane];
    }
};

template <typename V>
struct AccPoolFunction;

template <typename T, std::size_t N>
struct AccPoolFunction<hls::vector<T, N>> {
    template <typename In>
    static void pool(const In& word, bool is_first, hls::vector<T, N>& result) {
        for (std::size_t lane = 0; lane < N; ++lane)
            result[lane] = is_first ? T(word[lane]) : T(result[lane] + word[lane]);
    }
};

// A call takes WORDS words, in windows of WINDOW.
template <unsigned WORDS, unsigned WINDOW, typename In, typename Out, typename Function>
void Pool_batch(hls::stream<In>& in, hls::stream<Out>& out, const Function& function) {
    for (unsigned window = 0; window < WORDS / WINDOW; ++window) {
        Out result;
        for (unsigned position = 0; position < WINDOW; ++position)
            function.pool(in.read(), position == 0, result);
        out.write(result);
    }
}
