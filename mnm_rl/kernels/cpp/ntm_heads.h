// The heads of a neural Turing machine in one step of one sequence, forward and backward.
//
// Graves, Wayne and Danihelka 2014, Eq. 2 to 9; in plain form in mnm_rl/cores/ntm.py.
//
// Dimensions: H read heads and as many write heads, N slots of W numbers, in rows of `pad` with zeros at the end,
// S shift values. Of weights and what leads to them there is a row of N for each head, write heads first.
#pragma once

#include "matrix.h"
#include "recurrent_cells.h"

namespace mnm {

// Limits and guards as in mnm_rl/kernels/ntm_problem.py.
constexpr double kClip = 20, kSmallestNorm = 1e-8, kSmallestWeight = 1e-8;

template <typename S>
inline void softmax(S* row, int64_t count) {
  const S most = *std::max_element(row, row + count);
  Vec<S> total = {};
  for_lanes<S>(count, [&](int64_t i, auto lanes) {
    lanes.store(row + i, exponential(lanes.load(row + i) - most));
    total += lanes.load(row + i);
  });
  const S scale = 1 / lane_sum<S>(total);
  for (int64_t i = 0; i < count; ++i) row[i] *= scale;
}

// d = weights * (d - d . weights): from the gradient of a softmax to that of what it was taken of.
template <typename S>
inline void softmax_backward(S* d, const S* weights, int64_t count) {
  const S mean = row_dot(d, weights, count);
  for (int64_t i = 0; i < count; ++i) d[i] = weights[i] * (d[i] - mean);
}

// Sizes, and where what the controller tells the heads lies in its row.
struct HeadSizes {
  int64_t H, N, W, S, pad;
  int64_t all() const { return 2 * H; }
  int64_t adds() const { return 2 * H * W; }
  int64_t erases() const { return 3 * H * W; }
  int64_t gates() const { return 4 * H * W; }
  int64_t strengths() const { return gates() + 2 * H; }
  int64_t sharpenings() const { return gates() + 4 * H; }
  int64_t shifts() const { return gates() + 6 * H; }
  int64_t told() const { return shifts() + 2 * H * S; }
  int64_t weights() const { return 2 * H * N; }
  int64_t memory() const { return N * pad; }
};

// What a step reads and writes. All that is not const is kept for the backward pass.
template <typename S>
struct HeadStep {
  const S *weights_before, *memory_before, *raw;  // raw: what the controller says, before nonlinearities
  S *told, *cosines, *content, *gated, *shifted, *logarithms, *weights, *slot_norms, *memory;
  S* reads;  // [H, W], without padding
};

// Gradients. Those of weights and memory are of the state after the step, and afterwards of that before it.
template <typename S>
struct HeadGradient {
  const S* reads;  // [H, W]
  S *told, *weights, *memory;
};

template <typename S>
class Heads {
 public:
  explicit Heads(const HeadSizes& sizes)
      : n(sizes),
        keys(n.all() * n.pad),
        adds(n.H * n.pad),
        erases(n.H * n.pad),
        values(n.H * n.pad),
        d_keys(n.all() * n.pad),
        d_adds(n.H * n.pad),
        d_erases(n.H * n.pad),
        d_weights(n.weights()),
        d_dots(n.weights()),
        slot_sums(n.N),
        ring(n.N + n.S - 1),
        chain((n.H + 1) * kLanes<S>),
        sums(n.H * kLanes<S>),
        key_scales(n.all()) {}

  void forward(const HeadStep<S>& at) {
    hear(at);
    load_told(at.told);
    multiply<S>(at.memory_before, n.pad, rows(keys), {at.cosines, n.N}, n.all(), n.N, n.pad);
    for (int64_t i = 0; i < n.N; ++i) {
      const S* row = at.memory_before + i * n.pad;
      at.slot_norms[i] = std::sqrt(dot(row, row, n.pad));
    }
    for (int64_t head = 0; head < n.all(); ++head) address(at, head);
    write(at);
    std::fill(values.begin(), values.end(), S(0));
    const Rows<const S> read_weights{at.weights + n.H * n.N, n.N};
    add_transposed<S>(at.memory, n.pad, read_weights, rows(values), n.H, n.N, n.pad);
    for (int64_t h = 0; h < n.H; ++h) copy_row(values.data() + h * n.pad, n.W, at.reads + h * n.W);
  }

