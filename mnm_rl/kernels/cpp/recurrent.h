// An LSTM and a gated recurrent unit over whole sequences, with episodes that start anywhere in them.
//
// Dimensions: T time, B batch, I input size, D hidden size, K gates of the weights (LSTM 4, GRU 3). Weights are
// those of torch.nn.LSTM and torch.nn.GRU: weight_ih [K D, I], weight_hh [K D, D], bias_ih, bias_hh [K D].
//
// A chunk of steps at a time, whose gates fit a second-level cache: the products with its inputs are one product
// before its loop, the gradients of the weights one after it, and in the loop only the product with the hidden
// state is left, for a block of sequences at a time. Where an episode starts, the state before the step is the
// initial one, and gradients go to that instead of the step before.
#pragma once

#include "arguments.h"
#include "blocks.h"
#include "product.h"
#include "recurrent_cells.h"

namespace mnm {

constexpr int64_t kFewRecurrentSteps = 8;  // for fewer, packing the weights does not pay
constexpr int64_t kChunkBytes = int64_t(1) << 18, kLeastChunkRows = 256;  // else products are too small

// What both passes take, checked.
template <typename Cell>
struct RecurrentArguments {
  Tensor inputs;            // [T, B, I]
  optional<Tensor> resets;  // [T, B]
  std::vector<Tensor> parameters, state, initial;  // the initial state is zero if it is not given
  int64_t T, B, I, D;

  RecurrentArguments(
      const Tensor& inputs_, const optional<Tensor>& resets_, std::vector<Tensor> parameters_,
      std::vector<Tensor> state_, std::vector<Tensor> initial_)
      : inputs(inputs_),
        resets(resets_),
        parameters(std::move(parameters_)),
        state(std::move(state_)),
        initial(std::move(initial_)) {
    check_sequence(inputs);
    T = inputs.size(0), B = inputs.size(1), I = inputs.size(2);
    D = checked_width(parameters, Cell::kGates == 4 ? "[4 D, D]" : "[3 D, D]");
    const int64_t rows = Cell::kGates * D;
    check_tensors("parameters: ", kParameterNames, parameters, type(), {{rows, I}, {rows, D}, {rows}, {rows}});
    check_tensors("state: ", kStateNames, state, type(), state_shapes());
    if (!initial.empty()) check_tensors("initial: ", kStateNames, initial, type(), state_shapes());
    if (resets) check_tensor("resets", "", *resets, at::kBool, {T, B});
  }

  at::ScalarType type() const { return inputs.scalar_type(); }
  std::vector<Shape> state_shapes() const { return std::vector<Shape>(Cell::kStates, {B, D}); }

  // Steps of a chunk.
  int64_t chunk() const {
    const int64_t step = std::max<int64_t>(1, B * 4 * D * inputs.element_size());
    const int64_t least = kLeastChunkRows / std::max<int64_t>(1, B) + 1;
    return std::min(T, std::max(least, kChunkBytes / step));
  }

  // What the forward pass leaves: gates, of all steps or of one chunk, and, of the LSTM, cells.
  std::vector<Shape> saved_shapes(bool save = true) const {
    std::vector<Shape> shapes{{save ? T : chunk(), B, 4 * D}};
    if (Cell::kStates == 2) shapes.push_back({T, B, D});
    return shapes;
  }

  // Inputs, gates and the like of some steps as the rows of one matrix.
  static Tensor rows_of(const Tensor& steps, int64_t begin, int64_t count) {
    return steps.narrow(0, begin, count).view({count * steps.size(1), steps.size(2)});
  }
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
  int64_t depth;       // steps that there is room for in the gates: all, or those of one chunk
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
        depth(saved[0].size(0)),
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

  S* gates_of(int64_t t, int64_t b) const { return gates + (t % depth * B + b) * 4 * D; }

