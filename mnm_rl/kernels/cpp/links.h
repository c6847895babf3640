// Temporal links of a differentiable neural computer (Graves et al. 2016): one sweep over an example's links
// writes them anew and follows them, and one sweep is the backward pass of both.
//
// Dimensions: B batch, N slots, R read heads.
#pragma once

#include "arguments.h"
#include "vector.h"

namespace mnm {

// A number, or a vector of them, of type T from S's in a row, and back.
template <typename T, typename S>
inline T fetch(const S* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}
template <typename T, typename S>
inline void put(S* to, T value) {
  std::memcpy(to, &value, sizeof(value));
}

// work(j, T) for all j from 0 to count - 1: with T a vector as long as there are enough left, and then a number.
template <typename S, typename Work>
inline void in_lanes(int64_t count, Work work) {
  int64_t j = 0;
  for (; j + kLanes<S> <= count; j += kLanes<S>) work(j, Vec<S>{});
  for (; j < count; ++j) work(j, S(0));
}

// Sums of vectors and of what is left over.
template <typename S>
struct Sum {
  void add(Vec<S> values) { lanes += values; }
  void add(S value) { rest += value; }
  S total() const {
    S sum = rest;
    for (int64_t i = 0; i < kLanes<S>; ++i) sum += lanes[i];
    return sum;
  }
  Vec<S> lanes = {};
  S rest = 0;
};

// The sizes of one example, and where its vectors are.
template <typename S>
struct LinkStep {
  int64_t N, R;
  const S *precedence, *weights, *reads;  // [N], [N], [R, N]
};

// L'[i, j] = (1 - w[i] - w[j]) L[i, j] + w[i] p[j] for one row i, zero for j = i.
template <typename S>
inline void relink_row(const LinkStep<S>& step, int64_t i, const S* from, S* to) {
  const S written = step.weights[i], kept = 1 - written;
  const S *weights = step.weights, *precedence = step.precedence;
  in_lanes<S>(step.N, [&](int64_t j, auto kind) {
    using T = decltype(kind);
    const T kept_here = kept - fetch<T>(weights + j);
    put(to + j, kept_here * fetch<T>(from + j) + written * fetch<T>(precedence + j));
  });
  to[i] = 0;
}

// Follow row i of the links for heads [r, r + H): `ends` [2 R, N] is where they lead, backward for all heads and
// then forward. Heads go together, because a row is read faster than it is loaded.
template <int H, typename S>
inline void follow_row(const LinkStep<S>& step, int64_t i, int64_t r, const S* row, S* ends) {
  const int64_t N = step.N;
  const S* reads = step.reads + r * N;
  S *backward = ends + r * N, read[H];
  Sum<S> forward[H];
  for (int h = 0; h < H; ++h) read[h] = reads[h * N + i];
  in_lanes<S>(N, [&](int64_t j, auto kind) {
    using T = decltype(kind);
    const T link = fetch<T>(row + j);
    for (int h = 0; h < H; ++h) {
      put(backward + h * N + j, fetch<T>(backward + h * N + j) + read[h] * link);
      forward[h].add(fetch<T>(reads + h * N + j) * link);
    }
  });
  for (int h = 0; h < H; ++h) ends[(step.R + r + h) * N + i] = forward[h].total();
}

// The links after a write to `out`, which may be those before, and where they lead; `ends` is zero before.
template <typename S>
void relink_example(const LinkStep<S>& step, const S* link, S* out, S* ends) {
  for (int64_t i = 0; i < step.N; ++i) {
    S* row = out + i * step.N;
    relink_row(step, i, link + i * step.N, row);
    int64_t r = 0;
    for (; r + 4 <= step.R; r += 4) follow_row<4>(step, i, r, row, ends);
    for (; r < step.R; ++r) follow_row<1>(step, i, r, row, ends);
  }
}

// Gradients of one example; those of vectors are zero before, and d_link goes from after the step to before.
template <typename S>
struct LinkGradients {
  const S* ends;                    // [2 R, N]
  S* link;                          // [N, N]
  S *weights, *precedence, *reads;  // [N], [N], and of the reads what comes by the way forward, [R, N]
  S* from_backward;                 // and what comes by the way backward, [R, N]; need not be zero before
};

// Through row i as followed by heads [r, r + H): adds to `grown`, the gradient of the row.
template <int H, typename S>
inline void follow_row_backward(
    const LinkStep<S>& step, const LinkGradients<S>& d, int64_t i, int64_t r, const S* row, S* grown) {
  const int64_t N = step.N;
  const S *reads = step.reads + r * N, *d_backward = d.ends + r * N;
  S *d_reads = d.reads + r * N, read[H], d_forward[H];
  Sum<S> sum[H];
  for (int h = 0; h < H; ++h) {
    read[h] = reads[h * N + i];
    d_forward[h] = d.ends[(step.R + r + h) * N + i];
  }
  in_lanes<S>(N, [&](int64_t j, auto kind) {
    using T = decltype(kind);
    const T link = fetch<T>(row + j);
    T g = fetch<T>(grown + j);
    for (int h = 0; h < H; ++h) {
      const T d_back = fetch<T>(d_backward + h * N + j);
      put(d_reads + h * N + j, fetch<T>(d_reads + h * N + j) + d_forward[h] * link);
      sum[h].add(d_back * link);
      g += d_forward[h] * fetch<T>(reads + h * N + j) + read[h] * d_back;
    }
    put(grown + j, g);
  });
  for (int h = 0; h < H; ++h) d.from_backward[(r + h) * N + i] = sum[h].total();
}

template <typename S>
void relink_example_backward(const LinkStep<S>& step, const S* link, const LinkGradients<S>& d, S* row) {
  const int64_t N = step.N;
  const S *weights = step.weights, *precedence = step.precedence;
  for (int64_t i = 0; i < N; ++i) {
    const S* from = link + i * N;
    S* grown = d.link + i * N;
    relink_row(step, i, from, row);
    int64_t r = 0;
    for (; r + 4 <= step.R; r += 4) follow_row_backward<4>(step, d, i, r, row, grown);
    for (; r < step.R; ++r) follow_row_backward<1>(step, d, i, r, row, grown);
    grown[i] = 0;
    const S written = weights[i], kept = 1 - written;
    S *d_weights = d.weights, *d_precedence = d.precedence;
    Sum<S> sum;
    in_lanes<S>(N, [&](int64_t j, auto kind) {
      using T = decltype(kind);
      const T g = fetch<T>(grown + j), old = g * fetch<T>(from + j);
      sum.add(g * fetch<T>(precedence + j) - old);
      put(d_weights + j, fetch<T>(d_weights + j) - old);
      put(d_precedence + j, fetch<T>(d_precedence + j) + g * written);
      put(grown + j, (kept - fetch<T>(weights + j)) * g);
    });
    d.weights[i] += sum.total();
  }
}

}  // namespace mnm
