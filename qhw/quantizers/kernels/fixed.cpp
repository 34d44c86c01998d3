// Quantisation to fixed point, minifloats and listed numbers, forward and backward, in one pass over memory each.
//
// eager.py is the definition: the same operations on the same elements in the same order, so that both give
// the same bits. Hence no fused multiply-add (-ffp-contract=off), and sums that are taken in blocks whose
// bounds depend on the tensor alone, never on the number of threads.
//
// A block of elements goes through short loops, one per step, that stay in the first-level cache and are
// vectorised; every choice (rounding mode, overflow mode, activation) is made once per block.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t kBlock = 1024;              // BLOCK of problem.py
constexpr int64_t kLanes = 16;                // LANES
constexpr int64_t kInterleavedChunk = 16384;  // INTERLEAVED_CHUNK

enum Rounding { RND, RND_ZERO, RND_MIN_INF, RND_INF, RND_CONV, TRN, TRN_ZERO, CEIL, UP };
enum Overflow { SAT, SAT_ZERO, WRAP, WRAP_SM };
enum Grid { INTEGERS, FLOATS, LISTED };

}  // namespace

// One quantisation; the same structure as _Call of compiled.py.
struct Call {
  const void* x;
  const void* other;     // added to x, or null
  const double* gain;    // per channel, or null
  const double* offset;  // per channel, with gain
  const double* inverse_scale;
  const double* scale;
  int64_t outer, channels, inner;
  double slope, cap;       // of the activation
  double low, high;        // mantissa bounds
  double modulus, bottom;  // of wrapping: 2^width and the lowest mantissa
  double normal, gap;    // of FLOATS: the smallest normal number, and the gap below it
  const double* table;   // of LISTED: what numbers round to, from table_low on in quarters
  double table_low;
  int32_t rounding, overflow;
  int32_t passes, threads;
  int32_t grid;
  int32_t divides;  // by the scale, which is no power of two: its inverse would round
};

