// The time loop of a block of sequences backward. `d_` before a name is the loss's gradient of it.
//
// Threads may share a block: each takes some of the sequences through kChunk steps, then some of the sums of parameter
// gradients over those steps, which stay sums over the whole block. So results do not depend on the shares.
//
// Dimensions: T time, B batch, I input size, H heads, L memory layers of widths D_l, N recall delays; sizes
// d_h controller, d_k key, d_v value, U = H (2 d_k + d_v) + d_k interaction vectors, F = sum D_l D_{l-1}.
#pragma once

#include "blocks.h"
#include "gradient_rule_backward.h"
#include "local_rule_backward.h"
#include "loop.h"

#include <memory>

namespace mnm {

constexpr int64_t kChunk = 16;  // time steps whose parameter gradients are summed in one matrix product

template <typename S>
struct BackwardPointers {
  const S* d_controls;
  const S* d_meta_loss;
  std::vector<const S*> d_state;  // gradients of the final state; null for a memory that nobody uses
  S* d_inputs;
  std::vector<S*> d_initial;  // gradients of the initial state
};

// Gradients of all parameters as one row of numbers, in the order of `Parameter`.
struct ParameterOffsets {
  std::vector<int64_t> at;
  int64_t total = 0;
  explicit ParameterOffsets(const std::vector<Tensor>& parameters) {
    for (const Tensor& tensor : parameters) at.push_back(total), total += tensor.numel();
  }
};

template <typename S>
std::unique_ptr<MemoryBackward<S>> make_memory_backward(const Layout<S>& layout) {
  if (layout.gradient_rule()) return std::make_unique<GradientRuleBackward<S>>(layout);
  return std::make_unique<LocalRuleBackward<S>>(layout);
}

// What a thread needs for its share of a block.
template <typename S>
struct BackwardShare {
  int64_t begin, end;  // its sequences, counted from the block's first
  std::unique_ptr<MemoryBackward<S>> memory;
  Buffer<S> d_values, squashed, rows;
};

template <typename S>
class BackwardBlock : Loop<S> {
  using Base = Loop<S>;
  using Base::lay, Base::p, Base::saved;

 public:
  BackwardBlock(
      const Problem<S>& problem, const LoopWeights<S>& loop_weights, const Record<S>& record,
      const S* controls, const S* final_memory, const BackwardPointers<S>& result,
      const ParameterOffsets& offsets, S* d_parameters, int64_t begin, int64_t end, int64_t share_count)
      : Base(problem, record, controls),
        product(loop_weights),
        out(result),
        first(begin),
        n(end - begin),
        offset(offsets.at),
        sums(d_parameters),
        d_control(n * p.controls()),
        d_cell(n * p.d_h),
        weights(n * lay.weights_size),
        d_weights(n * lay.weights_size),
        d_gates(kChunk * n * 4 * p.d_h),
        d_vectors(kChunk * n * p.U),
        d_rates(kChunk * n * lay.rates),
        d_targets(kChunk * n * lay.heads * lay.targets()),
        d_past(lay.delays() * n * past_size()) {
    const int64_t widest = std::max({p.controls(), lay.heads * p.d_v, lay.key(), p.I});
    for (int64_t i = 0; i < share_count; ++i)
      shares.push_back(
          {n * i / share_count, n * (i + 1) / share_count, make_memory_backward(lay),
           Buffer<S>(n * lay.heads * p.d_v), Buffer<S>(p.d_h), Buffer<S>(kChunk * n * widest)});
    for (int64_t b = 0; b < n; ++b) {
      lay.load_weights(weights.data() + b * lay.weights_size, final_memory + (first + b) * lay.flat_size);
      if (out.d_state[kMemory])
        lay.load_weights(
            d_weights.data() + b * lay.weights_size, out.d_state[kMemory] + (first + b) * lay.flat_size);
    }
  }