  Step<S> step(int64_t t, int64_t b) const {
    const int64_t row = t * B + b;
    return {
        gates_of(t, b), hidden_before(t, b), cell_before(t, b), outputs + row * D,
        cells ? cells + row * D : nullptr};
  }
};

template <typename S>
Matrix<S> loop_matrix(const Tensor& w, int64_t steps) {
  return steps < kFewRecurrentSteps ? Matrix<S>(w) : Matrix<S>(w, Matrix<S>::pack(w));
}

// Steps of a chunk, or sequences of a block.
struct Span {
  int64_t begin, end;
  int64_t count() const { return end - begin; }
};

// Some sequences through some steps.
template <typename S, typename Cell>
void forward_block(const RecurrentLoop<S, Cell>& loop, const Matrix<S>& recurrent, Span steps, Span sequences) {
  const int64_t D = loop.D, begin = sequences.begin, end = sequences.end, n = sequences.count();
  Buffer<S> chosen(n * D);
  for (int64_t t = steps.begin; t < steps.end; ++t) {
    const S* hidden = loop.before(loop.outputs, loop.state_hidden, nullptr, t, begin);
    if (loop.is_any_reset(t, begin, end)) {
      for (int64_t b = 0; b < n; ++b) copy_row(loop.hidden_before(t, begin + b), D, chosen.data() + b * D);
      hidden = chosen.data();
    }
    recurrent.multiply({hidden, D}, {loop.gates_of(t, begin) + loop.hidden_part_at, 4 * D}, n, true);
    for (int64_t b = begin; b < end; ++b) Cell::forward(loop.step(t, b), D);
  }
}

template <typename S>
struct RecurrentGradients {
  const S* outputs;
  S *sums, *previous;           // of the gates of a chunk; the hidden states before its steps (no gradient)
  S *state_hidden, *state_cell;  // of the state after a step, while going back; at last of that before all
  S *initial_hidden, *initial_cell;  // null if they are zero
};

// No gradient goes across the start of an episode: it goes to the initial state.
template <typename S>
void cross_reset(S* state, S* initial, int64_t D) {
  if (initial) add_scaled(initial, state, S(1), D);
  std::fill_n(state, D, S(0));
}

// Some sequences back through the steps of a chunk.
template <typename S, typename Cell>
void backward_block(
    const RecurrentLoop<S, Cell>& loop, const Matrix<S>& recurrent, const RecurrentGradients<S>& d, Span steps,
    Span sequences) {
  const int64_t D = loop.D, begin = sequences.begin, end = sequences.end;
  const auto row_of = [&](S* rows, int64_t b) { return rows ? rows + b * D : nullptr; };
  for (int64_t t = steps.end - 1; t >= steps.begin; --t) {
    const int64_t first_row = (t - steps.begin) * loop.B;
    for (int64_t b = begin; b < end; ++b) {
      const Step<S> step = loop.step(t, b);
      copy_row(step.hidden_before, D, d.previous + (first_row + b) * D);
      const StepGradient<S> d_step{
          d.outputs + (t * loop.B + b) * D, d.sums + (first_row + b) * 4 * D, row_of(d.state_hidden, b),
          row_of(d.state_cell, b)};
      Cell::backward(step, d_step, D);
    }
    const S* sums = d.sums + (first_row + begin) * 4 * D + loop.hidden_part_at;
    recurrent.multiply({sums, 4 * D}, {d.state_hidden + begin * D, D}, end - begin, true);
    for (int64_t b = begin; b < end; ++b) {
      if (!loop.is_reset(t, b)) continue;
      cross_reset(row_of(d.state_hidden, b), row_of(d.initial_hidden, b), D);
      if (d.state_cell) cross_reset(row_of(d.state_cell, b), row_of(d.initial_cell, b), D);
    }
  }
}

// The parameters as the products with the inputs take them; the biases are summed where both are.
template <typename Cell>
struct InputProduct {
  Tensor weight, bias, hidden_bias;  // in the order of a row of gates; the last one is the GRU's b_hn

  explicit InputProduct(const RecurrentArguments<Cell>& given)
      : weight(given.to_row_order(given.parameters[kWeightX])),
        bias(given.to_row_order(given.parameters[kBiasX]).clone()) {
    const int64_t D = given.D;
    const Tensor& other = given.parameters[kBiasH];
    if (Cell::kGates == 4) {
      bias.add_(other);
    } else {
      bias.narrow(0, D, 2 * D).add_(other.narrow(0, 0, 2 * D));
      hidden_bias = other.narrow(0, 2 * D, D);
    }
  }

