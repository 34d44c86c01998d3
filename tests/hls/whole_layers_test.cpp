// Whole layers, from arrays and from streams: matrix-vector product, convolution, threshold unit, saturating addition.
#include "vectors.h"

#include "qhw/conv.h"
#include "qhw/matvec.h"
#include "qhw/merge.h"

#include "nnet_utils/nnet_types.h"

// Operands X and K, results Y (rounded to even, saturated), sums of W bits of which DOWN are dropped, reuse factor R.
template <class X, class K, class Y, int W, int DOWN, unsigned R> struct product_config {
    static const unsigned reuse_factor = R, product_shift = 0, n_param = 1;
    typedef X x_format;
    typedef K w_format;
    typedef Y y_format;
    typedef ap_fixed<W, W> accum_t;
    typedef qhw::encode_op finish;
    static const qhw::conversion_mode conversion = qhw::RND_CONV;
    static const int down = DOWN;
    static const long long high = (1 << (Y::width - 1)) - 1, low = -high;
};

template <class P, unsigned N, unsigned M> struct matvec_config : P {
    static const unsigned n_in = N, n_out = M;
};

// Groups; then height and width of the image, window, stride, dilation; padding at the top, bottom, left, right.
template <class P, unsigned C, unsigned F, unsigned G, unsigned IH, unsigned IW, unsigned KH, unsigned KW, unsigned SH,
          unsigned SW, unsigned DH, unsigned DW, unsigned PT, unsigned PB, unsigned PL, unsigned PR>
struct conv_config : P {
    static const unsigned n_chan = C, n_filt = F, n_group = G, in_height = IH, in_width = IW, filt_height = KH,
                          filt_width = KW, stride_height = SH, stride_width = SW, dilation_height = DH,
                          dilation_width = DW, pad_top = PT, pad_bottom = PB, pad_left = PL, pad_right = PR,
                          out_height = (IH + PT + PB - DH * (KH - 1) - 1) / SH + 1,
                          out_width = (IW + PL + PR - DW * (KW - 1) - 1) / SW + 1;
};

// What a layer reads and gives, in packs of PIXEL_IN and PIXEL_OUT; the array and the stream have to agree.
template <class CONFIG_T, unsigned SIZE_IN, unsigned SIZE_OUT, unsigned PIXEL_IN, unsigned PIXEL_OUT, class layer_T>
void both(Vectors &vectors, const char *name, layer_T layer) {
    typedef ap_uint<CONFIG_T::x_format::width> x_T;
    typedef ap_uint<CONFIG_T::w_format::width> w_T;
    typedef ap_uint<CONFIG_T::y_format::width> y_T;
    typedef typename CONFIG_T::accum_t accum_t;
    std::vector<w_T> weight = vectors.codes<w_T::width>();
    std::vector<accum_t> bias(vectors.number());
    for (accum_t &b : bias)
        b = vectors.next<accum_t::width>();
    for (int64_t samples = vectors.number(), sample = 0; sample < samples; sample++) {
        std::vector<x_T> x = vectors.codes<x_T::width>();
        std::vector<y_T> y(SIZE_OUT);
        hls::stream<nnet::array<x_T, PIXEL_IN>> in("in");
        hls::stream<nnet::array<y_T, PIXEL_OUT>> out("out");
        qhw::write_all<SIZE_IN>(x.data(), in);
        layer(x.data(), y.data(), in, out, weight.data(), bias.data());
        y_T streamed[SIZE_OUT];
        if (!in.empty() || out.size() != SIZE_OUT / PIXEL_OUT)
            std::exit(3);
        qhw::read_all<SIZE_OUT>(out, streamed);
        for (unsigned i = 0; i < SIZE_OUT; i++) {
            const y_T want = vectors.next<y_T::width + 1>();
            expect(name, sample, i, y[i], want);
            expect(name, sample, i, streamed[i], want);
        }
    }
}

template <class CONFIG_T> void matvec(Vectors &vectors, const char *name) {
    static const unsigned n = CONFIG_T::n_in, m = CONFIG_T::n_out;
    both<CONFIG_T, n, m, n, m>(vectors, name, [](auto *x, auto *y, auto &in, auto &out, auto *weight, auto *bias) {
        typedef typename std::remove_pointer<decltype(x)>::type x_T;
        typedef typename std::remove_pointer<decltype(y)>::type y_T;
        qhw::matvec<x_T, y_T, CONFIG_T>(x, y, weight, bias);
        qhw::matvec<nnet::array<x_T, n>, nnet::array<y_T, m>, CONFIG_T>(in, out, weight, bias);
    });
}

template <class CONFIG_T> void conv(Vectors &vectors, const char *name) {
    static const unsigned c = CONFIG_T::n_chan, f = CONFIG_T::n_filt;
    static const unsigned size_in = CONFIG_T::in_height * CONFIG_T::in_width * c;
    static const unsigned size_out = CONFIG_T::out_height * CONFIG_T::out_width * f;
    both<CONFIG_T, size_in, size_out, c, f>(
        vectors, name, [](auto *x, auto *y, auto &in, auto &out, auto *weight, auto *bias) {
            typedef typename std::remove_pointer<decltype(x)>::type x_T;
            typedef typename std::remove_pointer<decltype(y)>::type y_T;
            qhw::conv<x_T, y_T, CONFIG_T>(x, y, weight, bias);
            qhw::conv<nnet::array<x_T, c>, nnet::array<y_T, f>, CONFIG_T>(in, out, weight, bias);
        });
}

// N thresholds of WX bits, from every number of WX bits to codes of WY bits.
template <int WX, int WY, unsigned N> struct threshold_config {
    static const unsigned n_in = 1 << WX, n_param = 1, n_threshold = N, shared_level = 1;
    typedef ap_fixed<WX + 1, WX + 1> threshold_t;
    typedef ap_ufixed<WY, WY> level_t;
};

template <int WX, int WY, unsigned N> void thresholds(Vectors &vectors, const char *name) {
    typedef threshold_config<WX, WY, N> config;
    static const unsigned size = config::n_in;
    std::vector<ap_fixed<WX, WX>> x(size);
    std::vector<typename config::threshold_t> threshold(N);
    std::vector<typename config::level_t> level(N + 1), y(size);
    for (unsigned i = 0; i < size; i++)
        x[i] = int(i) - int(size / 2);
    for (auto &t : threshold)
        t = vectors.next<WX + 1>();
    for (auto &l : level)
        l = vectors.next<WY + 1>();
    qhw::each<qhw::threshold_op, ap_fixed<WX, WX>, typename config::level_t, config>(x.data(), y.data(), threshold.data(),
                                                                                    level.data());
    for (unsigned i = 0; i < size; i++)
        expect(name, i, -1, qhw::raw(y[i]), ap_uint<WY>(vectors.next<WY + 1>()));
}

// Every pair of mantissas of two fixed-point types, added and saturated to a third.
template <class a_T, class b_T, class y_T> void additions(Vectors &vectors, const char *name) {
    for (unsigned i = 0; i < 1u << a_T::width; i++)
        for (unsigned j = 0; j < 1u << b_T::width; j++) {
            const a_T a = qhw::from_raw<a_T>(ap_uint<a_T::width>(i));
            const b_T b = qhw::from_raw<b_T>(ap_uint<b_T::width>(j));
            const auto sum = qhw::raw(qhw::add_saturated<y_T>(a, b));
            expect(name, i, j, sum, typename qhw::raw_of<y_T>::type(vectors.number()));
        }
}

int main(int, char **argv) {
    Vectors vectors(argv[1]);
#include "cases.h"
    vectors.end();
    return report();
}
