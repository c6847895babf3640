// One step of the neural memory of one sequence: write, read, and both backwards.
//
// Dimensions and the layout of activations: see layout.h.
// Symbols (Munkhdalai et al. 2019, sections 3.2 to 3.4): M^l weights, z^l activations at the write keys in
// the old weights, a^l activations at the read keys and at the recalled write keys in the new weights, e^l
// errors, beta^l rates, c_h scale of the write, w_h = beta^l c_h e_h.
#pragma once

#include "layout.h"
#include "matrix.h"

namespace mnm {

template <typename S>
class MemoryStep {
 public:
  explicit MemoryStep(const Layout<S>& layout)
      : lay(layout), keys(layout.rows * layout.pad[0]), output(layout.rows * layout.pad[layout.layers()]) {
    for (const int64_t pad : layout.pad) {
      errors.emplace_back(layout.heads * pad);
      gradients.emplace_back(layout.rows * pad);
      write_gradients.emplace_back(layout.heads * pad);
    }
    writes.resize(layout.heads * *std::max_element(layout.pad.begin(), layout.pad.end()));
    negative_writes.resize(writes.size());
    scales.resize((layout.layers() + 1) * layout.heads);
  }

  // Write, then read. Puts the mean read value into `read_value` [d_v] and the meta loss into `meta_loss`.
  void forward(S* weights, const Token<S>& token, S* read_value, S* meta_loss) {
    load_keys(token);
    if (lay.gradient_rule) find_gradient_errors(weights, token);
    for (int64_t l = 1; l <= lay.layers(); ++l) write_and_read(l, weights, token);
    mean_read(token, read_value);
    *meta_loss = measure_recall(token);
    keep_output(token);
  }

  // From the weights after the step to those before it, and from the gradient with regard to the former to
  // the gradient with regard to the latter.
  void backward(
      S* weights, S* weight_gradients, const Token<S>& token, const TokenGradient<S>& gradient,
      const S* d_read_value, S d_meta_loss) {
    load_keys(token);
    start_gradients(token, gradient, d_read_value, d_meta_loss);
    if (lay.gradient_rule)
      gradient_rule_backward(weights, weight_gradients, token, gradient);
    else
      local_rule_backward(weights, weight_gradients, token, gradient);
    add_key_gradients(gradient);
  }

  // Repeat the write of a step from its record.
  void replay(S* weights, const Token<S>& token) {
    load_keys(token);
    for (int64_t l = 1; l <= lay.layers(); ++l) {
      load_writes(l, token, S(-1));
      add_outer<S>(
          weights + lay.weight_at[l], lay.pad[l - 1], {writes.data(), lay.pad[l]},
          activation(l - 1, token).as_const(), lay.heads, lay.widths[l], lay.pad[l - 1]);
    }
  }

 private:
  struct Layer : Rows<S> {
    Rows<const S> as_const() const { return {this->data, this->stride}; }
    Layer from(int64_t row, int64_t column = 0) const {
      return {Rows<S>{this->data + row * this->stride + column, this->stride}};
    }
  };

  static Layer rows_of(Buffer<S>& buffer, int64_t stride) { return {Rows<S>{buffer.data(), stride}}; }

  // Activations of a layer: keys, or the step's record; of the last layer only rows from `first_kept` on.
  Layer activation(int64_t l, const Token<S>& token) {
    if (l == 0) return rows_of(keys, lay.pad[0]);
    const int64_t skipped = l == lay.layers() ? lay.first_kept * lay.pad[l] : 0;
    return {Rows<S>{token.record + lay.kept_at[l] - skipped, lay.pad[l]}};
  }

  // The same in the forward pass, which has all rows of the last layer.
  Layer computed(int64_t l, const Token<S>& token) {
    return l == lay.layers() ? rows_of(output, lay.pad[l]) : activation(l, token);
  }

  Layer kept_errors(int64_t l, const Token<S>& token) {
    return {Rows<S>{token.record + lay.error_at[l], lay.pad[l]}};
  }

