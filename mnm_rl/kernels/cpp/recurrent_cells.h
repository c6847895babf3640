// One step of one sequence of an LSTM and of a gated recurrent unit, forward and backward, number by number.
//
// D hidden size. A row of gates has 4 D numbers. Those that depend on the inputs come first, those that depend
// on the hidden state last:
//
//   LSTM  [i | f | g | o]         all four depend on both
//   GRU   [n | r | z | W_hn h]    n, r, z on the inputs; r, z and W_hn h + b_hn on the hidden state
//
// The products with the weights, and the biases, are in the row when a cell gets it.
#pragma once

#include "matrix.h"

#include <algorithm>
#include <array>

namespace mnm {

// A vector of numbers in memory, or the part of one that is left at the end of a row.
template <typename S>
struct WholeLanes {
  Vec<S> load(const S* from) const { return mnm::load(from); }
  void store(S* to, Vec<S> v) const { mnm::store(to, v); }
};

template <typename S>
struct FirstLanes {
  int64_t count;
  Vec<S> load(const S* from) const { return load_first(from, count); }
  void store(S* to, Vec<S> v) const { store_first(to, v, count); }
};

// function(i, lanes) for all vectors [i, i + W) of a row of `count` numbers.
template <typename S, typename Function>
inline void for_lanes(int64_t count, Function function) {
  int64_t i = 0;
  for (; i + kLanes<S> <= count; i += kLanes<S>) function(i, WholeLanes<S>());
  if (i < count) function(i, FirstLanes<S>{count - i});
}

template <typename S>
inline S row_dot(const S* a, const S* b, int64_t count) {
  Vec<S> total = {};
  for_lanes<S>(count, [&](int64_t i, auto lanes) { total += lanes.load(a + i) * lanes.load(b + i); });
  return lane_sum<S>(total);
}

// What one step of one sequence reads and writes; the GRU has no cell.
template <typename S>
struct Step {
  S* gates;  // before the forward pass sums, after it what the backward pass needs
  const S *hidden_before, *cell_before;
  S *hidden, *cell;
};

// Gradients of the loss. `hidden` and `cell` are those of the state after the step, and afterwards those of
// the state before it, but of `hidden` only the part that does not go through the weights.
template <typename S>
struct StepGradient {
  const S* outputs;  // of this step's output
  S* sums;           // of the row of gates
  S *hidden, *cell;
};

struct Lstm {
  static constexpr int64_t kStates = 2, kGates = 4;
  static constexpr std::array kSavedNames{"gates", "cells"};

  template <typename S>
  static void forward(const Step<S>& at, int64_t D) {
    for_lanes<S>(D, [&](int64_t k, auto lanes) {
      const Vec<S> i = logistic(lanes.load(at.gates + k)), f = logistic(lanes.load(at.gates + D + k));
      const Vec<S> g = tanh(lanes.load(at.gates + 2 * D + k)), o = logistic(lanes.load(at.gates + 3 * D + k));
      const Vec<S> cell = f * lanes.load(at.cell_before + k) + i * g;
      lanes.store(at.gates + k, i), lanes.store(at.gates + D + k, f);
      lanes.store(at.gates + 2 * D + k, g), lanes.store(at.gates + 3 * D + k, o);
      lanes.store(at.cell + k, cell), lanes.store(at.hidden + k, o * tanh(cell));
    });
  }

  template <typename S>
  static void backward(const Step<S>& at, const StepGradient<S>& d, int64_t D) {
    for_lanes<S>(D, [&](int64_t k, auto lanes) {
      const Vec<S> i = lanes.load(at.gates + k), f = lanes.load(at.gates + D + k);
      const Vec<S> g = lanes.load(at.gates + 2 * D + k), o = lanes.load(at.gates + 3 * D + k);
      const Vec<S> squashed = tanh(lanes.load(at.cell + k));
      const Vec<S> d_hidden = lanes.load(d.hidden + k) + lanes.load(d.outputs + k);
      const Vec<S> d_cell = lanes.load(d.cell + k) + d_hidden * o * (1 - squashed * squashed);
      lanes.store(d.sums + k, d_cell * g * i * (1 - i));
      lanes.store(d.sums + D + k, d_cell * lanes.load(at.cell_before + k) * f * (1 - f));
      lanes.store(d.sums + 2 * D + k, d_cell * i * (1 - g * g));
      lanes.store(d.sums + 3 * D + k, d_hidden * squashed * o * (1 - o));
      lanes.store(d.cell + k, d_cell * f), lanes.store(d.hidden + k, Vec<S>{});
    });
  }
};

struct Gru {
  static constexpr int64_t kStates = 1, kGates = 3;
  static constexpr std::array kSavedNames{"gates"};

  template <typename S>
  static void forward(const Step<S>& at, int64_t D) {
    for_lanes<S>(D, [&](int64_t k, auto lanes) {
      const Vec<S> r = logistic(lanes.load(at.gates + D + k)), z = logistic(lanes.load(at.gates + 2 * D + k));
      const Vec<S> n = tanh(lanes.load(at.gates + k) + r * lanes.load(at.gates + 3 * D + k));
      lanes.store(at.gates + k, n), lanes.store(at.gates + D + k, r), lanes.store(at.gates + 2 * D + k, z);
      lanes.store(at.hidden + k, n + z * (lanes.load(at.hidden_before + k) - n));
    });
  }

  template <typename S>
  static void backward(const Step<S>& at, const StepGradient<S>& d, int64_t D) {
    for_lanes<S>(D, [&](int64_t k, auto lanes) {
      const Vec<S> n = lanes.load(at.gates + k), r = lanes.load(at.gates + D + k);
      const Vec<S> z = lanes.load(at.gates + 2 * D + k), recurrent = lanes.load(at.gates + 3 * D + k);
      const Vec<S> d_hidden = lanes.load(d.hidden + k) + lanes.load(d.outputs + k);
      const Vec<S> d_n = d_hidden * (1 - z) * (1 - n * n);
      lanes.store(d.sums + k, d_n);
      lanes.store(d.sums + D + k, d_n * recurrent * r * (1 - r));
      lanes.store(d.sums + 2 * D + k, d_hidden * (lanes.load(at.hidden_before + k) - n) * z * (1 - z));
      lanes.store(d.sums + 3 * D + k, d_n * r);
      lanes.store(d.hidden + k, d_hidden * z);
    });
  }
};

}  // namespace mnm
