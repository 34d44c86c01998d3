// How the elements of a word are read.
#pragma once

#include <ap_int.h>

// Numbers of type T, the first in the lowest bits.
template <typename T>
struct Slice {
    template <int W>
    struct View {
        ap_uint<W> word;
        T operator()(unsigned index, unsigned = 0) const {
            return T(ap_uint<T::width>(word.range((index + 1) * T::width - 1, index * T::width)));
        }
    };
    template <int W>
    View<W> operator()(const ap_uint<W>& word) const {
        return {word};
    }
};

// A bit that stands for -1 or 1.
struct Binary {
    ap_uint<1> bit;
    operator int() const { return bit ? 1 : -1; }
};

// A bit whose product with another bit is whether they are equal.
struct XnorMul {
    ap_uint<1> bit;
    int operator*(const ap_uint<1>& other) const { return bit == other; }
};

// Single bits, read as T.
template <typename T>
struct Recast {
    template <int W>
    struct View {
        ap_uint<W> word;
        T operator()(unsigned index, unsigned = 0) const { return {ap_uint<1>(word[index])}; }
    };
    template <int W>
    View<W> operator()(const ap_uint<W>& word) const {
        return {word};
    }
    ap_uint<1> bit;
    T operator()(const ap_uint<1>& weight) const { return {weight}; }
};

// A weight as it is.
struct Identity {
    template <typename T>
    T operator()(const T& weight) const {
        return weight;
    }
};

// Where a product is computed is the compiler's business.
struct ap_resource_dflt {};
struct ap_resource_lut {};
struct ap_resource_dsp {};
