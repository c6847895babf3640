// The whole time loop of a metalearned neural memory, forward and backward, on the CPU.
//
// Dimensions: T time, B batch, I input size, H heads, L memory layers of widths D_l, N recall delays; sizes
// d_h controller, d_k key, d_v value, U = H (2 d_k + d_v) + d_k interaction vectors, F = sum D_l D_{l-1}.
//
// Sequences run in blocks of at most kBlock. A block goes through time as a whole, so that the controller's
// products are matrix products over the block, while each sequence's memory stays in the cache of one core.
// The blocks depend on B alone and their gradients are summed in order, so results do not depend on the
// threads.
//
// The backward pass saves vectors, not memories: it rebuilds the memory before each write by undoing the
// write, and across a reset by repeating the writes since the episode's start.
#include "acting.h"
#include "backward.h"
#include "blocks.h"
#include "dnc.h"
#include "forward.h"
#include "fwm.h"
#include "ntm.h"
#include "packed_product.h"
#include "recurrent.h"

#include <torch/library.h>

namespace mnm {
namespace {

template <typename S>
Record<S> make_record(const std::vector<Tensor>& saved) {
  return {saved[kGates].data_ptr<S>(), saved[kCells].data_ptr<S>(),   saved[kVectors].data_ptr<S>(),
          saved[kRates].data_ptr<S>(), saved[kRecords].data_ptr<S>(), saved[kCells].size(0)};
}

struct ForwardResult {
  Tensor controls, meta_loss;  // [h_t; v^r_t], [T, B, d_h + d_v]; [T, B]
  std::vector<Tensor> state;   // after the last step
  std::vector<Tensor> saved;   // what the backward pass needs
};

// The final memory goes to new_memory if that is given, which for one step may be the memory in `state`.
void check_new_memory(const Arguments& given, const Tensor& new_memory) {
  const Tensor& memory = given.state[kMemory];
  check_tensor("new_memory", "", new_memory, given.type(), memory.sizes());
  const bool is_same = given.T == 1 && new_memory.data_ptr() == memory.data_ptr() && memory.is_contiguous();
  TORCH_CHECK_VALUE(
      is_same || !new_memory.is_alias_of(memory),
      "new_memory must not overlap with the state's memory, but for one step may be that very tensor.");
}

template <typename S>
ForwardResult forward(
    const Arguments& given, const std::vector<Tensor>& packed, const optional<Tensor>& new_memory, bool save) {
  if (new_memory) check_new_memory(given, *new_memory);
  const Problem<S> p(given);
  const LoopWeights<S> loop_weights(p, true, packed);
  const auto empty = [&](at::IntArrayRef sizes) {
    const Tensor tensor = at::empty(sizes, given.inputs.options());
    prefer_huge_pages(tensor.data_ptr(), tensor.nbytes());
    return tensor;
  };
  const int64_t depth = save ? p.T : std::max<int64_t>(2, p.layout.delays());
  std::vector<Tensor> saved;
  for (const Shape& shape : given.saved_shapes(depth, p.layout.record_size)) saved.push_back(empty(shape));
  ForwardResult result{empty({p.T, p.B, p.controls()}), empty({p.T, p.B}), {}, {}};
  ForwardPointers<S> out{result.controls.data_ptr<S>(), result.meta_loss.data_ptr<S>(), {}};
  for (size_t i = 0; i < given.state.size(); ++i) {
    const bool is_given = i == kMemory && new_memory;
    result.state.push_back(empty(is_given ? at::IntArrayRef{0} : given.state[i].sizes()));
    out.state.push_back((is_given ? *new_memory : result.state[i]).template data_ptr<S>());
  }

  Tensor projected = saved[kGates].view({p.T * p.B, 4 * p.d_h});
  at::addmm_out(
      projected, at::add(given.parameters[kBiasX], given.parameters[kBiasH]),
      given.inputs.view({p.T * p.B, p.I}), p.weight_x().t());
  const Record<S> record = make_record<S>(saved);
  const auto run_block = [&](int64_t, int64_t begin, int64_t end) {
    ForwardBlock<S>(p, loop_weights, record, out, begin, end).run();
  };
  const bool is_packed = !packed.empty() || p.T >= kFewSteps;  // a library's products may depend on the block
  for_blocks(p.B, run_block, is_packed ? block_of_thread(p.B) : kBlock);
  if (save) result.saved = std::move(saved);
  return result;
}

// What the forward pass has returned, and the gradients of it. The gradient of the final memory may be an
// empty tensor, which stands for zeros.
struct BackwardArguments {
  std::vector<Tensor> saved;
  Tensor controls, final_memory, d_controls, d_meta_loss;
  std::vector<Tensor> d_state;

