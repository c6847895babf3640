// One step of a DNC's memory for a batch, and the checks of what it is given.
//
// Dimensions: B batch, N slots, W size of a slot, R read heads, U size of the interface vector.
#pragma once

#include "dnc_step.h"
#include "settings.h"

#include <ATen/Parallel.h>

namespace mnm {

constexpr std::array kDncVectorNames{"usage", "write_weights", "read_weights", "precedence"};

// The sizes of a call, and the checks of its tensors: everything that is later indexed.
struct DncCall {
  DncCall(
      const Tensor& vector, const Tensor& memory, bool links, int64_t read_heads, optional<double> mask_minimum,
      bool deallocating, bool usage_gradient) {
    TORCH_CHECK_VALUE(memory.defined() && memory.dim() == 3, "memory must be [B, N, W].");
    TORCH_CHECK_VALUE(
        read_heads >= 1 && read_heads <= kLargest, "read_heads must be from 1 to ", kLargest, ", got ", read_heads, ".");
    type = memory.scalar_type();
    TORCH_CHECK_VALUE(
        type == at::kFloat || type == at::kDouble, "memory must be float32 or float64, not ", type, ".");
    B = memory.size(0);
    z = {memory.size(1), memory.size(2), read_heads, mask_minimum.has_value(), deallocating, links,
         usage_gradient, mask_minimum.value_or(0)};
    TORCH_CHECK_VALUE(z.N >= 1 && z.W >= 1, "memory must have a slot at least, got ", memory.sizes(), ".");
    TORCH_CHECK_VALUE(
        z.N <= kLargest && z.W <= kLargest, "memory must have sizes of at most ", kLargest, ", got ", memory.sizes(), ".");
    TORCH_CHECK_VALUE(z.mask_minimum >= 0 && z.mask_minimum < 1, "mask_minimum must be in [0, 1).");
    check("vector", vector, {B, z.U()});
    check_memory("memory", memory);
  }

  void check(const char* what, const Tensor& tensor, const Shape& shape) const {
    check_tensor(what, "", tensor, type, shape);
  }
  void check_memory(const char* what, const Tensor& tensor) const { check(what, tensor, {B, z.N, z.W}); }
  void check_link(const char* what, const optional<Tensor>& tensor) const {
    TORCH_CHECK_VALUE(tensor.has_value() == z.links, what, " must be given if, and only if, there are links.");
    if (tensor) check(what, *tensor, {B, z.N, z.N});
  }
  // Usage, write weights, read weights and, if there are links and `whole`, precedence; of some steps, or of one.
  void check_vectors(const char* what, const std::vector<Tensor>& vectors, bool whole, int64_t steps = 0) const {
    const size_t count = whole && z.links ? 4 : 3;
    TORCH_CHECK_VALUE(vectors.size() == count, what, " must be ", count, " tensors, not ", vectors.size(), ".");
    for (size_t i = 0; i < count; ++i) {
      Shape shape = i == 2 ? Shape{B, z.R, z.N} : Shape{B, z.N};
      if (steps) shape.insert(shape.begin(), steps);
      check_tensor(what, kDncVectorNames[i], vectors[i], type, shape);
    }
  }
  std::vector<Tensor> new_vectors(const Tensor& like) const {
    std::vector<Tensor> vectors;
    for (size_t i = 0; i < (z.links ? 4 : 3); ++i)
      vectors.push_back(at::empty(i == 2 ? Shape{B, z.R, z.N} : Shape{B, z.N}, like.options()));
    return vectors;
  }

  template <typename S, typename Pointer>
  DncVectors<Pointer> vectors(const std::vector<Tensor>& of, int64_t b) const {
    const auto row = [&](size_t i, int64_t size) {
      return i < of.size() ? const_cast<S*>(of[i].const_data_ptr<S>()) + b * size : nullptr;
    };
    return {row(0, z.N), row(1, z.N), row(2, z.R * z.N), row(3, z.N)};
  }
  template <typename S>
  DncVectors<const S> past(const std::vector<Tensor>& of, int64_t b) const {
    return vectors<S, const S>(of, b);
  }