  void run() {
    start_from_final_state();
    for (int64_t t = (p.T - 1) / kChunk * kChunk; t >= 0; t -= kChunk) {
      const int64_t steps = std::min(kChunk, p.T - t);
      for_shares([&](size_t i) {
        for (int64_t slot = steps - 1; slot >= 0; --slot) step_backward(t + slot, slot, shares[i]);
      });
      for_shares([&](size_t i) { sum_parameter_gradients(t, steps, i); });
    }
    store_initial_state();
  }

 private:
  // work(i) for all shares, in parallel.
  template <typename Work>
  void for_shares(Work work) {
    for_blocks(shares.size(), [&](int64_t i, int64_t, int64_t) { work(i); }, 1);
  }

  void step_backward(int64_t t, int64_t slot, BackwardShare<S>& share) {
    for (int64_t b = share.end - 1; b >= share.begin; --b) memory_backward(t, slot, b, *share.memory);
    targets_backward(slot, share);
    vectors_backward(t, slot, share);
    for (int64_t b = share.begin; b < share.end; ++b) cell_backward(t, slot, b, share.squashed);
    carry_back(t, slot, share);
  }

  int64_t past_size() const { return lay.heads * (lay.key() + lay.value()); }
  // Gradients that later steps' recall sends to the key and value written at step t.
  S* d_past_of(int64_t t, int64_t b) {
    const int64_t slot = ((t % lay.delays()) + lay.delays()) % lay.delays();
    return d_past.data() + (slot * n + b) * past_size();
  }
  S* d_control_of(int64_t b) { return d_control.data() + b * p.controls(); }
  S* d_gates_of(int64_t slot, int64_t b) { return d_gates.data() + (slot * n + b) * 4 * p.d_h; }
  S* d_vectors_of(int64_t slot, int64_t b) { return d_vectors.data() + (slot * n + b) * p.U; }

  void start_from_final_state() {
    for (int64_t b = 0; b < n; ++b) {
      S* d = d_control.data() + b * p.controls();
      std::copy_n(out.d_state[kHidden] + (first + b) * p.d_h, p.d_h, d);
      std::copy_n(out.d_state[kReadValue] + (first + b) * p.d_v, p.d_v, d + p.d_h);
      std::copy_n(out.d_state[kCell] + (first + b) * p.d_h, p.d_h, d_cell.data() + b * p.d_h);
      for (int64_t delay = 1; delay < lay.delays(); ++delay) {
        if (p.has_reset_since(p.T - 1, first + b, delay - 1)) continue;
        const int64_t row = (first + b) * (lay.delays() - 1) + delay - 1;
        const int64_t keys = lay.heads * lay.key(), size = lay.heads * lay.value();
        S* d_written = d_past_of(p.T - delay, b);
        std::copy_n(out.d_state[kRecentKeys] + row * keys, keys, d_written);
        std::copy_n(out.d_state[kRecentValues] + row * size, size, d_written + keys);
      }
    }
  }