  void check(const Arguments& given, int64_t record_size) const {
    const Shape controls_shape{given.T, given.B, given.d_h + given.settings.value()};
    std::vector<Shape> states = given.state_shapes();
    check_tensors("saved: ", kSavedNames, saved, given.type(), given.saved_shapes(given.T, record_size));
    check_tensor("controls", "", controls, given.type(), controls_shape);
    check_tensor("final_memory", "", final_memory, given.type(), states[kMemory]);
    check_tensor("d_controls", "", d_controls, given.type(), controls_shape);
    check_tensor("d_meta_loss", "", d_meta_loss, given.type(), {given.T, given.B});
    const bool is_zero = d_state.size() > kMemory && d_state[kMemory].sizes() == at::IntArrayRef{0};
    if (is_zero) states[kMemory] = {0};
    check_tensors("d_state: ", kStateNames, d_state, given.type(), states);
  }
};

struct BackwardResult {
  Tensor inputs;  // undefined if not needed
  std::vector<Tensor> parameters;
  std::vector<Tensor> state;  // the memory undefined if not needed
};

template <typename S>
BackwardResult backward(
    const Arguments& given, const BackwardArguments& more, bool need_inputs, bool need_memory) {
  const Problem<S> p(given);
  more.check(given, p.layout.record_size);
  BackwardResult result;
  BackwardPointers<S> out{
      more.d_controls.const_data_ptr<S>(), more.d_meta_loss.const_data_ptr<S>(), {}, nullptr, {}};
  for (const Tensor& d : more.d_state)
    out.d_state.push_back(d.numel() > 0 ? d.const_data_ptr<S>() : nullptr);
  if (need_inputs) {
    result.inputs = at::empty_like(given.inputs);
    out.d_inputs = result.inputs.data_ptr<S>();
  }
  for (size_t i = 0; i < given.state.size(); ++i) {
    const bool is_needed = i != kMemory || need_memory;
    result.state.push_back(
        is_needed ? at::empty(given.state[i].sizes(), given.inputs.options()) : Tensor());
    out.d_initial.push_back(is_needed ? result.state[i].data_ptr<S>() : nullptr);
  }

  const ParameterOffsets offsets(given.parameters);
  const int64_t blocks = (p.B + kBlock - 1) / kBlock;
  const Tensor sums = at::zeros({std::max<int64_t>(1, blocks), offsets.total}, given.inputs.options());
  const Record<S> record = make_record<S>(more.saved);
  const LoopWeights<S> loop_weights(p, false);
  const int64_t shares = p.T >= kFewSteps ? shares_of_block(p.B) : 1;
  const auto run_block = [&](int64_t block, int64_t begin, int64_t end) {
    BackwardBlock<S>(
        p, loop_weights, record, more.controls.const_data_ptr<S>(), more.final_memory.const_data_ptr<S>(),
        out, offsets, sums.data_ptr<S>() + block * offsets.total, begin, end, shares)
        .run();
  };
  if (shares > 1)
    for (int64_t block = 0; block < blocks; ++block)
      run_block(block, block * kBlock, std::min(p.B, (block + 1) * kBlock));
  else
    for_blocks(p.B, run_block);
  Tensor total = sums[0];
  for (int64_t block = 1; block < blocks; ++block) total.add_(sums[block]);
  total.narrow(0, offsets.at[kBiasH], 4 * p.d_h).copy_(total.narrow(0, offsets.at[kBiasX], 4 * p.d_h));
  for (size_t i = 0; i < given.parameters.size(); ++i) {
    const Tensor& parameter = given.parameters[i];
    result.parameters.push_back(total.narrow(0, offsets.at[i], parameter.numel()).view(parameter.sizes()));
  }
  return result;
}

// What all other operators take, from the settings by name.
Tensor settings(NamedNumbers named) { return to_tensor(read_settings(named)); }

std::tuple<Tensor, Tensor, std::vector<Tensor>, std::vector<Tensor>> scan_forward(
    const Tensor& inputs, const optional<Tensor>& resets, std::vector<Tensor> parameters,
    std::vector<Tensor> state, const Tensor& initial_memory, const Tensor& settings,
    std::vector<Tensor> packed, const optional<Tensor>& new_memory, bool save) {
  const Arguments given(settings, inputs, resets, std::move(parameters), std::move(state), initial_memory);
  const auto run = given.type() == at::kDouble ? forward<double> : forward<float>;
  ForwardResult result = run(given, packed, new_memory, save);
  return {result.controls, result.meta_loss, std::move(result.state), std::move(result.saved)};
}

// The controller's weights as a forward pass needs them, to be given to several calls of it.
std::vector<Tensor> pack(
    const Tensor& inputs, std::vector<Tensor> parameters, std::vector<Tensor> state,
    const Tensor& initial_memory, const Tensor& settings) {
  const Arguments given(settings, inputs, {}, std::move(parameters), std::move(state), initial_memory);
  const auto run = [&](auto number) {
    using S = decltype(number);
    return LoopWeights<S>::pack(Problem<S>(given), true);
  };
  return given.type() == at::kDouble ? run(0.0) : run(0.0f);
}

std::tuple<Tensor, std::vector<Tensor>, std::vector<Tensor>> scan_backward(
    const Tensor& inputs, const optional<Tensor>& resets, std::vector<Tensor> parameters,
    std::vector<Tensor> state, const Tensor& initial_memory, const Tensor& settings,
    std::vector<Tensor> saved, const Tensor& controls, const Tensor& final_memory, const Tensor& d_controls,
    const Tensor& d_meta_loss, std::vector<Tensor> d_state, bool need_inputs, bool need_memory) {
  const Arguments given(settings, inputs, resets, std::move(parameters), std::move(state), initial_memory);
  const BackwardArguments more{
      std::move(saved), controls, final_memory, d_controls, d_meta_loss, std::move(d_state)};
  const auto run = given.type() == at::kDouble ? backward<double> : backward<float>;
  BackwardResult result = run(given, more, need_inputs, need_memory);
  return {result.inputs, std::move(result.parameters), std::move(result.state)};
}

// tanh and the logistic function as the loop uses them, to test their error bound.
Tensor activation(const Tensor& values, bool is_logistic) {
  check_tensor("values", "", values, at::kFloat, values.sizes());
  Tensor result = values.clone();
  if (is_logistic)
    apply_logistic<float>(result.data_ptr<float>(), nullptr, result.numel());
  else
    apply_tanh<float>(result.data_ptr<float>(), nullptr, result.numel());
  return result;
}

}  // namespace
}  // namespace mnm

