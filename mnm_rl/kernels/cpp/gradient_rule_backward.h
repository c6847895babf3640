// Eq. 3 backward, in three sweeps over the layers.
#pragma once

#include "memory_backward.h"

namespace mnm {

template <typename S>
class GradientRuleBackward final : public MemoryBackward<S> {
  using Base = MemoryBackward<S>;
  using Base::activation, Base::errors, Base::gradients, Base::kept_errors, Base::kRows, Base::lay;
  using Base::rows_of, Base::write_factors, Base::write_gradients, Base::write_products, Base::writes;

 public:
  using Base::Base;

 private:
  void layers_backward(
      S* weights, S* weight_gradients, const Token<S>& token, const TokenGradient<S>& gradient) override {
    for (int64_t l = lay.layers(); l >= 1; --l)
      undo_and_read_backward(l, weights, weight_gradients, token, gradient);
    errors_backward(weights, token, gradient);
    for (int64_t l = lay.layers(); l >= 1; --l) activations_backward(l, weights, weight_gradients, token);
  }

  // First sweep, from the last layer to the first: the write itself, reads, and the write's undoing.
  void undo_and_read_backward(
      int64_t l, S* weights, S* weight_gradients, const Token<S>& token, const TokenGradient<S>& gradient) {
    const int64_t H = lay.heads, ld = lay.pad[l - 1];
    const Rows<S> dw = rows_of(write_gradients[l], lay.pad[l]), e = rows_of(errors[l], lay.pad[l]);
    const Rows<S> g = rows_of(gradients[l], lay.pad[l]), g_below = rows_of(gradients[l - 1], ld);
    this->begin_layer(l, token);
    for (int64_t begin = this->last_rows(l); begin >= 0; begin -= kRows) {
      const int64_t at = lay.weight_at[l] + begin * ld;
      const int64_t count = std::min(kRows, lay.widths[l] - begin);
      S* m = weights + at;
      this->write_backward(l, begin, count, weight_gradients + at, token);
      add_transposed<S>(m, ld, g.from(H, begin), g_below.from(H), lay.reads(), count, ld);
      this->undo_write(l, begin, count, m, token);
    }
    this->finish_layer(l, false, token);
    for (int64_t h = 0; h < lay.heads; ++h) {
      for (int64_t i = 0; i < lay.widths[l]; ++i) {
        write_products[h] -= dw[h][i] * e[h][i];
        dw[h][i] *= -write_factors[h];  // from here on the gradient with regard to e
      }
      std::fill(dw[h] + lay.widths[l], dw[h] + lay.pad[l], S(0));
    }
    this->write_factors_backward(l, token, gradient);
  }

  // Second sweep, from the first layer to the last: e^l = (M^{l+1})^T e^{l+1} * (1 - z^2).
  void errors_backward(const S* weights, const Token<S>& token, const TokenGradient<S>& gradient) {
    const int64_t last = lay.layers(), H = lay.heads;
    for (int64_t l = 1; l <= last; ++l) {
      const Rows<S> z = activation(l, token), kept = kept_errors(l, token);
      const Rows<S> g = rows_of(gradients[l], lay.pad[l]), de = rows_of(write_gradients[l], lay.pad[l]);
      if (lay.error_has_slope(l))
        for (int64_t h = 0; h < H; ++h)
          for (int64_t i = 0; i < lay.pad[l]; ++i) {
            g[h][i] -= 2 * z[h][i] * kept[h][i] * de[h][i];
            de[h][i] *= 1 - z[h][i] * z[h][i];
          }
      if (l == last) break;
      const Rows<S> above = rows_of(write_gradients[l + 1], lay.pad[l + 1]);
      const Rows<S> more = rows_of(writes, lay.pad[l + 1]);
      multiply<S>(weights + lay.weight_at[l + 1], lay.pad[l], de, more, H, lay.widths[l + 1], lay.pad[l]);
      for (int64_t h = 0; h < H; ++h)
        for (int64_t i = 0; i < lay.widths[l + 1]; ++i) above[h][i] += more[h][i];
    }
    const Rows<S> g = rows_of(gradients[last], lay.pad[last]);
    const Rows<S> de = rows_of(write_gradients[last], lay.pad[last]);
    for (int64_t h = 0; h < H; ++h)
      for (int64_t i = 0; i < lay.value(); ++i) {
        g[h][i] += de[h][i];
        gradient.values[h * lay.value() + i] -= de[h][i];
      }
  }

  // Third sweep, from the last layer to the first: z^l = sigma(M z^{l-1}), M in e^{l-1}, and dM of all that.
  void activations_backward(int64_t l, const S* weights, S* weight_gradients, const Token<S>& token) {
    const int64_t H = lay.heads, ld = lay.pad[l - 1];
    const Rows<S> below = activation(l - 1, token), g = rows_of(gradients[l], lay.pad[l]);
    const Rows<S> e = rows_of(errors[l], lay.pad[l]), de_below = rows_of(write_gradients[l - 1], ld);
    this->times_slope(l, g, activation(l, token), H);
    for (int64_t begin = this->last_rows(l); begin >= 0; begin -= kRows) {
      const int64_t count = std::min(kRows, lay.widths[l] - begin);
      S* dm = weight_gradients + lay.weight_at[l] + begin * ld;
      add_outer<S>(dm, ld, g.from(0, begin), below, lay.rows, count, ld, -kRows * ld);
      if (l > 1) add_outer<S>(dm, ld, e.from(0, begin), de_below, H, count, ld);
    }
    add_transposed<S>(weights + lay.weight_at[l], ld, g, rows_of(gradients[l - 1], ld), H, lay.widths[l], ld);
  }
};

}  // namespace mnm