  // The sums of some rows of gates, all but the product with the hidden state.
  void run(const RecurrentArguments<Cell>& given, const Tensor& inputs, const Tensor& gates) const {
    const int64_t D = given.D;
    if (Cell::kGates == 3) gates.narrow(1, 3 * D, D).copy_(hidden_bias.expand({gates.size(0), D}));
    Tensor sums = given.input_part(gates);
    at::addmm_out(sums, bias, inputs, weight.t());
  }
};

template <typename S, typename Cell>
Tensor run_forward(const RecurrentArguments<Cell>& given, const std::vector<Tensor>& saved) {
  const Tensor outputs = at::empty({given.T, given.B, given.D}, given.inputs.options());
  const InputProduct<Cell> input_product(given);
  const RecurrentLoop<S, Cell> loop(given, saved, outputs);
  const Matrix<S> recurrent = loop_matrix<S>(given.parameters[kWeightH].t(), given.T);
  const int64_t chunk = given.chunk();
  for (int64_t t = 0; t < given.T; t += chunk) {
    const Span steps{t, std::min(given.T, t + chunk)};
    input_product.run(
        given, given.rows_of(given.inputs, t, steps.count()),
        given.rows_of(saved[0], t % loop.depth, steps.count()));
    for_blocks(given.B, [&](int64_t, int64_t begin, int64_t end) {
      forward_block(loop, recurrent, steps, {begin, end});
    });
  }
  return outputs;
}

template <typename Cell>
std::tuple<Tensor, std::vector<Tensor>, std::vector<Tensor>> recurrent_forward(
    const Tensor& inputs, const optional<Tensor>& resets, std::vector<Tensor> parameters,
    std::vector<Tensor> state, std::vector<Tensor> initial, bool save) {
  const RecurrentArguments<Cell> given(
      inputs, resets, std::move(parameters), std::move(state), std::move(initial));
  std::vector<Tensor> saved;
  for (const Shape& shape : given.saved_shapes(save)) {
    saved.push_back(at::empty(shape, given.inputs.options()));
    prefer_huge_pages(saved.back().data_ptr(), saved.back().nbytes());
  }
  const Tensor outputs =
      given.type() == at::kDouble ? run_forward<double>(given, saved) : run_forward<float>(given, saved);
  std::vector<Tensor> last{outputs[given.T - 1].clone()};
  if (Cell::kStates == 2) last.push_back(saved[1][given.T - 1].clone());
  if (!save) saved.clear();
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

// From the gradients of gates, a chunk at a time, to those of the inputs and the parameters.
template <typename S, typename Cell>
class GateGradients {
 public:
  GateGradients(const RecurrentArguments<Cell>& given_, bool need_inputs, bool need_parameters) : given(given_) {
    const auto zeros = [&](at::IntArrayRef shape) { return at::zeros(shape, given.inputs.options()); };
    if (need_inputs) {
      inputs = at::empty_like(given.inputs);
      weight = given.to_row_order(given.parameters[kWeightX]);
    }
    if (!need_parameters) return;
    by_inputs = zeros({given.I, Cell::kGates * given.D});
    by_hidden = zeros({given.D, Cell::kGates * given.D});
    bias = zeros({4 * given.D});
  }

  // `sums` are the gradients of the gates at steps from `begin` on, `previous` the hidden states before these.
  void add(const Tensor& sums, const Tensor& previous, int64_t begin, int64_t count) {
    const Tensor from_inputs = given.input_part(sums), from_hidden = given.hidden_part(sums);
    if (inputs.defined()) add_product(given.rows_of(inputs, begin, count), from_inputs, weight, false);
    if (!bias.defined()) return;
    add_sums(by_inputs, given.rows_of(given.inputs, begin, count), from_inputs);
    add_sums(by_hidden, previous, from_hidden);
    bias.add_(sums.sum(0));
  }

  std::vector<Tensor> parameters() const {
    if (!bias.defined()) return {};
    const Tensor row = bias.view({1, -1});
    const Tensor first = given.from_row_order(given.input_part(row)[0]), second = given.hidden_part(row)[0];
    return {
        given.from_row_order(by_inputs.t()).contiguous(), by_hidden.t().contiguous(), first.clone(),
        second.clone()};
  }

  Tensor inputs;  // not defined if it is not needed

 private:
  // to += a^T b, matrices of which the rows are in one piece each.
  static void add_sums(const Tensor& to, const Tensor& a, const Tensor& b) {
    const auto rows = [](const Tensor& m) { return Rows<const S>{m.const_data_ptr<S>(), m.stride(0)}; };
    add_outer_sums<S>({to.data_ptr<S>(), to.stride(0)}, rows(a), rows(b), a.size(0), a.size(1), b.size(1));
  }

  const RecurrentArguments<Cell>& given;
  // Transposed: there are more gates than hidden units or inputs, so that fewer vectors are not full.
  Tensor by_inputs, by_hidden;  // [I, K D], [D, K D]
  Tensor weight, bias;          // in the order of a row of gates, as are the columns of by_inputs
};

template <typename S, typename Cell>
RecurrentBackwardResult run_backward(
    const RecurrentArguments<Cell>& given, const RecurrentBackwardArguments& more) {
  RecurrentBackwardResult result;
  for (const Tensor& d : more.d_state) result.state.push_back(d.clone());
  for (const Tensor& like : given.initial) result.initial.push_back(at::zeros_like(like));
  const int64_t chunk = given.chunk();
  const Tensor d_sums = at::empty({chunk, given.B, 4 * given.D}, given.inputs.options());
  const Tensor previous = at::empty({chunk, given.B, given.D}, given.inputs.options());
  const auto field = [](std::vector<Tensor>& fields, size_t i) {
    return i < fields.size() ? fields[i].data_ptr<S>() : nullptr;
  };
  const RecurrentGradients<S> d{
      more.d_outputs.const_data_ptr<S>(), d_sums.data_ptr<S>(),       previous.data_ptr<S>(),
      field(result.state, kHidden),       field(result.state, kCell), field(result.initial, kHidden),
      field(result.initial, kCell)};
  const RecurrentLoop<S, Cell> loop(given, more.saved, more.outputs);
  const Matrix<S> recurrent = loop_matrix<S>(given.parameters[kWeightH], given.T);
  GateGradients<S, Cell> gates(given, more.need_inputs, more.need_parameters);
  for (int64_t end = given.T; end > 0; end -= chunk) {
    const Span steps{std::max<int64_t>(0, end - chunk), end};
    for_blocks(given.B, [&](int64_t, int64_t first, int64_t last) {
      backward_block(loop, recurrent, d, steps, {first, last});
    });
    const int64_t count = steps.count();
    gates.add(given.rows_of(d_sums, 0, count), given.rows_of(previous, 0, count), steps.begin, count);
  }
  result.inputs = gates.inputs;
  result.parameters = gates.parameters();
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
