// A clocked layer, as the simulator (clock.cpp) loads it from a library.
#pragma once

#include <cstddef>
#include <vector>

namespace qhw {

// The ports of an AXI stream; the word's lowest bits come first in memory.
struct Ports {
    void* data;
    std::size_t bytes;
    unsigned char* valid;
    unsigned char* ready;
};

struct Layer {
    std::vector<Ports> inputs, outputs;
    virtual ~Layer() = default;
    virtual void eval(bool clock, bool reset_n) = 0;
};

}  // namespace qhw

extern "C" qhw::Layer* make_layer();
