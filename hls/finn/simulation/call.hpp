// Calls a layer's top function until it has read all that was given: words from files, and to files.
#pragma once

#include <ap_int.h>
#include <hls_stream.h>
#include <hls_vector.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <tuple>
#include <utility>

namespace qhw {

// A word as 32-bit words, the lowest bits first.
template <typename T>
struct Word;

template <int W>
struct Word<ap_uint<W>> {
    static constexpr int WIDTH = W;
    static ap_uint<W> bits(const ap_uint<W>& word) { return word; }
    static ap_uint<W> word(const ap_uint<W>& bits) { return bits; }
};

template <typename T, std::size_t N>
struct Word<hls::vector<T, N>> {
    static constexpr int WIDTH = N * T::width;
    static ap_uint<WIDTH> bits(const hls::vector<T, N>& word) {
        ap_uint<WIDTH> result = 0;
        for (std::size_t lane = 0; lane < N; ++lane)
            result.range((lane + 1) * T::width - 1, lane * T::width) = word[lane].range();
        return result;
    }
    static hls::vector<T, N> word(const ap_uint<WIDTH>& bits) {
        hls::vector<T, N> result;
        for (std::size_t lane = 0; lane < N; ++lane)
            result[lane] = ap_uint<T::width>(bits.range((lane + 1) * T::width - 1, lane * T::width));
        return result;
    }
};

inline std::FILE* opened(const char* name, const char* mode) {
    std::FILE* file = std::fopen(name, mode);
    if (!file) {
        std::perror(name);
        std::exit(2);
    }
    return file;
}

template <typename T>
void fill(hls::stream<T>& stream, const char* name) {
    constexpr int ROW = (Word<T>::WIDTH + 31) / 32;
    std::FILE* file = opened(name, "rb");
    for (std::uint32_t row[ROW]; std::fread(row, sizeof row, 1, file) == 1;) {
        ap_uint<ROW * 32> bits = 0;
        for (int part = 0; part < ROW; ++part) bits.range(32 * part + 31, 32 * part) = row[part];
        stream.write(Word<T>::word(bits));
    }
    std::fclose(file);
}

template <typename T>
void drain(hls::stream<T>& stream, const char* name) {
    constexpr int ROW = (Word<T>::WIDTH + 31) / 32;
    std::FILE* file = opened(name, "wb");
    while (!stream.empty()) {
        const ap_uint<ROW * 32> bits = Word<T>::bits(stream.read());
        std::uint32_t row[ROW];
        for (int part = 0; part < ROW; ++part) row[part] = bits.range(32 * part + 31, 32 * part).to_uint();
        std::fwrite(row, sizeof row, 1, file);
    }
    if (std::fclose(file)) std::exit(2);
}

// The arguments: a file for each stream, in the function's order, inputs first.
// Prints how many words were never read.
template <std::size_t... INPUT, std::size_t... OUTPUT, typename... T>
int run(void (*layer)(hls::stream<T>&...), char** files, std::index_sequence<INPUT...>,
        std::index_sequence<OUTPUT...>) {
    std::tuple<hls::stream<T>...> streams;
    (fill(std::get<INPUT>(streams), files[1 + INPUT]), ...);
    const auto unread = [&streams] { return (std::get<INPUT>(streams).size() + ...); };
    for (std::size_t left = unread(), before = left + 1; left && left < before;) {
        std::apply(layer, streams);
        before = left;
        left = unread();
    }
    std::printf("unread %llu\n", static_cast<unsigned long long>(unread()));
    (drain(std::get<sizeof...(INPUT) + OUTPUT>(streams), files[1 + sizeof...(INPUT) + OUTPUT]), ...);
    return 0;
}

template <std::size_t INPUTS, typename... T>
int run(void (*layer)(hls::stream<T>&...), char** files) {
    constexpr std::size_t OUTPUTS = sizeof...(T) - INPUTS;
    return run(layer, files, std::make_index_sequence<INPUTS>(), std::make_index_sequence<OUTPUTS>());
}

}  // namespace qhw
