// One step of the memory of one sequence backward: what both write rules share, and the undoing of the write.
//
// Dimensions: see layout.h; symbols: see memory_step.h. `d_` before a name is the loss's gradient of it.
#pragma once

#include "memory_step.h"

namespace mnm {

template <typename S>
class MemoryBackward : protected MemoryStep<S> {
  using Base = MemoryStep<S>;

 public:
  explicit MemoryBackward(const Layout<S>& layout) : Base(layout) {
    for (const int64_t pad : layout.pad) {
      gradients.emplace_back(layout.rows * pad);
      write_gradients.emplace_back(layout.heads * pad);
    }
    negative_writes.resize(writes.size());
    write_scales.resize(layout.heads);
    write_products.resize(layout.heads);
  }
  virtual ~MemoryBackward() = default;

  // From the weights after the step to those before it, and from the gradient with regard to the former to
  // the gradient with regard to the latter.
  void run(
      S* weights, S* weight_gradients, const Token<S>& token, const TokenGradient<S>& gradient,
      const S* d_read_value, S d_meta_loss) {
    this->load_keys(token);
    start_gradients(token, gradient, d_read_value, d_meta_loss);
    layers_backward(weights, weight_gradients, token, gradient);
    add_key_gradients(gradient);
  }

  // Repeat the write of a step from its record.
  void replay_write(S* weights, const Token<S>& token) {
    this->load_keys(token);
    for (int64_t l = 1; l <= lay.layers(); ++l) {
      load_writes(l, token, S(-1));
      add_outer<S>(
          weights + lay.weight_at[l], lay.pad[l - 1], {writes.data(), lay.pad[l]}, activation(l - 1, token),
          lay.heads, lay.widths[l], lay.pad[l - 1]);
    }
  }

 protected:
  using Base::activation, Base::errors, Base::kept_errors, Base::kRows, Base::lay, Base::rows_of;
  using Base::overlaps, Base::write_factors, Base::writes;

  // All layers by the write rule, from the gradients of the last one's activations to those of the keys.
  virtual void layers_backward(
      S* weights, S* weight_gradients, const Token<S>& token, const TokenGradient<S>& gradient) = 0;

  // The backward pass goes through all memories from their last rows to their first, as the forward pass does from
  // the first to the last, so that what comes next lies at the same distance from every row: `kRows` of them.
  int64_t last_rows(int64_t l) const { return (lay.widths[l] - 1) / kRows * kRows; }

  // g *= slope of the nonlinearity at the activations a.
  void times_slope(int64_t l, Rows<S> g, const Rows<S>& a, int64_t count) {
    if (lay.linear(l)) return;
    for (int64_t p = 0; p < count; ++p)
      for (int64_t i = 0; i < lay.pad[l]; ++i) g[p][i] *= 1 - a[p][i] * a[p][i];
  }

  // What all rows of a layer need: gradients of the reads before their nonlinearity, w and -w, <z_h, a_r>.
  void begin_layer(int64_t l, const Token<S>& token) {
    const Rows<S> g = rows_of(gradients[l], lay.pad[l]), here = activation(l, token);
    times_slope(l, g.from(lay.heads), here.from(lay.heads), lay.reads());
    load_writes(l, token, S(1));
    for (int64_t i = 0; i < lay.heads * lay.pad[l]; ++i) negative_writes[i] = -writes[i];
    std::fill(write_products.begin(), write_products.end(), S(0));
    const Rows<S> below = activation(l - 1, token);
    const int64_t H = lay.heads, R = lay.reads();
    multiply<S>(below[H], below.stride, below, rows_of(overlaps, R), H, R, lay.pad[l - 1]);
  }

  // The write, M = M_old - sum_h w_h z_h^T, for the rows [begin, begin + count), those of dm: leaves dw = -dM z in
  // `write_gradients` with the sign turned, and adds -dM^T w to the gradient of z. The reads' share of dM,
  // sum_r g_r a_r^T, is not in dm yet; `finish_layer` adds what it makes of -dM^T w.
  void write_backward(int64_t l, int64_t begin, int64_t count, const S* dm, const Token<S>& token) {
    const int64_t H = lay.heads, R = lay.reads(), ld = lay.pad[l - 1];
    const Rows<S> g = rows_of(gradients[l], lay.pad[l]), dw = rows_of(write_gradients[l], lay.pad[l]);
    multiply<S>(dm, ld, activation(l - 1, token), dw.from(0, begin), H, count, ld);
    add_transposed<S>(
        g[H] + begin, g.stride, rows_of(overlaps, R), dw.from(0, begin), H, R, padded<S>(count));
    const Rows<S> w_negative = rows_of(negative_writes, lay.pad[l]);
    add_transposed<S>(dm, ld, w_negative.from(0, begin), rows_of(gradients[l - 1], ld), H, count, ld);
  }

