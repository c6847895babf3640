// Products of a block of vectors with one large matrix that stays the same from step to step.
//
// C [n, columns] += A [n, rows] W [rows, columns]; the matrix is copied once into panels of kPanel vectors of
// columns, so that the inner loop reads it in order.
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
