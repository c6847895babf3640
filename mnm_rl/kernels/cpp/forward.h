// The time loop of a block of sequences, by Figure 1 of Munkhdalai et al. 2019.
//
// Dimensions: T time, B batch, I input size, H heads, L memory layers of widths D_l, N recall delays; sizes
// d_h controller, d_k key, d_v value, U = H (2 d_k + d_v) + d_k interaction vectors, F = sum D_l D_{l-1}.
#pragma once

#include "loop.h"
#include "memory_forward.h"

namespace mnm {

template <typename S>
struct ForwardPointers {
  S* controls;   // [h_t; v^r_t], [T, B, d_h + d_v]
  S* meta_loss;  // [T, B]
  std::vector<S*> state;
};

template <typename S>
class ForwardBlock : Loop<S> {
  using Base = Loop<S>;
  using Base::lay, Base::p, Base::saved;

 public:
  ForwardBlock(
      const Problem<S>& problem, const LoopWeights<S>& loop_weights, const Record<S>& record,
      const ForwardPointers<S>& result, int64_t begin, int64_t end)
      : Base(problem, record, result.controls),
        product(loop_weights),
        out(result),
        first(begin),
        n(end - begin),
        memory(lay),
        previous(n * p.controls()),
        values(n * lay.heads * p.d_v),
        targets(lay.gradient_rule() ? 0 : n * lay.heads * lay.targets()),
        weights(kept_memories() * lay.weights_size) {}

  void run() {
    for (int64_t t = 0; t < p.T; ++t) {
      run_controller(t);
      emit_vectors(t);
      if (!lay.gradient_rule()) predict_activations(t);
      for (int64_t b = 0; b < n; ++b) use_memory(t, b);
    }
    for (int64_t b = 0; b < n; ++b) store_state(first + b);
  }

 private:
  S* control(int64_t t, int64_t b) const { return out.controls + (t * p.B + first + b) * p.controls(); }

  // h_t = LSTM([x_t; v^r_{t-1}], h_{t-1}); the gates hold W_x x_t and both biases already.
  void run_controller(int64_t t) {
    S* gates = saved.gates + (t * p.B + first) * 4 * p.d_h;
    for (int64_t b = 0; b < n; ++b)
      this->previous_control_or_zeros_at_reset(t, first + b, previous.data() + b * p.controls());
    product.h.multiply({previous.data(), p.controls()}, {gates, 4 * p.d_h}, n, true);
    product.v.multiply({previous.data() + p.d_h, p.controls()}, {gates, 4 * p.d_h}, n, true);
    for (int64_t b = 0; b < n; ++b) {
      S* g = gates + b * 4 * p.d_h;
      apply_logistic<S>(g, nullptr, 2 * p.d_h);
      apply_tanh<S>(g + 2 * p.d_h, nullptr, p.d_h);
      apply_logistic<S>(g + 3 * p.d_h, nullptr, p.d_h);
      update_cell(
          g, this->previous_cell_or_null_at_reset(t, first + b), this->cells(t, first + b), control(t, b));
    }
  }

  void update_cell(const S* g, const S* before, S* cell, S* hidden) const {
    const int64_t d = p.d_h;
    for (int64_t i = 0; i < d; ++i) cell[i] = g[i] * g[2 * d + i] + (before ? g[d + i] * before[i] : S(0));
    std::copy_n(cell, d, hidden);
    apply_tanh<S>(hidden, nullptr, d);
    for (int64_t i = 0; i < d; ++i) hidden[i] *= g[3 * d + i];
  }

  // Eq. 1, and beta = sigmoid(W beta' + b).
  void emit_vectors(int64_t t) {
    S* u = this->vectors(t, first);
    product.interaction.multiply({control(t, 0), p.controls()}, {u, p.U}, n, false);
    for (int64_t b = 0; b < n; ++b) {
      apply_tanh<S>(u + b * p.U, p.parameters[kInteractionBias], p.U);
      const S* rate_vector = u + b * p.U + p.rate_vector_at();
      S* rates = saved.rates + this->at(t, first + b) * lay.rates;
      for (int64_t r = 0; r < lay.rates; ++r) {
        S sum = p.parameters[kRateBias][r];
        for (int64_t i = 0; i < lay.key(); ++i)
          sum += p.parameters[kRate][r * lay.key() + i] * rate_vector[i];
        rates[r] = sum;
      }
      apply_logistic<S>(rates, nullptr, lay.rates);
    }
  }

