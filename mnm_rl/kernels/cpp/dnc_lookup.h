// Look-up by content in a memory of slots, with masks, and its backward pass, for one example
// (Graves et al. 2016; Csordas and Schmidhuber 2019, section 3.1).
//
// Dimensions: N slots, W size of a slot, R heads that look up at once.
#pragma once

#include "links.h"

#include <cmath>

namespace mnm {

constexpr double kSlotEpsilon = 1e-6;  // EPSILON of mnm_rl/memory/dnc.py

template <typename S>
inline S largest(const S* values, int64_t count) {
  S most = values[0];
  int64_t i = 0;
  if (count >= kLanes<S>) {
    Vec<S> lanes = load(values);
    for (i = kLanes<S>; i + kLanes<S> <= count; i += kLanes<S>) {
      const Vec<S> next = load(values + i);
      lanes = next > lanes ? next : lanes;
    }
    for (int64_t lane = 0; lane < kLanes<S>; ++lane) most = std::max(most, lanes[lane]);
  }
  for (; i < count; ++i) most = std::max(most, values[i]);
  return most;
}

template <typename S>
inline void apply_softmax(S* values, int64_t count) {
  const S most = largest(values, count);
  for (int64_t i = 0; i < count; ++i) values[i] -= most;
  apply<S>(values, nullptr, count, [](Vec<S> v) { return exponential(v); });
  Sum<S> sum;
  in_lanes<S>(count, [&](int64_t i, auto kind) { sum.add(fetch<decltype(kind)>(values + i)); });
  const S total = sum.total();
  for (int64_t i = 0; i < count; ++i) values[i] /= total;
}

// Numbers that are carved off one buffer, one after the other.
template <typename S>
class Carver {
 public:
  explicit Carver(S* begin) : next(begin) {}
  S* take(int64_t count) {
    S* const at = next;
    next += padded<S>(count);
    return at;
  }

 private:
  S* next;
};

template <typename S>
struct Lookup {
  static int64_t size(int64_t R, int64_t N, int64_t W) {
    return 3 * padded<S>(R * N) + 2 * padded<S>(R * W) + padded<S>(R);
  }
  Lookup(int64_t R, int64_t N, int64_t W, Carver<S>& carver)
      : R(R), N(N), W(W), weights(carver.take(R * N)), cosines(carver.take(R * N)),
        norms(carver.take(R * N)), weighted(carver.take(R * W)), mask_squares(carver.take(R * W)),
        key_norms(carver.take(R)) {}

  // Keys and masks [R, W], strengths [R], memory [N, W]; no masks for whole slots.
  void run(const S* keys, const S* masks, const S* strengths, const S* memory) {
    for (int64_t r = 0; r < R; ++r) {
      S sum = 0;
      for (int64_t k = r * W; k < (r + 1) * W; ++k) {
        mask_squares[k] = masks ? masks[k] * masks[k] : S(1);
        weighted[k] = keys[k] * mask_squares[k];
        sum += keys[k] * weighted[k];
      }
      key_norms[r] = std::sqrt(sum + S(kSlotEpsilon));
    }
    for (int64_t i = 0; i < N; ++i) {
      int64_t r = 0;
      for (; r + 4 <= R; r += 4) compare<4>(r, i, memory + i * W, masks);
      for (; r < R; ++r) compare<1>(r, i, memory + i * W, masks);
    }
    for (int64_t r = 0; r < R; ++r) {
      S *row = weights + r * N, *norm = norms + r * N, *cosine = cosines + r * N;
      const S key_norm = key_norms[r], strength = strengths[r];
      for (int64_t i = 0; i < N; ++i) {
        norm[i] = std::sqrt(norm[i] + S(kSlotEpsilon));
        cosine[i] /= norm[i] * key_norm + S(kSlotEpsilon);
        row[i] = strength * cosine[i];
      }
      apply_softmax(row, N);
    }
  }

  int64_t R, N, W;
  S *weights, *cosines, *norms;     // [R, N]
  S *weighted, *mask_squares;       // k m^2 and m^2, [R, W]
  S* key_norms;                     // [R]

