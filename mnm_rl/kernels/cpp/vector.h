// Vectors of numbers, and tanh and the logistic function on them.
//
// Lanes: W numbers of type S (float or double) in one vector of 32 bytes, or of 64 where the processor does a
// whole one of these at a time. GCC and Clang vector extensions, so that the compiler picks the instructions of the
// machine at hand.
#pragma once

#if defined(__AVX512VL__)
#include <immintrin.h>
#endif

#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace mnm {

// Of the processors with AVX-512, those that have AVX-VNNI as well (AMD's Zen 5, Intel's from Sapphire Rapids on) do 64
// bytes at a time; Zen 4 does halves, and earlier ones of Intel lower their clock.
#if defined(__AVX512VL__) && defined(__AVXVNNI__)
constexpr int kVectorBytes = 64;
#else
constexpr int kVectorBytes = 32;
#endif

template <typename S>
struct VectorOf {
  typedef S type __attribute__((vector_size(kVectorBytes)));
};
template <typename S>
using Vec = typename VectorOf<S>::type;

template <typename S>
constexpr int64_t kLanes = kVectorBytes / sizeof(S);

// Ask for huge pages for a large stretch of memory: a step walks through all of a block's memories, which in
// small pages costs more than a tenth of the time.
inline void prefer_huge_pages([[maybe_unused]] void* at, [[maybe_unused]] size_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t kPage = 4096;
  if (bytes < (size_t(1) << 21)) return;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(at) + kPage - 1) / kPage * kPage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(at) + bytes) / kPage * kPage;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// Standard vectors that start at a cache line, or at a huge page if they are large.
template <typename S>
struct LineAllocator {
  using value_type = S;
  static constexpr size_t kHuge = size_t(1) << 21;
  static std::align_val_t alignment(size_t bytes) { return std::align_val_t(bytes >= kHuge ? kHuge : 64); }
  LineAllocator() = default;
  template <typename Other>
  LineAllocator(const LineAllocator<Other>&) {}
  S* allocate(size_t count) {
    const size_t bytes = count * sizeof(S);
    void* at = ::operator new(bytes, alignment(bytes));
    prefer_huge_pages(at, bytes);
    return static_cast<S*>(at);
  }
  void deallocate(S* at, size_t count) { ::operator delete(at, alignment(count * sizeof(S))); }
  bool operator==(const LineAllocator&) const { return true; }
  bool operator!=(const LineAllocator&) const { return false; }
};
template <typename S>
using Buffer = std::vector<S, LineAllocator<S>>;

// The least multiple of the lane count that holds `count` numbers.
template <typename S>
constexpr int64_t padded(int64_t count) {
  return (count + kLanes<S> - 1) / kLanes<S> * kLanes<S>;
}

template <typename S>
inline Vec<S> load(const S* from) {
  Vec<S> v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}

template <typename S>
inline void store(S* to, Vec<S> v) {
  std::memcpy(to, &v, sizeof(v));
}

// Vectors of half as many numbers.
template <typename S>
struct HalfOf {
  typedef S type __attribute__((vector_size(kVectorBytes / 2)));
};
template <typename S>
using HalfVec = typename HalfOf<S>::type;

// The first `count` < W numbers of a vector, the others zero: by a mask where there are such, else half of them,
// which rows of 100 floats have left, in one instruction.
template <typename S>
inline Vec<S> load_first(const S* from, int64_t count) {
#if defined(__AVX512VL__)
  const uint32_t mask = (uint32_t(1) << count) - 1;
  Vec<S> v;
  if constexpr (kLanes<S> == 16)
    v = (Vec<S>)_mm512_maskz_loadu_ps(mask, from);
  else if constexpr (kLanes<S> == 4)
    v = (Vec<S>)_mm256_maskz_loadu_pd(mask, from);
  else if constexpr (sizeof(S) == 8)
    v = (Vec<S>)_mm512_maskz_loadu_pd(mask, from);
  else
    v = (Vec<S>)_mm256_maskz_loadu_ps(mask, from);
  return v;
#else
  if (count == kLanes<S> / 2) {
    HalfVec<S> half;
    std::memcpy(&half, from, sizeof(half));
    if constexpr (kLanes<S> == 8)
      return __builtin_shufflevector(half, HalfVec<S>{}, 0, 1, 2, 3, 4, 5, 6, 7);
    else
      return __builtin_shufflevector(half, HalfVec<S>{}, 0, 1, 2, 3);
  }
  S lanes[kLanes<S>] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = from[i];
  return load(lanes);
#endif
}

template <typename S>
inline void store_first(S* to, Vec<S> v, int64_t count) {
#if defined(__AVX512VL__)
  const uint32_t mask = (uint32_t(1) << count) - 1;
  if constexpr (kLanes<S> == 16)
    _mm512_mask_storeu_ps(to, mask, (__m512)v);
  else if constexpr (kLanes<S> == 4)
    _mm256_mask_storeu_pd(to, mask, (__m256d)v);
  else if constexpr (sizeof(S) == 8)
    _mm512_mask_storeu_pd(to, mask, (__m512d)v);
  else
    _mm256_mask_storeu_ps(to, mask, (__m256)v);
#else
  if (count == kLanes<S> / 2) {
    std::memcpy(to, &v, sizeof(v) / 2);
    return;
  }
  for (int64_t i = 0; i < count; ++i) to[i] = v[i];
#endif
}

