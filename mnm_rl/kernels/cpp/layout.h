// Where the numbers of the neural memory lie.
//
// Dimensions: H heads, L layers, D_l width of layer l (D_0 = d_k key, D_L = d_v value), P_l = D_l rounded up
// to whole vectors, N recall delays, R = H (1 + N) reads per step.
//
// Activations of a layer are H + R rows of P_l numbers: z for each head, then a for each read key, then a for
// each write key of delay 0, 1, ... N - 1. Padding is zero throughout.
#pragma once

#include "settings.h"
#include "vector.h"

#include <algorithm>
#include <vector>

namespace mnm {

// Where things lie: padded weights, the state's flat weights, and what a step keeps for the backward pass.
template <typename S>
struct Layout : Settings {
  std::vector<int64_t> pad;        // P_l
  std::vector<int64_t> weight_at;  // M^l in the padded weights
  std::vector<int64_t> flat_at;    // M^l in the state
  std::vector<int64_t> kept_at;    // activations of layer l in a step's record
  std::vector<int64_t> error_at;   // errors of layer l in a step's record, H rows of P_l
  std::vector<int64_t> target_at;  // z'^l in a head's row of predicted activations
  int64_t weights_size = 0, flat_size = 0, record_size = 0;
  int64_t rows;        // H + R
  int64_t first_kept;  // first row of the last layer that the backward pass needs

  explicit Layout(const Settings& settings) : Settings(settings) {
    const int64_t last = layers();
    rows = heads + reads();
    first_kept = tanh_output ? 0 : 2 * heads;
    weight_at.assign(last + 1, 0), flat_at.assign(last + 1, 0), kept_at.assign(last + 1, 0);
    error_at.assign(last + 1, 0), target_at.assign(last + 1, 0);
    for (const int64_t width : widths) pad.push_back(padded<S>(width));
    int64_t target = 0;
    for (int64_t l = 1; l <= last; ++l) {
      weight_at[l] = weights_size, weights_size += widths[l] * pad[l - 1];
      flat_at[l] = flat_size, flat_size += widths[l] * widths[l - 1];
      kept_at[l] = record_size, record_size += (rows - (l == last ? first_kept : 0)) * pad[l];
      target_at[l] = target, target += widths[l];
    }
    for (int64_t l = 1; l <= last; ++l) error_at[l] = record_size, record_size += heads * pad[l];
  }

  void load_weights(S* weights, const S* flat) const {
    for (int64_t l = 1; l <= layers(); ++l)
      for (int64_t i = 0; i < widths[l]; ++i) {
        S* row = weights + weight_at[l] + i * pad[l - 1];
        copy_row(flat + flat_at[l] + i * widths[l - 1], widths[l - 1], row);
        std::fill(row + widths[l - 1], row + pad[l - 1], S(0));
      }
  }

  void store_weights(S* flat, const S* weights) const {
    for (int64_t l = 1; l <= layers(); ++l)
      for (int64_t i = 0; i < widths[l]; ++i)
        copy_row(
            weights + weight_at[l] + i * pad[l - 1], widths[l - 1], flat + flat_at[l] + i * widths[l - 1]);
  }

  // c_h of a layer, from the activations z^{l-1} that it multiplies.
  S write_scale(int64_t layer, const S* z) const {
    const S h = static_cast<S>(heads);
    switch (normalization) {
      case Normalization::squared_norm:
        return 1 / (h * (dot(z, z, pad[layer - 1]) + 1));
      case Normalization::width:
        return 2 / (h * static_cast<S>(gradient_rule() ? value() : widths[layer]));
      default:
        return (gradient_rule() ? 2 : 1) / h;
    }
  }
};

// The interaction vectors of one step of one sequence, and what the step keeps.
template <typename S>
struct Token {
  const S* read_keys;                            // [H, d_k]
  const S* write_keys;                           // [H, d_k]
  const S* values;                               // [H, d_v]
  const S* rates;                                // [1] or [L]
  const S* targets;                              // [H, sum D_l], for the local rule only
  S* record;                                     // [record_size]
  std::vector<const S*> past_keys, past_values;  // of delays 1 ... N - 1, each [H, d_k] or [H, d_v]
};

// Gradients with regard to a token's vectors; all are added to.
template <typename S>
struct TokenGradient {
  S* read_keys;
  S* write_keys;
  S* values;
  S* rates;
  S* targets;
  std::vector<S*> past_keys, past_values;
};

}  // namespace mnm
