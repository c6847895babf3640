// A neural Turing machine over whole sequences, with episodes that start anywhere in them.
//
// Dimensions: T time, B batch, D controller, H read heads and as many write heads, N slots of W numbers, in rows
// of `pad` with zeros at the end, S shift values, P numbers that the controller tells the heads, C = D + H W.
//
// The products with the inputs come before the call and the gradients of the weights after it, as products over
// all steps. Here is what feeds back. Every step's memory is kept for the backward pass.
#pragma once

#include "arguments.h"
#include "blocks.h"
#include "ntm_heads.h"
#include "product.h"
#include "settings.h"

namespace mnm {

enum NtmState { kNtmHidden, kNtmCell, kNtmReads, kNtmWeights, kNtmMemory };
constexpr std::array kNtmStateNames{"hidden", "cell", "reads", "weights", "memory"};
constexpr std::array kNtmParameterNames{"recurrent", "interaction", "interaction_bias"};
enum NtmSaved {
  kNtmGates,
  kNtmCells,
  kNtmRaw,
  kNtmTold,
  kNtmCosines,
  kNtmContent,
  kNtmGated,
  kNtmShifted,
  kNtmLogarithms,
  kNtmKeptWeights,
  kNtmSlotNorms,
  kNtmMemories
};
constexpr std::array kNtmSavedNames{
    "gates", "cells",   "raw",        "told",    "cosines",    "content",
    "gated", "shifted", "logarithms", "weights", "slot_norms", "memories"};

// What both passes take, checked.
struct NtmArguments {
  Tensor projected;         // [T, B, 4 D]
  optional<Tensor> resets;  // [T, B]
  std::vector<Tensor> parameters, state, initial;  // the initial state may be left out without resets
  int64_t T, B, D, C;
  HeadSizes sizes;

  NtmArguments(
      const Tensor& projected_, const optional<Tensor>& resets_, std::vector<Tensor> parameters_,
      std::vector<Tensor> state_, std::vector<Tensor> initial_)
      : projected(projected_),
        resets(resets_),
        parameters(std::move(parameters_)),
        state(std::move(state_)),
        initial(std::move(initial_)) {
    check_sequence(projected);
    T = projected.size(0), B = projected.size(1), D = projected.size(2) / 4;
    TORCH_CHECK_VALUE(D > 0 && projected.size(2) == 4 * D, "inputs must be [T, B, 4 D].");
    find_sizes();
    C = D + sizes.H * sizes.W;
    check_tensors(
        "parameters: ", kNtmParameterNames, parameters, type(),
        {{4 * D, C}, {sizes.told(), D}, {sizes.told()}});
    check_tensors("state: ", kNtmStateNames, state, type(), state_shapes());
    if (resets || !initial.empty())
      check_tensors("initial: ", kNtmStateNames, initial, type(), state_shapes());
    if (resets) check_tensor("resets", "", *resets, at::kBool, {T, B});
  }

  at::ScalarType type() const { return projected.scalar_type(); }

  std::vector<Shape> state_shapes() const {
    return {{B, D}, {B, D}, {B, sizes.H, sizes.W}, {B, 2 * sizes.H, sizes.N}, {B, sizes.N, sizes.pad}};
  }

  std::vector<Shape> saved_shapes(int64_t depth) const {
    const Shape weights{depth, B, 2 * sizes.H, sizes.N};
    return {{T, B, 4 * D}, {depth, B, D}, {depth, B, sizes.told()}, {depth, B, sizes.told()},
            weights,       weights,       weights,                  weights,
            weights,       weights,       {depth, B, sizes.N},      {depth, B, sizes.N, sizes.pad}};
  }