namespace {

// Constants of a block: one number for all its elements, or (interleaved channels) one per element.
template <class T, bool PerElement>
struct Constants {
  const T *gain, *offset, *inverse_scale, *scale, *constant, *slope;
  static T at(const T* values, int64_t i) { return values[PerElement ? i : 0]; }
};

// The steps' results for one block.
template <class T>
struct Buffers {
  std::vector<T> value, scaled, rounded, passed, derivative, gap;
  explicit Buffers(int64_t n) : value(n), scaled(n), rounded(n), passed(n), derivative(n), gap(n) {}
};

template <class T>
void activate(T* v, int64_t n, T slope, T cap) {
  if (slope == T(0))
    for (int64_t i = 0; i < n; ++i) v[i] = v[i] > T(0) ? v[i] : (v[i] == v[i] ? T(0) : v[i]);
  else if (slope != T(1))
    for (int64_t i = 0; i < n; ++i) v[i] = v[i] > T(0) ? v[i] : v[i] * slope;
  if (!std::isinf(cap))
    for (int64_t i = 0; i < n; ++i) v[i] = v[i] > cap ? cap : v[i];
}

// To nearest; a tie is settled by `tie_up` (away from zero where it says so).
template <class T, class TieUp>
void round_nearest(const T* x, T* r, int64_t n, TieUp tie_up) {
  for (int64_t i = 0; i < n; ++i) {
    const T magnitude = std::fabs(x[i]);
    const T floor = std::floor(magnitude);
    const T rest = magnitude - floor;
    const T up = rest > T(0.5) ? T(1) : (rest == T(0.5) && tie_up(x[i])) ? T(1) : T(0);
    r[i] = std::copysign(floor + up, x[i]);
  }
}

template <class T>
void round_block(const T* x, T* r, int64_t n, int mode) {
  switch (mode) {
    case RND_CONV:
      for (int64_t i = 0; i < n; ++i) r[i] = std::nearbyint(x[i]);
      break;
    case TRN:
      for (int64_t i = 0; i < n; ++i) r[i] = std::floor(x[i]);
      break;
    case TRN_ZERO:
      for (int64_t i = 0; i < n; ++i) r[i] = std::trunc(x[i]);
      break;
    case CEIL:
      for (int64_t i = 0; i < n; ++i) r[i] = std::ceil(x[i]);
      break;
    case UP:
      for (int64_t i = 0; i < n; ++i) r[i] = std::copysign(std::ceil(std::fabs(x[i])), x[i]);
      break;
    case RND:
      round_nearest(x, r, n, [](T v) { return v > T(0); });
      break;
    case RND_ZERO:
      round_nearest(x, r, n, [](T) { return false; });
      break;
    case RND_MIN_INF:
      round_nearest(x, r, n, [](T v) { return v < T(0); });
      break;
    case RND_INF:
      round_nearest(x, r, n, [](T) { return true; });
      break;
  }
}

template <class T>
struct Bits;
template <>
struct Bits<float> {
  typedef uint32_t type;
  static constexpr type exponent = 0x7F800000u;
};
template <>
struct Bits<double> {
  typedef uint64_t type;
  static constexpr type exponent = 0x7FFull << 52;
};

// The distance between neighbours of a minifloat around x: from the bits of its exponent.
template <class T>
T gap_of(T x, T normal, T inverse_normal, T gap) {
  typename Bits<T>::type bits;
  std::memcpy(&bits, &x, sizeof(T));
  bits &= Bits<T>::exponent;
  T power;
  std::memcpy(&power, &bits, sizeof(T));
  const T above = power * inverse_normal;
  return power < normal ? gap : above;
}

template <class T>
T confined(T x, T low, T high) {
  x = x > high ? high : x;
  return x < low ? low : x;
}

// To a minifloat: to a multiple of the gap at hand, which is a power of two.
template <class T>
void round_floats(const Call& c, const T* x, T* r, T* gap, int64_t n) {
  const T low = T(4 * c.low), high = T(4 * c.high), normal = T(c.normal), least = T(c.gap);
  const T inverse_normal = T(1) / normal;
  for (int64_t i = 0; i < n; ++i) {
    const T within = confined(x[i], low, high);
    gap[i] = gap_of(within, normal, inverse_normal, least);
    r[i] = within * (T(1) / gap[i]);
  }
  round_block(r, r, n, c.rounding);
  for (int64_t i = 0; i < n; ++i) r[i] *= gap[i];
}

// To a number of a list, which depends on floor(2 x) and on whether 2 x is whole.
template <class T>
void round_listed(const Call& c, const T* x, T* r, int64_t n) {
  const T low = T(c.low), high = T(c.high), start = T(2 * c.table_low);
  for (int64_t i = 0; i < n; ++i) {
    T within = x[i] > high + T(1) ? high + T(1) : x[i];
    within = within >= low - T(1) ? within : low - T(1);
    const T twice = within * T(2), whole = std::floor(twice);
    const T found = T(c.table[int32_t(T(2) * (whole - start)) + int32_t(whole != twice)]);
    const bool beyond = (x[i] > high + T(0.5)) | (x[i] < low - T(0.5)) | (x[i] != x[i]);
    r[i] = beyond ? x[i] : found;
  }
}

template <class T>
T wrapped(T r, T modulus, T bottom) {
  T w = r - std::floor((r - bottom) / modulus) * modulus;
  w = w >= bottom + modulus ? w - modulus : w;
  return w < bottom ? w + modulus : w;
}

template <class T>
void overflow_block(const T* x, const T* r, T* m, int64_t n, const Call& c) {
  const T low = T(c.low), high = T(c.high), modulus = T(c.modulus), bottom = T(c.bottom);
  switch (c.overflow) {
    case SAT:
      for (int64_t i = 0; i < n; ++i) {
        const T v = r[i] > high ? high : r[i];
        m[i] = v < low ? low : v;
      }
      break;
    case SAT_ZERO:
      for (int64_t i = 0; i < n; ++i) m[i] = (r[i] < low || r[i] > high) ? T(0) : r[i];
      break;
    case WRAP:
      for (int64_t i = 0; i < n; ++i) m[i] = wrapped(r[i], modulus, bottom);
      break;
    case WRAP_SM:
      for (int64_t i = 0; i < n; ++i) {
        const T w = wrapped(r[i], modulus, bottom);
        const T turns = std::floor(std::floor(x[i]) / modulus);
        const bool above_sign = turns - T(2) * std::floor(turns / T(2)) == T(1);
        const bool reflected = w != r[i] && above_sign != (w < T(0));
        m[i] = reflected ? T(-1) - w : w;
      }
      break;
  }
}

// The first steps: what is to be quantised, activated in units of the last place, and that rounded.
template <class T, bool V>
void steps(const Call& c, const Constants<T, V>& k, int64_t start, int64_t n, Buffers<T>& b) {
  using K = Constants<T, V>;
  const T* x = static_cast<const T*>(c.x) + start;
  T *__restrict value = b.value.data(), *__restrict scaled = b.scaled.data();
  if (c.other) {
    const T* other = static_cast<const T*>(c.other) + start;
    for (int64_t i = 0; i < n; ++i) value[i] = x[i] + other[i];
  } else if (c.gain) {
    for (int64_t i = 0; i < n; ++i) value[i] = x[i] * K::at(k.gain, i) + K::at(k.offset, i);
  } else {
    std::copy(x, x + n, value);
  }
  std::copy(value, value + n, scaled);
  activate(scaled, n, T(c.slope), T(c.cap));
  if (c.divides)
    for (int64_t i = 0; i < n; ++i) scaled[i] = scaled[i] / K::at(k.scale, i) + T(0);
  else
    for (int64_t i = 0; i < n; ++i) scaled[i] = scaled[i] * K::at(k.inverse_scale, i) + T(0);
  switch (c.grid) {
    case INTEGERS:
      round_block(scaled, b.rounded.data(), n, c.rounding);
      break;
    case FLOATS:
      round_floats(c, scaled, b.rounded.data(), b.gap.data(), n);
      break;
    case LISTED:
      round_listed(c, scaled, b.rounded.data(), n);
      break;
  }
}

// The gradient of what was quantised, and dy/ds.
template <class T>
void gradients(const Call& c, const T* grad, int64_t n, Buffers<T>& b, T* __restrict passed) {
  const T low = T(c.low), high = T(c.high), slope = T(c.slope), cap = T(c.cap);
  const T *value = b.value.data(), *scaled = b.scaled.data(), *rounded = b.rounded.data();
  T* __restrict derivative = b.derivative.data();
  const bool passes = c.passes;
  for (int64_t i = 0; i < n; ++i) {
    const bool inside = rounded[i] >= low && rounded[i] <= high;
    passed[i] = passes || inside ? grad[i] : T(0);
    const T bound = rounded[i] < low ? low : high;
    derivative[i] = inside ? rounded[i] - scaled[i] : bound;
  }
  if (slope == T(0))
    for (int64_t i = 0; i < n; ++i) passed[i] = value[i] > T(0) ? passed[i] : T(0);
  else if (slope != T(1))
    for (int64_t i = 0; i < n; ++i) passed[i] = value[i] > T(0) ? passed[i] : passed[i] * slope;
  if (!std::isinf(cap))
    for (int64_t i = 0; i < n; ++i) passed[i] = value[i] >= cap ? T(0) : passed[i];
}

// The staged form of a block, for every mode.
template <class T, bool V>
struct Staged {
  static void forward(const Call& c, const Constants<T, V>& k, int64_t start, int64_t n, Buffers<T>& b,
                      T* y) {
    steps(c, k, start, n, b);
    overflow_block(b.scaled.data(), b.rounded.data(), b.value.data(), n, c);
    const T* mantissa = b.value.data();
    for (int64_t i = 0; i < n; ++i) y[i] = mantissa[i] * Constants<T, V>::at(k.scale, i);
  }
  // Leaves dy/ds in b.derivative.
  static void gradients(const Call& c, const Constants<T, V>& k, int64_t start, int64_t n, Buffers<T>& b,
                        const T* grad, T* passed) {
    steps(c, k, start, n, b);
    ::gradients(c, grad, n, b, passed);
  }
};

enum Operand { PLAIN, SUM, AFFINE };

// The same in one loop, for what nearly every network uses: convergent rounding, saturation, and a ReLU or
// nothing before it.
template <class T, bool V, int kOperand, bool kRelu, bool kFloats, bool kDivides>
struct Fused {
  using K = Constants<T, V>;