  void load_keys(const Token<S>& token) {
    const int64_t H = lay.heads, d = lay.key();
    const auto load_rows = [&](int64_t first, const S* from) {
      for (int64_t h = 0; h < H; ++h) {
        S* row = keys.data() + (first + h) * lay.pad[0];
        std::copy_n(from + h * d, d, row);
        std::fill(row + d, row + lay.pad[0], S(0));
      }
    };
    load_rows(0, token.write_keys);
    load_rows(H, token.read_keys);
    load_rows(2 * H, token.write_keys);
    for (size_t n = 0; n < token.past_keys.size(); ++n) load_rows((3 + n) * H, token.past_keys[n]);
  }

  // Zero the padding if these rows end the layer, and apply its nonlinearity.
  void finish(Layer block, int64_t count, int64_t l, int64_t begin, int64_t end) {
    const int64_t whole = padded<S>(end - begin);
    for (int64_t p = 0; p < count; ++p) {
      if (end == lay.widths[l]) std::fill(block[p] + (end - begin), block[p] + whole, S(0));
      if (!lay.linear(l)) apply_tanh<S>(block[p], nullptr, whole);
    }
  }

  // e^l from what the record keeps of it: the errors themselves, or, in front of a nonlinearity of the
  // gradient rule, the errors without its slope 1 - z^2.
  void load_error(int64_t l, const Layer& z, const Layer& kept, Layer to) {
    for (int64_t h = 0; h < lay.heads; ++h)
      for (int64_t i = 0; i < lay.pad[l]; ++i)
        to[h][i] = lay.error_has_slope(l) ? kept[h][i] * (1 - z[h][i] * z[h][i]) : kept[h][i];
  }

  // Eq. 2 and 3: z through the old weights, then the errors back through them.
  void find_gradient_errors(const S* weights, const Token<S>& token) {
    const int64_t last = lay.layers(), H = lay.heads;
    for (int64_t l = 1; l <= last; ++l) {
      const Layer z = computed(l, token);
      multiply<S>(
          weights + lay.weight_at[l], lay.pad[l - 1], computed(l - 1, token).as_const(), z, H, lay.widths[l],
          lay.pad[l - 1]);
      finish(z, H, l, 0, lay.widths[l]);
    }
    subtract_targets(last, token, token.values, lay.value(), 0, lay.value());
    for (int64_t l = last; l >= 1; --l) {
      const Layer e = rows_of(errors[l], lay.pad[l]);
      load_error(l, computed(l, token), kept_errors(l, token), e);
      if (l == 1) break;
      const Layer below = kept_errors(l - 1, token);
      std::fill_n(below.data, H * below.stride, S(0));
      add_transposed<S>(
          weights + lay.weight_at[l], lay.pad[l - 1], e.as_const(), below, H, lay.widths[l], lay.pad[l - 1]);
    }
  }

  // Record z - z' for rows [begin, end) of a layer.
  void subtract_targets(
      int64_t l, const Token<S>& token, const S* targets, int64_t stride, int64_t begin, int64_t end) {
    const Layer z = computed(l, token), kept = kept_errors(l, token);
    for (int64_t h = 0; h < lay.heads; ++h) {
      for (int64_t i = begin; i < end; ++i) kept[h][i] = z[h][i] - targets[h * stride + i];
      if (end == lay.widths[l]) std::fill(kept[h] + end, kept[h] + lay.pad[l], S(0));
    }
  }