  void memory_backward(int64_t t, int64_t slot, int64_t b, MemoryBackward<S>& memory) {
    S* u = d_vectors_of(slot, b);
    S* pending = d_past_of(t, b);
    const int64_t keys = lay.heads * lay.key();
    std::fill_n(u, p.U, S(0));
    std::copy_n(pending, keys, u + p.write_keys_at());
    std::copy_n(pending + keys, lay.heads * p.d_v, u + p.values_at());
    std::fill_n(pending, past_size(), S(0));
    S* rates = d_rates.data() + (slot * n + b) * lay.rates;
    S* targets = d_targets.data() + (slot * n + b) * lay.heads * lay.targets();
    std::fill_n(rates, lay.rates, S(0));
    std::fill_n(targets, lay.heads * lay.targets(), S(0));
    TokenGradient<S> gradient{
        u + p.read_keys_at(), u + p.write_keys_at(), u + p.values_at(), rates, targets, {}, {}};
    for (int64_t delay = 1; delay < lay.delays(); ++delay) {
      S* d_written = p.has_reset_since(t, first + b, delay) ? nullptr : d_past_of(t - delay, b);
      gradient.past_keys.push_back(d_written);
      gradient.past_values.push_back(d_written ? d_written + keys : nullptr);
    }
    S* d_read_value = d_control.data() + b * p.controls() + p.d_h;
    const S* outer = out.d_controls + (t * p.B + first + b) * p.controls();
    for (int64_t i = 0; i < p.d_v; ++i) d_read_value[i] += outer[p.d_h + i];
    memory.run(
        weights.data() + b * lay.weights_size, d_weights.data() + b * lay.weights_size,
        this->token(t, first + b, nullptr), gradient, d_read_value, out.d_meta_loss[t * p.B + first + b]);
    const S* beta = saved.rates + this->at(t, first + b) * lay.rates;
    for (int64_t r = 0; r < lay.rates; ++r) {
      rates[r] *= beta[r] * (1 - beta[r]);
      add_scaled(u + p.rate_vector_at(), p.parameters[kRate] + r * lay.key(), rates[r], lay.key());
    }
  }

  void targets_backward(int64_t slot, BackwardShare<S>& share) {
    if (lay.gradient_rule()) return;
    const int64_t count = share.end - share.begin, size = lay.heads * p.d_v;
    const S* targets = d_targets.data() + (slot * n + share.begin) * lay.heads * lay.targets();
    const Rows<S> d_values{share.d_values.data(), p.d_v};
    product.feedback.multiply({targets, lay.targets()}, d_values, count * lay.heads, false);
    for (int64_t i = 0; i < count; ++i)
      add_scaled(d_vectors_of(slot, share.begin + i) + p.values_at(), d_values.data + i * size, S(1), size);
  }

  void vectors_backward(int64_t t, int64_t slot, const BackwardShare<S>& share) {
    for (int64_t b = share.begin; b < share.end; ++b) {
      const S* u = this->vectors(t, first + b);
      S* d = d_vectors_of(slot, b);
      for (int64_t i = 0; i < p.U; ++i) d[i] *= 1 - u[i] * u[i];
      const S* outer = out.d_controls + (t * p.B + first + b) * p.controls();
      add_scaled(d_control.data() + b * p.controls(), outer, S(1), p.d_h);
    }
    product.interaction.multiply(
        {d_vectors_of(slot, share.begin), p.U}, {d_control_of(share.begin), p.controls()},
        share.end - share.begin, true);
  }

  void cell_backward(int64_t t, int64_t slot, int64_t b, Buffer<S>& squashed) {
    const int64_t d = p.d_h;
    const S* g = this->gates(t, first + b);
    const S* before = this->previous_cell_or_null_at_reset(t, first + b);
    const S* dh = d_control.data() + b * p.controls();
    S* dc = d_cell.data() + b * d;
    S* dg = d_gates_of(slot, b);
    squashed.assign(this->cells(t, first + b), this->cells(t, first + b) + d);
    apply_tanh<S>(squashed.data(), nullptr, d);
    for (int64_t i = 0; i < d; ++i) {
      const S in = g[i], forget = g[d + i], candidate = g[2 * d + i], open = g[3 * d + i], s = squashed[i];
      const S total = dc[i] + dh[i] * open * (1 - s * s);
      dg[i] = total * candidate * in * (1 - in);
      dg[d + i] = before ? total * before[i] * forget * (1 - forget) : S(0);
      dg[2 * d + i] = total * in * (1 - candidate * candidate);
      dg[3 * d + i] = dh[i] * s * open * (1 - open);
      dc[i] = total * forget;
    }
  }

