// An LSTM and a gated recurrent unit over whole sequences, with episodes that start anywhere in them.
//
// Dimensions: T time, B batch, I input size, D hidden size, K gates of the weights (LSTM 4, GRU 3). Weights are
// those of torch.nn.LSTM and torch.nn.GRU: weight_ih [K D, I], weight_hh [K D, D], bias_ih, bias_hh [K D].
//
// The products with the inputs are one product before the loop, the gradients of the weights one after it; in
// the loop only the product with the hidden state is left, for a block of sequences at a time. Where an episode
// starts, the state before the step is the initial one, and gradients go to that instead of the step before.
#pragma once

#include "arguments.h"
#include "blocks.h"
#include "product.h"
#include "recurrent_cells.h"

namespace mnm {

constexpr int64_t kFewRecurrentSteps = 8;  // for fewer, packing the weights does not pay

// What both passes take, checked.
template <typename Cell>
struct RecurrentArguments {
  Tensor inputs;                                     // [T, B, I]
  optional<Tensor> resets;                           // [T, B]
  std::vector<Tensor> parameters, state, initial;    // the initial state is zero if it is not given
  int64_t T, B, I, D;

  RecurrentArguments(
      const Tensor& inputs_, const optional<Tensor>& resets_, std::vector<Tensor> parameters_,
      std::vector<Tensor> state_, std::vector<Tensor> initial_)
      : inputs(inputs_),
        resets(resets_),
        parameters(std::move(parameters_)),
        state(std::move(state_)),
        initial(std::move(initial_)) {
    TORCH_CHECK_VALUE(
        type() == at::kFloat || type() == at::kDouble, "inputs must be of type Float or Double, not ", type(),
        ".");
    check_kind("inputs", "", inputs, type());
    TORCH_CHECK_VALUE(
        inputs.dim() == 3 && inputs.size(0) > 0 && inputs.is_contiguous(),
        "inputs must have the shape [T, B, I] with T > 0 and be contiguous, not the shape ", inputs.sizes(),
        " with strides ", inputs.strides(), ".");
    T = inputs.size(0), B = inputs.size(1), I = inputs.size(2);
    TORCH_CHECK_VALUE(
        parameters.size() > kWeightH && parameters[kWeightH].defined() && parameters[kWeightH].dim() == 2,
        "parameters must contain weight_hh [", Cell::kGates, " D, D].");
    D = parameters[kWeightH].size(1);
    TORCH_CHECK_VALUE(D > 0, "parameters: weight_hh must have columns.");
    const int64_t rows = Cell::kGates * D;
    check_tensors("parameters: ", kParameterNames, parameters, type(), {{rows, I}, {rows, D}, {rows}, {rows}});
    check_tensors("state: ", kStateNames, state, type(), state_shapes());
    if (!initial.empty()) check_tensors("initial: ", kStateNames, initial, type(), state_shapes());
    if (resets) check_tensor("resets", "", *resets, at::kBool, {T, B});
  }

  at::ScalarType type() const { return inputs.scalar_type(); }
  std::vector<Shape> state_shapes() const { return std::vector<Shape>(Cell::kStates, {B, D}); }

  // What the forward pass leaves: gates and, of the LSTM, cells.
  std::vector<Shape> saved_shapes() const {
    std::vector<Shape> shapes{{T, B, 4 * D}};
    if (Cell::kStates == 2) shapes.push_back({T, B, D});
    return shapes;
  }

  // Inputs, gates, hidden states and the like of all steps as the rows of one matrix.
  Tensor rows_of(const Tensor& steps) const { return steps.view({T * B, steps.size(2)}); }
  // Of a row of gates what depends on the inputs, and what depends on the hidden state.
  Tensor input_part(const Tensor& rows) const { return rows.narrow(1, 0, Cell::kGates * D); }
  Tensor hidden_part(const Tensor& rows) const { return rows.narrow(1, hidden_part_at(), Cell::kGates * D); }
  int64_t hidden_part_at() const { return (4 - Cell::kGates) * D; }

