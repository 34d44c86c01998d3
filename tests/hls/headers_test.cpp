// The header library on its own: streams and arrays agree, and both agree with plain loops.
#include <cstdio>
#include <cstdlib>

#include "qhw/elementwise.h"
#include "qhw/gather.h"
#include "qhw/join.h"
#include "qhw/moves.h"
#include "qhw/pool.h"

#include "nnet_utils/nnet_types.h"

typedef ap_fixed<7, 4> in_t;
typedef nnet::array<in_t, 3> in_pack;

static int failures = 0;

static void expect(bool good, const char *what, long got, long want) {
    if (!good) {
        std::printf("%s: got %ld, want %ld\n", what, got, want);
        failures++;
    }
}

static long mantissa(const in_t &x) { return qhw::raw(x).to_int(); }

static const unsigned H = 5, W = 4, C = 3, SIZE = H * W * C;
static in_t image[SIZE];

static void fill() {
    unsigned state = 1;
    for (unsigned i = 0; i < SIZE; i++) {
        state = state * 1103515245u + 12345u;
        image[i] = qhw::from_raw<in_t>(ap_int<16>(int(state >> 16 & 127) - 64));
    }
}

static void send(hls::stream<in_pack> &stream) {
    for (unsigned i = 0; i < SIZE / C; i++) {
        in_pack pack;
        for (unsigned c = 0; c < C; c++)
            pack[c] = image[i * C + c];
        stream.write(pack);
    }
}

// Overlapping windows, padded on two sides, dilated along the width.
struct pool_config {
    static const unsigned in_height = H, in_width = W, n_chan = C, kernel_height = 3, kernel_width = 2,
                          stride_height = 2, stride_width = 1, dilation_height = 1, dilation_width = 2, pad_top = 1,
                          pad_bottom = 0, pad_left = 0, pad_right = 1, out_height = 2, out_width = 3;
    typedef ap_fixed<12, 9> accum_t;
};

static long window(unsigned oh, unsigned ow, unsigned c, bool sum) {
    long best = sum ? 0 : -1000;
    for (int kh = 0; kh < 3; kh++)
        for (int kw = 0; kw < 2; kw++) {
            int h = int(oh) * 2 - 1 + kh, w = int(ow) + 2 * kw;
            if (h < 0 || h >= int(H) || w >= int(W))
                continue;
            long x = mantissa(image[(h * W + w) * C + c]);
            best = sum ? best + x : (x > best ? x : best);
        }
    return best;
}

template <class op> static void test_pool(bool sum) {
    typedef ap_fixed<12, 9> out_t;
    typedef nnet::array<out_t, C> out_pack;
    out_t flat[6 * C];
    qhw::pool<op, in_t, out_t, pool_config>(image, flat);
    hls::stream<in_pack> in("in");
    hls::stream<out_pack> out("out");
    send(in);
    qhw::pool<op, in_pack, out_pack, pool_config>(in, out);
    expect(in.empty(), "input left in the stream", in.size(), 0);
    expect(out.size() == 6, "windows written", out.size(), 6);
    for (unsigned i = 0; i < 6; i++) {
        out_pack pack = out.read();
        for (unsigned c = 0; c < C; c++) {
            long want = window(i / 3, i % 3, c, sum);
            expect(qhw::raw(flat[i * C + c]).to_int() == want, "pool of an array", qhw::raw(flat[i * C + c]).to_int(), want);
            expect(pack[c] == flat[i * C + c], "pool of a stream", qhw::raw(pack[c]).to_int(), want);
        }
    }
}

struct reduce_config {
    static const unsigned outer = 1, n = H * W, inner = C;
    typedef ap_fixed<12, 9> accum_t;
};

static void test_reduce() {
    typedef ap_fixed<12, 9> out_t;
    typedef nnet::array<out_t, C> out_pack;
    out_t flat[C];
    qhw::reduce<qhw::sum_op, in_t, out_t, reduce_config>(image, flat);
    hls::stream<in_pack> in("in");
    hls::stream<out_pack> out("out");
    send(in);
    qhw::reduce<qhw::sum_op, in_pack, out_pack, reduce_config>(in, out);
    out_pack pack = out.read();
    for (unsigned c = 0; c < C; c++) {
        long want = 0;
        for (unsigned i = 0; i < H * W; i++)
            want += mantissa(image[i * C + c]);
        expect(qhw::raw(flat[c]).to_int() == want, "sum of an array", qhw::raw(flat[c]).to_int(), want);
        expect(pack[c] == flat[c], "sum of a stream", qhw::raw(pack[c]).to_int(), want);
    }
}

template <unsigned N> struct threshold_config {
    static const unsigned n_in = SIZE, n_param = C, n_threshold = N;
    static const long long base = -3, step = 1;
    typedef in_t threshold_t;
};

// 5 thresholds are compared at once, 20 by bisection.
template <unsigned N> static void test_thresholds() {
    typedef ap_fixed<6, 6> out_t;
    in_t thresholds[C * N];
    for (unsigned c = 0; c < C; c++)
        for (unsigned k = 0; k < N; k++)
            thresholds[c * N + k] = qhw::from_raw<in_t>(ap_int<16>(int(k * (100 / N)) - 50 + int(c)));
    out_t got[SIZE];
    qhw::each<qhw::count_op, in_t, out_t, threshold_config<N>>(image, got, thresholds);
    for (unsigned i = 0; i < SIZE; i++) {
        long want = -3;
        for (unsigned k = 0; k < N; k++)
            want += image[i] >= thresholds[i % C * N + k];
        expect(qhw::raw(got[i]).to_int() == want, "thresholds reached", qhw::raw(got[i]).to_int(), want);
    }
}