  // What rounding needs beside the number.
  struct Grid {
    T low, high, normal, inverse_normal, gap;
    explicit Grid(const Call& c)
        : low(T(4 * c.low)), high(T(4 * c.high)), normal(T(c.normal)), inverse_normal(T(1) / normal),
          gap(T(c.gap)) {}
    T round(T scaled) const {
      if (!kFloats) return std::nearbyint(scaled);
      const T within = confined(scaled, low, high);
      const T q = gap_of(within, normal, inverse_normal, gap);
      return std::nearbyint(within * (T(1) / q)) * q;
    }
  };

  static T value(const K& k, const T* x, const T* other, int64_t i) {
    if (kOperand == SUM) return x[i] + other[i];
    if (kOperand == AFFINE) return x[i] * K::at(k.gain, i) + K::at(k.offset, i);
    return x[i];
  }
  static T in_units(const K& k, T v, int64_t i) {
    return (kDivides ? v / K::at(k.scale, i) : v * K::at(k.inverse_scale, i)) + T(0);
  }
  static T activated(T v) {
    if (!kRelu) return v;
    const T positive = v > T(0) ? v : T(0);
    return v == v ? positive : v;
  }

  static void forward(const Call& c, const K& k, int64_t start, int64_t n, Buffers<T>&,
                      T* __restrict y) {
    const T *x = static_cast<const T*>(c.x) + start, *other = static_cast<const T*>(c.other);
    const T low = T(c.low), high = T(c.high);
    if (kOperand == SUM) other += start;
    const Grid grid(c);
    for (int64_t i = 0; i < n; ++i) {
      const T v = activated(value(k, x, other, i));
      T r = grid.round(in_units(k, v, i));
      r = r > high ? high : r;
      r = r < low ? low : r;
      y[i] = r * K::at(k.scale, i);
    }
  }

