// A chain of element-wise integer operations in one pass over memory.
//
// Blocks of elements are loaded into a small buffer of 32- or 64-bit lanes, every operation of the chain runs
// over the buffer, and the result is stored in its own type. The caller has proven that no lane overflows.
// Parameters are per channel. Two layouts: channel fastest (tiled parameter rows), or runs of `inner`
// elements of one channel (one parameter for the whole run).

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

enum Kind { kScale, kJoin, kProduct, kRound, kClamp, kZeroOutside, kWrap, kTable, kCount };
enum Selector { kNothing, kOddFloor, kNegative, kNotNegative };
enum Type { kUint8, kInt8, kInt16, kInt32, kInt64, kFloat32, kFloat64 };

constexpr int64_t kBlock = 1024;

struct Operation {
  int32_t kind;
  int32_t flag;          // kScale: bit 0 multiply, bit 1 add; kJoin: bit 0 scale x, bit 1 scale operand; kRound: selector
  const void *a, *b, *c; // per channel, in lanes
  const void *data;      // kJoin, kProduct: the other tensor; kTable: entries; kCount: thresholds
  const void *levels;    // kCount
  int32_t data_type;
  int32_t steps;         // kCount: binary search steps
  int64_t low, high;     // kClamp, kZeroOutside: bounds; kWrap: offset, mask
};

template <typename S, typename T> void convert(const S *__restrict from, T *__restrict to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<T>(from[i]);
}

template <typename T> void load(const void *from, int type, int64_t at, T *to, int64_t n) {
  switch (type) {
    case kUint8: return convert(static_cast<const uint8_t *>(from) + at, to, n);
    case kInt8: return convert(static_cast<const int8_t *>(from) + at, to, n);
    case kInt16: return convert(static_cast<const int16_t *>(from) + at, to, n);
    case kInt32: return convert(static_cast<const int32_t *>(from) + at, to, n);
    case kInt64: return convert(static_cast<const int64_t *>(from) + at, to, n);
    case kFloat32: return convert(static_cast<const float *>(from) + at, to, n);
    case kFloat64: return convert(static_cast<const double *>(from) + at, to, n);
  }
}

template <typename T> void store(const T *from, void *to, int type, int64_t at, int64_t n) {
  switch (type) {
    case kUint8: return convert(from, static_cast<uint8_t *>(to) + at, n);
    case kInt8: return convert(from, static_cast<int8_t *>(to) + at, n);
    case kInt16: return convert(from, static_cast<int16_t *>(to) + at, n);
    case kInt32: return convert(from, static_cast<int32_t *>(to) + at, n);
    case kInt64: return convert(from, static_cast<int64_t *>(to) + at, n);
    case kFloat32: return convert(from, static_cast<float *>(to) + at, n);
    case kFloat64: return convert(from, static_cast<double *>(to) + at, n);
  }
}

// x becomes (x + add + (selected & mask)) >> shift: every rounding mode is one choice of add, selected and mask.
template <bool One, typename T, typename F>
void round_with(T *__restrict x, const T *__restrict shift, const T *__restrict add, const T *__restrict mask, int64_t n, F selected) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t p = One ? 0 : i;
    x[i] = (x[i] + add[p] + (selected(x[i], shift[p]) & mask[p])) >> shift[p];
  }
}

template <bool One, typename T> void round_lanes(const Operation &op, T *x, const T *a, const T *b, const T *c, int64_t n) {
  constexpr int sign = sizeof(T) * 8 - 1;
  switch (op.flag) {
    case kNothing: return round_with<One>(x, a, b, c, n, [](T, T) { return T(0); });
    case kOddFloor: return round_with<One>(x, a, b, c, n, [](T v, T s) { return T(v >> s); });
    case kNegative: return round_with<One>(x, a, b, c, n, [](T v, T) { return T(v >> sign); });
    case kNotNegative: return round_with<One>(x, a, b, c, n, [](T v, T) { return T(~(v >> sign)); });
  }
}

template <bool One, typename T> void scale(int flag, T *__restrict x, const T *__restrict a, const T *__restrict b, int64_t n) {
  if (flag == 1) {
    for (int64_t i = 0; i < n; ++i) x[i] *= a[One ? 0 : i];
  } else if (flag == 2) {
    for (int64_t i = 0; i < n; ++i) x[i] += b[One ? 0 : i];
  } else {
    for (int64_t i = 0; i < n; ++i) x[i] = x[i] * a[One ? 0 : i] + b[One ? 0 : i];
  }
}

template <bool One, typename T> void join(int flag, T *__restrict x, const T *__restrict y, const T *__restrict a, const T *__restrict b, int64_t n) {
  if (flag == 0) {
    for (int64_t i = 0; i < n; ++i) x[i] += y[i];
  } else {
    for (int64_t i = 0; i < n; ++i) x[i] = x[i] * a[One ? 0 : i] + y[i] * b[One ? 0 : i];
  }
}

