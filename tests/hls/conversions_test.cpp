// Fixed-point numbers to codes, in every rounding mode, within bounds.
#include "vectors.h"

#include "qhw/convert.h"

// DOWN: how many fraction bits a number has more than a mantissa of F; A: bits of a number.
template <class F, int DOWN, int A> void conversions(Vectors &vectors, const char *name) {
    static const qhw::conversion_mode modes[] = {qhw::RND, qhw::RND_ZERO, qhw::RND_MIN_INF, qhw::RND_INF, qhw::RND_CONV,
                                                 qhw::TRN, qhw::TRN_ZERO, qhw::CEIL,        qhw::UP};
    std::vector<ap_int<A>> numbers(vectors.number());
    for (ap_int<A> &number : numbers)
        number = vectors.next<A>();
    for (int64_t bounds = vectors.number(); bounds > 0; bounds--) {
        const int64_t low = vectors.number(), high = vectors.number();
        for (int mode = 0; mode < 9; mode++)
            for (unsigned i = 0; i < numbers.size(); i++) {
                const ap_uint<F::width> want = vectors.next<F::width + 1>();
                expect(name, mode, i, qhw::encode<F, DOWN>(numbers[i], modes[mode], low, high), want);
                if (numbers[i] >= 0)
                    expect(name, mode, i, qhw::encode<F, DOWN>(ap_uint<A>(numbers[i]), modes[mode], low, high), want);
            }
    }
}

// Every code to its mantissa.
template <class F> void mantissas(Vectors &vectors, const char *name) {
    const auto codes = vectors.codes<F::width>();
    for (unsigned i = 0; i < codes.size(); i++)
        expect(name, i, -1, ap_int<128>(qhw::mantissa<F>(codes[i])), vectors.next<128>());
}

int main(int, char **argv) {
    Vectors vectors(argv[1]);
#include "cases.h"
    vectors.end();
    return report();
}
