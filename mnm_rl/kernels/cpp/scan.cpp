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
#include "backward.h"
#include "forward.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/library.h>

namespace mnm {
namespace {

constexpr int64_t kBlock = 32;

Settings make_settings(
    at::IntArrayRef widths, int64_t heads, int64_t rates, bool gradient_rule, bool tanh_output,
    int64_t normalization, at::ArrayRef<double> delay_weights) {
  return {widths.vec(),       heads,       rates,
          gradient_rule,      tanh_output, static_cast<Normalization>(normalization),
          delay_weights.vec()};
}

template <typename S, typename Work>
void for_blocks(int64_t batch, Work work) {
  const int64_t blocks = (batch + kBlock - 1) / kBlock;
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    for (int64_t block = begin; block < end; ++block)
      work(block, block * kBlock, std::min(batch, (block + 1) * kBlock));
  });
}

template <typename S>
Record<S> make_record(const std::vector<Tensor>& saved) {
  return {saved[kGates].data_ptr<S>(), saved[kCells].data_ptr<S>(),   saved[kVectors].data_ptr<S>(),
          saved[kRates].data_ptr<S>(), saved[kRecords].data_ptr<S>(), saved[kCells].size(0)};
}

// Returns controls, meta loss, the final state's six tensors, then the five that the backward pass needs. The
// final memory goes to new_memory if that is given; it may be the memory in state, if T is 1.
template <typename S>
std::vector<Tensor> forward(
    const Settings& settings, const Tensor& inputs, const optional<Tensor>& resets,
    const std::vector<Tensor>& parameters, const std::vector<Tensor>& state, const Tensor& initial_memory,
    const std::vector<Tensor>& packed, const optional<Tensor>& new_memory, bool save) {
  const Problem<S> p(settings, inputs, resets, parameters, state, initial_memory);
  const int64_t depth = save ? p.T : std::max<int64_t>(2, settings.delays());
  const auto empty = [&](at::IntArrayRef sizes) {
    const Tensor tensor = at::empty(sizes, inputs.options());
    prefer_huge_pages(tensor.data_ptr(), tensor.nbytes());
    return tensor;
  };
  const Tensor gates = empty({p.T, p.B, 4 * p.d_h});
  std::vector<Tensor> saved{
      gates, empty({depth, p.B, p.d_h}), empty({depth, p.B, p.U}), empty({depth, p.B, settings.rates}),
      empty({depth, p.B, p.layout.record_size})};
  std::vector<Tensor> results{empty({p.T, p.B, p.controls()}), empty({p.T, p.B})};
  for (size_t i = 0; i < state.size(); ++i)
    results.push_back(empty(i == kMemory && new_memory ? at::IntArrayRef{0} : state[i].sizes()));

  Tensor projected = gates.view({p.T * p.B, 4 * p.d_h});
  at::addmm_out(
      projected, at::add(parameters[kBiasX], parameters[kBiasH]), inputs.view({p.T * p.B, p.I}),
      p.weight_x().t());
  ForwardResult<S> out{results[0].data_ptr<S>(), results[1].data_ptr<S>(), {}};
  for (size_t i = 2; i < results.size(); ++i) out.state.push_back(results[i].data_ptr<S>());
  if (new_memory) out.state[kMemory] = new_memory->data_ptr<S>();
  const Record<S> record = make_record<S>(saved);
  const LoopWeights<S> loop_weights(p, true, packed);
  for_blocks<S>(p.B, [&](int64_t, int64_t begin, int64_t end) {
    ForwardBlock<S>(p, loop_weights, record, out, begin, end).run();
  });
  if (save) results.insert(results.end(), saved.begin(), saved.end());
  return results;
}

// Returns the gradients of the inputs, of the initial state's six tensors and of the parameters. The gradient of
// the final memory may be an empty tensor, which stands for zeros.
template <typename S>
std::vector<Tensor> backward(
    const Settings& settings, const Tensor& inputs, const optional<Tensor>& resets,
    const std::vector<Tensor>& parameters, const std::vector<Tensor>& state, const Tensor& initial_memory,
    const std::vector<Tensor>& saved, const Tensor& controls, const Tensor& final_memory,
    const std::vector<Tensor>& gradients, bool need_inputs, bool need_memory) {
  const Problem<S> p(settings, inputs, resets, parameters, state, initial_memory);
  std::vector<Tensor> results{need_inputs ? at::empty_like(inputs) : Tensor()};
  for (size_t i = 0; i < state.size(); ++i)
    results.push_back(
        i == kMemory && !need_memory ? Tensor() : at::empty(state[i].sizes(), inputs.options()));

  BackwardResult<S> out{gradients[0].const_data_ptr<S>(), gradients[1].const_data_ptr<S>(), {}, nullptr, {}};
  for (size_t i = 2; i < gradients.size(); ++i)
    out.d_state.push_back(gradients[i].numel() > 0 ? gradients[i].const_data_ptr<S>() : nullptr);
  if (need_inputs) out.d_inputs = results[0].data_ptr<S>();
  for (size_t i = 0; i < state.size(); ++i)
    out.d_initial.push_back(results[1 + i].defined() ? results[1 + i].data_ptr<S>() : nullptr);

  const ParameterOffsets offsets(parameters);
  const int64_t blocks = (p.B + kBlock - 1) / kBlock;
  const Tensor sums = at::zeros({blocks, offsets.total}, inputs.options());
  const Record<S> record = make_record<S>(saved);
  const LoopWeights<S> loop_weights(p, false);
  for_blocks<S>(p.B, [&](int64_t block, int64_t begin, int64_t end) {
    BackwardBlock<S> work(
        p, loop_weights, record, controls.const_data_ptr<S>(), final_memory.const_data_ptr<S>(), out, offsets,
        sums.data_ptr<S>() + block * offsets.total, begin, end);
    work.inputs = inputs.const_data_ptr<S>();
    work.run();
  });
  Tensor total = sums[0];
  for (int64_t block = 1; block < blocks; ++block) total.add_(sums[block]);
  total.narrow(0, offsets.at[kBiasH], 4 * p.d_h).copy_(total.narrow(0, offsets.at[kBiasX], 4 * p.d_h));
  for (size_t i = 0; i < parameters.size(); ++i)
    results.push_back(total.narrow(0, offsets.at[i], parameters[i].numel()).view(parameters[i].sizes()));
  return results;
}