  // Rows of weight_ih or bias_ih in the order of a row of gates, and back: the GRU's n comes last in torch.
  Tensor to_row_order(const Tensor& w) const {
    if (Cell::kGates == 4) return w;
    return at::cat({w.narrow(0, 2 * D, D), w.narrow(0, 0, 2 * D)});
  }
  Tensor from_row_order(const Tensor& w) const {
    if (Cell::kGates == 4) return w;
    return at::cat({w.narrow(0, D, 2 * D), w.narrow(0, 0, D)});
  }
};

// Plain pointers to the tensors of a call, and the state before each step.
template <typename S, typename Cell>
struct RecurrentLoop {
  int64_t T, B, D, hidden_part_at;
  const bool* resets;  // [T, B], or null if there are none
  const S *state_hidden, *state_cell, *initial_hidden, *initial_cell;
  S *gates, *cells, *outputs;
  Buffer<S> zeros;

  RecurrentLoop(
      const RecurrentArguments<Cell>& given, const std::vector<Tensor>& saved, const Tensor& outputs_)
      : T(given.T),
        B(given.B),
        D(given.D),
        hidden_part_at(given.hidden_part_at()),
        resets(given.resets ? given.resets->template const_data_ptr<bool>() : nullptr),
        state_hidden(field(given.state, kHidden)),
        state_cell(field(given.state, kCell)),
        initial_hidden(field(given.initial, kHidden)),
        initial_cell(field(given.initial, kCell)),
        gates(saved[0].data_ptr<S>()),
        cells(Cell::kStates == 2 ? saved[1].data_ptr<S>() : nullptr),
        outputs(outputs_.data_ptr<S>()),
        zeros(given.D) {}

  static const S* field(const std::vector<Tensor>& fields, size_t i) {
    return i < fields.size() ? fields[i].const_data_ptr<S>() : nullptr;
  }

  bool is_reset(int64_t t, int64_t b) const { return resets && resets[t * B + b]; }

  bool is_any_reset(int64_t t, int64_t begin, int64_t end) const {
    return resets && std::any_of(resets + t * B + begin, resets + t * B + end, [](bool is) { return is; });
  }

  const S* before(const S* steps, const S* state, const S* initial, int64_t t, int64_t b) const {
    if (is_reset(t, b)) return initial ? initial + b * D : zeros.data();
    return t > 0 ? steps + ((t - 1) * B + b) * D : state + b * D;
  }
  const S* hidden_before(int64_t t, int64_t b) const {
    return before(outputs, state_hidden, initial_hidden, t, b);
  }
  const S* cell_before(int64_t t, int64_t b) const {
    return cells ? before(cells, state_cell, initial_cell, t, b) : nullptr;
  }

  Step<S> step(int64_t t, int64_t b) const {
    const int64_t row = t * B + b;
    return {
        gates + row * 4 * D, hidden_before(t, b), cell_before(t, b), outputs + row * D,
        cells ? cells + row * D : nullptr};
  }
};

template <typename S>
Matrix<S> loop_matrix(const Tensor& w, int64_t steps) {
  return steps < kFewRecurrentSteps ? Matrix<S>(w) : Matrix<S>(w, Matrix<S>::pack(w));
}

// Sequences [begin, end) through time.
template <typename S, typename Cell>
void forward_block(const RecurrentLoop<S, Cell>& loop, const Matrix<S>& recurrent, int64_t begin, int64_t end) {
  const int64_t D = loop.D, n = end - begin;
  Buffer<S> chosen(n * D);
  for (int64_t t = 0; t < loop.T; ++t) {
    const S* hidden = loop.before(loop.outputs, loop.state_hidden, nullptr, t, begin);
    if (loop.is_any_reset(t, begin, end)) {
      for (int64_t b = 0; b < n; ++b) copy_row(loop.hidden_before(t, begin + b), D, chosen.data() + b * D);
      hidden = chosen.data();
    }
    S* gates = loop.gates + (t * loop.B + begin) * 4 * D;
    recurrent.multiply({hidden, D}, {gates + loop.hidden_part_at, 4 * D}, n, true);
    for (int64_t b = begin; b < end; ++b) Cell::forward(loop.step(t, b), D);
  }
}

template <typename S>
struct RecurrentGradients {
  const S* outputs;
  S *sums, *previous;             // of the rows of gates; hidden states before each step (no gradient)
  S *state_hidden, *state_cell;   // of the state after a step, while going back; at last of that before all
  S *initial_hidden, *initial_cell;  // null if they are not needed
};

// No gradient goes across the start of an episode: it goes to the initial state.
template <typename S>
void cross_reset(S* state, S* initial, int64_t D) {
  if (initial) add_scaled(initial, state, S(1), D);
  std::fill_n(state, D, S(0));
}

// Sequences [begin, end) back through time.
template <typename S, typename Cell>
void backward_block(
    const RecurrentLoop<S, Cell>& loop, const Matrix<S>& recurrent, const RecurrentGradients<S>& d,
    int64_t begin, int64_t end) {
  const int64_t D = loop.D;
  const auto row_of = [&](S* rows, int64_t b) { return rows ? rows + b * D : nullptr; };
  for (int64_t t = loop.T - 1; t >= 0; --t) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t row = t * loop.B + b;
      const Step<S> step = loop.step(t, b);
      copy_row(step.hidden_before, D, d.previous + row * D);
      Cell::backward(
          step,
          StepGradient<S>{
              d.outputs + row * D, d.sums + row * 4 * D, row_of(d.state_hidden, b), row_of(d.state_cell, b)},
          D);
    }
    const S* sums = d.sums + (t * loop.B + begin) * 4 * D + loop.hidden_part_at;
    recurrent.multiply({sums, 4 * D}, {d.state_hidden + begin * D, D}, end - begin, true);
    for (int64_t b = begin; b < end; ++b) {
      if (!loop.is_reset(t, b)) continue;
      cross_reset(row_of(d.state_hidden, b), row_of(d.initial_hidden, b), D);
      if (d.state_cell) cross_reset(row_of(d.state_cell, b), row_of(d.initial_cell, b), D);
    }
  }
}

