// The part of Vitis HLS's hls::vector that FINN's code uses.
#pragma once

#include <array>
#include <cstddef>

namespace hls {

template <typename T, std::size_t N>
class vector : public std::array<T, N> {};

}  // namespace hls