  // Gradients of [h; v^r] of the step before.
  void carry_back(int64_t t, int64_t slot, BackwardShare<S>& share) {
    const Rows<const S> d{d_gates_of(slot, share.begin), 4 * p.d_h};
    const Rows<S> to{d_control_of(share.begin), p.controls()};
    product.h.multiply(d, to, share.end - share.begin, false);
    product.v.multiply(d, to.from(0, p.d_h), share.end - share.begin, false);
    for (int64_t b = share.begin; b < share.end; ++b)
      if (p.is_reset(t, first + b)) cross_reset(t, b, *share.memory);
  }

  // From the first step of an episode to the last one of the episode before it: no gradient goes across.
  void cross_reset(int64_t t, int64_t b, MemoryBackward<S>& memory) {
    std::fill_n(d_control.data() + b * p.controls(), p.controls(), S(0));
    std::fill_n(d_cell.data() + b * p.d_h, p.d_h, S(0));
    std::fill_n(d_weights.data() + b * lay.weights_size, lay.weights_size, S(0));
    if (t > 0) rebuild_memory_before_reset(t, b, memory);
  }

  // The memory after step t - 1, the last of an episode, by repeating the episode's writes.
  void rebuild_memory_before_reset(int64_t t, int64_t b, MemoryBackward<S>& memory) {
    S* own = weights.data() + b * lay.weights_size;
    const auto start = this->last_reset_or_start(t - 1, first + b);
    lay.load_weights(own, start.weights);
    for (int64_t s = start.step; s < t; ++s) memory.replay_write(own, this->token(s, first + b, nullptr));
  }

  // The sums that share i of the threads makes. They are ordered such that two or four shares have about the same work.
  void sum_parameter_gradients(int64_t t, int64_t steps, size_t i) {
    Buffer<S>& rows = shares[i].rows;
    for (size_t sum = i; sum < 4; sum += shares.size()) {
      if (sum == 0) sum_controller_gradients(t, steps, rows);
      if (sum == 1) sum_interaction_gradients(t, steps, rows);
      if (sum == 2) input_gradients(t, steps, rows);
      if (sum == 3) sum_feedback_gradients(t, steps, rows);
    }
  }

  void sum_controller_gradients(int64_t t, int64_t steps, Buffer<S>& rows) {
    const int64_t count = steps * n;
    const Rows<const S> dg{d_gates.data(), 4 * p.d_h};
    add_columns(kBiasX, d_gates.data(), count, 4 * p.d_h);
    gather(t, steps, p.controls(), rows, [&](int64_t s, int64_t b, S* to) {
      this->previous_control_or_zeros_at_reset(s, b, to);
    });
    const Rows<const S> before{rows.data(), p.controls()};
    add_outer_sums<S>(gradient(kWeightH, p.d_h), dg, before, count, 4 * p.d_h, p.d_h);
    add_outer_sums<S>(
        gradient(kWeightX, p.in_features, p.I), dg, before.from(0, p.d_h), count, 4 * p.d_h, p.d_v);
  }

  void sum_interaction_gradients(int64_t t, int64_t steps, Buffer<S>& rows) {
    const int64_t count = steps * n;
    add_columns(kInteractionBias, d_vectors.data(), count, p.U);
    add_columns(kRateBias, d_rates.data(), count, lay.rates);
    gather(t, steps, p.d_h, rows, [&](int64_t s, int64_t b, S* to) {
      std::copy_n(this->controls_out + (s * p.B + b) * p.controls(), p.d_h, to);
    });
    add_outer_sums<S>(
        gradient(kInteraction, p.d_h), {d_vectors.data(), p.U}, {rows.data(), p.d_h}, count, p.U, p.d_h);
    gather(t, steps, lay.key(), rows, [&](int64_t s, int64_t b, S* to) {
      std::copy_n(this->vectors(s, b) + p.rate_vector_at(), lay.key(), to);
    });
    add_outer_sums<S>(
        gradient(kRate, lay.key()), {d_rates.data(), lay.rates}, {rows.data(), lay.key()}, count, lay.rates,
        lay.key());
  }