  // work(b, scratch, order) for all examples, in parallel; each is on its own, so threads change nothing.
  template <typename S, typename Work>
  void for_examples(Work work) const {
    at::parallel_for(0, B, 1, [&](int64_t first, int64_t last) {
      Buffer<S> scratch(dnc_scratch<S>(z));
      std::vector<int64_t> order(z.N);
      for (int64_t b = first; b < last; ++b) work(b, scratch.data(), order.data());
    });
  }

  at::ScalarType type;
  int64_t B;
  DncSizes z;
};

template <typename S>
S* example(const optional<Tensor>& tensor, int64_t b) {
  return tensor ? tensor->data_ptr<S>() + b * (tensor->numel() / tensor->size(0)) : nullptr;
}

// Usage, write weights, read weights, precedence, and what was read [B, R, W]; memory and links are overwritten.
inline std::vector<Tensor> dnc_forward_batch(
    const Tensor& vector, std::vector<Tensor> before, const Tensor& memory, const optional<Tensor>& link,
    int64_t read_heads, optional<double> mask_minimum, bool deallocating, bool usage_gradient) {
  const DncCall call(vector, memory, link.has_value(), read_heads, mask_minimum, deallocating, usage_gradient);
  call.check_link("link", link);
  call.check_vectors("before: ", before, true);
  std::vector<Tensor> after = call.new_vectors(memory);
  const Tensor read = at::empty({call.B, call.z.R, call.z.W}, memory.options());
  const auto run = [&](auto number) {
    using S = decltype(number);
    call.for_examples<S>([&](int64_t b, S* scratch, int64_t* order) {
      dnc_forward<S>(
          call.z, vector.const_data_ptr<S>() + b * call.z.U(), call.past<S>(before, b),
          call.vectors<S, S>(after, b), example<S>(memory, b), example<S>(link, b), example<S>(read, b), scratch,
          order);
    });
  };
  call.type == at::kDouble ? run(0.0) : run(0.0f);
  after.push_back(read);
  return after;
}

// The memories of the steps of a segment whose write weights are known, from the one at the start of it, which
// is the first of `memories` [S + 1, B, N, W]. An example goes through all steps before the next, so that what a
// step writes is still in the cache when the next one reads it.
inline void dnc_rewrite_batch(
    const Tensor& vectors, std::vector<Tensor> before, const Tensor& written, const optional<Tensor>& resets,
    const Tensor& memories, bool links, int64_t read_heads, optional<double> mask_minimum, bool deallocating,
    bool usage_gradient) {
  TORCH_CHECK_VALUE(vectors.defined() && vectors.dim() == 3, "vectors must be [S, B, U].");
  TORCH_CHECK_VALUE(memories.defined() && memories.dim() == 4, "memories must be [S + 1, B, N, W].");
  const int64_t steps = vectors.size(0);
  TORCH_CHECK_VALUE(steps >= 1, "vectors must be of a step at least.");
  TORCH_CHECK_VALUE(
      memories.size(0) == steps + 1, "memories must be one more than there are steps, ", steps, ".");
  const DncCall call(vectors[0], memories[0], links, read_heads, mask_minimum, deallocating, usage_gradient);
  const DncSizes& z = call.z;
  const int64_t B = call.B;
  call.check("vectors", vectors, {steps, B, z.U()});
  call.check("memories", memories, {steps + 1, B, z.N, z.W});
  call.check_vectors("before: ", before, true, steps);
  call.check("written", written, {steps, B, z.N});
  if (resets) check_tensor("resets", "", *resets, at::kBool, Shape{steps, B});
  const auto run = [&](auto number) {
    using S = decltype(number);
    const Buffer<S> nothing(z.N * z.W, S(0));
    S* const memory = memories.data_ptr<S>();
    call.for_examples<S>([&](int64_t b, S* scratch, int64_t*) {
      for (int64_t i = 0; i < steps; ++i) {
        const int64_t at = i * B + b;
        const bool fresh = resets && resets->const_data_ptr<bool>()[at];
        const DncVectors<const S> past = call.past<S>(before, at);
        const S* weights = written.const_data_ptr<S>() + at * z.N;
        Carver<S> carver(scratch);
        const DncInterface<S> xi(z, vectors.const_data_ptr<S>() + at * z.U(), carver.take(z.U()));
        S* retained = carver.take(z.N);
        retain(z, xi, past.reads, retained);
        const int64_t size = z.N * z.W;
        rewrite<S>(
            z, xi, retained, weights, fresh ? nothing.data() : memory + at * size, memory + (at + B) * size);
      }
    });
  };
  call.type == at::kDouble ? run(0.0) : run(0.0f);
}

// The links before step `number` of a segment: those at the start of it, and what was written to them since, or
// since the last reset.
struct DncLinks {
  const optional<Tensor>& start;        // [B, N, N]
  const Tensor &precedence, &written;   // before and after each step, [S, B, N]
  const optional<Tensor>& resets;       // [S, B]
  int64_t number;