  void backward(const HeadStep<S>& at, const HeadGradient<S>& d) {
    load_told(at.told);
    load_rows(d.reads, n.H, values);
    memory_backward(at, d);
    std::fill(slot_sums.begin(), slot_sums.end(), S(0));
    for (int64_t head = 0; head < n.all(); ++head) address_backward(at, d, head);
    cosine_backward(at, d);
    told_backward(at, d);
  }

 private:
  Rows<S> rows(Buffer<S>& buffer) const { return {buffer.data(), n.pad}; }

  void load_rows(const S* from, int64_t count, Buffer<S>& to) {
    for (int64_t i = 0; i < count; ++i) {
      copy_row(from + i * n.W, n.W, to.data() + i * n.pad);
      std::fill(to.data() + i * n.pad + n.W, to.data() + (i + 1) * n.pad, S(0));
    }
  }

  void load_told(const S* told) {
    load_rows(told, n.all(), keys);
    load_rows(told + n.adds(), n.H, adds);
    load_rows(told + n.erases(), n.H, erases);
  }

  S key_norm(int64_t head) const {
    const S* key = keys.data() + head * n.pad;
    return std::sqrt(dot(key, key, n.pad));
  }

  // From what the controller says to what it tells.
  void hear(const HeadStep<S>& at) {
    for (int64_t i = 0; i < n.told(); ++i) at.told[i] = std::min(std::max(at.raw[i], S(-kClip)), S(kClip));
    apply_tanh<S>(at.told, nullptr, n.erases());
    apply_logistic<S>(at.told + n.erases(), nullptr, n.strengths() - n.erases());
    for (int64_t i = n.strengths(); i < n.shifts(); ++i)
      at.told[i] = std::log1p(std::exp(at.told[i])) + (i < n.sharpenings() ? 0 : 1);
    for (int64_t head = 0; head < n.all(); ++head) softmax(at.told + n.shifts() + head * n.S, n.S);
  }

  // Part of a circle, with as many more numbers at each end as a head can move.
  void close_ring(const S* row) {
    const int64_t far = n.S / 2;
    std::copy_n(row + n.N - far, far, ring.begin());
    std::copy_n(row, n.N, ring.begin() + far);
    std::copy_n(row, far, ring.begin() + far + n.N);
  }

  // Eq. 5 to 9.
  void address(const HeadStep<S>& at, int64_t head) {
    const int64_t first = head * n.N;
    const S norm = key_norm(head), strength = at.told[n.strengths() + head];
    const S gate = at.told[n.gates() + head], power = at.told[n.sharpenings() + head];
    const S *before = at.weights_before + first, *shifts = at.told + n.shifts() + head * n.S;
    S *cosines = at.cosines + first, *content = at.content + first, *gated = at.gated + first;
    S *shifted = at.shifted + first, *logarithms = at.logarithms + first, *weights = at.weights + first;
    for (int64_t i = 0; i < n.N; ++i) {
      cosines[i] /= norm * at.slot_norms[i] + S(kSmallestNorm);
      content[i] = strength * cosines[i];
    }
    softmax(content, n.N);
    for (int64_t i = 0; i < n.N; ++i) gated[i] = gate * content[i] + (1 - gate) * before[i];
    close_ring(gated);
    std::fill_n(shifted, n.N, S(kSmallestWeight));
    for (int64_t place = 0; place < n.S; ++place)
      add_scaled(shifted, ring.data() + place, shifts[n.S - 1 - place], n.N);
    for (int64_t i = 0; i < n.N; ++i) logarithms[i] = std::log(shifted[i]);
    for (int64_t i = 0; i < n.N; ++i) weights[i] = power * logarithms[i];
    softmax(weights, n.N);
  }

