// Eq. 4 backward: write, errors e = z - z', z itself and reads, in one pass over the rows of M and dM.
#pragma once

#include "memory_backward.h"

namespace mnm {

template <typename S>
class LocalRuleBackward final : public MemoryBackward<S> {
  using Base = MemoryBackward<S>;
  using Base::activation, Base::errors, Base::gradients, Base::kRows, Base::lay, Base::rows_of;
  using Base::write_factors, Base::write_gradients, Base::write_products;

 public:
  using Base::Base;

 private:
  void layers_backward(
      S* weights, S* weight_gradients, const Token<S>& token, const TokenGradient<S>& gradient) override {
    for (int64_t l = lay.layers(); l >= 1; --l) {
      const int64_t ld = lay.pad[l - 1];
      const Rows<S> below = activation(l - 1, token), g = rows_of(gradients[l], lay.pad[l]);
      this->begin_layer(l, token);
      for (int64_t begin = this->last_rows(l); begin >= 0; begin -= kRows) {
        const int64_t end = std::min(begin + kRows, lay.widths[l]), count = end - begin;
        S* m = weights + lay.weight_at[l] + begin * ld;
        S* dm = weight_gradients + lay.weight_at[l] + begin * ld;
        this->write_backward(l, begin, count, dm, token);
        errors_backward(l, begin, end, token, gradient);
        add_transposed<S>(m, ld, g.from(0, begin), rows_of(gradients[l - 1], ld), lay.rows, count, ld);
        add_outer<S>(dm, ld, g.from(0, begin), below, lay.rows, count, ld, -kRows * ld);
        this->undo_write(l, begin, count, m, token);
      }
      this->finish_layer(l, true, token);
      this->write_factors_backward(l, token, gradient);
    }
  }

  // From dw to the gradients of the targets and, before their nonlinearity, of z^l.
  void errors_backward(
      int64_t l, int64_t begin, int64_t end, const Token<S>& token, const TokenGradient<S>& gradient) {
    const Rows<S> here = activation(l, token), e = rows_of(errors[l], lay.pad[l]);
    const Rows<S> g = rows_of(gradients[l], lay.pad[l]), dw = rows_of(write_gradients[l], lay.pad[l]);
    for (int64_t h = 0; h < lay.heads; ++h) {
      S product = 0;
      S* d_target = gradient.targets + h * lay.targets() + lay.target_at[l];
      for (int64_t i = begin; i < end; ++i) {
        const S d = -dw[h][i];
        const S de = write_factors[h] * d;
        product += d * e[h][i];
        d_target[i] -= de;
        g[h][i] += de;
        if (!lay.linear(l)) g[h][i] *= 1 - here[h][i] * here[h][i];
      }
      write_products[h] += product;
    }
  }
};

}  // namespace mnm