 private:
  void find_sizes() {
    TORCH_CHECK_VALUE(
        state.size() == kNtmStateNames.size() && state[kNtmReads].defined() && state[kNtmReads].dim() == 3 &&
            state[kNtmWeights].defined() && state[kNtmWeights].dim() == 3,
        "state must be ", kNtmStateNames.size(), " tensors, with reads [B, H, W] and weights [B, 2 H, N].");
    TORCH_CHECK_VALUE(
        parameters.size() == kNtmParameterNames.size() && parameters[1].defined() && parameters[1].dim() == 2,
        "parameters must be ", kNtmParameterNames.size(), " tensors, with interaction [P, D].");
    const int64_t H = state[kNtmReads].size(1), W = state[kNtmReads].size(2), N = state[kNtmWeights].size(2);
    TORCH_CHECK_VALUE(H > 0 && W > 0 && N > 0, "state must have heads and slots.");
    TORCH_CHECK_VALUE(std::max({H, W, N}) <= kLargest, "state must have sizes of at most ", kLargest, ".");
    const int64_t S = (parameters[1].size(0) - 4 * H * W - 6 * H) / (2 * H);
    TORCH_CHECK_VALUE(
        S > 0 && S % 2 == 1 && S <= N, "parameters: interaction must be for an odd number of shifts.");
    sizes = {H, N, W, S, type() == at::kDouble ? padded<double>(W) : padded<float>(W)};
  }
};

// Plain pointers to the tensors of a call, and the state before each step.
template <typename S>
struct NtmLoop {
  const NtmArguments& given;
  const HeadSizes& n;
  int64_t B, D, C, depth;
  const bool* resets;
  std::vector<const S*> state, initial;
  std::vector<S*> saved;
  S* controls;

  NtmLoop(const NtmArguments& given_, const std::vector<Tensor>& saved_, const Tensor& controls_)
      : given(given_),
        n(given_.sizes),
        B(given.B),
        D(given.D),
        C(given.C),
        depth(saved_[kNtmCells].size(0)),
        resets(given.resets ? given.resets->const_data_ptr<bool>() : nullptr),
        controls(controls_.data_ptr<S>()) {
    for (const Tensor& field : given.state) state.push_back(field.const_data_ptr<S>());
    for (const Tensor& field : given.initial) initial.push_back(field.const_data_ptr<S>());
    for (const Tensor& each : saved_) saved.push_back(each.data_ptr<S>());
  }

  bool is_reset(int64_t t, int64_t b) const { return resets && resets[t * B + b]; }

  // A row of what is kept at every step.
  S* kept(NtmSaved which, int64_t t, int64_t b, int64_t size) const {
    return saved[which] + (t % depth * B + b) * size;
  }
  S* gates(int64_t t, int64_t b) const { return saved[kNtmGates] + (t * B + b) * 4 * D; }
  S* control(int64_t t, int64_t b) const { return controls + (t * B + b) * C; }

  // The state before a step that is not in the rows of the step before, or null if it is.
  const S* given_state(NtmState field, int64_t t, int64_t b, int64_t size) const {
    if (is_reset(t, b)) return initial[field] + b * size;
    return t == 0 ? state[field] + b * size : nullptr;
  }
  const S* before(NtmState field, NtmSaved which, int64_t t, int64_t b, int64_t size) const {
    const S* other = given_state(field, t, b, size);
    return other ? other : kept(which, t - 1, b, size);
  }
  const S* hidden_before(int64_t t, int64_t b) const {
    const S* other = given_state(kNtmHidden, t, b, D);
    return other ? other : control(t - 1, b);
  }
  const S* reads_before(int64_t t, int64_t b) const {
    const S* other = given_state(kNtmReads, t, b, C - D);
    return other ? other : control(t - 1, b) + D;
  }

  Step<S> lstm(int64_t t, int64_t b) const {
    return {
        gates(t, b), hidden_before(t, b), before(kNtmCell, kNtmCells, t, b, D), control(t, b),
        kept(kNtmCells, t, b, D)};
  }