struct gather_config {
    static const unsigned n_in = SIZE, n_out = SIZE + C;
    static const long long value = -5;
    typedef ap_ufixed<6, 6> position_t;
};

static void test_gather() {
    in_t got[SIZE + C];
    ap_ufixed<6, 6> position[SIZE + C];
    for (unsigned i = 0; i < SIZE + C; i++)
        position[i] = i < SIZE ? SIZE - 1 - i : SIZE;
    qhw::gather<in_t, in_t, gather_config>(image, got, position);
    for (unsigned i = 0; i < SIZE + C; i++) {
        long want = i < SIZE ? mantissa(image[SIZE - 1 - i]) : -5;
        expect(mantissa(got[i]) == want, "moved", mantissa(got[i]), want);
    }
}

// Reads a stream of packs of N and compares each element with what `want` says for (pixel, channel).
template <unsigned N, class want_T>
static void expect_stream(hls::stream<nnet::array<in_t, N>> &out, unsigned pixels, const char *what, want_T want) {
    expect(out.size() == pixels, what, out.size(), pixels);
    for (unsigned i = 0; i < pixels && !out.empty(); i++) {
        nnet::array<in_t, N> pack = out.read();
        for (unsigned c = 0; c < N; c++)
            expect(mantissa(pack[c]) == want(i, c), what, mantissa(pack[c]), want(i, c));
    }
}

// Rows 1 and 4, columns 0 and 2, channels 0 and 2: what lies behind the last row or column is read, too.
struct slice_config {
    static const unsigned in_height = H, in_width = W, out_height = 2, out_width = 2, out_chan = 2, first_height = 1,
                          first_width = 0, first_chan = 0, step_height = 3, step_width = 2, step_chan = 2;
};

static void test_slice() {
    hls::stream<in_pack> in("in");
    hls::stream<nnet::array<in_t, 2>> out("out");
    send(in);
    qhw::slice<in_pack, nnet::array<in_t, 2>, slice_config>(in, out);
    expect(in.empty(), "input left in the stream", in.size(), 0);
    expect_stream<2>(out, 4, "slice of a stream", [](unsigned i, unsigned c) {
        return mantissa(image[((1 + i / 2 * 3) * W + i % 2 * 2) * C + 2 * c]);
    });
}

struct frame_config {
    static const unsigned in_height = H, in_width = W, in_chan = C, out_height = H + 3, out_width = W + 1,
                          out_chan = C + 2, pad_top = 2, pad_left = 0, pad_front = 1;
    static const long long value = -9;
};

static void test_frame() {
    hls::stream<in_pack> in("in");
    hls::stream<nnet::array<in_t, C + 2>> out("out");
    send(in);
    qhw::frame<in_pack, nnet::array<in_t, C + 2>, frame_config>(in, out);
    expect(in.empty(), "input left in the stream", in.size(), 0);
    expect_stream<C + 2>(out, (H + 3) * (W + 1), "frame around a stream", [](unsigned i, unsigned c) {
        int h = int(i / (W + 1)) - 2, w = i % (W + 1), channel = int(c) - 1;
        bool inside = h >= 0 && h < int(H) && w < int(W) && channel >= 0 && channel < int(C);
        return inside ? mantissa(image[(h * W + w) * C + channel]) : -9;
    });
}

template <bool COPIES> struct enlarge_config {
    static const unsigned in_height = H, in_width = W, factor_height = 3, factor_width = 2, copies = COPIES;
    static const long long value = 0;
};

template <bool COPIES> static void test_enlarge() {
    hls::stream<in_pack> in("in");
    hls::stream<in_pack> out("out");
    send(in);
    qhw::enlarge<in_pack, in_pack, enlarge_config<COPIES>>(in, out);
    expect(in.empty(), "input left in the stream", in.size(), 0);
    expect_stream<C>(out, 3 * H * 2 * W, "a stream enlarged", [](unsigned i, unsigned c) {
        unsigned h = i / (2 * W), w = i % (2 * W);
        return COPIES || (h % 3 == 0 && w % 2 == 0) ? mantissa(image[(h / 3 * W + w / 2) * C + c]) : 0;
    });
}

struct join_config {
    static const unsigned n_first = SIZE, n_second = SIZE;
};

static void test_join() {
    hls::stream<in_pack> first("first"), second("second");
    hls::stream<nnet::array<in_t, 1>> out("out");
    send(first);
    send(second);
    qhw::join<in_pack, in_pack, nnet::array<in_t, 1>, join_config>(first, second, out);
    expect_stream<1>(out, 2 * SIZE, "streams joined", [](unsigned i, unsigned) { return mantissa(image[i % SIZE]); });
}

int main() {
    fill();
    test_slice();
    test_frame();
    test_enlarge<true>();
    test_enlarge<false>();
    test_join();
    test_pool<qhw::sum_op>(true);
    test_pool<qhw::max_op>(false);
    test_reduce();
    test_thresholds<5>();
    test_thresholds<20>();
    test_gather();
    std::printf("%d failures\n", failures);
    return failures != 0;
}