std::vector<Tensor> scan_forward(
    const Tensor& inputs, const optional<Tensor>& resets, std::vector<Tensor> parameters,
    std::vector<Tensor> state, const Tensor& initial_memory, at::IntArrayRef widths, int64_t heads,
    int64_t rates, bool gradient_rule, bool tanh_output, int64_t normalization,
    at::ArrayRef<double> delay_weights, std::vector<Tensor> packed, const optional<Tensor>& new_memory,
    bool save) {
  const Settings settings =
      make_settings(widths, heads, rates, gradient_rule, tanh_output, normalization, delay_weights);
  const auto run = inputs.scalar_type() == at::kDouble ? forward<double> : forward<float>;
  return run(settings, inputs, resets, parameters, state, initial_memory, packed, new_memory, save);
}

// The controller's weights as a forward pass needs them, to be given to several calls of it.
std::vector<Tensor> pack(
    const Tensor& inputs, std::vector<Tensor> parameters, std::vector<Tensor> state,
    const Tensor& initial_memory, at::IntArrayRef widths, int64_t heads, int64_t rates, bool gradient_rule,
    bool tanh_output, int64_t normalization, at::ArrayRef<double> delay_weights) {
  const Settings settings =
      make_settings(widths, heads, rates, gradient_rule, tanh_output, normalization, delay_weights);
  const auto run = [&](auto number) {
    using S = decltype(number);
    const Problem<S> p(settings, inputs, {}, parameters, state, initial_memory);
    return LoopWeights<S>::pack(p, true);
  };
  return inputs.scalar_type() == at::kDouble ? run(0.0) : run(0.0f);
}

std::vector<Tensor> scan_backward(
    const Tensor& inputs, const optional<Tensor>& resets, std::vector<Tensor> parameters,
    std::vector<Tensor> state, const Tensor& initial_memory, at::IntArrayRef widths, int64_t heads,
    int64_t rates, bool gradient_rule, bool tanh_output, int64_t normalization,
    at::ArrayRef<double> delay_weights, std::vector<Tensor> saved, const Tensor& controls,
    const Tensor& final_memory, std::vector<Tensor> gradients, bool need_inputs, bool need_memory) {
  const Settings settings =
      make_settings(widths, heads, rates, gradient_rule, tanh_output, normalization, delay_weights);
  const auto run = inputs.scalar_type() == at::kDouble ? backward<double> : backward<float>;
  return run(
      settings, inputs, resets, parameters, state, initial_memory, saved, controls, final_memory, gradients,
      need_inputs, need_memory);
}

// tanh and the logistic function as the loop uses them, to test their error bound.
Tensor activation(const Tensor& values, bool is_logistic) {
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
  library.def(
      "scan_forward(Tensor inputs, Tensor? resets, Tensor[] parameters, Tensor[] state, "
      "Tensor initial_memory, int[] widths, int heads, int rates, bool gradient_rule, bool tanh_output, "
      "int normalization, "
      "float[] delay_weights, Tensor[] packed, Tensor(a!)? new_memory, bool save) -> Tensor[]",
      mnm::scan_forward);
  library.def(
      "pack(Tensor inputs, Tensor[] parameters, Tensor[] state, Tensor initial_memory, int[] widths, "
      "int heads, int rates, bool gradient_rule, bool tanh_output, int normalization, "
      "float[] delay_weights) -> Tensor[]",
      mnm::pack);
  library.def(
      "scan_backward(Tensor inputs, Tensor? resets, Tensor[] parameters, Tensor[] state, "
      "Tensor initial_memory, int[] widths, int heads, int rates, bool gradient_rule, bool tanh_output, "
      "int normalization, "
      "float[] delay_weights, Tensor[] saved, Tensor controls, Tensor final_memory, Tensor[] gradients, "
      "bool need_inputs, bool need_memory) -> Tensor[]",
      mnm::scan_backward);
  library.def("activation(Tensor values, bool is_logistic) -> Tensor", mnm::activation);
}
