// A sequence of a fast weight memory (Schlag, Munkhdalai and Schmidhuber 2021, section 3; mnm_rl/kernels/fwm.py has the
// equations and the loop), one example after the other, so that its memory stays in the cache of one core.
//
// Nothing here depends on what was read, so that the sweep that writes also looks up what the next write needs. The
// backward pass has copies of the memory every kFwmSegment steps and repeats the writes from there; steps whose reads
// have no gradient, such as those before a question, cost it no read.
//
// Dimensions: B batch, T time, N reads; sizes d_s subject, d_r relation, d_t target; P is d_t up to the next vector.
#pragma once

#include "fwm_memory.h"

#include <ATen/Parallel.h>

#include <cmath>

namespace mnm {

constexpr int64_t kFwmSegment = 32;
constexpr double kFwmEpsilon = 1e-5;  // EPSILON of mnm_rl/kernels/fwm.py
constexpr std::array kFwmNames{"subjects", "relations", "targets", "rates", "queries", "read_relations"};

// The tensors of a call and their checks.
struct FwmCall {
  FwmCall(std::vector<Tensor> given, const optional<Tensor>& resets, const Tensor& memory)
      : commands(std::move(given)), resets(resets), memory(memory) {
    TORCH_CHECK_VALUE(memory.defined() && memory.dim() == 4, "memory must be [B, d_s, d_r, d_t].");
    type = memory.scalar_type();
    TORCH_CHECK_VALUE(
        type == at::kFloat || type == at::kDouble, "memory must be float32 or float64, not ", type, ".");
    TORCH_CHECK_VALUE(commands.size() == 6, "commands must be 6 tensors, not ", commands.size(), ".");
    const Tensor& reads = commands[5];
    TORCH_CHECK_VALUE(reads.defined() && reads.dim() == 4, "read_relations must be [B, T, N, d_r].");
    B = memory.size(0), T = reads.size(1);
    z = {memory.size(1), memory.size(2), memory.size(3), reads.size(2)};
    for (const int64_t size : {z.subjects, z.relations, z.targets})
      TORCH_CHECK_VALUE(
          size >= 1 && size <= kLargest, "sizes must be from 1 to ", kLargest, ", got ", memory.sizes(), ".");
    TORCH_CHECK_VALUE(T >= 1, "commands must be of a step at least.");
    TORCH_CHECK_VALUE(z.reads >= 1 && z.reads <= kLargest, "read_relations must be of a read at least.");
    TORCH_CHECK_VALUE(
        z.subjects == z.targets, "targets are looked up as subjects, so they must have the same size, not ",
        z.targets, " and ", z.subjects, ".");
    TORCH_CHECK_VALUE(vectors() <= kFwmMostVectors, "targets must have at most ", most_targets(), " numbers.");
    check_tensor("memory", "", memory, type, Shape{B, z.subjects, z.relations, z.targets});
    const std::array<Shape, 6> shapes{
        {{B, T, z.subjects}, {B, T, z.relations}, {B, T, z.targets}, {B, T}, {B, T, z.subjects},
         {B, T, z.reads, z.relations}}};
    for (size_t i = 0; i < 6; ++i) check_tensor("commands: ", kFwmNames[i], commands[i], type, shapes[i]);
    if (resets) check_tensor("resets", "", *resets, at::kBool, Shape{B, T});
  }

  int64_t lanes() const { return type == at::kDouble ? kLanes<double> : kLanes<float>; }
  int64_t vectors() const { return (z.targets + lanes() - 1) / lanes(); }
  int64_t most_targets() const { return kFwmMostVectors * lanes(); }
  int64_t padded_targets() const { return vectors() * lanes(); }
  int64_t padded_memory() const { return z.rows() * padded_targets(); }
  int64_t segments() const { return (T + kFwmSegment - 1) / kFwmSegment; }

  // run(number, J) with the type of number and J, the vectors of a row, constants.
  template <typename Run>
  void with_sizes(Run run) const {
    with_constant<kFwmMostVectors>(vectors(), [&](auto count) {
      type == at::kDouble ? run(0.0, count) : run(0.0f, count);
    });
  }

  std::vector<Tensor> commands;
  const optional<Tensor>& resets;
  const Tensor& memory;
  at::ScalarType type;
  int64_t B, T;
  FwmSizes z;
};

// The commands of one example, and what a write does with them.
template <typename S, int J>
class FwmExample {
 public:
  static constexpr int64_t P = J * kLanes<S>;

  FwmExample(const FwmCall& call, int64_t b) : z(call.z), T(call.T) {
    const auto row = [&](int i) {
      return call.commands[i].const_data_ptr<S>() + b * (call.commands[i].numel() / call.B);
    };
    subjects = row(0), relations = row(1), targets = row(2), rates = row(3), queries = row(4), reads = row(5);
    resets = call.resets ? call.resets->const_data_ptr<bool>() + b * T : nullptr;
  }