 private:
  // Slot i with heads [r, r + H): products to `cosines` and squares to `norms`.
  template <int H>
  void compare(int64_t r, int64_t i, const S* slot, bool is_masked) {
    const S *key = weighted + r * W, *mask = mask_squares + r * W;
    Sum<S> product[H], square[H];
    if (is_masked) {
      in_lanes<S>(W, [&](int64_t k, auto kind) {
        using T = decltype(kind);
        const T value = fetch<T>(slot + k), squared = value * value;
#pragma GCC unroll 4
        for (int h = 0; h < H; ++h) {
          product[h].add(value * fetch<T>(key + h * W + k));
          square[h].add(squared * fetch<T>(mask + h * W + k));
        }
      });
      store_totals<H>(square, norms + r * N + i, N);
    } else {
      in_lanes<S>(W, [&](int64_t k, auto kind) {
        using T = decltype(kind);
        const T value = fetch<T>(slot + k);
        square[0].add(value * value);
#pragma GCC unroll 4
        for (int h = 0; h < H; ++h) product[h].add(value * fetch<T>(key + h * W + k));
      });
      const S norm = square[0].total();
#pragma GCC unroll 4
      for (int h = 0; h < H; ++h) norms[(r + h) * N + i] = norm;
    }
    store_totals<H>(product, cosines + r * N + i, N);
  }
};

// Gradients of a look-up: of the keys, masks and strengths, as those of `run`; that of the memory is added to.
template <typename S>
struct LookupGradients {
  S *keys, *masks, *strengths;
};

// `d_weights` [R, N] is overwritten; `scratch` has R (N + 2 W) numbers.
template <typename S>
void look_up_backward(
    const Lookup<S>& found, const S* keys, const S* masks, const S* strengths, const S* memory, S* d_weights,
    S* d_memory, const LookupGradients<S>& d, S* scratch) {
  const int64_t R = found.R, N = found.N, W = found.W;
  S *d_products = d_weights, *d_norms = scratch, *d_weighted = scratch + R * N, *d_squares = d_weighted + R * W;
  std::fill(d_weighted, d_weighted + 2 * R * W, S(0));
  std::vector<S> d_key_squares(R);
  for (int64_t r = 0; r < R; ++r) {
    const S *weights = found.weights + r * N, *cosines = found.cosines + r * N, *norms = found.norms + r * N;
    S *from = d_weights + r * N, *to_norm = d_norms + r * N;
    const S key_norm = found.key_norms[r], beta = strengths[r];
    Sum<S> weighted_sum, d_strength, d_key_norm;
    in_lanes<S>(N, [&](int64_t i, auto kind) {
      using T = decltype(kind);
      weighted_sum.add(fetch<T>(weights + i) * fetch<T>(from + i));
    });
    const S sum = weighted_sum.total();
    in_lanes<S>(N, [&](int64_t i, auto kind) {
      using T = decltype(kind);
      const T cosine = fetch<T>(cosines + i), norm = fetch<T>(norms + i);
      const T d_logit = fetch<T>(weights + i) * (fetch<T>(from + i) - sum);
      d_strength.add(d_logit * cosine);
      const T d_product = beta * d_logit / (norm * key_norm + S(kSlotEpsilon)), d_cosine = d_product * cosine;
      put(from + i, d_product);
      put(to_norm + i, -d_cosine * key_norm / (S(2) * norm));
      d_key_norm.add(d_cosine * norm);
    });
    d.strengths[r] = d_strength.total();
    d_key_squares[r] = -d_key_norm.total() / (2 * key_norm);
  }
  for (int64_t i = 0; i < N; ++i)  // all heads at a slot while it is at hand
    for (int64_t r = 0; r < R; ++r) {
      const S *slot = memory + i * W, to_product = d_products[r * N + i], to_square = d_norms[r * N + i];
      const S *weighted = found.weighted + r * W, *mask_squares = found.mask_squares + r * W;
      S *grown = d_memory + i * W, *d_key = d_weighted + r * W, *d_square = d_squares + r * W;
      in_lanes<S>(W, [&](int64_t k, auto kind) {
        using T = decltype(kind);
        const T value = fetch<T>(slot + k), scaled = to_square * value;
        put(d_key + k, fetch<T>(d_key + k) + to_product * value);
        put(d_square + k, fetch<T>(d_square + k) + scaled * value);
        const T more = to_product * fetch<T>(weighted + k) + S(2) * fetch<T>(mask_squares + k) * scaled;
        put(grown + k, fetch<T>(grown + k) + more);
      });
    }
  for (int64_t r = 0; r < R; ++r)
    for (int64_t k = r * W; k < (r + 1) * W; ++k) {
      const S key = keys[k], d_key_square = d_key_squares[r];
      d.keys[k] = found.mask_squares[k] * (d_weighted[k] + 2 * d_key_square * key);
      if (masks) d.masks[k] = 2 * masks[k] * (d_squares[k] + key * (d_weighted[k] + d_key_square * key));
    }
}

}  // namespace mnm
