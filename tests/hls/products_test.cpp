// Exact products of every pair of codes of two formats, and exact sums of them.
#include "vectors.h"

#include "qhw/kulisch.h"

// N: codes of B; W: bits that hold every sum.
template <class A, class B, unsigned N, int W> void pairs(Vectors &vectors, const char *name) {
    typedef ap_int<A::mantissa_width + B::mantissa_width> exact_t;
    const auto left = vectors.codes<A::width>();
    const auto right = vectors.codes<B::width>();
    if (right.size() != N)
        std::exit(2);
    for (unsigned i = 0; i < left.size(); i++)
        for (unsigned j = 0; j < N; j++)
            expect(name, i, j, exact_t(qhw::product<A, B>(left[i], right[j])), vectors.next<exact_t::width>());
    // Every pair is part of one of these sums.
    std::vector<ap_uint<A::width>> turned(N);
    for (unsigned turn = 0; turn < left.size(); turn++) {
        for (unsigned j = 0; j < N; j++)
            turned[j] = left[(j + turn) % left.size()];
        const ap_int<W> want = vectors.next<W>();
        const ap_int<W> sum = qhw::dot<A, B, W, N>(turned.data(), right.data());
        expect(name, turn, -1, sum, want);
    }
}

int main(int, char **argv) {
    Vectors vectors(argv[1]);
#include "cases.h"
    vectors.end();
    return report();
}
