// Sums of products with weights that nothing can be multiplied by: every weight type here has its operator* deleted.
#include "vectors.h"

#include "qhw/matvec.h"

// Stored bits of a weight.
template <int W> struct unmultipliable : ap_uint<W> {
    static const int width = W;
    unmultipliable() = default;
    unmultipliable(const ap_uint<W> &bits) : ap_uint<W>(bits) {}
    template <class T> void operator*(const T &) const = delete;
    template <class T> friend void operator*(const T &, const unmultipliable &) = delete;
};

template <class A, class B, class = void> struct multiplies {
    static const bool value = false;
};
template <class A, class B> struct multiplies<A, B, decltype(void(std::declval<A>() * std::declval<B>()))> {
    static const bool value = true;
};
static_assert(multiplies<ap_int<8>, ap_uint<9>>::value, "the check itself");
static_assert(!multiplies<ap_int<8>, unmultipliable<9>>::value && !multiplies<unmultipliable<9>, ap_int<8>>::value, "");
static_assert(!multiplies<ap_int<8>, qhw::powers<2, 6>>::value && !multiplies<qhw::powers<2, 6>, ap_int<8>>::value, "");

template <class X, class K, unsigned N, unsigned M, unsigned R, int W> struct sums_config {
    static const unsigned n_in = N, n_out = M, reuse_factor = R, product_shift = 0, n_param = 1;
    typedef X x_format;
    typedef K w_format;
    typedef ap_fixed<W, W> accum_t;
    typedef qhw::keep_op finish;
};

// One operand of format X, N x M weights of format K: by multiply_add, by dot and by matvec, which also takes weights
// that are sums of powers already.
template <class X, class K, unsigned N, unsigned M, unsigned R, int W> void sums(Vectors &vectors, const char *name) {
    typedef ap_fixed<W, W> sum_t;
    typedef unmultipliable<K::width> weight_t;
    typedef typename K::read_t powers_t;
    const auto x = vectors.codes<X::width>();
    const auto stored = vectors.codes<K::width>();
    const std::vector<weight_t> weight(stored.begin(), stored.end());
    std::vector<powers_t> powers;
    for (const weight_t &w : weight)
        powers.push_back(K::read(w));
    std::vector<ap_uint<X::width>> data(x);
    sum_t bias[M], by_code[M], by_powers[M];
    for (sum_t &b : bias)
        b = 0;
    qhw::matvec<ap_uint<X::width>, sum_t, sums_config<X, K, N, M, R, W>>(data.data(), by_code, weight.data(), bias);
    qhw::matvec<ap_uint<X::width>, sum_t, sums_config<X, K, N, M, R, W>>(data.data(), by_powers, powers.data(), bias);
    for (unsigned o = 0; o < M; o++) {
        const ap_int<W> want = vectors.next<W>();
        const ap_int<W> dot = qhw::dot<X, K, W, N>(x.data(), weight.data() + o * N);
        ap_int<W> sum = 0;
        for (unsigned i = 0; i < N; i++)
            sum = qhw::multiply_add<X, K>(sum, x[i], weight[o * N + i]);
        expect(name, o, 0, sum, want);
        expect(name, o, 1, dot, want);
        expect(name, o, 2, qhw::raw(by_code[o]), want);
        expect(name, o, 3, qhw::raw(by_powers[o]), want);
    }
}

int main(int, char **argv) {
    Vectors vectors(argv[1]);
#include "cases.h"
    vectors.end();
    return report();
}