  static void gradients(const Call& c, const K& k, int64_t start, int64_t n, Buffers<T>& b, const T* grad,
                        T* __restrict passed) {
    const T *x = static_cast<const T*>(c.x) + start, *other = static_cast<const T*>(c.other);
    const T low = T(c.low), high = T(c.high);
    T* __restrict derivative = b.derivative.data();
    const bool passes = c.passes;
    if (kOperand == SUM) other += start;
    const Grid grid(c);
    for (int64_t i = 0; i < n; ++i) {
      const T v = value(k, x, other, i);
      const T scaled = in_units(k, activated(v), i);
      const T rounded = grid.round(scaled);
      const bool inside = (rounded >= low) & (rounded <= high);
      // Both choices are of loaded numbers, one after the other: the form that g++ vectorises.
      const T g = grad[i];
      const T kept = (passes | inside) ? g : T(0);
      passed[i] = kRelu ? (v > T(0) ? kept : T(0)) : kept;
      const T bound = rounded < low ? low : high;
      derivative[i] = inside ? rounded - scaled : bound;
    }
  }
};

template <class T, bool V>
struct Blocks {
  void (*forward)(const Call&, const Constants<T, V>&, int64_t, int64_t, Buffers<T>&, T*);
  void (*gradients)(const Call&, const Constants<T, V>&, int64_t, int64_t, Buffers<T>&, const T*, T*);