  // q_psi of section 3.4, for all heads of the block at once.
  void predict_activations(int64_t t) {
    const int64_t size = lay.heads * p.d_v, heads = n * lay.heads;
    for (int64_t b = 0; b < n; ++b)
      std::copy_n(this->vectors(t, first + b) + p.values_at(), size, values.data() + b * size);
    for (int64_t h = 0; h < heads; ++h)
      std::copy_n(p.parameters[kFeedbackBias], lay.targets(), targets.data() + h * lay.targets());
    product.feedback.multiply({values.data(), p.d_v}, {targets.data(), lay.targets()}, heads, true);
  }

  // Where the memory of a sequence starts: at a reset, or in this call.
  const S* memory_at_start_or_reset(int64_t t, int64_t b) const {
    return p.is_reset(t, first + b) ? p.initial_memory : p.start_memory(first + b);
  }

  void use_memory(int64_t t, int64_t b) {
    const S* expected = lay.gradient_rule() ? nullptr : targets.data() + b * lay.heads * lay.targets();
    const Token<S> token = this->token(t, first + b, expected);
    S *read_value = control(t, b) + p.d_h, *meta_loss = out.meta_loss + t * p.B + first + b;
    S* after = out.state[kMemory] + (first + b) * lay.flat_size;
    if (p.T == 1 && !lay.gradient_rule()) {
      const S* before = memory_at_start_or_reset(t, b);
      if (after != before) std::copy_n(before, lay.flat_size, after);
      return memory.run_on_state(after, token, read_value, meta_loss);
    }
    S* own = weights.data() + (p.T == 1 ? 0 : b) * lay.weights_size;
    if (t == 0 || p.is_reset(t, first + b)) lay.load_weights(own, memory_at_start_or_reset(t, b));
    memory.run(own, token, read_value, meta_loss);
    if (t == p.T - 1) lay.store_weights(after, own);
  }

  void store_state(int64_t b) const {
    const int64_t t = p.T - 1;
    std::copy_n(control(t, b - first), p.d_h, out.state[kHidden] + b * p.d_h);
    std::copy_n(control(t, b - first) + p.d_h, p.d_v, out.state[kReadValue] + b * p.d_v);
    std::copy_n(this->cells(t, b), p.d_h, out.state[kCell] + b * p.d_h);
    for (int64_t delay = 1; delay < lay.delays(); ++delay) {
      // as a step after the last one would see it
      const int64_t row = b * (lay.delays() - 1) + delay - 1, keys = lay.heads * lay.key();
      const int64_t size = lay.heads * lay.value();
      const S* key = this->past_after(t, b, delay, p.write_keys_at(), kRecentKeys, lay.key());
      const S* value = this->past_after(t, b, delay, p.values_at(), kRecentValues, lay.value());
      std::copy_n(key, keys, out.state[kRecentKeys] + row * keys);
      std::copy_n(value, size, out.state[kRecentValues] + row * size);
    }
  }

  const S* past_after(int64_t t, int64_t b, int64_t delay, int64_t at, State field, int64_t width) const {
    return delay == 1 ? this->vectors(t, b) + at
                      : this->past_or_zeros_across_reset(t, b, delay - 1, at, field, width);
  }

  // Memories that are kept from step to step; a single step needs one, or, with the local rule, none.
  int64_t kept_memories() const { return p.T > 1 ? n : (lay.gradient_rule() ? 1 : 0); }

  const LoopWeights<S>& product;
  ForwardPointers<S> out;
  int64_t first, n;
  MemoryForward<S> memory;
  Buffer<S> previous, values, targets, weights;
};

}  // namespace mnm
