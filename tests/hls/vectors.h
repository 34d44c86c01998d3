// Reads the vectors that tests/hls/vectors.py writes, and counts what differs from them.
#ifndef TESTS_HLS_VECTORS_H_
#define TESTS_HLS_VECTORS_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "qhw/raw.h"

// Integers in words of 64 bits, lowest first, two's complement: as many words as their width takes.
class Vectors {
  public:
    explicit Vectors(const char *path) : file(std::fopen(path, "rb")) {
        if (!file)
            stop("cannot be opened");
    }
    template <int W> ap_int<W> next() {
        const int words = (W + 63) / 64;
        ap_int<64 * words> number = 0;
        for (int i = 0; i < words; i++)
            number.range(64 * i + 63, 64 * i) = ap_uint<64>(word());
        if (ap_int<64 * words>(ap_int<W>(number)) != number)
            stop("holds a number that is wider than its type");
        return ap_int<W>(number);
    }
    int64_t number() { return next<64>().to_int64(); }
    template <int W> std::vector<ap_uint<W>> codes() {
        std::vector<ap_uint<W>> list(number());
        for (ap_uint<W> &code : list)
            code = next<W + 1>();
        return list;
    }
    void end() {
        if (std::fgetc(file) != EOF)
            stop("holds more numbers than the test reads");
    }

  private:
    uint64_t word() {
        uint64_t bits = 0;
        if (std::fread(&bits, sizeof bits, 1, file) != 1)
            stop("holds fewer numbers than the test reads");
        return bits;
    }
    [[noreturn]] void stop(const char *what) {
        std::printf("the file of vectors %s\n", what);
        std::exit(2);
    }
    FILE *file;
};

static unsigned long long compared = 0, differing = 0;

template <class got_T, class want_T> void expect(const char *what, long i, long j, const got_T &got, const want_T &want) {
    compared++;
    if (got == want)
        return;
    if (differing++ < 20)
        std::printf("%s: at %ld, %ld: %s, not %s\n", what, i, j, got.to_string(10).c_str(), want.to_string(10).c_str());
}

inline int report() {
    std::printf("%llu compared, %llu differ\n", compared, differing);
    return differing != 0;
}

#endif
