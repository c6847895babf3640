// Sweeps over one example's tensor memory F [K, P] (Schlag, Munkhdalai and Schmidhuber 2021, section 3): a row of P
// numbers for each pair of a subject and a relation, K = d_s d_r rows; P is d_t up to the next whole vector, and what
// lies behind d_t is zero here and in all vectors of P numbers.
//
// The key of row (i, j) is s[i] r[j]. J is P in vectors of lanes, and a constant to the compiler.
#pragma once

#include "links.h"
#include "matrix.h"

namespace mnm {

struct FwmSizes {
  int64_t subjects, relations, targets, reads;
  int64_t rows() const { return subjects * relations; }
};

constexpr int kFwmMostVectors = 4;  // J at most
constexpr int kFwmRows = 4;         // so many rows at once

// work(row, i, j, count): groups of rows of one subject, `count` of them a constant.
template <typename Work>
inline void for_rows(const FwmSizes& z, Work work) {
  for (int64_t i = 0; i < z.subjects; ++i) {
    int64_t j = 0;
    for (; j + kFwmRows <= z.relations; j += kFwmRows)
      work(i * z.relations + j, i, j, std::integral_constant<int, kFwmRows>());
    for (; j < z.relations; ++j) work(i * z.relations + j, i, j, std::integral_constant<int, 1>());
  }
}

// P numbers in registers.
template <typename S, int J>
struct FwmRow {
  FwmRow() = default;
  explicit FwmRow(const S* from) {
#pragma GCC unroll 4
    for (int c = 0; c < J; ++c) part[c] = load(from + c * kLanes<S>);
  }
  void put(S* to) const {
#pragma GCC unroll 4
    for (int c = 0; c < J; ++c) store(to + c * kLanes<S>, part[c]);
  }
  void add(const FwmRow& other, S scale) {
#pragma GCC unroll 4
    for (int c = 0; c < J; ++c) part[c] += other.part[c] * scale;
  }
  void scale(S by) {
#pragma GCC unroll 4
    for (int c = 0; c < J; ++c) part[c] *= by;
  }
  // Products by lanes, of which the sum over lanes is the product.
  Vec<S> lanes_of_product(const FwmRow& other) const {
    Vec<S> sum = part[0] * other.part[0];
#pragma GCC unroll 4
    for (int c = 1; c < J; ++c) sum += part[c] * other.part[c];
    return sum;
  }
  Vec<S> part[J] = {};
};

// Sums of rows in several chains, so that one addition need not wait for the one before.
template <typename S, int J>
struct FwmSum {
  void put(S* to) const {
    FwmRow<S, J> sum = chains[0];
#pragma GCC unroll 4
    for (int q = 1; q < kFwmRows; ++q) sum.add(chains[q], S(1));
    sum.put(to);
  }
  FwmRow<S, J> chains[kFwmRows];
};

// From the gradients of keys s r[q], whose lanes are not summed yet: adds to those of s and r.
template <typename S, int kCount>
void add_key_gradients(const Vec<S> (&products)[kCount], S s, const S* r, S& d_s, S* d_r) {
  S d_key[kCount];
  if constexpr (kCount == 4)
    store_lane_sums<S>(d_key, products[0], products[1], products[2], products[3]);
  else
    d_key[0] = lane_sum<S>(products[0]);
#pragma GCC unroll 4
  for (int q = 0; q < kCount; ++q) {
    d_s += d_key[q] * r[q];
    d_r[q] += d_key[q] * s;
  }
}

// F(s, r), to `to` [P].
template <typename S, int J>
void look_up(const FwmSizes& z, const S* memory, const S* s, const S* r, S* to) {
  FwmSum<S, J> sum;
  for_rows(z, [&](int64_t row, int64_t i, int64_t j, auto count) {
#pragma GCC unroll 4
    for (int q = 0; q < count; ++q)
      sum.chains[q].add(FwmRow<S, J>(memory + (row + q) * J * kLanes<S>), s[i] * r[j + q]);
  });
  sum.put(to);
}

// F <- scale (F + s x r x u), from `before` to `after`, which may be the same; null is zeros. If there is a next key,
// F(next_s, next_r) of what has been written, to `to` [P].
template <typename S, int J>
void write(
    const FwmSizes& z, const S* before, S* after, const S* s, const S* r, const S* u, S scale, const S* next_s,
    const S* next_r, S* to) {
  const FwmRow<S, J> update(u);
  FwmSum<S, J> sum;
  for_rows(z, [&](int64_t row, int64_t i, int64_t j, auto count) {
#pragma GCC unroll 4
    for (int q = 0; q < count; ++q) {
      FwmRow<S, J> now;
      if (before) now = FwmRow<S, J>(before + (row + q) * J * kLanes<S>);
      now.add(update, s[i] * r[j + q]);
      now.scale(scale);
      now.put(after + (row + q) * J * kLanes<S>);
      if (next_s) sum.chains[q].add(now, next_s[i] * next_r[j + q]);
    }
  });
  if (next_s) sum.put(to);
}

// From the gradient of F(s, r) `d_found` [P]: adds to those of F [K, P], s and r.
template <typename S, int J>
void look_up_backward(
    const FwmSizes& z, const S* memory, const S* s, const S* r, const S* d_found, S* d_memory, S* d_s, S* d_r) {
  const FwmRow<S, J> incoming(d_found);
  for_rows(z, [&](int64_t row, int64_t i, int64_t j, auto count) {
    Vec<S> products[count];
#pragma GCC unroll 4
    for (int q = 0; q < count; ++q) {
      const int64_t at = (row + q) * J * kLanes<S>;
      products[q] = FwmRow<S, J>(memory + at).lanes_of_product(incoming);
      FwmRow<S, J> grown(d_memory + at);
      grown.add(incoming, s[i] * r[j + q]);
      grown.put(d_memory + at);
    }
    add_key_gradients<S>(products, s[i], r + j, d_s[i], d_r + j);
  });
}

// sum_ij s_i r_j d_F_ij, to `to` [P]; the product of F and its gradient.
template <typename S, int J>
S along_key(const FwmSizes& z, const S* memory, const S* d_memory, const S* s, const S* r, S* to) {
  FwmSum<S, J> sum;
  Vec<S> product[kFwmRows] = {};
  for_rows(z, [&](int64_t row, int64_t i, int64_t j, auto count) {
#pragma GCC unroll 4
    for (int q = 0; q < count; ++q) {
      const int64_t at = (row + q) * J * kLanes<S>;
      const FwmRow<S, J> grown(d_memory + at);
      sum.chains[q].add(grown, s[i] * r[j + q]);
      product[q] += grown.lanes_of_product(FwmRow<S, J>(memory + at));
    }
  });
  sum.put(to);
  return lane_sum<S>((product[0] + product[1]) + (product[2] + product[3]));
}

// Through F' = scale (F + s x r x u), where u depends on v = F(s, r): the gradient of F' becomes that of F, given that
// of v, and those of s and r are added to. `before` is F, null for zeros.
template <typename S, int J>
void write_backward(
    const FwmSizes& z, const S* before, const S* s, const S* r, const S* u, S scale, const S* d_v, S* d_memory,
    S* d_s, S* d_r) {
  const FwmRow<S, J> update(u), d_found(d_v);
  for_rows(z, [&](int64_t row, int64_t i, int64_t j, auto count) {
    Vec<S> products[count];
#pragma GCC unroll 4
    for (int q = 0; q < count; ++q) {
      const int64_t at = (row + q) * J * kLanes<S>;
      FwmRow<S, J> grown(d_memory + at);
      grown.scale(scale);
      products[q] = grown.lanes_of_product(update);
      if (before) products[q] += FwmRow<S, J>(before + at).lanes_of_product(d_found);
      grown.add(d_found, s[i] * r[j + q]);
      grown.put(d_memory + at);
    }
    add_key_gradients<S>(products, s[i], r + j, d_s[i], d_r + j);
  });
}

}  // namespace mnm
