// Products of a block of vectors with one large matrix that stays the same from step to step, and its gradient.
//
// C [n, columns] += A [n, rows] W [rows, columns]; the matrix is copied once into panels of kPanel vectors of
// columns, so that the inner loop reads it in order. The gradient is a sum of outer products, of all steps at once.
#pragma once

#include "matrix.h"

#include <ATen/Functions.h>

#include <optional>

namespace mnm {

// A row-major matrix in plain memory as a tensor.
template <typename S>
at::Tensor view(const S* data, int64_t rows, int64_t columns, int64_t stride) {
  return at::from_blob(const_cast<S*>(data), {rows, columns}, {stride, 1}, at::CppTypeToScalarType<S>::value);
}

// out = a b + keep * out.
inline void add_product(at::Tensor out, const at::Tensor& a, const at::Tensor& b, bool keep = true) {
  if (keep)
    at::addmm_out(out, out, a, b);
  else
    at::mm_out(out, a, b);
}

// Rows of A and B at a time, so that what a tile reads of B stays in the first-level cache.
constexpr int64_t kDepth = 64;
// Of the sum below, so many rows and, at most, vectors of columns are a tile.
constexpr int kTileRows = 4, kTileVectors = kAccumulators / kTileRows;

// c[r][j] += sum_p a[p kTileRows + r] b[p][j], for R rows and J vectors of columns; of the last one only `last`
// numbers.
template <typename S, int R, int J>
[[gnu::noinline]] void outer_sum_tile(Rows<S> c, const S* a, Rows<const S> b, int64_t depth, int64_t last) {
  const auto load_row = [last](const S* from, Vec<S>* row) [[gnu::always_inline]] {
#pragma GCC unroll 16
    for (int j = 0; j + 1 < J; ++j) row[j] = load(from + j * kLanes<S>);
    const S* end = from + (J - 1) * kLanes<S>;
    row[J - 1] = last == kLanes<S> ? load(end) : load_first(end, last);
  };
  Vec<S> sums[R][J];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) load_row(c[r], sums[r]);
  for (int64_t p = 0; p < depth; ++p) {
    Vec<S> row[J];
    load_row(b[p], row);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec<S> scale = broadcast(a[p * kTileRows + r]);
#pragma GCC unroll 16
      for (int j = 0; j < J; ++j) sums[r][j] += row[j] * scale;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int j = 0; j + 1 < J; ++j) store(c[r] + j * kLanes<S>, sums[r][j]);
    S* end = c[r] + (J - 1) * kLanes<S>;
    last == kLanes<S> ? store(end, sums[r][J - 1]) : store_first(end, sums[r][J - 1], last);
  }
}

// C [rows, columns] += A^T B, with A [count, rows] and B [count, columns]: the gradient of a weight.
template <typename S>
void add_outer_sums(
    Rows<S> c, Rows<const S> a, Rows<const S> b, int64_t count, int64_t rows, int64_t columns) {
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  Buffer<S> panels(tiles * kDepth * kTileRows);  // of A, the columns of a tile in one piece
  for (int64_t begin = 0; begin < count; begin += kDepth) {
    const int64_t depth = std::min(kDepth, count - begin);
    for (int64_t p = 0; p < depth; ++p)
      for (int64_t i = 0; i < rows; i += kTileRows)
        std::copy_n(
            a[begin + p] + i, std::min<int64_t>(kTileRows, rows - i),
            panels.data() + (i * kDepth + p * kTileRows));
    for_parts<kTileVectors>(padded<S>(columns) / kLanes<S>, [&](auto width, int64_t part) {
      const int64_t j = part * kLanes<S>, last = std::min(kLanes<S>, columns - j - (width - 1) * kLanes<S>);
      for (int64_t i = 0; i < rows; i += kTileRows)
        with_constant<kTileRows>(std::min<int64_t>(kTileRows, rows - i), [&](auto height) {
          outer_sum_tile<S, height, width>(
              c.from(i, j), panels.data() + i * kDepth, b.from(begin, j), depth, last);
        });
    });
  }
}

template <typename S>
class Matrix {
 public:
  Matrix() = default;

  // Without panels, products are those of a library: packing pays only for more than a few products.
  explicit Matrix(const at::Tensor& w, const std::optional<at::Tensor>& packed = {})
      : tensor(w), rows(w.size(0)), columns(w.size(1)) {
    if (packed) panels = *packed;
  }

  static int64_t packed_size(const at::Tensor& w) { return w.size(0) * padded<S>(w.size(1)); }

  static at::Tensor pack(const at::Tensor& w) {
    const int64_t rows = w.size(0), columns = w.size(1);
    const at::Tensor panels = at::empty({packed_size(w)}, w.options());
    const S* from = w.const_data_ptr<S>();
    for (int64_t begin = 0; begin < columns; begin += kWidth) {
      S* panel = panels.data_ptr<S>() + rows * begin;
      const int64_t width = std::min(kWidth, padded<S>(columns - begin));
      for (int64_t j = 0; j < width; ++j)
        for (int64_t i = 0; i < rows; ++i)
          panel[i * width + j] =
              begin + j < columns ? from[i * w.stride(0) + (begin + j) * w.stride(1)] : S(0);
    }
    return panels;
  }

  // c += a W if `keep`, else c = a W.
  void multiply(Rows<const S> a, Rows<S> c, int64_t count, bool keep) const {
    if (!panels.defined())
      return add_product(
          view(c.data, count, columns, c.stride), view(a.data, count, rows, a.stride), tensor, keep);
    if (!keep)
      for (int64_t b = 0; b < count; ++b) std::fill_n(c[b], columns, S(0));
    for (int64_t begin = 0; begin < columns; begin += kWidth)
      multiply_panel(begin, a, c.from(0, begin), count);
  }

 private:
  static constexpr int kPanel = 4;
  static constexpr int64_t kWidth = kPanel * kLanes<S>;

  void multiply_panel(int64_t begin, Rows<const S> a, Rows<S> c, int64_t count) const {
    const S* panel = panels.const_data_ptr<S>() + rows * begin;
    const int64_t left = columns - begin, width = std::min(kWidth, padded<S>(left));
    for_parts<kAccumulators / kPanel>(count, [&](auto size, int64_t b) {
      if (left >= kWidth) {
        transposed_tile<S, size, kPanel>(panel, width, a.from(b), c.from(b), rows);
      } else {  // the last columns: c has no padding to write to
        S sums[size * kWidth] = {};
        with_constant<kPanel>(width / kLanes<S>, [&](auto vectors) {
          transposed_tile<S, size, vectors>(panel, width, a.from(b), {sums, kWidth}, rows);
        });
        for (int64_t row = 0; row < size; ++row)
          for (int64_t j = 0; j < left; ++j) c[b + row][j] += sums[row * kWidth + j];
      }
    });
  }

  at::Tensor tensor;
  int64_t rows = 0, columns = 0;
  at::Tensor panels;
};

}  // namespace mnm