  // One layer of the write and of all reads: rows of M^l by rows, each while it is in the first-level cache.
  void write_and_read(int64_t l, S* weights, const Token<S>& token) {
    const int64_t H = lay.heads, R = lay.reads(), ld = lay.pad[l - 1];
    const Layer below = computed(l - 1, token), here = computed(l, token);
    const Layer w = rows_of(writes, lay.pad[l]);
    const Layer e = lay.gradient_rule ? rows_of(errors[l], lay.pad[l]) : kept_errors(l, token);
    for (int64_t h = 0; h < H; ++h) scales[h] = -rate(l, token) * lay.write_scale(l, below[h]);
    for (int64_t begin = 0; begin < lay.widths[l]; begin += kRows) {
      const int64_t end = std::min(begin + kRows, lay.widths[l]), count = end - begin;
      S* m = weights + lay.weight_at[l] + begin * ld;
      if (!lay.gradient_rule) {
        multiply<S>(m, ld, below.as_const(), here.from(0, begin), H, count, ld);
        finish(here.from(0, begin), H, l, begin, end);
        const S* targets = token.targets + lay.target_at[l];
        subtract_targets(l, token, targets, lay.targets(), begin, end);
      }
      for (int64_t h = 0; h < H; ++h)
        for (int64_t i = begin; i < end; ++i) w[h][i] = scales[h] * e[h][i];
      add_outer<S>(m, ld, w.from(0, begin).as_const(), below.as_const(), H, count, ld);
      multiply<S>(m, ld, below.from(H).as_const(), here.from(H, begin), R, count, ld);
      finish(here.from(H, begin), R, l, begin, end);
    }
  }

  S rate(int64_t l, const Token<S>& token) const { return token.rates[lay.rates == 1 ? 0 : l - 1]; }

  void mean_read(const Token<S>& token, S* read_value) {
    const Layer a = computed(lay.layers(), token).from(lay.heads);
    const S share = S(1) / lay.heads;
    for (int64_t i = 0; i < lay.value(); ++i) {
      S sum = 0;
      for (int64_t h = 0; h < lay.heads; ++h) sum += a[h][i];
      read_value[i] = sum * share;
    }
  }

  const S* values_of_delay(int64_t n, const Token<S>& token) const {
    return n == 0 ? token.values : token.past_values[n - 1];
  }

  // Eq. 5 for one step.
  S measure_recall(const Token<S>& token) {
    const int64_t H = lay.heads, d = lay.value();
    const Layer a = computed(lay.layers(), token).from(2 * H);
    S loss = 0;
    for (int64_t n = 0; n < lay.delays(); ++n) {
      const S* values = values_of_delay(n, token);
      S sum = 0;
      for (int64_t h = 0; h < H; ++h)
        for (int64_t i = 0; i < d; ++i) {
          const S difference = a[n * H + h][i] - values[h * d + i];
          sum += difference * difference;
        }
      loss += static_cast<S>(lay.delay_weights[n]) * (sum / (H * d));
    }
    return loss;
  }

  void keep_output(const Token<S>& token) {
    const int64_t last = lay.layers(), skipped = lay.first_kept * lay.pad[last];
    std::copy_n(
        output.data() + skipped, lay.rows * lay.pad[last] - skipped, token.record + lay.kept_at[last]);
  }

  // Gradients with regard to the last layer's activations, from the read value and the meta loss.
  void start_gradients(
      const Token<S>& token, const TokenGradient<S>& gradient, const S* d_read_value, S d_meta_loss) {
    const int64_t last = lay.layers(), H = lay.heads, d = lay.value();
    for (auto& buffer : gradients) std::fill(buffer.begin(), buffer.end(), S(0));
    const Layer g = rows_of(gradients[last], lay.pad[last]);
    const Layer a = activation(last, token);
    for (int64_t h = 0; h < H; ++h)
      for (int64_t i = 0; i < d; ++i) g[H + h][i] = d_read_value[i] / H;
    for (int64_t n = 0; n < lay.delays(); ++n) {
      const S weight = 2 * d_meta_loss * static_cast<S>(lay.delay_weights[n]) / (H * d);
      const S* values = values_of_delay(n, token);
      S* d_values = n == 0 ? gradient.values : gradient.past_values[n - 1];
      for (int64_t h = 0; h < H; ++h) {
        const int64_t row = 2 * H + n * H + h;
        for (int64_t i = 0; i < d; ++i) {
          g[row][i] = weight * (a[row][i] - values[h * d + i]);
          if (d_values) d_values[h * d + i] -= g[row][i];
        }
      }
    }
  }

