// Temporal links of a differentiable neural computer (Graves et al. 2016): one sweep over an example's links
// writes them anew and follows them, and one sweep is the backward pass of both.
//
// Dimensions: B batch, N slots, R read heads.
#pragma once

#include "arguments.h"
#include "matrix.h"

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
  S total() const { return rest + lane_sum<S>(lanes); }
  Vec<S> lanes = {};
  S rest = 0;
};

// Several at once, to to[0], to[stride] and so on.
template <int H, typename S>
inline void store_totals(const Sum<S> (&sums)[H], S* to, int64_t stride) {
  if constexpr (H == 4) {
    S found[4];
    store_lane_sums<S>(found, sums[0].lanes, sums[1].lanes, sums[2].lanes, sums[3].lanes);
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) to[h * stride] = found[h] + sums[h].rest;
  } else {
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) to[h * stride] = sums[h].total();
  }
}

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

// Steps of one example that are repeated from links that were kept: `kept` null for zeros.
template <typename S>
struct LinkReplay {
  const S* kept;                     // [N, N]
  const S *precedence, *weights;     // of the first step, [N]; those of the next are `stride` numbers on
  int64_t steps, stride;
};

// Columns of a row from j on, as many T's as are held in registers.
template <int kCount, typename T, typename S>
inline void replay_columns(const LinkReplay<S>& replay, int64_t i, int64_t j, const S* kept, S* to) {
  constexpr int64_t kSize = sizeof(T) / sizeof(S);
  T link[kCount];
#pragma GCC unroll 4
  for (int c = 0; c < kCount; ++c) link[c] = kept ? fetch<T>(kept + j + c * kSize) : T{};
  const S *weights = replay.weights, *precedence = replay.precedence;
  for (int64_t step = 0; step < replay.steps; ++step, weights += replay.stride, precedence += replay.stride) {
    const S written = weights[i], still = 1 - written;
#pragma GCC unroll 4
    for (int c = 0; c < kCount; ++c) {
      const int64_t at = j + c * kSize;
      link[c] = (still - fetch<T>(weights + at)) * link[c] + written * fetch<T>(precedence + at);
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < kCount; ++c) put(to + j + c * kSize, link[c]);
}

// Row i after the steps: that of the kept links where there are none, else `to` [N]. A row depends on itself alone,
// and so it stays at hand for all steps; from step to step the arithmetic is that of relink_row.
template <typename S>
inline const S* replayed_row(const LinkReplay<S>& replay, int64_t N, int64_t i, S* to) {
  const S* kept = replay.kept ? replay.kept + i * N : nullptr;
  if (!replay.steps && kept) return kept;
  const int64_t vectors = N / kLanes<S>;
  for_parts<4>(vectors, [&](auto count, int64_t part) {
    replay_columns<count, Vec<S>>(replay, i, part * kLanes<S>, kept, to);
  });
  for (int64_t j = vectors * kLanes<S>; j < N; ++j) replay_columns<1, S>(replay, i, j, kept, to);
  to[i] = 0;
  return to;
}

// Follow row i of the links for heads [r, r + H): `ends` [2 R, N] is where they lead, backward for all heads and
// then forward. Heads go together, because a row is read faster than it is loaded.
template <int H, typename S>
inline void follow_row(const LinkStep<S>& step, int64_t i, int64_t r, const S* row, S* ends) {
  const int64_t N = step.N;
  const S* reads = step.reads + r * N;
  S *backward = ends + r * N, read[H];
  Sum<S> forward[H];
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h) read[h] = reads[h * N + i];
  in_lanes<S>(N, [&](int64_t j, auto kind) {
    using T = decltype(kind);
    const T link = fetch<T>(row + j);
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) {
      put(backward + h * N + j, fetch<T>(backward + h * N + j) + read[h] * link);
      forward[h].add(fetch<T>(reads + h * N + j) * link);
    }
  });
  store_totals<H>(forward, ends + (step.R + r) * N + i, N);
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
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h) {
    read[h] = reads[h * N + i];
    d_forward[h] = d.ends[(step.R + r + h) * N + i];
  }
  in_lanes<S>(N, [&](int64_t j, auto kind) {
    using T = decltype(kind);
    const T link = fetch<T>(row + j);
    T g = fetch<T>(grown + j);
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) {
      const T d_back = fetch<T>(d_backward + h * N + j);
      put(d_reads + h * N + j, fetch<T>(d_reads + h * N + j) + d_forward[h] * link);
      sum[h].add(d_back * link);
      g += d_forward[h] * fetch<T>(reads + h * N + j) + read[h] * d_back;
    }
    put(grown + j, g);
  });
  store_totals<H>(sum, d.from_backward + r * N + i, N);
}

// The links before the step are those after the replay; `rows` has 2 N numbers.
template <typename S>
void relink_example_backward(
    const LinkStep<S>& step, const LinkReplay<S>& replay, const LinkGradients<S>& d, S* rows) {
  const int64_t N = step.N;
  const S *weights = step.weights, *precedence = step.precedence;
  S* row = rows + N;
  for (int64_t i = 0; i < N; ++i) {
    const S* from = replayed_row(replay, N, i, rows);
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