// The sums of all gates but for the product with the hidden state.
template <typename Cell>
void project_inputs(const RecurrentArguments<Cell>& given, const Tensor& gates) {
  const int64_t D = given.D;
  const Tensor& hidden_bias = given.parameters[kBiasH];
  Tensor sum = given.to_row_order(given.parameters[kBiasX]).clone();
  if (Cell::kGates == 4) {
    sum.add_(hidden_bias);
  } else {
    sum.narrow(0, D, 2 * D).add_(hidden_bias.narrow(0, 0, 2 * D));
    gates.narrow(1, 3 * D, D).copy_(hidden_bias.narrow(0, 2 * D, D).expand({gates.size(0), D}));
  }
  Tensor projected = given.input_part(gates);
  at::addmm_out(projected, sum, given.rows_of(given.inputs),
      given.to_row_order(given.parameters[kWeightX]).t());
}

template <typename S, typename Cell>
Tensor run_forward(const RecurrentArguments<Cell>& given, const std::vector<Tensor>& saved) {
  const Tensor outputs = at::empty({given.T, given.B, given.D}, given.inputs.options());
  project_inputs(given, given.rows_of(saved[0]));
  const RecurrentLoop<S, Cell> loop(given, saved, outputs);
  const Matrix<S> recurrent = loop_matrix<S>(given.parameters[kWeightH].t(), given.T);
  for_blocks(given.B, [&](int64_t, int64_t begin, int64_t end) {
    forward_block(loop, recurrent, begin, end);
  });
  return outputs;
}

template <typename Cell>
std::tuple<Tensor, std::vector<Tensor>, std::vector<Tensor>> recurrent_forward(
    const Tensor& inputs, const optional<Tensor>& resets, std::vector<Tensor> parameters,
    std::vector<Tensor> state, std::vector<Tensor> initial) {
  const RecurrentArguments<Cell> given(
      inputs, resets, std::move(parameters), std::move(state), std::move(initial));
  std::vector<Tensor> saved;
  for (const Shape& shape : given.saved_shapes()) {
    saved.push_back(at::empty(shape, given.inputs.options()));
    prefer_huge_pages(saved.back().data_ptr(), saved.back().nbytes());
  }
  const Tensor outputs =
      given.type() == at::kDouble ? run_forward<double>(given, saved) : run_forward<float>(given, saved);
  std::vector<Tensor> last{outputs[given.T - 1].clone()};
  if (Cell::kStates == 2) last.push_back(saved[1][given.T - 1].clone());
  return {outputs, std::move(last), std::move(saved)};
}