TORCH_LIBRARY(MNM_LIBRARY, library) {
  library.def("vector_bytes() -> int", [] { return int64_t(mnm::kVectorBytes); });
  library.def("settings(Dict(str, float[]) named) -> Tensor", mnm::settings);
  library.def(
      "scan_forward(Tensor inputs, Tensor? resets, Tensor[] parameters, Tensor[] state, "
      "Tensor initial_memory, Tensor settings, Tensor[] packed, Tensor(a!)? new_memory, "
      "bool save) -> (Tensor controls, Tensor meta_loss, Tensor[] final_state, Tensor[] saved)",
      mnm::scan_forward);
  library.def(
      "pack(Tensor inputs, Tensor[] parameters, Tensor[] state, Tensor initial_memory, "
      "Tensor settings) -> Tensor[]",
      mnm::pack);
  library.def(
      "scan_backward(Tensor inputs, Tensor? resets, Tensor[] parameters, Tensor[] state, "
      "Tensor initial_memory, Tensor settings, Tensor[] saved, Tensor controls, "
      "Tensor final_memory, Tensor d_controls, Tensor d_meta_loss, Tensor[] d_state, bool need_inputs, "
      "bool need_memory) -> (Tensor d_inputs, Tensor[] d_parameters, Tensor[] d_initial)",
      mnm::scan_backward);
  library.def("activation(Tensor values, bool is_logistic) -> Tensor", mnm::activation);
  const std::string dnc_switches =
      "int read_heads, float? mask_minimum, bool deallocating, bool usage_gradient) -> ";
  library.def(
      ("dnc_forward(Tensor vector, Tensor[] before, Tensor(a!) memory, Tensor(b!)? link, " + dnc_switches +
       "Tensor[]")
          .c_str(),
      mnm::dnc_forward_batch);
  library.def(
      ("dnc_rewrite(Tensor vectors, Tensor[] before, Tensor written, Tensor? resets, Tensor(a!) memories, "
       "bool links, " + dnc_switches + "()")
          .c_str(),
      mnm::dnc_rewrite_batch);
  library.def(
      ("dnc_backward(Tensor vector, Tensor[] before, Tensor[] after, Tensor memory_before, Tensor memory, "
       "Tensor? link, Tensor precedence, Tensor written, Tensor? resets, int number, Tensor d_read, Tensor[] d_after, Tensor(a!) d_memory, Tensor(b!)? d_link, " +
       dnc_switches + "Tensor[]")
          .c_str(),
      mnm::dnc_backward_batch);
  const std::string recurrent_forward =
      "(Tensor inputs, Tensor? resets, Tensor[] parameters, Tensor[] state, Tensor[] initial, "
      "bool save) -> (Tensor outputs, Tensor[] final_state, Tensor[] saved)";
  const std::string recurrent_backward =
      "(Tensor inputs, Tensor? resets, Tensor[] parameters, Tensor[] state, Tensor[] initial, "
      "Tensor[] saved, Tensor outputs, Tensor d_outputs, Tensor[] d_state, bool need_inputs, "
      "bool need_parameters) -> "
      "(Tensor d_inputs, Tensor[] d_parameters, Tensor[] d_state, Tensor[] d_initial)";
  library.def(("lstm_forward" + recurrent_forward).c_str(), mnm::recurrent_forward<mnm::Lstm>);
  library.def(("lstm_backward" + recurrent_backward).c_str(), mnm::recurrent_backward<mnm::Lstm>);
  library.def(("gru_forward" + recurrent_forward).c_str(), mnm::recurrent_forward<mnm::Gru>);
  library.def(("gru_backward" + recurrent_backward).c_str(), mnm::recurrent_backward<mnm::Gru>);
  const std::string step =
      "(Tensor inputs, Tensor? resets, Tensor[] parameters, Tensor[] packed, Tensor[] state) -> Tensor[]";
  library.def(("lstm_step" + step).c_str(), mnm::recurrent_step<mnm::Lstm>);
  library.def(("gru_step" + step).c_str(), mnm::recurrent_step<mnm::Gru>);
  library.def("lstm_pack(Tensor[] parameters) -> Tensor[]", mnm::recurrent_pack<mnm::Lstm>);
  library.def("gru_pack(Tensor[] parameters) -> Tensor[]", mnm::recurrent_pack<mnm::Gru>);
  library.def("draw(Tensor outputs, Tensor weight, Tensor bias) -> Tensor", mnm::draw);
  library.def(
      "fwm_forward(Tensor[] commands, Tensor? resets, Tensor memory, bool save) -> Tensor[]", mnm::fwm_forward);
  library.def(
      "fwm_backward(Tensor[] commands, Tensor? resets, Tensor memory, Tensor copies, Tensor norms, Tensor d_reads, "
      "Tensor d_last) -> Tensor[]",
      mnm::fwm_backward);
  library.def("outer_sum(Tensor left, Tensor right) -> Tensor", mnm::outer_sum);
  library.def("pack_matrix(Tensor weight) -> Tensor", mnm::pack_matrix);
  library.def(
      "packed_product(Tensor values, Tensor weight, Tensor packed, Tensor? start) -> Tensor", mnm::packed_product);
  library.def(
      "ntm_forward(Tensor projected, Tensor? resets, Tensor[] parameters, Tensor[] state, Tensor[] initial, "
      "bool save) -> (Tensor controls, Tensor[] final_state, Tensor[] saved)",
      mnm::ntm_forward);
  library.def(
      "ntm_backward(Tensor projected, Tensor? resets, Tensor[] parameters, Tensor[] state, Tensor[] initial, "
      "Tensor[] saved, Tensor controls, Tensor d_controls, Tensor[] d_state) -> "
      "(Tensor d_gates, Tensor d_told, Tensor[] d_state, Tensor[] d_initial)",
      mnm::ntm_backward);
}