// How many of a channel's thresholds x reaches, by a search without branches; rows hold 2^steps - 1 of them.
template <bool One, typename T>
void count(const Operation &op, T *__restrict x, T *__restrict reached, const T *__restrict row, const T *__restrict level_row, int64_t n) {
  const T *thresholds = static_cast<const T *>(op.data), *levels = static_cast<const T *>(op.levels);
  std::fill(reached, reached + n, T(0));
  for (int32_t step = op.steps - 1; step >= 0; --step) {
    const T half = T(1) << step;
    for (int64_t i = 0; i < n; ++i)
      reached[i] += thresholds[row[One ? 0 : i] + reached[i] + half - 1] <= x[i] ? half : T(0);
  }
  for (int64_t i = 0; i < n; ++i) x[i] = levels[level_row[One ? 0 : i] + reached[i]];
}

template <bool One, typename T>
void apply(const Operation &op, T *x, T *other, const T *a, const T *b, const T *c, int64_t at, int64_t n) {
  const T low = static_cast<T>(op.low), high = static_cast<T>(op.high);
  switch (op.kind) {
    case kScale: return scale<One>(op.flag, x, a, b, n);
    case kJoin:
      load(op.data, op.data_type, at, other, n);
      return join<One>(op.flag, x, other, a, b, n);
    case kProduct:
      load(op.data, op.data_type, at, other, n);
      for (int64_t i = 0; i < n; ++i) x[i] *= other[i];
      return;
    case kRound: return round_lanes<One>(op, x, a, b, c, n);
    case kClamp:
      for (int64_t i = 0; i < n; ++i) x[i] = std::min(std::max(x[i], low), high);
      return;
    case kZeroOutside:
      for (int64_t i = 0; i < n; ++i) x[i] = (x[i] < low || x[i] > high) ? T(0) : x[i];
      return;
    case kWrap:
      for (int64_t i = 0; i < n; ++i) x[i] = ((x[i] + low) & high) - low;
      return;
    case kTable: {
      const T *table = static_cast<const T *>(op.data);
      for (int64_t i = 0; i < n; ++i) x[i] = table[a[One ? 0 : i] + x[i]];
      return;
    }
    case kCount: return count<One>(op, x, other, a, b, n);
  }
}

struct Job {
  const Operation *ops;
  int32_t count;
  const void *in;
  void *out;
  int32_t in_type, out_type;
  int64_t rows, channels, inner; // elements = rows * channels * inner
};

template <typename T> const T *lanes(const void *p, int64_t at) { return p ? static_cast<const T *>(p) + at : nullptr; }

template <typename T> struct Rows {
  std::vector<T> a, b, c;
};

template <typename T> void tile(const void *from, std::vector<T> &to, int64_t channels, int64_t length) {
  if (!from) return;
  to.resize(length);
  for (int64_t i = 0; i < length; i += channels) std::copy_n(static_cast<const T *>(from), channels, to.data() + i);
}

template <typename T> void run_tiled(const Job &job, int threads) {
  const int64_t block = job.channels * std::max<int64_t>(1, kBlock / job.channels);
  const int64_t total = job.rows * job.channels, blocks = (total + block - 1) / block;
#pragma omp parallel num_threads(threads)
  {
    std::vector<T> x(block), other(block);
    std::vector<Rows<T>> rows(job.count);
    for (int32_t o = 0; o < job.count; ++o) {
      tile(job.ops[o].a, rows[o].a, job.channels, block);
      tile(job.ops[o].b, rows[o].b, job.channels, block);
      tile(job.ops[o].c, rows[o].c, job.channels, block);
    }
#pragma omp for schedule(static)
    for (int64_t i = 0; i < blocks; ++i) {
      const int64_t at = i * block, n = std::min(block, total - at);
      load(job.in, job.in_type, at, x.data(), n);
      for (int32_t o = 0; o < job.count; ++o)
        apply<false>(job.ops[o], x.data(), other.data(), rows[o].a.data(), rows[o].b.data(), rows[o].c.data(), at, n);
      store(x.data(), job.out, job.out_type, at, n);
    }
  }
}

template <typename T> void run_by_channel(const Job &job, int threads) {
  const int64_t parts = (job.inner + kBlock - 1) / kBlock, runs = job.rows * job.channels;
#pragma omp parallel num_threads(threads)
  {
    std::vector<T> x(kBlock), other(kBlock);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < runs * parts; ++i) {
      const int64_t run = i / parts, start = (i % parts) * kBlock, channel = run % job.channels;
      const int64_t at = run * job.inner + start, n = std::min(kBlock, job.inner - start);
      load(job.in, job.in_type, at, x.data(), n);
      for (int32_t o = 0; o < job.count; ++o) {
        const Operation &op = job.ops[o];
        apply<true>(op, x.data(), other.data(), lanes<T>(op.a, channel), lanes<T>(op.b, channel),
                    lanes<T>(op.c, channel), at, n);
      }
      store(x.data(), job.out, job.out_type, at, n);
    }
  }
}

template <typename T> void run(const Job &job, int threads) {
  if (job.inner == 1) run_tiled<T>(job, threads);
  else run_by_channel<T>(job, threads);
}

} // namespace

extern "C" void qhw_elementwise(const Job *job, int32_t lane_bits, int32_t threads) {
  if (lane_bits == 32) run<int32_t>(*job, threads);
  else run<int64_t>(*job, threads);
}