  template <class Form>
  static Blocks of() {
    return {Form::forward, Form::gradients};
  }
  explicit Blocks(const Call& c) : Blocks(choose(c)) {}

 private:
  Blocks(decltype(forward) f, decltype(gradients) g) : forward(f), gradients(g) {}

  static Blocks choose(const Call& c) {
    const bool relu = c.slope == 0, plain = c.slope == 1;
    if (c.rounding != RND_CONV || c.overflow != SAT || !std::isinf(c.cap) || !(relu || plain) ||
        c.grid == LISTED)
      return of<Staged<T, V>>();
    if (c.divides) return c.grid == FLOATS ? fused<true, true>(c, relu) : fused<false, true>(c, relu);
    return c.grid == FLOATS ? fused<true, false>(c, relu) : fused<false, false>(c, relu);
  }
  template <bool F, bool D>
  static Blocks fused(const Call& c, bool relu) {
    if (c.other) return relu ? of<Fused<T, V, SUM, true, F, D>>() : of<Fused<T, V, SUM, false, F, D>>();
    if (c.gain) return relu ? of<Fused<T, V, AFFINE, true, F, D>>() : of<Fused<T, V, AFFINE, false, F, D>>();
    return relu ? of<Fused<T, V, PLAIN, true, F, D>>() : of<Fused<T, V, PLAIN, false, F, D>>();
  }
};

// How a tensor is cut: into units that are summed in one go, and units into blocks.
struct Cut {
  int64_t units, unit, block;  // elements of a unit and of a block
  int64_t size, channels, inner, units_per_row;
  bool interleaved;

