// The tensors of a call, in the order that the Python side has too, and the check that they fit each other.
// Everything that is later indexed without a look is checked here.
//
// Dimensions: T time, B batch, I input size, H heads, L memory layers of widths D_l, N recall delays; sizes
// d_h controller, d_k key, d_v value, U = H (2 d_k + d_v) + d_k interaction vectors, F = sum D_l D_{l-1}.
#pragma once

#include "layout.h"

#include <ATen/Functions.h>
#include <c10/util/DimVector.h>

#include <array>
#include <optional>

namespace mnm {

using at::Tensor;
using std::optional;

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

constexpr std::array kParameterNames{
    "weight_ih",          "weight_hh",   "bias_ih",   "bias_hh",         "interaction_weight",
    "interaction_bias",   "rate_weight", "rate_bias", "feedback_weight", "feedback_bias"};
constexpr std::array kStateNames{"hidden", "cell", "read_value", "memory", "recent_keys", "recent_values"};
constexpr std::array kSavedNames{"gates", "cells", "vectors", "rates", "records"};
constexpr std::array kPackedNames{"weight_hh", "weight_ih", "interaction_weight", "feedback_weight"};

using Shape = c10::DimVector;

// `what` is the argument's name, or that of the list it is in.
inline void check_kind(const char* what, const char* name, const Tensor& tensor, at::ScalarType type) {
  TORCH_CHECK_VALUE(tensor.defined(), what, name, " is not a tensor.");
  TORCH_CHECK_VALUE(
      tensor.device().is_cpu() && tensor.layout() == at::kStrided && tensor.has_storage() && !tensor.is_neg(),
      what, name, " must be a plain tensor on the CPU, not on ", tensor.device(), ".");
  TORCH_CHECK_VALUE(
      tensor.scalar_type() == type, what, name, " must be of type ", type, ", not ", tensor.scalar_type(), ".");
}

inline void check_tensor(
    const char* what, const char* name, const Tensor& tensor, at::ScalarType type, at::IntArrayRef expected) {
  check_kind(what, name, tensor, type);
  TORCH_CHECK_VALUE(
      tensor.sizes() == expected, what, name, " must have the shape ", expected, ", not ", tensor.sizes(), ".");
  TORCH_CHECK_VALUE(tensor.is_contiguous(), what, name, " must be contiguous.");
}

template <typename Names>
void check_tensors(
    const char* what, const Names& names, at::ArrayRef<Tensor> tensors, at::ScalarType type,
    const std::vector<Shape>& expected) {
  TORCH_CHECK_VALUE(
      tensors.size() == expected.size(), what, "must be ", expected.size(), " tensors, not ", tensors.size(),
      ".");
  for (size_t i = 0; i < tensors.size(); ++i) check_tensor(what, names[i], tensors[i], type, expected[i]);
}

// Of the inputs [T, B, I].
inline void check_sequence(const Tensor& inputs) {
  TORCH_CHECK_VALUE(inputs.defined(), "inputs is not a tensor.");
  const auto type = inputs.scalar_type();
  TORCH_CHECK_VALUE(
      type == at::kFloat || type == at::kDouble, "inputs must be of type Float or Double, not ", type, ".");
  check_kind("inputs", "", inputs, type);
  TORCH_CHECK_VALUE(
      inputs.dim() == 3 && inputs.size(0) > 0 && inputs.is_contiguous(),
      "inputs must have the shape [T, B, I] with T > 0 and be contiguous, not the shape ", inputs.sizes(),
      " with strides ", inputs.strides(), ".");
}

// The hidden size, from weight_hh; `shape` is what that should have.
inline int64_t checked_width(at::ArrayRef<Tensor> parameters, const char* shape) {
  TORCH_CHECK_VALUE(
      parameters.size() > kWeightH && parameters[kWeightH].defined() && parameters[kWeightH].dim() == 2,
      "parameters must contain weight_hh ", shape, ".");
  const int64_t width = parameters[kWeightH].size(1);
  TORCH_CHECK_VALUE(width > 0, "parameters: weight_hh must have columns.");
  return width;
}

// What all operators take, checked.
struct Arguments {
  Settings settings;
  Tensor inputs;            // [T, B, I]
  optional<Tensor> resets;  // [T, B]
  std::vector<Tensor> parameters, state;
  Tensor initial_memory;  // [F]
  int64_t T, B, I, d_h;