  // Eq. 3 and 4.
  void write(const HeadStep<S>& at) {
    for (int64_t i = 0; i < n.N; ++i) {
      const S* from = at.memory_before + i * n.pad;
      S* to = at.memory + i * n.pad;
      for (int64_t j = 0; j < n.pad; j += kLanes<S>) {
        Vec<S> value = load(from + j);
        for (int64_t h = 0; h < n.H; ++h)
          value -= value * (at.weights[h * n.N + i] * load(erases.data() + h * n.pad + j));
        for (int64_t h = 0; h < n.H; ++h)
          value += at.weights[h * n.N + i] * load(adds.data() + h * n.pad + j);
        store(to + j, value);
      }
    }
  }

  // Back through reading and writing; gradients of the weights of this step go to d_weights.
  void memory_backward(const HeadStep<S>& at, const HeadGradient<S>& d) {
    const Rows<const S> write_weights{at.weights, n.N}, read_weights{at.weights + n.H * n.N, n.N};
    multiply<S>(at.memory, n.pad, rows(values), {d_weights.data() + n.H * n.N, n.N}, n.H, n.N, n.pad);
    add_outer<S>(d.memory, n.pad, read_weights, rows(values), n.H, n.N, n.pad);
    multiply<S>(d.memory, n.pad, rows(adds), {d_weights.data(), n.N}, n.H, n.N, n.pad);
    std::fill(d_adds.begin(), d_adds.end(), S(0));
    add_transposed<S>(d.memory, n.pad, write_weights, rows(d_adds), n.H, n.N, n.pad);
    std::fill(d_erases.begin(), d_erases.end(), S(0));
    for (int64_t i = 0; i < n.N; ++i) erase_backward(at, d, i);
    for (int64_t i = 0; i < n.weights(); ++i) d_weights[i] += d.weights[i];
  }

  // Back through what all heads erase of one slot, the last head first.
  void erase_backward(const HeadStep<S>& at, const HeadGradient<S>& d, int64_t i) {
    constexpr int64_t L = kLanes<S>;
    std::fill(sums.begin(), sums.end(), S(0));
    for (int64_t j = 0; j < n.pad; j += L) {
      store(chain.data(), load(at.memory_before + i * n.pad + j));
      const auto erased = [&](int64_t h) {
        return at.weights[h * n.N + i] * load(erases.data() + h * n.pad + j);
      };
      for (int64_t h = 0; h + 1 < n.H; ++h) {
        const Vec<S> value = load(chain.data() + h * L);
        store(chain.data() + (h + 1) * L, value - value * erased(h));
      }
      Vec<S> d_value = load(d.memory + i * n.pad + j);
      for (int64_t h = n.H - 1; h >= 0; --h) {
        const Vec<S> d_kept = d_value * load(chain.data() + h * L);
        S *sum = sums.data() + h * L, *d_erase = d_erases.data() + h * n.pad + j;
        store(sum, load(sum) + d_kept * load(erases.data() + h * n.pad + j));
        store(d_erase, load(d_erase) - d_kept * at.weights[h * n.N + i]);
        d_value -= d_value * erased(h);
      }
      store(d.memory + i * n.pad + j, d_value);
    }
    for (int64_t h = 0; h < n.H; ++h) d_weights[h * n.N + i] -= lane_sum<S>(load(sums.data() + h * L));
  }