  void sum_feedback_gradients(int64_t t, int64_t steps, Buffer<S>& rows) {
    if (lay.gradient_rule()) return;
    const int64_t heads = steps * n * lay.heads, size = lay.heads * p.d_v;
    add_columns(kFeedbackBias, d_targets.data(), heads, lay.targets());
    gather(t, steps, size, rows, [&](int64_t s, int64_t b, S* to) {
      std::copy_n(this->vectors(s, b) + p.values_at(), size, to);
    });
    add_outer_sums<S>(
        gradient(kFeedback, p.d_v), {d_targets.data(), lay.targets()}, {rows.data(), p.d_v}, heads,
        lay.targets(), p.d_v);
  }

  void input_gradients(int64_t t, int64_t steps, Buffer<S>& rows) {
    const int64_t count = steps * n;
    const Rows<const S> dg{d_gates.data(), 4 * p.d_h};
    gather(t, steps, p.I, rows, [&](int64_t s, int64_t b, S* to) {
      std::copy_n(p.inputs + (s * p.B + b) * p.I, p.I, to);
    });
    add_outer_sums<S>(gradient(kWeightX, p.in_features), dg, {rows.data(), p.I}, count, 4 * p.d_h, p.I);
    if (!out.d_inputs) return;
    const Tensor d_gate_rows = view(d_gates.data(), count, 4 * p.d_h, 4 * p.d_h);
    add_product(view(rows.data(), count, p.I, p.I), d_gate_rows, p.weight_x(), false);
    for (int64_t s = 0; s < steps; ++s)
      std::copy_n(rows.data() + s * n * p.I, n * p.I, out.d_inputs + ((t + s) * p.B + first) * p.I);
  }

  template <typename Function>
  void gather(int64_t t, int64_t steps, int64_t width, Buffer<S>& rows, Function fill) {
    for (int64_t s = 0; s < steps; ++s)
      for (int64_t b = 0; b < n; ++b) fill(t + s, first + b, rows.data() + (s * n + b) * width);
  }

  Rows<S> gradient(Parameter which, int64_t stride, int64_t column = 0) {
    return {sums + offset[which] + column, stride};
  }

  void add_columns(Parameter which, const S* values, int64_t count, int64_t width) {
    for (int64_t i = 0; i < count; ++i) add_scaled(sums + offset[which], values + i * width, S(1), width);
  }

  void store_initial_state() {
    for (int64_t b = 0; b < n; ++b) {
      const S* d = d_control.data() + b * p.controls();
      std::copy_n(d, p.d_h, out.d_initial[kHidden] + (first + b) * p.d_h);
      std::copy_n(d + p.d_h, p.d_v, out.d_initial[kReadValue] + (first + b) * p.d_v);
      std::copy_n(d_cell.data() + b * p.d_h, p.d_h, out.d_initial[kCell] + (first + b) * p.d_h);
      if (out.d_initial[kMemory])
        lay.store_weights(
            out.d_initial[kMemory] + (first + b) * lay.flat_size, d_weights.data() + b * lay.weights_size);
      for (int64_t delay = 1; delay < lay.delays(); ++delay) {
        const int64_t row = (first + b) * (lay.delays() - 1) + delay - 1;
        const int64_t keys = lay.heads * lay.key(), size = lay.heads * lay.value();
        const S* d_written = d_past_of(-delay, b);
        std::copy_n(d_written, keys, out.d_initial[kRecentKeys] + row * keys);
        std::copy_n(d_written + keys, size, out.d_initial[kRecentValues] + row * size);
      }
    }
  }

  const LoopWeights<S>& product;
  BackwardPointers<S> out;
  int64_t first, n;
  const std::vector<int64_t>& offset;
  S* sums;
  Buffer<S> d_control, d_cell, weights, d_weights, d_gates, d_vectors, d_rates, d_targets, d_past;
  std::vector<BackwardShare<S>> shares;
};

}  // namespace mnm
