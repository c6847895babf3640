// One step of the neural memory of one sequence: write (Eq. 3 or 4), read, and measure the recall (Eq. 5).
//
// Dimensions: see layout.h; symbols: see memory_step.h.
#pragma once

#include "memory_step.h"

namespace mnm {

template <typename S>
class MemoryForward : MemoryStep<S> {
  using Base = MemoryStep<S>;
  using Base::activation, Base::errors, Base::kept_errors, Base::kRows, Base::lay, Base::rows_of;
  using Base::overlaps, Base::write_factors, Base::writes;

 public:
  explicit MemoryForward(const Layout<S>& layout)
      : Base(layout), output(layout.rows * layout.pad[layout.layers()]) {}

  // Write, then read. Puts the mean read value into `read_value` [d_v] and the meta loss into `meta_loss`.
  void run(S* weights, const Token<S>& token, S* read_value, S* meta_loss) {
    this->load_keys(token);
    if (lay.gradient_rule()) find_gradient_errors(weights, token);
    for (int64_t l = 1; l <= lay.layers(); ++l)
      write_and_read_layer(l, weights + lay.weight_at[l], lay.pad[l - 1], token);
    finish_step(token, read_value, meta_loss);
  }

  // The same of the local rule with weights as they are in the state, without padding: for a single step, for
  // which copying them would take as long as the step.
  void run_on_state(S* flat, const Token<S>& token, S* read_value, S* meta_loss) {
    this->load_keys(token);
    for (int64_t l = 1; l <= lay.layers(); ++l)
      write_and_read_layer(l, flat + lay.flat_at[l], lay.widths[l - 1], token);
    finish_step(token, read_value, meta_loss);
  }

 private:
  // Activations of a layer, with all rows of the last one.
  Rows<S> computed(int64_t l, const Token<S>& token) {
    return l == lay.layers() ? rows_of(output, lay.pad[l]) : activation(l, token);
  }

  // Zero the padding if these rows end the layer, and apply its nonlinearity.
  void finish(Rows<S> block, int64_t count, int64_t l, int64_t begin, int64_t end) {
    const int64_t whole = padded<S>(end - begin);
    for (int64_t p = 0; p < count; ++p) {
      if (end == lay.widths[l]) std::fill(block[p] + (end - begin), block[p] + whole, S(0));
      if (!lay.linear(l)) apply_tanh<S>(block[p], nullptr, whole);
    }
  }

  // Eq. 2 and 3: z through the old weights, then the errors back through them.
  void find_gradient_errors(const S* weights, const Token<S>& token) {
    const int64_t last = lay.layers(), H = lay.heads;
    for (int64_t l = 1; l <= last; ++l) {
      const Rows<S> z = computed(l, token);
      multiply<S>(
          weights + lay.weight_at[l], lay.pad[l - 1], computed(l - 1, token), z, H, lay.widths[l],
          lay.pad[l - 1]);
      finish(z, H, l, 0, lay.widths[l]);
    }
    subtract_targets(last, token, token.values, lay.value(), 0, lay.value());
    for (int64_t l = last; l >= 1; --l) {
      const Rows<S> e = rows_of(errors[l], lay.pad[l]);
      this->load_error(l, computed(l, token), kept_errors(l, token), e);
      if (l == 1) break;
      const Rows<S> below = kept_errors(l - 1, token);
      std::fill_n(below.data, H * below.stride, S(0));
      add_transposed<S>(weights + lay.weight_at[l], lay.pad[l - 1], e, below, H, lay.widths[l], lay.pad[l - 1]);
    }
  }

  // Record z - z' for rows [begin, end) of a layer.
  void subtract_targets(
      int64_t l, const Token<S>& token, const S* targets, int64_t stride, int64_t begin, int64_t end) {
    const Rows<S> z = computed(l, token), kept = kept_errors(l, token);
    for (int64_t h = 0; h < lay.heads; ++h) {
      for (int64_t i = begin; i < end; ++i) kept[h][i] = z[h][i] - targets[h * stride + i];
      if (end == lay.widths[l]) std::fill(kept[h] + end, kept[h] + lay.pad[l], S(0));
    }
  }

