// Products of one small matrix with a few vectors, register-blocked over rows, columns and vectors.
//
// M [rows, columns] has row stride `ld`; x has zeros after the columns, up to a multiple of the lane count W.
// M may end with its columns (but not in add_transposed). P vectors at a time, in rows of x (along the columns of M) or of d (along its rows).
#pragma once

#include "vector.h"

#include <algorithm>
#include <type_traits>
#include <utility>

namespace mnm {

// A block of contiguous rows in memory.
template <typename S>
struct Rows {
  S* data;
  int64_t stride;
  S* operator[](int64_t row) const { return data + row * stride; }
  Rows from(int64_t row, int64_t column = 0) const { return {data + row * stride + column, stride}; }
  operator Rows<const S>() const
    requires(!std::is_const_v<S>)
  {
    return {data, stride};
  }
};

// Accumulators that fit the vector registers: 24 where there are 32 of them, else 12.
#if defined(__AVX512VL__) || defined(__aarch64__)
constexpr int kAccumulators = 24;
#else
constexpr int kAccumulators = 12;
#endif
constexpr int kMostVectors = kAccumulators / 4;

// function(constant, begin) for parts of [0, count): as few as possible, of nearly equal size, at most
// `Most`. The size of a part is a compile-time constant to the function.
template <int Most, typename Function>
inline void with_constant(int64_t value, Function function) {
  if constexpr (Most > 1)
    if (value < Most) return with_constant<Most - 1>(value, function);
  function(std::integral_constant<int, Most>());
}

template <int Most, typename Function>
inline void for_parts(int64_t count, Function function) {
  for (int64_t begin = 0; begin < count;) {
    const int64_t left = count - begin, parts = (left + Most - 1) / Most, size = (left + parts - 1) / parts;
    with_constant<Most>(size, [&](auto constant) { function(constant, begin); });
    begin += size;
  }
}

template <typename S, size_t... kLane>
inline HalfVec<S> add_halves(Vec<S> v, std::index_sequence<kLane...>) {
  return __builtin_shufflevector(v, v, kLane...) + __builtin_shufflevector(v, v, (kLane + sizeof...(kLane))...);
}
// The sum of the halves of a vector of W numbers. Without its address, which would keep sums of whole loops out of
// the registers.
template <typename S>
inline HalfVec<S> add_halves(Vec<S> v) {
  return add_halves<S>(v, std::make_index_sequence<kLanes<S> / 2>());
}

// a and b, of eight numbers each: four sums of pairs of a and four of b, mixed. Twice makes four lane sums.
template <typename V>
inline V add_pairs(V a, V b) {
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13) +
         __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
}

template <typename V>
inline auto lane_sum_of_eight(V v) {
  const auto four = __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
  return (four[0] + four[2]) + (four[1] + four[3]);
}

template <typename S>
inline S lane_sum(Vec<S> v) {
  if constexpr (kLanes<S> == 16)
    return lane_sum_of_eight(add_halves<S>(v));
  else if constexpr (kLanes<S> == 8)
    return lane_sum_of_eight(v);
  else
    return (v[0] + v[2]) + (v[1] + v[3]);
}