// What the backward pass takes besides the arguments of the forward pass.
struct RecurrentBackwardArguments {
  std::vector<Tensor> saved;
  Tensor outputs, d_outputs;
  std::vector<Tensor> d_state;
  bool need_inputs, need_parameters;
};

struct RecurrentBackwardResult {
  Tensor inputs;
  std::vector<Tensor> parameters, state, initial;
};

// From the gradients of all rows of gates to those of what they are made of.
template <typename Cell>
void finish_gradients(
    const RecurrentArguments<Cell>& given, const RecurrentBackwardArguments& more, const Tensor& d_sums,
    const Tensor& previous, RecurrentBackwardResult& result) {
  const Tensor by_inputs = given.input_part(d_sums), by_hidden = given.hidden_part(d_sums);
  if (more.need_inputs)
    result.inputs = at::mm(by_inputs, given.to_row_order(given.parameters[kWeightX])).view(given.inputs.sizes());
  if (!more.need_parameters) return;
  const Tensor bias = d_sums.sum(0).view({1, -1});
  result.parameters = {
      given.from_row_order(at::mm(by_inputs.t(), given.rows_of(given.inputs))), at::mm(by_hidden.t(), previous),
      given.from_row_order(given.input_part(bias)[0]).clone(), given.hidden_part(bias)[0].clone()};
}

template <typename S, typename Cell>
RecurrentBackwardResult run_backward(
    const RecurrentArguments<Cell>& given, const RecurrentBackwardArguments& more) {
  const auto options = given.inputs.options();
  RecurrentBackwardResult result;
  for (const Tensor& d : more.d_state) result.state.push_back(d.clone());
  for (const Tensor& like : given.initial) result.initial.push_back(at::zeros_like(like));
  const Tensor d_sums = at::empty({given.T * given.B, 4 * given.D}, options);
  const Tensor previous = at::empty({given.T * given.B, given.D}, options);
  const auto field = [](std::vector<Tensor>& fields, size_t i) {
    return i < fields.size() ? fields[i].data_ptr<S>() : nullptr;
  };
  const RecurrentGradients<S> d{
      more.d_outputs.const_data_ptr<S>(), d_sums.data_ptr<S>(),         previous.data_ptr<S>(),
      field(result.state, kHidden),       field(result.state, kCell),   field(result.initial, kHidden),
      field(result.initial, kCell)};
  const RecurrentLoop<S, Cell> loop(given, more.saved, more.outputs);
  const Matrix<S> recurrent = loop_matrix<S>(given.parameters[kWeightH], given.T);
  for_blocks(given.B, [&](int64_t, int64_t begin, int64_t end) {
    backward_block(loop, recurrent, d, begin, end);
  });
  finish_gradients(given, more, d_sums, previous, result);
  return result;
}

template <typename Cell>
std::tuple<Tensor, std::vector<Tensor>, std::vector<Tensor>, std::vector<Tensor>> recurrent_backward(
    const Tensor& inputs, const optional<Tensor>& resets, std::vector<Tensor> parameters,
    std::vector<Tensor> state, std::vector<Tensor> initial, std::vector<Tensor> saved, const Tensor& outputs,
    const Tensor& d_outputs, std::vector<Tensor> d_state, bool need_inputs, bool need_parameters) {
  const RecurrentArguments<Cell> given(
      inputs, resets, std::move(parameters), std::move(state), std::move(initial));
  const RecurrentBackwardArguments more{
      std::move(saved), outputs, d_outputs, std::move(d_state), need_inputs, need_parameters};
  const Shape steps{given.T, given.B, given.D};
  check_tensors("saved: ", Cell::kSavedNames, more.saved, given.type(), given.saved_shapes());
  check_tensor("outputs", "", more.outputs, given.type(), steps);
  check_tensor("d_outputs", "", more.d_outputs, given.type(), steps);
  check_tensors("d_state: ", kStateNames, more.d_state, given.type(), given.state_shapes());
  RecurrentBackwardResult result =
      given.type() == at::kDouble ? run_backward<double>(given, more) : run_backward<float>(given, more);
  return {
      result.inputs, std::move(result.parameters), std::move(result.state), std::move(result.initial)};
}

}  // namespace mnm
