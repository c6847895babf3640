// What the forward and the backward loop share: sizes, weights, and what one leaves for the other.
//
// Dimensions: T time, B batch, I input size, H heads, L memory layers of widths D_l, N recall delays; sizes
// d_h controller, d_k key, d_v value, U = H (2 d_k + d_v) + d_k interaction vectors, F = sum D_l D_{l-1}.
#pragma once

#include "memory.h"
#include "product.h"

namespace mnm {

using at::Tensor;

constexpr int64_t kFewSteps = 8;  // for fewer, packing the controller's weights does not pay

// Order of the tensors that come in and go out; the Python side has the same.
enum Parameter {
  kWeightX,
  kWeightH,
  kBiasX,
  kBiasH,
  kInteraction,
  kInteractionBias,
  kRate,
  kRateBias,
  kFeedback,
  kFeedbackBias
};
enum State { kHidden, kCell, kReadValue, kMemory, kRecentKeys, kRecentValues };
enum Saved { kGates, kCells, kVectors, kRates, kRecords };

// Sizes and plain pointers to the tensors of one call.
template <typename S>
struct Problem {
  Layout<S> layout;
  int64_t T, B, I, d_h, d_v, U, in_features;
  const bool* resets;
  const S* initial_memory;
  std::vector<const S*> parameters, state;
  int64_t memory_stride;  // from one sequence's memory to the next; 0 if all start from the same

  Problem(
      const Settings& settings, const Tensor& inputs, const optional<Tensor>& resets_,
      const std::vector<Tensor>& parameter_list, const std::vector<Tensor>& state_list, const Tensor& initial)
      : layout(settings),
        T(inputs.size(0)),
        B(inputs.size(1)),
        I(inputs.size(2)),
        d_h(parameter_list[kWeightH].size(1)),
        d_v(settings.value()),
        U(settings.vectors()),
        in_features(I + d_v),
        resets(resets_ ? resets_->const_data_ptr<bool>() : nullptr),
        initial_memory(initial.const_data_ptr<S>()) {
    for (const Tensor& tensor : parameter_list) parameters.push_back(tensor.const_data_ptr<S>());
    for (const Tensor& tensor : state_list) state.push_back(tensor.const_data_ptr<S>());
    memory_stride = state_list[kMemory].stride(0);
  }

  // The memory of sequence b before the first step.
  const S* start_memory(int64_t b) const { return state[kMemory] + b * memory_stride; }

  bool reset(int64_t t, int64_t b) const { return resets && resets[t * B + b]; }

  // Whether the write of `delay` steps before t belongs to the same episode as step t.
  bool reaches(int64_t t, int64_t b, int64_t delay) const {
    for (int64_t s = t; s > t - delay && s >= 0; --s)
      if (reset(s, b)) return false;
    return true;
  }

  int64_t controls() const { return d_h + d_v; }
  int64_t read_keys_at() const { return 0; }
  int64_t write_keys_at() const { return layout.heads * layout.key(); }
  int64_t values_at() const { return 2 * layout.heads * layout.key(); }
  int64_t rate_vector_at() const { return values_at() + layout.heads * d_v; }

  // Parameters as matrices.
  Tensor weight_x() const { return view(parameters[kWeightX], 4 * d_h, I, in_features); }
  Tensor weight_v() const { return view(parameters[kWeightX] + I, 4 * d_h, d_v, in_features); }
  Tensor weight_h() const { return view(parameters[kWeightH], 4 * d_h, d_h, d_h); }
  Tensor interaction() const { return view(parameters[kInteraction], U, d_h, d_h); }
  Tensor feedback() const { return view(parameters[kFeedback], layout.targets(), d_v, d_v); }
};

// The controller's weights as the loop multiplies rows of vectors with them: transposed in the forward pass.
template <typename S>
struct LoopWeights {
  Matrix<S> h, v, interaction, feedback;

  // `packed` is what `pack` returned, or empty; then few steps go without.
  LoopWeights(const Problem<S>& p, bool is_forward, std::vector<Tensor> packed = {}) {
    if (packed.empty() && p.T >= kFewSteps) packed = pack(p, is_forward);
    const std::vector<Tensor> from = matrices(p, is_forward);
    const auto prepare = [&](size_t i) {
      return packed.empty() ? Matrix<S>(from[i]) : Matrix<S>(from[i], packed[i]);
    };
    h = prepare(0), v = prepare(1), interaction = prepare(2);
    if (!p.layout.gradient_rule) feedback = prepare(3);
  }