  void check(const DncCall& call) const {
    call.check_link("link", start);
    if (!start) return;
    TORCH_CHECK_VALUE(precedence.defined() && precedence.dim() == 3, "precedence must be [S, B, N].");
    const int64_t steps = precedence.size(0);
    TORCH_CHECK_VALUE(
        0 <= number && number < steps, "number must be that of one of ", steps, " steps, got ", number, ".");
    call.check("precedence", precedence, {steps, call.B, call.z.N});
    call.check("written", written, {steps, call.B, call.z.N});
    if (resets) check_tensor("resets", "", *resets, at::kBool, Shape{steps, call.B});
  }
  template <typename S>
  LinkReplay<S> of(const DncCall& call, int64_t b) const {
    if (!start) return {};
    const int64_t N = call.z.N, B = call.B;
    const S* kept = start->const_data_ptr<S>() + b * N * N;
    int64_t first = 0;
    for (int64_t step = number; resets && step >= 0; --step)
      if (resets->const_data_ptr<bool>()[step * B + b]) {
        kept = nullptr, first = step;
        break;
      }
    const int64_t at = (first * B + b) * N;
    return {
        kept, precedence.const_data_ptr<S>() + at, written.const_data_ptr<S>() + at, number - first, B * N};
  }
};

// Gradients of usage, write weights, read weights and precedence before the step, and of the interface vector;
// those of memory and links are overwritten, from after the step to before.
inline std::vector<Tensor> dnc_backward_batch(
    const Tensor& vector, std::vector<Tensor> before, std::vector<Tensor> after, const Tensor& memory_before,
    const Tensor& memory, const optional<Tensor>& link, const Tensor& precedence, const Tensor& written,
    const optional<Tensor>& resets, int64_t number, const Tensor& d_read, std::vector<Tensor> d_after,
    const Tensor& d_memory, const optional<Tensor>& d_link, int64_t read_heads, optional<double> mask_minimum,
    bool deallocating, bool usage_gradient) {
  const DncCall call(vector, memory, link.has_value(), read_heads, mask_minimum, deallocating, usage_gradient);
  const DncLinks links{link, precedence, written, resets, number};
  links.check(call);
  call.check_vectors("before: ", before, true);
  call.check_vectors("after: ", after, false);
  call.check_vectors("d_after: ", d_after, true);
  call.check_memory("memory_before", memory_before);
  call.check_memory("d_memory", d_memory);
  call.check_link("d_link", d_link);
  call.check("d_read", d_read, {call.B, call.z.R, call.z.W});
  TORCH_CHECK_VALUE(
      !d_memory.is_alias_of(memory) && !d_memory.is_alias_of(memory_before),
      "d_memory must not overlap with the memories.");
  TORCH_CHECK_VALUE(!d_link || !d_link->is_alias_of(*link), "d_link must not overlap with link.");
  std::vector<Tensor> d_before = call.new_vectors(memory);
  const Tensor d_vector = at::empty_like(vector);
  const auto run = [&](auto number) {
    using S = decltype(number);
    call.for_examples<S>([&](int64_t b, S* scratch, int64_t* order) {
      const DncPast<S> past{
          vector.const_data_ptr<S>() + b * call.z.U(), call.past<S>(before, b),  call.past<S>(after, b),
          example<S>(memory_before, b),                example<S>(memory, b), links.of<S>(call, b)};
      const DncGradients<S> d{
          example<S>(d_read, b),   call.past<S>(d_after, b), call.vectors<S, S>(d_before, b),
          example<S>(d_memory, b), example<S>(d_link, b),    example<S>(d_vector, b)};
      dnc_backward<S>(call.z, past, d, scratch, order);
    });
  };
  call.type == at::kDouble ? run(0.0) : run(0.0f);
  d_before.push_back(d_vector);
  return d_before;
}

}  // namespace mnm