  const S* subject(int64_t t) const { return subjects + t * z.subjects; }
  const S* relation(int64_t t) const { return relations + t * z.relations; }
  const S* target(int64_t t) const { return targets + t * z.targets; }
  const S* query(int64_t t) const { return queries + t * z.subjects; }
  const S* read_relation(int64_t t, int64_t i) const { return reads + (t * z.reads + i) * z.relations; }
  bool is_fresh(int64_t t) const { return resets && resets[t]; }
  S step_size(int64_t t) const { return rates[t] / S(z.targets); }
  // |s x r|^2.
  S key_square(int64_t t) const { return square(subject(t), z.subjects) * square(relation(t), z.relations); }

  static S square(const S* values, int64_t count) {
    S sum = 0;
    for (int64_t k = 0; k < count; ++k) sum += values[k] * values[k];
    return sum;
  }

  // What a write needs first: v [P], what `memory` holds at the key of step t.
  void find(const S* memory, int64_t t, S* v) const {
    if (is_fresh(t))
      std::fill(v, v + P, S(0));
    else
      look_up<S, J>(z, memory, subject(t), relation(t), v);
  }

  // The write of step t, given v [P]. Kept are u [P] and `size`, |F|^2 before it is made to be at most 1. `v_next`,
  // which may be v, becomes that of the next step, if there is one before `stop`; `norm`, |F|^2, goes from before the
  // step to after it.
  void advance(
      int64_t t, int64_t stop, const S* before, S* after, const S* v, S* u, S& size, S& norm, S* v_next) const {
    if (is_fresh(t)) norm = 0;
    const S step = step_size(t), key = key_square(t);
    size = norm;
    for (int64_t k = 0; k < z.targets; ++k) {
      u[k] = step * (target(t)[k] - v[k]);
      size += u[k] * (2 * v[k] + key * u[k]);
    }
    std::fill(u + z.targets, u + P, S(0));
    const S excess = std::max(S(1), size);
    norm = size / excess;
    const bool goes_on = t + 1 < stop, looks_up = goes_on && !is_fresh(t + 1);
    write<S, J>(
        z, is_fresh(t) ? nullptr : before, after, subject(t), relation(t), u, 1 / std::sqrt(excess),
        looks_up ? subject(t + 1) : nullptr, looks_up ? relation(t + 1) : nullptr, v_next);
    if (goes_on && !looks_up) std::fill(v_next, v_next + P, S(0));
  }

  // The reads of step t: LN(F(n, e)) of each [N, P], and what LN multiplied by [N].
  void read(int64_t t, const S* memory, S* found, S* scales) const {
    const S* n = query(t);
    for (int64_t i = 0; i < z.reads; ++i, n = found, found += P) {
      look_up<S, J>(z, memory, n, read_relation(t, i), found);
      S mean = 0, variance = 0;
      for (int64_t k = 0; k < z.targets; ++k) mean += found[k];
      mean /= S(z.targets);
      for (int64_t k = 0; k < z.targets; ++k) {
        found[k] -= mean;
        variance += found[k] * found[k];
      }
      scales[i] = 1 / std::sqrt(variance / S(z.targets) + S(kFwmEpsilon));
      for (int64_t k = 0; k < z.targets; ++k) found[k] *= scales[i];
    }
  }