  // M = M_old, for the rows [begin, begin + count), those of m.
  void undo_write(int64_t l, int64_t begin, int64_t count, S* m, const Token<S>& token) {
    const Rows<S> w = rows_of(writes, lay.pad[l]);
    const int64_t ld = lay.pad[l - 1];
    add_outer<S>(m, ld, w.from(0, begin), activation(l - 1, token), lay.heads, count, ld, -kRows * ld);
  }

  // To the gradient of z^{l-1}: -sum_r a_r <g_r, w_h>, and, where g_h has been multiplied by M instead of M_old,
  // sum_k z_k <w_k, g_h>.
  void finish_layer(int64_t l, bool has_z, const Token<S>& token) {
    const int64_t H = lay.heads, R = lay.reads(), first = has_z ? 0 : H, pad = lay.pad[l];
    const Rows<S> g = rows_of(gradients[l], pad), below = activation(l - 1, token);
    const Rows<S> products = rows_of(overlaps, lay.rows - first);
    if (has_z) multiply<S>(writes.data(), pad, g, products, H, H, pad);
    multiply<S>(g[H], pad, rows_of(negative_writes, pad), products.from(0, H - first), H, R, pad);
    add_transposed<S>(
        below[first], below.stride, products, rows_of(gradients[l - 1], lay.pad[l - 1]), H, lay.rows - first,
        lay.pad[l - 1]);
  }

  // From <dw_h, e_h>, in `write_products`, to the gradients of the rate and, through c_h, of z^{l-1}.
  void write_factors_backward(int64_t l, const Token<S>& token, const TokenGradient<S>& gradient) {
    const Buffer<S>& products = write_products;
    const Rows<S> z = activation(l - 1, token), g = rows_of(gradients[l - 1], lay.pad[l - 1]);
    for (int64_t h = 0; h < lay.heads; ++h) {
      const S c = write_scales[h];
      gradient.rates[lay.rates == 1 ? 0 : l - 1] += c * products[h];
      if (lay.normalization != Normalization::squared_norm) continue;
      const S d_square = -this->rate(l, token) * products[h] * c * c * lay.heads;
      add_scaled(g[h], z[h], 2 * d_square, lay.pad[l - 1]);
    }
  }

  std::vector<Buffer<S>> gradients;        // of the activations, per layer
  std::vector<Buffer<S>> write_gradients;  // dw, later de, per layer
  Buffer<S> write_products;                // <dw_h, e_h> of the present layer

 private:
  // Gradients with regard to the last layer's activations, from the read value and the meta loss.
  void start_gradients(
      const Token<S>& token, const TokenGradient<S>& gradient, const S* d_read_value, S d_meta_loss) {
    const int64_t last = lay.layers(), H = lay.heads, d = lay.value();
    for (auto& buffer : gradients) std::fill(buffer.begin(), buffer.end(), S(0));
    const Rows<S> g = rows_of(gradients[last], lay.pad[last]);
    const Rows<S> a = activation(last, token);
    for (int64_t h = 0; h < H; ++h)
      for (int64_t i = 0; i < d; ++i) g[H + h][i] = d_read_value[i] / H;
    for (int64_t n = 0; n < lay.delays(); ++n) {
      const S weight = 2 * d_meta_loss * static_cast<S>(lay.recall_weights[n]) / (H * d);
      const S* values = this->values_of_delay(n, token);
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

  // e^l of all heads into `errors`, sign * w into `writes`, and the factors and scales of w.
  void load_writes(int64_t l, const Token<S>& token, S sign) {
    const Rows<S> z = activation(l - 1, token), e = rows_of(errors[l], lay.pad[l]);
    this->load_error(l, activation(l, token), kept_errors(l, token), e);
    for (int64_t h = 0; h < lay.heads; ++h) {
      write_scales[h] = lay.write_scale(l, z[h]);
      write_factors[h] = this->rate(l, token) * write_scales[h];
      for (int64_t i = 0; i < lay.pad[l]; ++i)
        writes[h * lay.pad[l] + i] = sign * write_factors[h] * e[h][i];
    }
  }

  void add_key_gradients(const TokenGradient<S>& gradient) {
    const int64_t H = lay.heads, d = lay.key();
    const Rows<S> g = rows_of(gradients[0], lay.pad[0]);
    const auto add_rows = [&](S* to, int64_t first) {
      for (int64_t h = 0; h < H && to; ++h)
        for (int64_t i = 0; i < d; ++i) to[h * d + i] += g[first + h][i];
    };
    add_rows(gradient.write_keys, 0);
    add_rows(gradient.read_keys, H);
    add_rows(gradient.write_keys, 2 * H);
    for (size_t n = 0; n < gradient.past_keys.size(); ++n) add_rows(gradient.past_keys[n], (3 + n) * H);
  }

  Buffer<S> negative_writes;
  Buffer<S> write_scales;  // c_h of the present layer
};

}  // namespace mnm