template <typename S>
inline Vec<S> broadcast(S value) {
  return value - Vec<S>{};
}

// x limited to [least, most]; not a number stays so.
inline Vec<float> limit(Vec<float> x, float least, float most) {
  const Vec<float> low = broadcast(least), high = broadcast(most);
  x = high < x ? high : x;
  return low > x ? low : x;
}

inline Vec<float> limit(Vec<float> x, float bound) { return limit(x, -bound, bound); }

// tanh within 4e-7, and within 5e-7 of itself: x P(x^2) / Q(x^2), minimax in relative error on [0, 8.3]. From
// there on it rises above 1, where it is cut off: by 9 surely, so that all x whose tanh rounds to 1 (from
// 9.0109) give exactly 1, and 1 - tanh^2 exactly 0, by which gradients are multiplied.
inline Vec<float> tanh(Vec<float> x) {
  x = limit(x, 9.0f);
  const Vec<float> s = x * x;
  Vec<float> p = s * 1.464826084e-08f + 2.150849662e-05f;
  p = p * s + 3.549169204e-03f;
  p = p * s + 1.342587052e-01f;
  p = p * s + 9.999999907e-01f;
  Vec<float> q = s * 8.295109078e-07f + 3.373950544e-04f;
  q = q * s + 2.607994993e-02f;
  q = q * s + 4.675919535e-01f;
  q = q * s + 1.0f;
  return limit(x * p / q, 1.0f);
}

// e^x for x in [-87, 88.37], within 5e-7 of itself: 2^n e^r with |r| <= log(2) / 2, Taylor's series for e^r.
// Below it is e^-87; above, where n is 128, infinite.
inline Vec<float> exponential(Vec<float> x) {
  typedef uint32_t Integers __attribute__((vector_size(kVectorBytes)));  // may overflow, for not a number
  x = limit(x, -87.0f, 88.5f);
  // Adding 1.5 * 2^23 rounds to a whole number, which then stands in the lowest bits.
  const Vec<float> rounder = broadcast(12582912.0f);
  const Vec<float> shifted = x * 1.44269504f + rounder;
  const Vec<float> n = shifted - rounder;
  const Vec<float> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec<float> p = r * (1.0f / 5040.0f) + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  Integers power;
  std::memcpy(&power, &shifted, sizeof(power));
  power = (power + 127) << 23;
  Vec<float> scale;
  std::memcpy(&scale, &power, sizeof(scale));
  return p * scale;
}

// 1 / (1 + e^{-x}), in [0, 1], within 5e-7 of itself where x > -87, and within 1e-37 below; exactly 1 from 16.7
// on (float32 rounds to 1 from 17.3 on), exactly 0 below -88.4.
inline Vec<float> logistic(Vec<float> x) { return 1.0f / (1.0f + exponential(-x)); }

inline Vec<double> exponential(Vec<double> x) {
  for (int64_t i = 0; i < kLanes<double>; ++i) x[i] = std::exp(x[i]);
  return x;
}

inline Vec<double> tanh(Vec<double> x) {
  for (int64_t i = 0; i < kLanes<double>; ++i) x[i] = std::tanh(x[i]);
  return x;
}

inline Vec<double> logistic(Vec<double> x) {
  for (int64_t i = 0; i < kLanes<double>; ++i) x[i] = 1.0 / (1.0 + std::exp(-x[i]));
  return x;
}

// Copy a short row; the standard copy's set-up costs more than the row.
template <typename S>
inline void copy_row(const S* from, int64_t count, S* to) {
  int64_t i = 0;
  for (; i + kLanes<S> <= count; i += kLanes<S>) store(to + i, load(from + i));
  if (i < count) store_first(to + i, load_first(from + i, count - i), count - i);
}

// values[i] = function(values[i] + shift[i]); shift may be null.
template <typename S, typename Function>
inline void apply(S* values, const S* shift, int64_t count, Function function) {
  int64_t i = 0;
  for (; i + kLanes<S> <= count; i += kLanes<S>) {
    Vec<S> v = load(values + i);
    if (shift) v += load(shift + i);
    store(values + i, function(v));
  }
  if (i == count) return;
  Vec<S> v = load_first(values + i, count - i);
  if (shift) v += load_first(shift + i, count - i);
  store_first(values + i, function(v), count - i);
}

template <typename S>
inline void apply_tanh(S* values, const S* shift, int64_t count) {
  apply(values, shift, count, [](Vec<S> v) { return tanh(v); });
}

template <typename S>
inline void apply_logistic(S* values, const S* shift, int64_t count) {
  apply(values, shift, count, [](Vec<S> v) { return logistic(v); });
}

// Sum of the products of two vectors of `count` numbers, a multiple of the lane count.
template <typename S>
inline S dot(const S* a, const S* b, int64_t count) {
  Vec<S> total = {};
  for (int64_t i = 0; i < count; i += kLanes<S>) total += load(a + i) * load(b + i);
  S sum = 0;
  for (int64_t i = 0; i < kLanes<S>; ++i) sum += total[i];
  return sum;
}

// y += scale * x.
template <typename S>
inline void add_scaled(S* y, const S* x, S scale, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] += scale * x[i];
}

}  // namespace mnm