  // g *= slope of the nonlinearity at the activations a.
  void times_slope(int64_t l, Layer g, const Layer& a, int64_t count) {
    if (lay.linear(l)) return;
    for (int64_t p = 0; p < count; ++p)
      for (int64_t i = 0; i < lay.pad[l]; ++i) g[p][i] *= 1 - a[p][i] * a[p][i];
  }

  // e^l of all heads into `errors`, sign * w into `writes`, beta c_h and c_h into `scales`.
  void load_writes(int64_t l, const Token<S>& token, S sign) {
    const Layer z = activation(l - 1, token), e = rows_of(errors[l], lay.pad[l]);
    load_error(l, activation(l, token), kept_errors(l, token), e);
    for (int64_t h = 0; h < lay.heads; ++h) {
      S& c = scales[l * lay.heads + h];
      c = lay.write_scale(l, z[h]);
      scales[h] = rate(l, token) * c;
      for (int64_t i = 0; i < lay.pad[l]; ++i) writes[h * lay.pad[l] + i] = sign * scales[h] * e[h][i];
    }
  }

  // From <dw_h, e_h>, in `heads_scratch`, to the gradients of the rate and, through c_h, of z^{l-1}.
  void scale_backward(int64_t l, const Token<S>& token, const TokenGradient<S>& gradient) {
    const Buffer<S>& products = heads_scratch;
    const Layer z = activation(l - 1, token), g = rows_of(gradients[l - 1], lay.pad[l - 1]);
    for (int64_t h = 0; h < lay.heads; ++h) {
      const S c = scales[l * lay.heads + h];
      gradient.rates[lay.rates == 1 ? 0 : l - 1] += c * products[h];
      if (lay.normalization != Normalization::squared_norm) continue;
      const S d_square = -rate(l, token) * products[h] * c * c * lay.heads;
      add_scaled(g[h], z[h], 2 * d_square, lay.pad[l - 1]);
    }
  }

  // What all rows of a layer need: gradients of the reads before their nonlinearity, w and -w.
  void begin_layer_backward(int64_t l, const Token<S>& token) {
    const Layer g = rows_of(gradients[l], lay.pad[l]), here = activation(l, token);
    times_slope(l, g.from(lay.heads), here.from(lay.heads), lay.reads());
    load_writes(l, token, S(1));
    for (int64_t i = 0; i < lay.heads * lay.pad[l]; ++i) negative_writes[i] = -writes[i];
    heads_scratch.assign(lay.heads, S(0));
  }

  // Reads, a^l = sigma(M a^{l-1}), and the write, M = M_old - sum_h w_h z_h^T, which is undone. Leaves
  // dw = -dM z in `write_gradients` with the sign turned.
  void reads_and_write_backward(int64_t l, int64_t begin, int64_t count, S* m, S* dm, const Token<S>& token) {
    const int64_t H = lay.heads, R = lay.reads(), ld = lay.pad[l - 1];
    const Layer z = activation(l - 1, token), g = rows_of(gradients[l], lay.pad[l]);
    const Layer g_below = rows_of(gradients[l - 1], ld), dw = rows_of(write_gradients[l], lay.pad[l]);
    const Layer w = rows_of(writes, lay.pad[l]), w_negative = rows_of(negative_writes, lay.pad[l]);
    add_transposed<S>(m, ld, g.from(H, begin).as_const(), g_below.from(H), R, count, ld);
    add_outer<S>(dm, ld, g.from(H, begin).as_const(), z.from(H).as_const(), R, count, ld);
    multiply<S>(dm, ld, z.as_const(), dw.from(0, begin), H, count, ld);
    add_transposed<S>(dm, ld, w_negative.from(0, begin).as_const(), g_below, H, count, ld);
    add_outer<S>(m, ld, w.from(0, begin).as_const(), z.as_const(), H, count, ld);
  }