  Cut(int64_t outer, int64_t channels_, int64_t inner_)
      : size(outer * channels_ * inner_), channels(channels_), inner(inner_),
        interleaved(inner_ == 1 && channels_ > 1) {
    if (interleaved) {
      unit = std::max<int64_t>(1, kInterleavedChunk / channels) * channels;
      block = std::max<int64_t>(1, kBlock / channels) * channels;
      units_per_row = (size + unit - 1) / unit;
      units = units_per_row;
    } else {
      unit = block = kBlock;
      units_per_row = (inner + unit - 1) / unit;
      units = outer * channels * units_per_row;
    }
  }
  int64_t row(int64_t u) const { return interleaved ? 0 : u / units_per_row; }
  int64_t channel(int64_t u) const { return row(u) % channels; }
  int64_t start(int64_t u) const { return row(u) * inner + (u - row(u) * units_per_row) * unit; }
  int64_t end(int64_t u) const {
    return std::min(start(u) + unit, interleaved ? size : (row(u) + 1) * inner);
  }
  // Units that a thread takes at once; which thread takes them changes no result.
  int64_t share() const {
    const int64_t elements = interleaved ? unit : std::min(unit, std::max<int64_t>(inner, 1));
    return std::max<int64_t>(1, 16 * kBlock / elements);
  }
  // Sums of one unit: one number, or one per channel.
  int64_t sums() const { return interleaved ? channels : 1; }
};

// Constants of the whole tensor in its own type, repeated over a block where channels are interleaved.
template <class T>
struct Table {
  std::vector<T> values;
  Table(const double* source, const Cut& cut) {
    if (!source) return;
    const int64_t repeat = cut.interleaved ? cut.block / cut.channels : 1;
    for (int64_t r = 0; r < repeat; ++r)
      for (int64_t c = 0; c < cut.channels; ++c) values.push_back(T(source[c]));
  }
  const T* at(int64_t channel) const { return values.empty() ? nullptr : values.data() + channel; }
};

// Adds a row of terms to a unit's sums: lane by lane within a channel, or channel by channel.
template <class Term>
void add_terms(const Cut& cut, int64_t n, double* sums, Term term) {
  if (cut.interleaved) {
    for (int64_t row = 0; row < n; row += cut.channels)
      for (int64_t c = 0; c < cut.channels; ++c) sums[c] += term(row + c);
    return;
  }
  double lanes[kLanes] = {};
  const int64_t whole = n - n % kLanes;
  for (int64_t i = 0; i < whole; i += kLanes)
    for (int64_t l = 0; l < kLanes; ++l) lanes[l] += term(i + l);
  for (int64_t i = whole; i < n; ++i) lanes[i - whole] += term(i);
  double total = 0;
  for (int64_t l = 0; l < kLanes; ++l) total += lanes[l];
  *sums += total;
}

template <class T>
void add_sums(const Cut& cut, const T* a, int64_t n, double* sums) {
  add_terms(cut, n, sums, [a](int64_t i) { return double(a[i]); });
}

template <class T>
void add_products(const Cut& cut, const T* a, const T* b, int64_t n, double* sums) {
  add_terms(cut, n, sums, [a, b](int64_t i) { return double(a[i]) * double(b[i]); });
}

// Per channel, the sum over all units in their order.
void combine(const Cut& cut, const std::vector<double>& partial, int64_t kinds, double* result) {
  std::fill(result, result + kinds * cut.channels, 0.0);
  const int64_t width = cut.sums();
  for (int64_t u = 0; u < cut.units; ++u)
    for (int64_t kind = 0; kind < kinds; ++kind)
      for (int64_t i = 0; i < width; ++i)
        result[kind * cut.channels + cut.channel(u) + i] += partial[(u * kinds + kind) * width + i];
}

// Runs `work(constants, start, count, buffers, unit)` on every block, units in parallel.
template <class T, bool V, class Work>
void run(const Call& c, const Cut& cut, const double* constant, const double* slope, Work work) {
  const Table<T> gain(c.gain, cut), offset(c.offset, cut), inverse(c.inverse_scale, cut);
  const Table<T> scale(c.scale, cut), constants(constant, cut), slopes(slope, cut);
#pragma omp parallel num_threads(c.threads) if (c.threads > 1)
  {
    Buffers<T> buffers(cut.block);
#pragma omp for schedule(dynamic, cut.share())
    for (int64_t u = 0; u < cut.units; ++u) {
      const int64_t ch = cut.channel(u), end = cut.end(u);
      const Constants<T, V> k{gain.at(ch),  offset.at(ch),    inverse.at(ch),
                              scale.at(ch), constants.at(ch), slopes.at(ch)};
      for (int64_t start = cut.start(u); start < end; start += cut.block)
        work(k, start, std::min(cut.block, end - start), buffers, u);
    }
  }
}

template <class T, bool V>
void forward(const Call& c, T* y) {
  using K = Constants<T, V>;
  const Cut cut(c.outer, c.channels, c.inner);
  const Blocks<T, V> blocks(c);
  run<T, V>(c, cut, nullptr, nullptr, [&](const K& k, int64_t start, int64_t n, Buffers<T>& b, int64_t) {
    blocks.forward(c, k, start, n, b, y + start);
  });
}

template <class T, bool V>
void backward(const Call& c, const T* grad, T* dx, double* sums) {
  using K = Constants<T, V>;
  const Cut cut(c.outer, c.channels, c.inner);
  const Blocks<T, V> blocks(c);
  std::vector<double> partial(cut.units * cut.sums());
  run<T, V>(c, cut, nullptr, nullptr, [&](const K& k, int64_t start, int64_t n, Buffers<T>& b, int64_t u) {
    blocks.gradients(c, k, start, n, b, grad + start, dx + start);
    add_products(cut, grad + start, b.derivative.data(), n, &partial[u * cut.sums()]);
  });
  combine(cut, partial, 1, sums);
}

template <class T, bool V>
void affine_sums(const Call& c, const T* grad, double* sums) {
  using K = Constants<T, V>;
  const Cut cut(c.outer, c.channels, c.inner);
  const Blocks<T, V> blocks(c);
  const int64_t width = cut.sums();
  std::vector<double> partial(cut.units * 3 * width);
  run<T, V>(c, cut, nullptr, nullptr, [&](const K& k, int64_t start, int64_t n, Buffers<T>& b, int64_t u) {
    T* passed = b.passed.data();
    blocks.gradients(c, k, start, n, b, grad + start, passed);
    double* unit = &partial[u * 3 * width];
    add_sums(cut, passed, n, unit);
    add_products(cut, passed, static_cast<const T*>(c.x) + start, n, unit + width);
    add_products(cut, grad + start, b.derivative.data(), n, unit + 2 * width);
  });
  combine(cut, partial, 3, sums);
}

template <class T, bool V>
void affine_backward(const Call& c, const T* grad, const double* constant, const double* slope, T* dx) {
  using K = Constants<T, V>;
  const Cut cut(c.outer, c.channels, c.inner);
  const Blocks<T, V> blocks(c);
  run<T, V>(c, cut, constant, slope, [&](const K& k, int64_t start, int64_t n, Buffers<T>& b, int64_t) {
    T* passed = b.passed.data();
    blocks.gradients(c, k, start, n, b, grad + start, passed);
    const T* x = static_cast<const T*>(c.x) + start;
    T* __restrict out = dx + start;
    for (int64_t i = 0; i < n; ++i) {
      const T statistics = x[i] * K::at(k.slope, i) + K::at(k.constant, i);
      out[i] = passed[i] * K::at(k.gain, i) + statistics;
    }
  });
}

template <class T>
void moments(const T* x, int64_t outer, int64_t channels, int64_t inner, int32_t threads, double* sums) {
  const Cut cut(outer, channels, inner);
  const int64_t width = cut.sums();
  std::vector<double> partial(cut.units * 2 * width);
#pragma omp parallel for schedule(dynamic, cut.share()) num_threads(threads) if (threads > 1)
  for (int64_t u = 0; u < cut.units; ++u) {
    const int64_t start = cut.start(u), n = cut.end(u) - start;
    double* unit = &partial[u * 2 * width];
    add_sums(cut, x + start, n, unit);
    add_products(cut, x + start, x + start, n, unit + width);
  }
  combine(cut, partial, 2, sums);
}

bool interleaved(const Call& c) { return c.inner == 1 && c.channels > 1; }

}  // namespace