  Arguments(
      const Tensor& settings_, const Tensor& inputs_, const optional<Tensor>& resets_,
      std::vector<Tensor> parameters_, std::vector<Tensor> state_, const Tensor& initial_memory_)
      : settings(from_tensor(settings_)),
        inputs(inputs_),
        resets(resets_),
        parameters(std::move(parameters_)),
        state(std::move(state_)),
        initial_memory(initial_memory_) {
    check_sequence(inputs);
    T = inputs.size(0), B = inputs.size(1), I = inputs.size(2);
    d_h = checked_width(parameters, "[4 d_h, d_h]");
    check_tensors("parameters: ", kParameterNames, parameters, type(), parameter_shapes());
    check_state();
    check_tensor("initial_memory", "", initial_memory, type(), {memory_size()});
    if (resets) check_tensor("resets", "", *resets, at::kBool, {T, B});
  }

  at::ScalarType type() const { return inputs.scalar_type(); }

  // F.
  int64_t memory_size() const {
    int64_t sum = 0;
    for (int64_t l = 1; l <= settings.layers(); ++l) sum += settings.widths[l] * settings.widths[l - 1];
    return sum;
  }

  std::vector<Shape> parameter_shapes() const {
    const int64_t gates = 4 * d_h, U = settings.vectors(), d_k = settings.key(), d_v = settings.value();
    std::vector<Shape> shapes{
        {gates, I + d_v}, {gates, d_h}, {gates}, {gates}, {U, d_h}, {U}, {settings.rates, d_k},
        {settings.rates}};
    if (!settings.gradient_rule()) {
      shapes.push_back({settings.targets(), d_v});
      shapes.push_back({settings.targets()});
    }
    return shapes;
  }

  std::vector<Shape> state_shapes() const {
    const int64_t d_v = settings.value(), before = settings.delays() - 1, H = settings.heads;
    return {{B, d_h},           {B, d_h}, {B, d_v}, {B, memory_size()}, {B, before, H, settings.key()},
            {B, before, H, d_v}};
  }

  // What the forward pass leaves, of the last `depth` steps; of the gates always all.
  std::vector<Shape> saved_shapes(int64_t depth, int64_t record_size) const {
    return {
        {T, B, 4 * d_h},
        {depth, B, d_h},
        {depth, B, settings.vectors()},
        {depth, B, settings.rates},
        {depth, B, record_size}};
  }

 private:
  // A memory's rows must be contiguous; that all sequences share one row is allowed.
  void check_state() const {
    const std::vector<Shape> shapes = state_shapes();
    TORCH_CHECK_VALUE(
        state.size() == shapes.size(), "state must be ", shapes.size(), " tensors, not ", state.size(), ".");
    for (size_t i = 0; i < state.size(); ++i) {
      const char* name = kStateNames[i];
      if (i != kMemory) {
        check_tensor("state: ", name, state[i], type(), shapes[i]);
        continue;
      }
      check_kind("state: ", name, state[i], type());
      TORCH_CHECK_VALUE(
          state[i].sizes() == shapes[i], "state: memory must have the shape ", at::IntArrayRef(shapes[i]), ", not ",
          state[i].sizes(), ".");
      TORCH_CHECK_VALUE(
          state[i].stride(1) == 1 || shapes[i][1] == 1, "state: memory must have contiguous rows.");
    }
  }
};

}  // namespace mnm