  const FwmSizes& z;
  int64_t T;
  const S *subjects, *relations, *targets, *rates, *queries, *reads;
  const bool* resets;
};

// Memories [B, d_s, d_r, d_t] to rows of P numbers, and back.
template <typename S>
void pad_rows(const S* from, int64_t rows, int64_t count, int64_t width, S* to) {
  for (int64_t row = 0; row < rows; ++row, from += count, to += width) {
    std::copy(from, from + count, to);
    std::fill(to + count, to + width, S(0));
  }
}
template <typename S>
void cut_rows(const S* from, int64_t rows, int64_t count, int64_t width, S* to) {
  for (int64_t row = 0; row < rows; ++row, from += width, to += count) std::copy(from, from + count, to);
}

// What was read last at each step [B, T, d_t], F after the last step, and, if asked for, F and |F|^2 before each
// segment, [B, segments, K P] and [B, segments].
inline std::vector<Tensor> fwm_forward(
    std::vector<Tensor> commands, const optional<Tensor>& resets, const Tensor& memory, bool save) {
  const FwmCall call(std::move(commands), resets, memory);
  const int64_t size = call.padded_memory(), kept = save ? call.segments() : 0;
  const Tensor reads = at::empty({call.B, call.T, call.z.targets}, memory.options());
  const Tensor last = at::empty_like(memory), copies = at::empty({call.B, kept, size}, memory.options());
  const Tensor norms = at::empty({call.B, kept}, memory.options());
  call.with_sizes([&](auto number, auto count) {
    using S = decltype(number);
    constexpr int J = count;
    constexpr int64_t P = J * kLanes<S>;
    at::parallel_for(0, call.B, 1, [&](int64_t first, int64_t end) {
      Buffer<S> now(size), v(P), u(P), found(call.z.reads * P), scales(call.z.reads);
      for (int64_t b = first; b < end; ++b) {
        const FwmExample<S, J> example(call, b);
        const int64_t whole = call.z.rows() * call.z.targets;
        const S* given = memory.const_data_ptr<S>() + b * whole;
        pad_rows(given, call.z.rows(), call.z.targets, P, now.data());
        S norm = example.square(now.data(), size), unused;
        example.find(now.data(), 0, v.data());
        for (int64_t t = 0; t < call.T; ++t) {
          if (save && t % kFwmSegment == 0) {
            const int64_t at = b * kept + t / kFwmSegment;
            std::copy_n(now.data(), size, copies.data_ptr<S>() + at * size);
            norms.data_ptr<S>()[at] = norm;
          }
          example.advance(t, call.T, now.data(), now.data(), v.data(), u.data(), unused, norm, v.data());
          example.read(t, now.data(), found.data(), scales.data());
          const S* out = found.data() + (call.z.reads - 1) * P;
          std::copy_n(out, call.z.targets, reads.data_ptr<S>() + (b * call.T + t) * call.z.targets);
        }
        cut_rows(now.data(), call.z.rows(), call.z.targets, P, last.data_ptr<S>() + b * whole);
      }
    });
  });
  return {reads, last, copies, norms};
}

// Numbers of one example's backward pass.
template <typename S, int J>
struct FwmBackward {
  static constexpr int64_t P = J * kLanes<S>;

  explicit FwmBackward(const FwmSizes& z)
      : z(z), size(z.rows() * P), memories((kFwmSegment + 1) * size), d_memory(size), v((kFwmSegment + 1) * P),
        u(kFwmSegment * P), sizes(kFwmSegment), found(z.reads * P), scales(z.reads), d_found(P), d_query(P),
        d_x(P), d_u(P), d_v(P) {}

  // The writes of the steps from `start` to `stop` once more.
  void repeat(const FwmExample<S, J>& example, int64_t start, int64_t stop, const S* copy, S norm) {
    std::copy_n(copy, size, memories.data());
    example.find(memories.data(), start, v.data());
    for (int64_t t = start, i = 0; t < stop; ++t, ++i)
      example.advance(
          t, stop, memories.data() + i * size, memories.data() + (i + 1) * size, v.data() + i * P, u.data() + i * P,
          sizes[i], norm, v.data() + (i + 1) * P);
  }

  // Through the reads of step t, from the gradient of the last of them; `d_queries` [d_s] and `d_relations` [N, d_r]
  // are zero before.
  void reads_backward(
      const FwmExample<S, J>& example, int64_t t, const S* memory, const S* d_read, S* d_queries, S* d_relations) {
    example.read(t, memory, found.data(), scales.data());
    pad_rows(d_read, 1, z.targets, P, d_found.data());
    for (int64_t i = z.reads - 1; i >= 0; --i) {
      const S *out = found.data() + i * P, *n = i ? out - P : example.query(t);
      S mean = 0, along = 0;
      for (int64_t k = 0; k < z.targets; ++k) mean += d_found[k], along += d_found[k] * out[k];
      mean /= S(z.targets), along /= S(z.targets);
      std::fill(d_x.begin(), d_x.end(), S(0));
      for (int64_t k = 0; k < z.targets; ++k) d_x[k] = scales[i] * (d_found[k] - mean - out[k] * along);
      std::fill(d_query.begin(), d_query.end(), S(0));
      look_up_backward<S, J>(
          z, memory, n, example.read_relation(t, i), d_x.data(), d_memory.data(), d_query.data(),
          d_relations + i * z.relations);
      std::swap(d_found, d_query);
    }
    std::copy_n(d_found.data(), z.subjects, d_queries);
  }