  // Local rule: reads, write, errors e = z - z' and z itself, in one pass over the rows of M and dM.
  void local_rule_backward(
      S* weights, S* weight_gradients, const Token<S>& token, const TokenGradient<S>& gradient) {
    const int64_t H = lay.heads;
    for (int64_t l = lay.layers(); l >= 1; --l) {
      const int64_t ld = lay.pad[l - 1];
      const Layer z = activation(l - 1, token), g = rows_of(gradients[l], lay.pad[l]);
      begin_layer_backward(l, token);
      for (int64_t begin = 0; begin < lay.widths[l]; begin += kRows) {
        const int64_t end = std::min(begin + kRows, lay.widths[l]), count = end - begin;
        S* m = weights + lay.weight_at[l] + begin * ld;
        S* dm = weight_gradients + lay.weight_at[l] + begin * ld;
        reads_and_write_backward(l, begin, count, m, dm, token);
        local_errors_backward(l, begin, end, token, gradient);
        add_outer<S>(dm, ld, g.from(0, begin).as_const(), z.as_const(), H, count, ld);
        add_transposed<S>(m, ld, g.from(0, begin).as_const(), rows_of(gradients[l - 1], ld), H, count, ld);
      }
      scale_backward(l, token, gradient);
    }
  }

  // From dw to the gradients of the targets and, before their nonlinearity, of z^l.
  void local_errors_backward(
      int64_t l, int64_t begin, int64_t end, const Token<S>& token, const TokenGradient<S>& gradient) {
    const Layer here = activation(l, token), e = rows_of(errors[l], lay.pad[l]);
    const Layer g = rows_of(gradients[l], lay.pad[l]), dw = rows_of(write_gradients[l], lay.pad[l]);
    for (int64_t h = 0; h < lay.heads; ++h) {
      S product = 0;
      S* d_target = gradient.targets + h * lay.targets() + lay.target_at[l];
      for (int64_t i = begin; i < end; ++i) {
        const S d = -dw[h][i];
        const S de = scales[h] * d;
        product += d * e[h][i];
        d_target[i] -= de;
        g[h][i] += de;
        if (!lay.linear(l)) g[h][i] *= 1 - here[h][i] * here[h][i];
      }
      heads_scratch[h] += product;
    }
  }

  void gradient_rule_backward(
      S* weights, S* weight_gradients, const Token<S>& token, const TokenGradient<S>& gradient) {
    for (int64_t l = lay.layers(); l >= 1; --l)
      undo_and_read_backward(l, weights, weight_gradients, token, gradient);
    errors_backward(weights, token, gradient);
    for (int64_t l = lay.layers(); l >= 1; --l) activations_backward(l, weights, weight_gradients, token);
  }

  // Gradient rule, first sweep, from the last layer to the first: reads, the write itself, and its undoing.
  void undo_and_read_backward(
      int64_t l, S* weights, S* weight_gradients, const Token<S>& token, const TokenGradient<S>& gradient) {
    const Layer dw = rows_of(write_gradients[l], lay.pad[l]), e = rows_of(errors[l], lay.pad[l]);
    begin_layer_backward(l, token);
    for (int64_t begin = 0; begin < lay.widths[l]; begin += kRows) {
      const int64_t at = lay.weight_at[l] + begin * lay.pad[l - 1];
      const int64_t count = std::min(kRows, lay.widths[l] - begin);
      reads_and_write_backward(l, begin, count, weights + at, weight_gradients + at, token);
    }
    for (int64_t h = 0; h < lay.heads; ++h) {
      for (int64_t i = 0; i < lay.widths[l]; ++i) {
        heads_scratch[h] -= dw[h][i] * e[h][i];
        dw[h][i] *= -scales[h];  // from here on the gradient with regard to e
      }
      std::fill(dw[h] + lay.widths[l], dw[h] + lay.pad[l], S(0));
    }
    scale_backward(l, token, gradient);
  }