template <typename S, typename V>
inline void store_lane_sums_of_eight(S* to, V a, V b, V c, V d) {
  const V ab = add_pairs(a, b), cd = add_pairs(c, d);
  const V abcd = __builtin_shufflevector(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) +
                 __builtin_shufflevector(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
  const auto sums =
      __builtin_shufflevector(abcd, abcd, 0, 1, 2, 3) + __builtin_shufflevector(abcd, abcd, 4, 5, 6, 7);
  std::memcpy(to, &sums, sizeof(sums));
}

// The four lane sums of a, b, c, d.
template <typename S>
inline void store_lane_sums(S* to, Vec<S> a, Vec<S> b, Vec<S> c, Vec<S> d) {
  if constexpr (kLanes<S> == 16)
    store_lane_sums_of_eight(to, add_halves<S>(a), add_halves<S>(b), add_halves<S>(c), add_halves<S>(d));
  else if constexpr (kLanes<S> == 8)
    store_lane_sums_of_eight(to, a, b, c, d);
  else
    to[0] = lane_sum<S>(a), to[1] = lane_sum<S>(b), to[2] = lane_sum<S>(c), to[3] = lane_sum<S>(d);
}

// Tiles are not inlined: on their own, all accumulators stay in registers.
template <typename S, int R, int P>
[[gnu::noinline]] void multiply_tile(const S* m, int64_t ld, Rows<const S> x, Rows<S> y, int64_t columns) {
  Vec<S> sums[P][R] = {};
  const auto add_columns = [&](int64_t j, auto load_row) [[gnu::always_inline]] {
    Vec<S> kept[std::min(R, P)];  // the fewer of rows and vectors stay in registers
    if constexpr (R < P) {
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) kept[r] = load_row(m + r * ld + j);
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
        const Vec<S> v = load(x[p] + j);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) sums[p][r] += kept[r] * v;
      }
    } else {
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) kept[p] = load(x[p] + j);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const Vec<S> row = load_row(m + r * ld + j);
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) sums[p][r] += row * kept[p];
      }
    }
  };
  int64_t j = 0;
  for (; j + kLanes<S> <= columns; j += kLanes<S>) add_columns(j, [](const S* from) { return load(from); });
  if (const int64_t left = columns - j; left > 0)
    add_columns(j, [left](const S* from) { return load_first(from, left); });
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) {
    if constexpr (R == 1) {
      y[p][0] = lane_sum<S>(sums[p][0]);
    } else {
#pragma GCC unroll 2
      for (int r = 0; r < R; r += 4)
        store_lane_sums<S>(y[p] + r, sums[p][r], sums[p][r + 1], sums[p][r + 2], sums[p][r + 3]);
    }
  }
}

template <typename S, int P>
inline void multiply_vectors(
    const S* m, int64_t ld, Rows<const S> x, Rows<S> y, int64_t rows, int64_t columns) {
  constexpr int R = 8 * P <= kAccumulators ? 8 : 4;
  int64_t i = 0;
  for (; i + R <= rows; i += R) multiply_tile<S, R, P>(m + i * ld, ld, x, y.from(0, i), columns);
  for (; i + 4 <= rows; i += 4) multiply_tile<S, 4, P>(m + i * ld, ld, x, y.from(0, i), columns);
  for (; i < rows; ++i) multiply_tile<S, 1, P>(m + i * ld, ld, x, y.from(0, i), columns);
}

// function(constant, begin) for parts of `vectors`: where there are too many for one tile, full ones first, unless that
// leaves less than half a tile; then parts of equal size.
template <typename Function>
inline void for_vectors(int64_t vectors, Function function) {
  constexpr int64_t kHalf = kMostVectors / 2;
  int64_t begin = 0;
  for (; vectors - begin >= kMostVectors + kHalf; begin += kMostVectors)
    function(std::integral_constant<int, kMostVectors>(), begin);
  for_parts<kMostVectors>(vectors - begin, [&](auto count, int64_t p) { function(count, begin + p); });
}

// y[p][i] = sum_j M[i][j] x[p][j].
template <typename S>
inline void multiply(
    const S* m, int64_t ld, Rows<const S> x, Rows<S> y, int64_t vectors, int64_t rows, int64_t columns) {
  for_vectors(vectors, [&](auto count, int64_t p) {
    multiply_vectors<S, count>(m, ld, x.from(p), y.from(p), rows, columns);
  });
}

