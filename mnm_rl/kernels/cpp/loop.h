// What the forward and the backward loop share: sizes, weights, and what one leaves for the other.
//
// Dimensions: T time, B batch, I input size, H heads, L memory layers of widths D_l, N recall delays; sizes
// d_h controller, d_k key, d_v value, U = H (2 d_k + d_v) + d_k interaction vectors, F = sum D_l D_{l-1}.
#pragma once

#include "arguments.h"
#include "product.h"

namespace mnm {

constexpr int64_t kFewSteps = 8;  // for fewer, packing the controller's weights does not pay

// Sizes and plain pointers to the tensors of one call.
template <typename S>
struct Problem {
  Layout<S> layout;
  int64_t T, B, I, d_h, d_v, U, in_features;
  const S* inputs;
  const bool* resets;  // [T, B], or null if there are none
  const S* initial_memory;
  int64_t memory_stride;  // from one sequence's memory to the next; 0 if all start from the same
  std::vector<const S*> parameters, state;

  explicit Problem(const Arguments& given)
      : layout(given.settings),
        T(given.T),
        B(given.B),
        I(given.I),
        d_h(given.d_h),
        d_v(given.settings.value()),
        U(given.settings.vectors()),
        in_features(I + d_v),
        inputs(given.inputs.const_data_ptr<S>()),
        resets(given.resets ? given.resets->const_data_ptr<bool>() : nullptr),
        initial_memory(given.initial_memory.const_data_ptr<S>()),
        memory_stride(given.state[kMemory].stride(0)) {
    for (const Tensor& tensor : given.parameters) parameters.push_back(tensor.const_data_ptr<S>());
    for (const Tensor& tensor : given.state) state.push_back(tensor.const_data_ptr<S>());
  }

  // The memory of sequence b before the first step.
  const S* start_memory(int64_t b) const { return state[kMemory] + b * memory_stride; }

  // Whether step t starts a new episode: from zeros and the initial memory.
  bool is_reset(int64_t t, int64_t b) const { return resets && resets[t * B + b]; }

  // Whether a reset lies between the write of `delay` steps before t and step t: t then does not see it.
  bool has_reset_since(int64_t t, int64_t b, int64_t delay) const {
    for (int64_t s = t; s > t - delay && s >= 0; --s)
      if (is_reset(s, b)) return true;
    return false;
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
    if (!packed.empty()) check_packed(packed, from);
    const auto prepare = [&](size_t i) {
      return packed.empty() ? Matrix<S>(from[i]) : Matrix<S>(from[i], packed[i]);
    };
    h = prepare(0), v = prepare(1), interaction = prepare(2);
    if (!p.layout.gradient_rule()) feedback = prepare(3);
  }

  static std::vector<Tensor> pack(const Problem<S>& p, bool is_forward) {
    std::vector<Tensor> packed = matrices(p, is_forward);
    for (Tensor& w : packed) w = Matrix<S>::pack(w);
    return packed;
  }

 private:
  static void check_packed(const std::vector<Tensor>& packed, const std::vector<Tensor>& from) {
    std::vector<Shape> shapes;
    for (const Tensor& w : from) shapes.push_back({Matrix<S>::packed_size(w)});
    check_tensors("packed: ", kPackedNames, packed, from[0].scalar_type(), shapes);
  }

  static std::vector<Tensor> matrices(const Problem<S>& p, bool is_forward) {
    std::vector<Tensor> all{p.weight_h(), p.weight_v(), p.interaction()};
    if (!p.layout.gradient_rule()) all.push_back(p.feedback());
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

  // [h; v^r] of the step before t into `to`.
  void previous_control_or_zeros_at_reset(int64_t t, int64_t b, S* to) const {
    if (p.is_reset(t, b)) {
      std::fill_n(to, p.controls(), S(0));
    } else if (t > 0) {
      std::copy_n(controls_out + ((t - 1) * p.B + b) * p.controls(), p.controls(), to);
    } else {
      std::copy_n(p.state[kHidden] + b * p.d_h, p.d_h, to);
      std::copy_n(p.state[kReadValue] + b * p.d_v, p.d_v, to + p.d_h);
    }
  }

  // The cell state before step t.
  const S* previous_cell_or_null_at_reset(int64_t t, int64_t b) const {
    if (p.is_reset(t, b)) return nullptr;
    return t > 0 ? cells(t - 1, b) : p.state[kCell] + b * p.d_h;
  }

  // Key or value written `delay` steps before step t, from this call or from the state.
  const S* past_or_zeros_across_reset(
      int64_t t, int64_t b, int64_t delay, int64_t vectors_at, State field, int64_t width) const {
    const int64_t size = lay.heads * width;
    if (p.has_reset_since(t, b, delay)) return zeros.data();
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
      result.past_keys.push_back(
          past_or_zeros_across_reset(t, b, delay, p.write_keys_at(), kRecentKeys, lay.key()));
      result.past_values.push_back(
          past_or_zeros_across_reset(t, b, delay, p.values_at(), kRecentValues, lay.value()));
    }
    return result;
  }

  struct EpisodeStart {
    int64_t step;      // of the first write here
    const S* weights;  // before that write
  };

  // Where the episode of sequence b at step t began: at its last reset, or before this call.
  EpisodeStart last_reset_or_start(int64_t t, int64_t b) const {
    for (int64_t s = t; s >= 0; --s)
      if (p.is_reset(s, b)) return {s, p.initial_memory};
    return {0, p.start_memory(b)};
  }

  const Problem<S>& p;
  const Layout<S>& lay;
  Record<S> saved;
  const S* controls_out;
  Buffer<S> zeros = Buffer<S>(lay.heads * std::max(lay.key(), lay.value()));
};

}  // namespace mnm