  // Back through addressing by one head: to the weights before, and to d_dots, key_scales and slot_sums.
  void address_backward(const HeadStep<S>& at, const HeadGradient<S>& d, int64_t head) {
    const int64_t first = head * n.N;
    const S *content = at.content + first, *cosines = at.cosines + first, *shifted = at.shifted + first;
    const S *before = at.weights_before + first, *shifts = at.told + n.shifts() + head * n.S;
    const S norm = key_norm(head), gate = at.told[n.gates() + head];
    S *dw = d_weights.data() + first, *d_before = d.weights + first, *d_scores = d_dots.data() + first;

    softmax_backward(dw, at.weights + first, n.N);
    d.told[n.sharpenings() + head] = row_dot(dw, at.logarithms + first, n.N);
    const S power = at.told[n.sharpenings() + head];
    for (int64_t i = 0; i < n.N; ++i) dw[i] *= power / shifted[i];  // of the shifted weights

    close_ring(at.gated + first);
    S* d_shifts = d.told + n.shifts() + head * n.S;
    for (int64_t place = 0; place < n.S; ++place)
      d_shifts[n.S - 1 - place] = row_dot<S>(ring.data() + place, dw, n.N);
    close_ring(dw);
    std::fill_n(d_before, n.N, S(0));  // of the gated weights
    for (int64_t place = 0; place < n.S; ++place)
      add_scaled(d_before, ring.data() + place, shifts[place], n.N);

    for (int64_t i = 0; i < n.N; ++i) dw[i] = content[i] - before[i];
    d.told[n.gates() + head] = row_dot<S>(d_before, dw, n.N);
    for (int64_t i = 0; i < n.N; ++i) {
      d_scores[i] = gate * d_before[i];
      d_before[i] *= 1 - gate;
    }
    softmax_backward(d_scores, content, n.N);
    d.told[n.strengths() + head] = row_dot<S>(d_scores, cosines, n.N);
    const S strength = at.told[n.strengths() + head];
    for (int64_t i = 0; i < n.N; ++i) {
      d_scores[i] *= strength / (norm * at.slot_norms[i] + S(kSmallestNorm));  // of the dot products
      dw[i] = d_scores[i] * cosines[i];                                        // of products of norms, times -1
      slot_sums[i] += dw[i] * norm;
    }
    key_scales[head] = norm > 0 ? row_dot<S>(dw, at.slot_norms, n.N) / norm : S(0);
  }

  // From gradients of dot products and norms to those of keys and memory.
  void cosine_backward(const HeadStep<S>& at, const HeadGradient<S>& d) {
    const Rows<const S> d_rows{d_dots.data(), n.N};
    std::fill(d_keys.begin(), d_keys.end(), S(0));
    add_transposed<S>(at.memory_before, n.pad, d_rows, rows(d_keys), n.all(), n.N, n.pad);
    for (int64_t head = 0; head < n.all(); ++head)
      add_scaled(d_keys.data() + head * n.pad, keys.data() + head * n.pad, -key_scales[head], n.pad);
    add_outer<S>(d.memory, n.pad, d_rows, rows(keys), n.all(), n.N, n.pad);
    for (int64_t i = 0; i < n.N; ++i) {
      const S scale = at.slot_norms[i] > 0 ? slot_sums[i] / at.slot_norms[i] : S(0);
      add_scaled(d.memory + i * n.pad, at.memory_before + i * n.pad, -scale, n.pad);
    }
  }

  // From what the heads are told to what the controller says.
  void told_backward(const HeadStep<S>& at, const HeadGradient<S>& d) {
    const auto unload = [&](const Buffer<S>& from, int64_t count, S* to) {
      for (int64_t i = 0; i < count; ++i) copy_row(from.data() + i * n.pad, n.W, to + i * n.W);
    };
    unload(d_keys, n.all(), d.told);
    unload(d_adds, n.H, d.told + n.adds());
    unload(d_erases, n.H, d.told + n.erases());
    const S* told = at.told;
    for (int64_t i = 0; i < n.erases(); ++i) d.told[i] *= 1 - told[i] * told[i];
    for (int64_t i = n.erases(); i < n.strengths(); ++i) d.told[i] *= told[i] * (1 - told[i]);
    for (int64_t i = n.strengths(); i < n.shifts(); ++i)
      d.told[i] *= 1 - std::exp((i < n.sharpenings() ? 0 : 1) - told[i]);
    for (int64_t head = 0; head < n.all(); ++head) {
      const int64_t first = n.shifts() + head * n.S;
      softmax_backward(d.told + first, told + first, n.S);
    }
    for (int64_t i = 0; i < n.told(); ++i)
      if (std::abs(at.raw[i]) > S(kClip)) d.told[i] = 0;
  }

  HeadSizes n;
  Buffer<S> keys, adds, erases, values, d_keys, d_adds, d_erases;  // rows of `pad`
  Buffer<S> d_weights, d_dots;                                     // rows of N
  Buffer<S> slot_sums, ring, chain, sums, key_scales;
};

}  // namespace mnm