template <typename S, int P, int J>
[[gnu::noinline]] void transposed_tile(const S* m, int64_t ld, Rows<const S> d, Rows<S> y, int64_t rows) {
  Vec<S> sums[P][J];
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 16
    for (int j = 0; j < J; ++j) sums[p][j] = load(y[p] + j * kLanes<S>);
  for (int64_t i = 0; i < rows; ++i) {
    Vec<S> column[J];
#pragma GCC unroll 16
    for (int j = 0; j < J; ++j) column[j] = load(m + i * ld + j * kLanes<S>);
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      const Vec<S> scale = broadcast(d[p][i]);
#pragma GCC unroll 16
      for (int j = 0; j < J; ++j) sums[p][j] += column[j] * scale;
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 16
    for (int j = 0; j < J; ++j) store(y[p] + j * kLanes<S>, sums[p][j]);
}

// y[p][j] += sum_i M[i][j] d[p][i].
template <typename S>
inline void add_transposed(
    const S* m, int64_t ld, Rows<const S> d, Rows<S> y, int64_t vectors, int64_t rows, int64_t columns) {
  for_vectors(vectors, [&](auto count, int64_t p) {
    for_parts<std::min(kAccumulators / count, 7)>(columns / kLanes<S>, [&](auto width, int64_t part) {
      const int64_t j = part * kLanes<S>;
      transposed_tile<S, count, width>(m + j, ld, d.from(p), y.from(p, j), rows);
    });
  });
}

// Of the last vector of a row only `last` numbers, if that is not 0. Numbers `ahead` of the tile's are asked to come
// into the second-level cache.
template <typename S, int R, int J>
[[gnu::always_inline]] inline void outer_tile(
    S* m, int64_t ld, Rows<const S> d, Rows<const S> x, int64_t vectors, int64_t last, int64_t ahead) {
  const int whole = last > 0 ? J - 1 : J;
  Vec<S> tile[R][J];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int j = 0; j < J; ++j) {
      const S* from = m + r * ld + j * kLanes<S>;
      if (ahead != 0 && j * kVectorBytes % 64 == 0) __builtin_prefetch(from + ahead, 0, 2);  // one for each line
      tile[r][j] = j < J - 1 || whole == J ? load(from) : load_first(from, last);
    }
  int64_t p = 0;
  do {
    Vec<S> v[J];
#pragma GCC unroll 16
    for (int j = 0; j < J; ++j) v[j] = load(x[p] + j * kLanes<S>);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec<S> scale = broadcast(d[p][r]);
#pragma GCC unroll 16
      for (int j = 0; j < J; ++j) tile[r][j] += v[j] * scale;
    }
  } while (++p < vectors);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int j = 0; j < J; ++j) {
      S* to = m + r * ld + j * kLanes<S>;
      j < J - 1 || whole == J ? store(to, tile[r][j]) : store_first(to, tile[r][j], last);
    }
}

template <typename S, int J>
[[gnu::noinline]] void outer_columns(
    S* m, int64_t ld, Rows<const S> d, Rows<const S> x, int64_t vectors, int64_t rows, int64_t last,
    int64_t ahead) {
  int64_t i = 0;
  for (; i + 2 <= rows; i += 2) outer_tile<S, 2, J>(m + i * ld, ld, d.from(0, i), x, vectors, last, ahead);
  if (i < rows) outer_tile<S, 1, J>(m + i * ld, ld, d.from(0, i), x, vectors, last, ahead);
}

// M[i][j] += sum_p d[p][i] x[p][j].
template <typename S>
inline void add_outer(
    S* m, int64_t ld, Rows<const S> d, Rows<const S> x, int64_t vectors, int64_t rows, int64_t columns,
    int64_t ahead = 0) {
  // Two rows of so many vectors are a tile.
  constexpr int kMostColumns = kVectorBytes == 64 ? 7 : kAccumulators == 24 ? 13 : 6;
  for_parts<kMostColumns>(padded<S>(columns) / kLanes<S>, [&](auto width, int64_t part) {
    const int64_t j = part * kLanes<S>, is_last = (part + width) * kLanes<S> > columns;
    const int64_t last = is_last ? columns % kLanes<S> : 0;
    outer_columns<S, width>(m + j, ld, d, x.from(0, j), vectors, rows, last, ahead);
  });
}

}  // namespace mnm