  HeadStep<S> heads(int64_t t, int64_t b) const {
    const int64_t weights = n.weights(), told = n.told();
    return {
        before(kNtmWeights, kNtmKeptWeights, t, b, weights),
        before(kNtmMemory, kNtmMemories, t, b, n.memory()),
        kept(kNtmRaw, t, b, told),
        kept(kNtmTold, t, b, told),
        kept(kNtmCosines, t, b, weights),
        kept(kNtmContent, t, b, weights),
        kept(kNtmGated, t, b, weights),
        kept(kNtmShifted, t, b, weights),
        kept(kNtmLogarithms, t, b, weights),
        kept(kNtmKeptWeights, t, b, weights),
        kept(kNtmSlotNorms, t, b, n.N),
        kept(kNtmMemories, t, b, n.memory()),
        control(t, b) + D};
  }
};

template <typename S>
void ntm_forward_block(
    const NtmLoop<S>& loop, const Matrix<S>& recurrent, const Matrix<S>& interaction, const S* bias,
    int64_t begin, int64_t end) {
  const int64_t D = loop.D, C = loop.C, P = loop.n.told(), count = end - begin;
  Heads<S> heads(loop.n);
  Buffer<S> seen(count * C);
  for (int64_t t = 0; t < loop.given.T; ++t) {
    for (int64_t b = begin; b < end; ++b) {
      copy_row(loop.hidden_before(t, b), D, seen.data() + (b - begin) * C);
      copy_row(loop.reads_before(t, b), C - D, seen.data() + (b - begin) * C + D);
    }
    recurrent.multiply({seen.data(), C}, {loop.gates(t, begin), 4 * D}, count, true);
    for (int64_t b = begin; b < end; ++b) {
      Lstm::forward(loop.lstm(t, b), D);
      copy_row(bias, P, loop.kept(kNtmRaw, t, b, P));
    }
    interaction.multiply({loop.control(t, begin), C}, {loop.kept(kNtmRaw, t, begin, P), P}, count, true);
    for (int64_t b = begin; b < end; ++b) heads.forward(loop.heads(t, b));
  }
}

template <typename S>
Tensor run_ntm_forward(const NtmArguments& given, const std::vector<Tensor>& saved) {
  const Tensor controls = at::empty({given.T, given.B, given.C}, given.projected.options());
  saved[kNtmGates].copy_(given.projected);
  const NtmLoop<S> loop(given, saved, controls);
  const Tensor recurrent = given.parameters[0].t(), interaction = given.parameters[1].t();
  const Matrix<S> by_seen(recurrent, Matrix<S>::pack(recurrent));
  const Matrix<S> by_hidden(interaction, Matrix<S>::pack(interaction));
  const S* bias = given.parameters[2].const_data_ptr<S>();
  for_blocks(given.B, [&](int64_t, int64_t begin, int64_t end) {
    ntm_forward_block(loop, by_seen, by_hidden, bias, begin, end);
  });
  return controls;
}

inline std::tuple<Tensor, std::vector<Tensor>, std::vector<Tensor>> ntm_forward(
    const Tensor& projected, const optional<Tensor>& resets, std::vector<Tensor> parameters,
    std::vector<Tensor> state, std::vector<Tensor> initial, bool save) {
  const NtmArguments given(projected, resets, std::move(parameters), std::move(state), std::move(initial));
  const int64_t depth = save ? given.T : 2;
  std::vector<Tensor> saved;
  for (const Shape& shape : given.saved_shapes(depth)) {
    saved.push_back(at::empty(shape, projected.options()));
    prefer_huge_pages(saved.back().data_ptr(), saved.back().nbytes());
  }
  const Tensor controls = given.type() == at::kDouble ? run_ntm_forward<double>(given, saved)
                                                      : run_ntm_forward<float>(given, saved);
  const int64_t last = (given.T - 1) % depth;
  const Tensor control = controls[given.T - 1];
  std::vector<Tensor> final_state{
      control.narrow(1, 0, given.D).clone(), saved[kNtmCells][last].clone(),
      control.narrow(1, given.D, given.C - given.D).clone().view(given.state[kNtmReads].sizes()),
      saved[kNtmKeptWeights][last].clone(), saved[kNtmMemories][last].clone()};
  if (!save) saved.clear();
  return {controls, std::move(final_state), std::move(saved)};
}

// Gradients; those of the state are of the state after a step while going back, and at last of the given state.
template <typename S>
struct NtmGradients {
  const S* controls;
  S *gates, *told;
  std::vector<S*> state, initial;  // `initial` is empty without resets
};

template <typename S>
void ntm_backward_block(
    const NtmLoop<S>& loop, const Matrix<S>& recurrent, const Matrix<S>& interaction,
    const NtmGradients<S>& d, int64_t begin, int64_t end) {
  const int64_t B = loop.B, D = loop.D, C = loop.C, P = loop.n.told(), count = end - begin, R = C - D;
  const std::array<int64_t, 5> sizes{D, D, R, loop.n.weights(), loop.n.memory()};
  Heads<S> heads(loop.n);
  Buffer<S> d_seen(count * C), zeros(D);
  const auto row = [&](NtmState field, int64_t b) { return d.state[field] + b * sizes[field]; };
  for (int64_t t = loop.given.T - 1; t >= 0; --t) {
    S* d_told = d.told + (t * B + begin) * P;
    for (int64_t b = begin; b < end; ++b) {
      const S* d_control = d.controls + (t * B + b) * C;
      add_scaled(row(kNtmHidden, b), d_control, S(1), D);
      add_scaled(row(kNtmReads, b), d_control + D, S(1), R);
      heads.backward(
          loop.heads(t, b),
          {row(kNtmReads, b), d_told + (b - begin) * P, row(kNtmWeights, b), row(kNtmMemory, b)});
    }
    interaction.multiply({d_told, P}, {row(kNtmHidden, begin), D}, count, true);
    S* d_gates = d.gates + (t * B + begin) * 4 * D;
    for (int64_t b = begin; b < end; ++b)
      Lstm::backward(
          loop.lstm(t, b),
          StepGradient<S>{zeros.data(), d_gates + (b - begin) * 4 * D, row(kNtmHidden, b), row(kNtmCell, b)}, D);
    recurrent.multiply({d_gates, 4 * D}, {d_seen.data(), C}, count, false);
    for (int64_t b = begin; b < end; ++b) {
      copy_row(d_seen.data() + (b - begin) * C, D, row(kNtmHidden, b));
      copy_row(d_seen.data() + (b - begin) * C + D, R, row(kNtmReads, b));
      if (!loop.is_reset(t, b)) continue;
      for (size_t field = 0; field < sizes.size(); ++field) {
        S* d_row = d.state[field] + b * sizes[field];
        add_scaled(d.initial[field] + b * sizes[field], d_row, S(1), sizes[field]);
        std::fill_n(d_row, sizes[field], S(0));
      }
    }
  }
}

// From gradients of controls and of the last state to those of what goes into the gates and what is told to the
// heads, before the nonlinearities, and of both states.
inline std::tuple<Tensor, Tensor, std::vector<Tensor>, std::vector<Tensor>> ntm_backward(
    const Tensor& projected, const optional<Tensor>& resets, std::vector<Tensor> parameters,
    std::vector<Tensor> state, std::vector<Tensor> initial, std::vector<Tensor> saved, const Tensor& controls,
    const Tensor& d_controls, std::vector<Tensor> d_state) {
  const NtmArguments given(projected, resets, std::move(parameters), std::move(state), std::move(initial));
  const Shape controls_shape{given.T, given.B, given.C};
  check_tensors("saved: ", kNtmSavedNames, saved, given.type(), given.saved_shapes(given.T));
  check_tensor("controls", "", controls, given.type(), controls_shape);
  check_tensor("d_controls", "", d_controls, given.type(), controls_shape);
  check_tensors("d_state: ", kNtmStateNames, d_state, given.type(), given.state_shapes());
  std::vector<Tensor> d_before, d_initial;
  for (const Tensor& d : d_state) d_before.push_back(d.clone());
  for (const Tensor& like : given.initial) d_initial.push_back(at::zeros_like(like));
  const Tensor d_gates = at::empty_like(projected);
  const Tensor d_told = at::empty({given.T, given.B, given.sizes.told()}, projected.options());
  const auto run = [&](auto number) {
    using S = decltype(number);
    NtmGradients<S> d{d_controls.const_data_ptr<S>(), d_gates.data_ptr<S>(), d_told.data_ptr<S>(), {}, {}};
    for (const Tensor& each : d_before) d.state.push_back(each.data_ptr<S>());
    for (const Tensor& each : d_initial) d.initial.push_back(each.data_ptr<S>());
    const NtmLoop<S> loop(given, saved, controls);
    const Tensor &recurrent = given.parameters[0], &interaction = given.parameters[1];
    const Matrix<S> by_gates(recurrent, Matrix<S>::pack(recurrent));
    const Matrix<S> by_told(interaction, Matrix<S>::pack(interaction));
    for_blocks(given.B, [&](int64_t, int64_t begin, int64_t end) {
      ntm_backward_block(loop, by_gates, by_told, d, begin, end);
    });
  };
  given.type() == at::kDouble ? run(0.0) : run(0.0f);
  return {d_gates, d_told, std::move(d_before), std::move(d_initial)};
}

}  // namespace mnm