  static std::vector<Tensor> pack(const Problem<S>& p, bool is_forward) {
    std::vector<Tensor> packed = matrices(p, is_forward);
    for (Tensor& w : packed) w = Matrix<S>::pack(w);
    return packed;
  }

 private:
  static std::vector<Tensor> matrices(const Problem<S>& p, bool is_forward) {
    std::vector<Tensor> all{p.weight_h(), p.weight_v(), p.interaction()};
    if (!p.layout.gradient_rule) all.push_back(p.feedback());
    if (is_forward)
      for (Tensor& w : all) w = w.t();
    return all;
  }
};

// What a forward pass leaves for the backward pass, [depth, B, ...] each; depth is T or, for acting, N.
template <typename S>
struct Record {
  S* gates;    // i, f, g, o after their nonlinearities, [T, B, 4 d_h]
  S* cells;    // [depth, B, d_h]
  S* vectors;  // interaction vectors after tanh, [depth, B, U]
  S* rates;    // beta, [depth, B, 1 or L]
  S* records;  // [depth, B, record_size]
  int64_t depth;
};

template <typename S>
class Loop {
 protected:
  Loop(const Problem<S>& problem, const Record<S>& record, const S* controls)
      : p(problem), lay(problem.layout), saved(record), controls_out(controls) {}

  int64_t at(int64_t t, int64_t b) const { return (t % saved.depth) * p.B + b; }
  S* vectors(int64_t t, int64_t b) const { return saved.vectors + at(t, b) * p.U; }
  S* cells(int64_t t, int64_t b) const { return saved.cells + at(t, b) * p.d_h; }
  const S* gates(int64_t t, int64_t b) const { return saved.gates + (t * p.B + b) * 4 * p.d_h; }

  // [h; v^r] of the step before t into `to`; zeros at a reset.
  void previous_control(int64_t t, int64_t b, S* to) const {
    if (p.reset(t, b)) {
      std::fill_n(to, p.controls(), S(0));
    } else if (t > 0) {
      std::copy_n(controls_out + ((t - 1) * p.B + b) * p.controls(), p.controls(), to);
    } else {
      std::copy_n(p.state[kHidden] + b * p.d_h, p.d_h, to);
      std::copy_n(p.state[kReadValue] + b * p.d_v, p.d_v, to + p.d_h);
    }
  }

  // The cell state before step t; null means zeros.
  const S* previous_cell(int64_t t, int64_t b) const {
    if (p.reset(t, b)) return nullptr;
    return t > 0 ? cells(t - 1, b) : p.state[kCell] + b * p.d_h;
  }

  // Key or value written `delay` steps before step t, from this call, from the state, or zeros.
  const S* past(int64_t t, int64_t b, int64_t delay, int64_t vectors_at, State field, int64_t width) const {
    const int64_t size = lay.heads * width;
    if (!p.reaches(t, b, delay)) return zeros.data();
    if (t >= delay) return vectors(t - delay, b) + vectors_at;
    return p.state[field] + (b * (lay.delays() - 1) + delay - t - 1) * size;
  }

  Token<S> token(int64_t t, int64_t b, const S* targets) const {
    S* u = vectors(t, b);
    Token<S> result{
        u + p.read_keys_at(),
        u + p.write_keys_at(),
        u + p.values_at(),
        saved.rates + at(t, b) * lay.rates,
        targets,
        saved.records + at(t, b) * lay.record_size,
        {},
        {}};
    for (int64_t delay = 1; delay < lay.delays(); ++delay) {
      result.past_keys.push_back(past(t, b, delay, p.write_keys_at(), kRecentKeys, lay.key()));
      result.past_values.push_back(past(t, b, delay, p.values_at(), kRecentValues, lay.value()));
    }
    return result;
  }

  // The weights that the episode of sequence b at step t started from, and the step of its first write here.
  int64_t episode_start(int64_t t, int64_t b, const S** weights) const {
    for (int64_t s = t; s >= 0; --s)
      if (p.reset(s, b)) return *weights = p.initial_memory, s;
    return *weights = p.start_memory(b), 0;
  }

  const Problem<S>& p;
  const Layout<S>& lay;
  Record<S> saved;
  const S* controls_out;
  Buffer<S> zeros = Buffer<S>(lay.heads * std::max(lay.key(), lay.value()));
};

}  // namespace mnm
