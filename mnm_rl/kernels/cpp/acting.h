// Single steps of an agent that acts: an LSTM or a gated recurrent unit, and the choice of an action.
//
// Dimensions: B batch, I input size, D hidden size, K gates of the weights (LSTM 4, GRU 3), A actions.
#pragma once

#include "recurrent.h"

#include <ATen/ops/linear.h>

#include <cmath>

namespace mnm {

enum PackedRecurrent { kPackedX, kPackedH, kPackedBias };

// The biases in the order of a row of gates: summed where both are.
template <typename Cell>
Tensor row_of_biases(const RecurrentArguments<Cell>& given) {
  const Tensor &x = given.parameters[kBiasX], &h = given.parameters[kBiasH];
  if (Cell::kGates == 4) return at::add(x, h);
  const int64_t D = given.D;
  const Tensor both = at::add(x.narrow(0, 0, 2 * D), h.narrow(0, 0, 2 * D));
  return at::cat({x.narrow(0, 2 * D, D), both, h.narrow(0, 2 * D, D)});
}

// The weights as steps need them: both matrices in panels, and the biases.
template <typename Cell>
std::vector<Tensor> recurrent_pack(std::vector<Tensor> parameters) {
  const int64_t D = checked_width(parameters, "of an LSTM or GRU");
  check_kind("parameters: ", "weight_ih", parameters[kWeightX], parameters[kWeightH].scalar_type());
  TORCH_CHECK_VALUE(parameters[kWeightX].dim() == 2, "parameters: weight_ih must be a matrix.");
  const Tensor no_inputs = at::empty({1, 0, parameters[kWeightX].size(1)}, parameters[kWeightX].options());
  const std::vector<Tensor> no_state(Cell::kStates, no_inputs.new_empty({0, D}));
  const RecurrentArguments<Cell> given(no_inputs, {}, std::move(parameters), no_state, {});
  const auto run = [&](auto number) -> std::vector<Tensor> {
    using S = decltype(number);
    const Tensor x = given.to_row_order(given.parameters[kWeightX]).t(), h = given.parameters[kWeightH].t();
    return {Matrix<S>::pack(x), Matrix<S>::pack(h), row_of_biases(given)};
  };
  return given.type() == at::kDouble ? run(0.0) : run(0.0f);
}

// One step of all sequences: results do not depend on the blocks.
template <typename S, typename Cell>
void run_step(
    const RecurrentArguments<Cell>& given, const std::vector<Tensor>& packed, const std::vector<Tensor>& after) {
  const int64_t I = given.I, D = given.D, row = 4 * D;
  const Matrix<S> by_x(given.parameters[kWeightX].t(), packed[kPackedX]);
  const Matrix<S> by_h(given.parameters[kWeightH].t(), packed[kPackedH]);
  const S *biases = packed[kPackedBias].const_data_ptr<S>(), *inputs = given.inputs.template const_data_ptr<S>();
  Buffer<S> gates(given.B * row);
  std::vector<Tensor> saved{at::from_blob(gates.data(), {1, given.B, row}, given.inputs.options())};
  if (Cell::kStates == 2) saved.push_back(after[kCell]);
  const RecurrentLoop<S, Cell> loop(given, saved, after[kHidden]);
  const auto run_block = [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) copy_row(biases, row, loop.gates_of(0, b));
    by_x.multiply({inputs + begin * I, I}, {loop.gates_of(0, begin), row}, end - begin, true);
    forward_block(loop, by_h, {0, 1}, {begin, end});
  };
  for_blocks(given.B, run_block, block_of_thread(given.B));
}

// inputs [B, I], resets [B] to a state of zeros; the state after the step.
template <typename Cell>
std::vector<Tensor> recurrent_step(
    const Tensor& inputs, const optional<Tensor>& resets, std::vector<Tensor> parameters,
    std::vector<Tensor> packed, std::vector<Tensor> state) {
  optional<Tensor> sequence_resets;
  if (resets) sequence_resets = resets->unsqueeze(0);
  const RecurrentArguments<Cell> given(
      inputs.unsqueeze(0), sequence_resets, std::move(parameters), std::move(state), {});
  const int64_t gates = Cell::kGates * given.D;
  const int64_t columns = given.type() == at::kDouble ? padded<double>(gates) : padded<float>(gates);
  check_tensors(
      "packed: ", std::array{"weight_ih", "weight_hh", "biases"}, packed, given.type(),
      {{given.I * columns}, {given.D * columns}, {4 * given.D}});
  std::vector<Tensor> after;
  for (const Tensor& field : given.state) after.push_back(at::empty_like(field));
  if (given.type() == at::kDouble)
    run_step<double>(given, packed, after);
  else
    run_step<float>(given, packed, after);
  return after;
}

// Index of the largest of value(i), the first of several; one that is not a number counts as the largest.
template <typename Value>
int64_t first_largest(int64_t count, Value value) {
  int64_t best = 0;
  auto most = value(0);
  for (int64_t i = 0; i < count; ++i) {
    const auto one = value(i);
    if (std::isnan(one)) return i;
    if (one > most) best = i, most = one;
  }
  return best;
}

// Actions [B], drawn with the logits outputs [B, O] weight^T + bias, of A actions each. As torch's operations one by
// one, with the same random numbers, but for rounding:
// (logits - empty_like(logits).exponential_().log_()).argmax(-1).
inline Tensor draw(const Tensor& outputs, const Tensor& weight, const Tensor& bias) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  const at::ScalarType type = outputs.scalar_type();
  TORCH_CHECK_VALUE(type == at::kFloat || type == at::kDouble, "outputs must be float or double, not ", type, ".");
  check_kind("outputs", "", outputs, type);
  check_kind("weight", "", weight, type);
  check_kind("bias", "", bias, type);
  TORCH_CHECK_VALUE(
      outputs.dim() == 2 && weight.dim() == 2 && outputs.size(1) == weight.size(1) && weight.size(0) > 0,
      "outputs must be [B, O], and weight [A, O] with A > 0.");
  TORCH_CHECK_VALUE(bias.dim() == 1 && bias.size(0) == weight.size(0), "bias must be [A], as many as weight has rows.");
  const int64_t B = outputs.size(0), O = outputs.size(1), A = weight.size(0);
  const Tensor noise = at::empty({B, A}, outputs.options()).exponential_().log_();
  const Tensor actions = at::empty({B}, outputs.options().dtype(at::kLong));
  const Tensor x = outputs.contiguous(), w = weight.contiguous(), shift = bias.contiguous();
  const auto run = [&](auto number) {
    using S = decltype(number);
    const S *rows = x.const_data_ptr<S>(), *columns = w.const_data_ptr<S>(), *shifts = shift.const_data_ptr<S>();
    const S* noises = noise.const_data_ptr<S>();
    int64_t* action = actions.data_ptr<int64_t>();
    for (int64_t b = 0; b < B; ++b)
      action[b] = first_largest(A, [&](int64_t a) {
        return row_dot(rows + b * O, columns + a * O, O) + shifts[a] - noises[b * A + a];
      });
  };
  type == at::kDouble ? run(0.0) : run(0.0f);
  return actions;
}

}  // namespace mnm