  // Gradient rule, second sweep, from the first layer to the last: e^l = (M^{l+1})^T e^{l+1} * (1 - z^2).
  void errors_backward(const S* weights, const Token<S>& token, const TokenGradient<S>& gradient) {
    const int64_t last = lay.layers(), H = lay.heads;
    for (int64_t l = 1; l <= last; ++l) {
      const Layer z = activation(l, token), kept = kept_errors(l, token);
      const Layer g = rows_of(gradients[l], lay.pad[l]), de = rows_of(write_gradients[l], lay.pad[l]);
      if (lay.error_has_slope(l))
        for (int64_t h = 0; h < H; ++h)
          for (int64_t i = 0; i < lay.pad[l]; ++i) {
            g[h][i] -= 2 * z[h][i] * kept[h][i] * de[h][i];
            de[h][i] *= 1 - z[h][i] * z[h][i];
          }
      if (l == last) break;
      const Layer above = rows_of(write_gradients[l + 1], lay.pad[l + 1]);
      const Layer more = rows_of(writes, lay.pad[l + 1]);
      multiply<S>(
          weights + lay.weight_at[l + 1], lay.pad[l], de.as_const(), more, H, lay.widths[l + 1], lay.pad[l]);
      for (int64_t h = 0; h < H; ++h)
        for (int64_t i = 0; i < lay.widths[l + 1]; ++i) above[h][i] += more[h][i];
    }
    const Layer g = rows_of(gradients[last], lay.pad[last]),
                de = rows_of(write_gradients[last], lay.pad[last]);
    for (int64_t h = 0; h < H; ++h)
      for (int64_t i = 0; i < lay.value(); ++i) {
        g[h][i] += de[h][i];
        gradient.values[h * lay.value() + i] -= de[h][i];
      }
  }

  // Gradient rule, third sweep, from the last layer to the first: z^l = sigma(M z^{l-1}), and M in e^{l-1}.
  void activations_backward(int64_t l, const S* weights, S* weight_gradients, const Token<S>& token) {
    const int64_t H = lay.heads, ld = lay.pad[l - 1];
    const Layer z = activation(l - 1, token), g = rows_of(gradients[l], lay.pad[l]);
    const Layer e = rows_of(errors[l], lay.pad[l]), de_below = rows_of(write_gradients[l - 1], ld);
    times_slope(l, g, activation(l, token), H);
    for (int64_t begin = 0; begin < lay.widths[l]; begin += kRows) {
      const int64_t count = std::min(kRows, lay.widths[l] - begin);
      S* dm = weight_gradients + lay.weight_at[l] + begin * ld;
      add_outer<S>(dm, ld, g.from(0, begin).as_const(), z.as_const(), H, count, ld);
      if (l > 1) add_outer<S>(dm, ld, e.from(0, begin).as_const(), de_below.as_const(), H, count, ld);
    }
    add_transposed<S>(
        weights + lay.weight_at[l], ld, g.as_const(), rows_of(gradients[l - 1], ld), H, lay.widths[l], ld);
  }

  void add_key_gradients(const TokenGradient<S>& gradient) {
    const int64_t H = lay.heads, d = lay.key();
    const Layer g = rows_of(gradients[0], lay.pad[0]);
    const auto add_rows = [&](S* to, int64_t first) {
      for (int64_t h = 0; h < H && to; ++h)
        for (int64_t i = 0; i < d; ++i) to[h * d + i] += g[first + h][i];
    };
    add_rows(gradient.write_keys, 0);
    add_rows(gradient.read_keys, H);
    add_rows(gradient.write_keys, 2 * H);
    for (size_t n = 0; n < gradient.past_keys.size(); ++n) add_rows(gradient.past_keys[n], (3 + n) * H);
  }

  // Rows of M^l that go through all stages together: as many as fit the first-level cache about.
  static constexpr int64_t kRows = 56;
  static_assert(kRows % kLanes<S> == 0);  // so that padding is only at the end of a layer

  const Layout<S>& lay;
  Buffer<S> keys, output, writes, negative_writes, scales, heads_scratch;
  std::vector<Buffer<S>> errors, gradients, write_gradients;  // per layer
};

}  // namespace mnm
