// Products of a matrix that was packed once (product.h) with what comes from outside, step by step, and the gradient
// of such a matrix, of all steps at once.
//
// Dimensions: B vectors, I and O numbers in and out; n vectors of all steps.
#pragma once

#include "arguments.h"
#include "blocks.h"
#include "product.h"

#include <ATen/Parallel.h>

namespace mnm {

inline void check_matrix(const char* what, const Tensor& matrix) {
  TORCH_CHECK_VALUE(matrix.defined() && matrix.dim() == 2, what, " must be a matrix.");
  const at::ScalarType type = matrix.scalar_type();
  TORCH_CHECK_VALUE(
      type == at::kFloat || type == at::kDouble, what, " must be float32 or float64, not ", type, ".");
  check_kind(what, "", matrix, type);
}

template <typename Run>
auto with_number(const Tensor& like, Run run) {
  return like.scalar_type() == at::kDouble ? run(0.0) : run(0.0f);
}

// A weight [I, O] of any strides as packed_product takes it.
inline Tensor pack_matrix(const Tensor& weight) {
  check_matrix("weight", weight);
  return with_number(weight, [&](auto number) { return Matrix<decltype(number)>::pack(weight); });
}

// start + values weight, [B, O]: values [B, I], start [B, O] or [O], or nothing.
inline Tensor packed_product(
    const Tensor& values, const Tensor& weight, const Tensor& packed, const optional<Tensor>& start) {
  check_matrix("weight", weight);
  const int64_t I = weight.size(0), O = weight.size(1);
  TORCH_CHECK_VALUE(values.defined() && values.dim() == 2, "values must be [B, I].");
  const int64_t B = values.size(0);
  check_tensor("values", "", values, weight.scalar_type(), Shape{B, I});
  if (start) {
    check_kind("start", "", *start, weight.scalar_type());
    TORCH_CHECK_VALUE(
        start->sizes() == at::IntArrayRef({B, O}) || start->sizes() == at::IntArrayRef({O}),
        "start must have the shape [", B, ", ", O, "] or [", O, "], not ", start->sizes(), ".");
  }
  return with_number(weight, [&](auto number) {
    using S = decltype(number);
    check_tensor("packed", "", packed, weight.scalar_type(), Shape{Matrix<S>::packed_size(weight)});
    const Tensor out = at::empty({B, O}, values.options());
    if (start) out.copy_(*start);
    const Matrix<S> matrix(weight, packed);
    const Rows<const S> from{values.const_data_ptr<S>(), I};
    const Rows<S> to{out.data_ptr<S>(), O};
    for_blocks(
        B,
        [&](int64_t, int64_t begin, int64_t end) {
          matrix.multiply(from.from(begin), to.from(begin), end - begin, start.has_value());
        },
        block_of_thread(B));
    return out;
  });
}

// left^T right, [I, O], of left [n, I] and right [n, O], whose rows are in one piece each.
inline Tensor outer_sum(const Tensor& left, const Tensor& right) {
  check_matrix("left", left);
  check_matrix("right", right);
  check_kind("right", "", right, left.scalar_type());
  TORCH_CHECK_VALUE(
      left.size(0) == right.size(0), "left and right must have as many rows, not ", left.size(0), " and ",
      right.size(0), ".");
  const int64_t n = left.size(0), I = left.size(1), O = right.size(1);
  for (const Tensor* each : {&left, &right})
    TORCH_CHECK_VALUE(
        each->stride(1) == 1 && each->stride(0) >= each->size(1), "left and right must have contiguous rows.");
  const Tensor sums = at::zeros({I, O}, left.options());
  with_number(left, [&](auto number) {
    using S = decltype(number);
    const Rows<const S> from{left.const_data_ptr<S>(), left.stride(0)}, by{right.const_data_ptr<S>(), right.stride(0)};
    const Rows<S> to{sums.data_ptr<S>(), O};
    at::parallel_for(0, I, 32, [&](int64_t begin, int64_t end) {
      add_outer_sums<S>(to.from(begin), from.from(0, begin), by, n, end - begin, O);
    });
  });
  return sums;
}

}  // namespace mnm
