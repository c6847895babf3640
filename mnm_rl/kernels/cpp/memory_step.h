// What all passes over one step of one sequence's memory share: the step's keys, activations and errors.
//
// Dimensions and the layout of activations: see layout.h.
// Symbols (Munkhdalai et al. 2019, sections 3.2 to 3.4): M^l weights, z^l activations at the write keys in
// the old weights, a^l activations at the read keys and at the recalled write keys in the new weights, e^l
// errors, beta^l rates, c_h scale of the write, beta^l c_h its factor, w_h = beta^l c_h e_h.
//
// All products of a layer are with M as the step finds it, forward before the write and backward after it, so
// that M goes through the registers once for all products and once for all changes. What the products lack
// because M changes within the step are inner products of the step's own vectors: (M - w z^T) a = M a - w (z^T a).
#pragma once

#include "layout.h"
#include "matrix.h"

namespace mnm {

template <typename S>
class MemoryStep {
 protected:
  explicit MemoryStep(const Layout<S>& layout) : lay(layout), keys(layout.rows * layout.pad[0]) {
    for (const int64_t pad : layout.pad) errors.emplace_back(layout.heads * pad);
    writes.resize(layout.heads * *std::max_element(layout.pad.begin(), layout.pad.end()));
    write_factors.resize(layout.heads);
    overlaps.resize(layout.heads * layout.rows);
  }

  static Rows<S> rows_of(Buffer<S>& buffer, int64_t stride) { return {buffer.data(), stride}; }

  // Activations of a layer: keys, or the step's record; of the last layer only rows from `first_kept` on.
  Rows<S> activation(int64_t l, const Token<S>& token) {
    if (l == 0) return rows_of(keys, lay.pad[0]);
    const int64_t skipped = l == lay.layers() ? lay.first_kept * lay.pad[l] : 0;
    return {token.record + lay.kept_at[l] - skipped, lay.pad[l]};
  }

  // What the step's record keeps of a layer's errors.
  Rows<S> kept_errors(int64_t l, const Token<S>& token) const {
    return {token.record + lay.error_at[l], lay.pad[l]};
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

  // e^l from what the record keeps of it: the errors themselves, or, in front of a nonlinearity of the
  // gradient rule, the errors without its slope 1 - z^2.
  void load_error(int64_t l, const Rows<S>& z, const Rows<S>& kept, Rows<S> to) {
    for (int64_t h = 0; h < lay.heads; ++h)
      for (int64_t i = 0; i < lay.pad[l]; ++i)
        to[h][i] = lay.error_has_slope(l) ? kept[h][i] * (1 - z[h][i] * z[h][i]) : kept[h][i];
  }

  S rate(int64_t l, const Token<S>& token) const { return token.rates[lay.rates == 1 ? 0 : l - 1]; }

  const S* values_of_delay(int64_t n, const Token<S>& token) const {
    return n == 0 ? token.values : token.past_values[n - 1];
  }

  // Rows of M^l that go through all stages together: as many as fit the first-level cache about.
  static constexpr int64_t kRows = kVectorBytes == 64 ? 64 : 56;
  static_assert(kRows % kLanes<S> == 0);  // so that padding is only at the end of a layer

  const Layout<S>& lay;
  Buffer<S> keys;
  std::vector<Buffer<S>> errors;  // e^l, per layer
  Buffer<S> writes;               // of the present layer, signs as each pass needs them
  Buffer<S> write_factors;        // of the present layer and each head, likewise
  Buffer<S> overlaps;             // inner products of vectors of the present layer
};

}  // namespace mnm