  // Through the write of step t, number i of its segment; `d_norm` goes from |F|^2 after the step to before.
  void write_backward_of(
      const FwmExample<S, J>& example, int64_t t, int64_t i, S* d_s, S* d_r, S* d_target, S& d_rate, S& d_norm) {
    const S *before = memories.data() + i * size, *after = before + size;
    const S *found_there = v.data() + i * P, *update = u.data() + i * P;
    const S *s = example.subject(t), *r = example.relation(t);
    const bool is_fresh = example.is_fresh(t), is_over = sizes[i] > 1;
    const S scale = is_over ? 1 / std::sqrt(sizes[i]) : S(1), step = example.step_size(t);
    const S key = example.key_square(t), product = along_key<S, J>(z, after, d_memory.data(), s, r, d_u.data());
    const S d_size = is_over ? -product / (2 * sizes[i]) : d_norm;
    std::fill(d_v.begin(), d_v.end(), S(0));
    d_rate = 0;
    S square = 0;
    for (int64_t k = 0; k < z.targets; ++k) {
      d_u[k] = scale * d_u[k] + 2 * d_size * (found_there[k] + key * update[k]);
      d_v[k] = 2 * d_size * update[k] - step * d_u[k];
      d_target[k] = step * d_u[k];
      d_rate += (example.target(t)[k] - found_there[k]) * d_u[k] / S(z.targets);
      square += update[k] * update[k];
    }
    write_backward<S, J>(
        z, is_fresh ? nullptr : before, s, r, update, scale, d_v.data(), d_memory.data(), d_s, d_r);
    const S d_key = 2 * d_size * square, of_s = example.square(s, z.subjects), of_r = example.square(r, z.relations);
    for (int64_t k = 0; k < z.subjects; ++k) d_s[k] += d_key * of_r * s[k];
    for (int64_t k = 0; k < z.relations; ++k) d_r[k] += d_key * of_s * r[k];
    d_norm = is_fresh ? S(0) : d_size;
    if (is_fresh) std::fill(d_memory.begin(), d_memory.end(), S(0));
  }

  const FwmSizes& z;
  int64_t size;
  Buffer<S> memories, d_memory, v, u, sizes, found, scales, d_found, d_query, d_x, d_u, d_v;
};

// Gradients of the commands and of F before the first step.
inline std::vector<Tensor> fwm_backward(
    std::vector<Tensor> commands, const optional<Tensor>& resets, const Tensor& memory, const Tensor& copies,
    const Tensor& norms, const Tensor& d_reads, const Tensor& d_last) {
  const FwmCall call(std::move(commands), resets, memory);
  const FwmSizes& z = call.z;
  const int64_t size = call.padded_memory(), segments = call.segments(), T = call.T;
  check_tensor("copies", "", copies, call.type, Shape{call.B, segments, size});
  check_tensor("norms", "", norms, call.type, Shape{call.B, segments});
  check_tensor("d_reads", "", d_reads, call.type, Shape{call.B, T, z.targets});
  check_tensor("d_last", "", d_last, call.type, Shape{call.B, z.subjects, z.relations, z.targets});
  std::vector<Tensor> d;
  for (const Tensor& command : call.commands) d.push_back(at::zeros_like(command));
  d.push_back(at::empty_like(memory));
  call.with_sizes([&](auto number, auto count) {
    using S = decltype(number);
    constexpr int J = count;
    constexpr int64_t P = J * kLanes<S>;
    at::parallel_for(0, call.B, 1, [&](int64_t first, int64_t end) {
      FwmBackward<S, J> work(z);
      for (int64_t b = first; b < end; ++b) {
        const FwmExample<S, J> example(call, b);
        const auto row = [&](int i) { return d[i].template data_ptr<S>() + b * (d[i].numel() / call.B); };
        const int64_t whole = z.rows() * z.targets;
        pad_rows(d_last.const_data_ptr<S>() + b * whole, z.rows(), z.targets, P, work.d_memory.data());
        S d_norm = 0;
        for (int64_t segment = segments - 1; segment >= 0; --segment) {
          const int64_t start = segment * kFwmSegment, stop = std::min(T, start + kFwmSegment);
          const int64_t at = b * segments + segment;
          work.repeat(
              example, start, stop, copies.const_data_ptr<S>() + at * size, norms.const_data_ptr<S>()[at]);
          for (int64_t t = stop - 1; t >= start; --t) {
            const int64_t i = t - start;
            const S* d_read = d_reads.const_data_ptr<S>() + (b * T + t) * z.targets;
            if (std::any_of(d_read, d_read + z.targets, [](S value) { return value != 0; }))
              work.reads_backward(
                  example, t, work.memories.data() + (i + 1) * size, d_read, row(4) + t * z.subjects,
                  row(5) + t * z.reads * z.relations);
            work.write_backward_of(
                example, t, i, row(0) + t * z.subjects, row(1) + t * z.relations, row(2) + t * z.targets, row(3)[t],
                d_norm);
          }
        }
        cut_rows(work.d_memory.data(), z.rows(), z.targets, P, row(6));
        const S* given = memory.const_data_ptr<S>() + b * whole;
        if (d_norm != 0)  // what a reset at the first step throws away may be no number
          for (int64_t k = 0; k < whole; ++k) row(6)[k] += 2 * d_norm * given[k];
      }
    });
  });
  return d;
}

}  // namespace mnm