  // One layer of the write and of all reads: rows of M^l by rows, each while it is in the first-level cache.
  void write_and_read_layer(int64_t l, S* m, int64_t ld, const Token<S>& token) {
    const int64_t H = lay.heads;
    const Rows<S> below = computed(l - 1, token);
    for (int64_t h = 0; h < H; ++h) write_factors[h] = -this->rate(l, token) * lay.write_scale(l, below[h]);
    multiply<S>(
        below.data, below.stride, below.from(H), rows_of(overlaps, H), lay.reads(), H, lay.pad[l - 1]);
    for (int64_t begin = 0; begin < lay.widths[l]; begin += kRows)
      write_and_read(l, m + begin * ld, ld, begin, std::min(begin + kRows, lay.widths[l]), token);
  }

  // The same for the rows [begin, end) of M^l, which are those of m, with or without padding.
  void write_and_read(int64_t l, S* m, int64_t ld, int64_t begin, int64_t end, const Token<S>& token) {
    const int64_t H = lay.heads, R = lay.reads(), count = end - begin, whole = padded<S>(count);
    const Rows<S> below = computed(l - 1, token), here = computed(l, token);
    const Rows<S> w = rows_of(writes, lay.pad[l]);  // with the sign turned, as are its factors
    const Rows<S> e = lay.gradient_rule() ? rows_of(errors[l], lay.pad[l]) : kept_errors(l, token);
    const int64_t known = lay.gradient_rule() ? H : 0;  // that rule has found z already
    multiply<S>(m, ld, below.from(known), here.from(known, begin), lay.rows - known, count, ld);
    if (!lay.gradient_rule()) {
      finish(here.from(0, begin), H, l, begin, end);
      const S* targets = token.targets + lay.target_at[l];
      subtract_targets(l, token, targets, lay.targets(), begin, end);
    }
    for (int64_t h = 0; h < H; ++h)
      for (int64_t i = begin; i < begin + whole; ++i) w[h][i] = write_factors[h] * e[h][i];
    add_transposed<S>(w[0] + begin, w.stride, rows_of(overlaps, H), here.from(H, begin), R, H, whole);
    finish(here.from(H, begin), R, l, begin, end);
    add_outer<S>(m, ld, w.from(0, begin), below, H, count, ld, kRows * ld);
  }

  void finish_step(const Token<S>& token, S* read_value, S* meta_loss) {
    mean_read(token, read_value);
    *meta_loss = measure_recall(token);
    keep_output(token);
  }

  void mean_read(const Token<S>& token, S* read_value) {
    const Rows<S> a = computed(lay.layers(), token).from(lay.heads);
    const S share = S(1) / lay.heads;
    for (int64_t i = 0; i < lay.value(); ++i) {
      S sum = 0;
      for (int64_t h = 0; h < lay.heads; ++h) sum += a[h][i];
      read_value[i] = sum * share;
    }
  }

  // Eq. 5 for one step.
  S measure_recall(const Token<S>& token) {
    const int64_t H = lay.heads, d = lay.value();
    const Rows<S> a = computed(lay.layers(), token).from(2 * H);
    S loss = 0;
    for (int64_t n = 0; n < lay.delays(); ++n) {
      const S* values = this->values_of_delay(n, token);
      S sum = 0;
      for (int64_t h = 0; h < H; ++h)
        for (int64_t i = 0; i < d; ++i) {
          const S difference = a[n * H + h][i] - values[h * d + i];
          sum += difference * difference;
        }
      loss += static_cast<S>(lay.recall_weights[n]) * (sum / (H * d));
    }
    return loss;
  }

  void keep_output(const Token<S>& token) {
    const int64_t last = lay.layers(), skipped = lay.first_kept * lay.pad[last];
    std::copy_n(
        output.data() + skipped, lay.rows * lay.pad[last] - skipped, token.record + lay.kept_at[last]);
  }

  Buffer<S> output;  // the last layer's activations
};

}  // namespace mnm