#define QHW_KERNELS(T, NAME)                                                                          \
  extern "C" void qhw_forward_##NAME(const Call* c, T* y) {                                           \
    interleaved(*c) ? forward<T, true>(*c, y) : forward<T, false>(*c, y);                             \
  }                                                                                                   \
  extern "C" void qhw_backward_##NAME(const Call* c, const T* grad, T* dx, double* sums) {            \
    interleaved(*c) ? backward<T, true>(*c, grad, dx, sums) : backward<T, false>(*c, grad, dx, sums); \
  }                                                                                                   \
  extern "C" void qhw_affine_sums_##NAME(const Call* c, const T* grad, double* sums) {                \
    interleaved(*c) ? affine_sums<T, true>(*c, grad, sums) : affine_sums<T, false>(*c, grad, sums);   \
  }                                                                                                   \
  extern "C" void qhw_affine_backward_##NAME(const Call* c, const T* grad, const double* constant,    \
                                             const double* slope, T* dx) {                            \
    interleaved(*c) ? affine_backward<T, true>(*c, grad, constant, slope, dx)                         \
                    : affine_backward<T, false>(*c, grad, constant, slope, dx);                       \
  }                                                                                                   \
  extern "C" void qhw_moments_##NAME(const T* x, int64_t outer, int64_t channels, int64_t inner,      \
                                     int32_t threads, double* sums) {                                 \
    moments<T>(x, outer, channels, inner, threads, sums);                                             \
  }

QHW_KERNELS(float, float32)
QHW_KERNELS(double, float64)
