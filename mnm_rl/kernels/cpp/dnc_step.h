// One step of a DNC's memory for one example, forward, backward, and its writes alone
// (Graves et al. 2016, Methods; mnm_rl/memory/dnc.py has the equations).
//
// Dimensions: N slots, W size of a slot, R read heads, U size of the interface vector.
#pragma once

#include "dnc_lookup.h"

#include <algorithm>
#include <numeric>

namespace mnm {

struct DncSizes {
  int64_t N, W, R;
  bool masked, deallocating, links, usage_gradient;
  double mask_minimum;

  int64_t keys() const { return (R + 1) * W; }
  // Where the parts of the interface vector begin: split_interface in mnm_rl/memory/dnc.py.
  int64_t vector() const { return keys(); }
  int64_t strengths() const { return vector() + W; }
  int64_t masks() const { return strengths() + R + 1; }
  int64_t erase() const { return masks() + (masked ? keys() : 0); }
  int64_t free_gates() const { return erase() + W; }
  int64_t allocation_gate() const { return free_gates() + R; }
  int64_t write_gate() const { return allocation_gate() + 1; }
  int64_t modes() const { return write_gate() + 1; }
  int64_t U() const { return modes() + (links ? 3 * R : 0); }
};

// The interface vector through its nonlinearities; pointers into `values` [U].
template <typename S>
struct DncInterface {
  DncInterface(const DncSizes& z, const S* raw, S* values) : values(values) {
    constexpr S kLimit = 20;
    for (int64_t k = 0; k < z.U(); ++k) values[k] = raw[k] > kLimit ? kLimit : raw[k] < -kLimit ? -kLimit : raw[k];
    keys = values, vector = values + z.vector(), strengths = values + z.strengths();
    masks = z.masked ? values + z.masks() : nullptr;
    erase = values + z.erase(), free_gates = values + z.free_gates();
    allocation_gate = values[z.allocation_gate()], write_gate = values[z.write_gate()];
    modes = values + z.modes();
    for (int64_t r = 0; r <= z.R; ++r) values[z.strengths() + r] = 1 + std::log1p(std::exp(strengths[r]));
    apply_logistic<S>(values + z.masks(), nullptr, z.modes() - z.masks());
    allocation_gate = values[z.allocation_gate()], write_gate = values[z.write_gate()];
    const S least = S(z.mask_minimum);
    if (z.masked)
      for (int64_t k = z.masks(); k < z.erase(); ++k) values[k] = least + (1 - least) * values[k];
    for (int64_t r = 0; z.links && r < z.R; ++r) {
      S *mode = values + z.modes() + r, sum = 0;
      const S most = std::max({mode[0], mode[z.R], mode[2 * z.R]});
      for (int64_t way = 0; way < 3; ++way) sum += mode[way * z.R] = std::exp(mode[way * z.R] - most);
      for (int64_t way = 0; way < 3; ++way) mode[way * z.R] /= sum;
    }
  }
  // Of the way 0 (backward), 1 (contents) or 2 (forward) of a head.
  S mode(const DncSizes& z, int64_t way, int64_t r) const { return z.links ? modes[way * z.R + r] : S(way == 1); }

  S* values;
  const S *keys, *vector, *strengths, *masks, *erase, *free_gates, *modes;
  S allocation_gate, write_gate;
};

// Vectors of a state: usage [N], write weights [N], read weights [R, N], precedence [N] (null without links).
template <typename S>
struct DncVectors {
  S *usage, *written, *reads, *precedence;
};

// psi, what the read heads do not free, [N].
template <typename S>
void retain(const DncSizes& z, const DncInterface<S>& xi, const S* reads, S* retained) {
  std::fill(retained, retained + z.N, S(1));
  for (int64_t r = 0; r < z.R; ++r)
    for (int64_t i = 0; i < z.N; ++i) retained[i] *= 1 - xi.free_gates[r] * reads[r * z.N + i];
}

// The slots from the least used, and products of the usages before each.
template <typename S>
struct Allocation {
  Allocation(const DncSizes& z, const S* usage, int64_t* order, Carver<S>& carver)
      : order(order), moved(carver.take(z.N)), products(carver.take(z.N)), free(carver.take(z.N)) {
    constexpr S e = S(kSlotEpsilon);
    for (int64_t i = 0; i < z.N; ++i) moved[i] = e + (1 - e) * usage[i];
    std::iota(order, order + z.N, 0);
    std::stable_sort(order, order + z.N, [this](int64_t i, int64_t j) { return moved[i] < moved[j]; });
    S product = 1;
    for (int64_t place = 0; place < z.N; ++place) {
      const int64_t i = order[place];
      products[i] = product;
      free[i] = (1 - moved[i]) * product;
      product *= moved[i];
    }
  }
  int64_t* order;
  S *moved, *products, *free;  // [N], by slot
};

template <typename S>
void rewrite(
    const DncSizes& z, const DncInterface<S>& xi, const S* retained, const S* written, const S* memory, S* out) {
  for (int64_t i = 0; i < z.N; ++i) {
    const S kept = z.deallocating ? retained[i] : S(1), w = written[i], erased = kept * w;
    const S* from = memory + i * z.W;
    S* to = out + i * z.W;
    in_lanes<S>(z.W, [&](int64_t k, auto kind) {
      using T = decltype(kind);
      const T factor = kept - erased * fetch<T>(xi.erase + k);
      put(to + k, fetch<T>(from + k) * factor + w * fetch<T>(xi.vector + k));
    });
  }
}

// Numbers that one step needs for itself.
template <typename S>
int64_t dnc_scratch(const DncSizes& z) {
  const int64_t heads = z.R * z.N;
  return padded<S>(z.U()) + 8 * padded<S>(z.N) + padded<S>(2 * z.N) + 2 * padded<S>(heads) + padded<S>(2 * heads) +
         padded<S>(heads + 2 * z.R * z.W) + Lookup<S>::size(z.R, z.N, z.W) + Lookup<S>::size(1, z.N, z.W);
}

// Memory and links are written in place; `read` is what the heads read, [R, W].
template <typename S>
void dnc_forward(
    const DncSizes& z, const S* raw, const DncVectors<const S>& before, const DncVectors<S>& after, S* memory,
    S* link, S* read, S* scratch, int64_t* order) {
  const int64_t N = z.N, W = z.W, R = z.R;
  Carver<S> carver(scratch);
  const DncInterface<S> xi(z, raw, carver.take(z.U()));
  S* retained = carver.take(N);
  retain(z, xi, before.reads, retained);
  for (int64_t i = 0; i < N; ++i)
    after.usage[i] = (before.usage[i] + before.written[i] * (1 - before.usage[i])) * retained[i];
  const Allocation<S> allocation(z, after.usage, order, carver);
  Lookup<S> written(1, N, W, carver), found(R, N, W, carver);
  written.run(xi.keys + R * W, xi.masks ? xi.masks + R * W : nullptr, xi.strengths + R, memory);
  const S gate = xi.allocation_gate;
  for (int64_t i = 0; i < N; ++i)
    after.written[i] = xi.write_gate * (gate * allocation.free[i] + (1 - gate) * written.weights[i]);
  rewrite(z, xi, retained, after.written, memory, memory);
  found.run(xi.keys, xi.masks, xi.strengths, memory);
  S* ends = carver.take(2 * R * N);
  if (z.links) {
    std::fill(ends, ends + 2 * R * N, S(0));
    relink_example<S>({N, R, before.precedence, after.written, before.reads}, link, link, ends);
    const S kept = 1 - std::accumulate(after.written, after.written + N, S(0));
    for (int64_t i = 0; i < N; ++i) after.precedence[i] = kept * before.precedence[i] + after.written[i];
  }
  std::fill(read, read + R * W, S(0));
  for (int64_t r = 0; r < R; ++r) {
    S* weights = after.reads + r * N;
    const S *contents = found.weights + r * N, *backward = ends + r * N, *forward = ends + (R + r) * N;
    std::copy(contents, contents + N, weights);
    if (z.links)
      for (int64_t i = 0; i < N; ++i)
        weights[i] = xi.mode(z, 0, r) * backward[i] + xi.mode(z, 1, r) * contents[i] + xi.mode(z, 2, r) * forward[i];
  }
  for (int64_t i = 0; i < N; ++i)
    for (int64_t r = 0; r < R; ++r) add_scaled(read + r * W, memory + i * W, after.reads[r * N + i], W);
}

// What the backward pass of a step is given of the forward pass.
template <typename S>
struct DncPast {
  const S* raw;
  DncVectors<const S> before, after;
  const S *memory_before, *memory;
  LinkReplay<S> links;  // to those before the step
};

// Gradients of the state: those of the vectors after the step are read, those before it are written; of memory
// and links they go from after to before.
template <typename S>
struct DncGradients {
  const S* read;  // of what the heads read, [R, W]
  DncVectors<const S> after;
  DncVectors<S> before;
  S *memory, *link;
  S* vector;  // of the interface vector, [U]
};

// Reads: from the gradients of what was read to those of read weights, contents and links' ends.
template <typename S>
void reads_backward(
    const DncSizes& z, const DncInterface<S>& xi, const DncPast<S>& past, const DncGradients<S>& d,
    const S* contents, S* d_contents, S* d_ends, S* d_modes) {
  const int64_t N = z.N, W = z.W, R = z.R;
  for (int64_t i = 0; i < N; ++i)  // all heads at a slot while it is at hand
    for (int64_t r = 0; r < R; ++r) {
      const S *slot = past.memory + i * W, *d_read = d.read + r * W, weight = past.after.reads[r * N + i];
      S* grown = d.memory + i * W;
      Sum<S> product;
      in_lanes<S>(W, [&](int64_t k, auto kind) {
        using T = decltype(kind);
        const T incoming = fetch<T>(d_read + k);
        product.add(incoming * fetch<T>(slot + k));
        put(grown + k, fetch<T>(grown + k) + weight * incoming);
      });
      const S sum = d.after.reads[r * N + i] + product.total();
      d_contents[r * N + i] = xi.mode(z, 1, r) * sum;
      if (!z.links) continue;
      d_ends[r * N + i] = xi.mode(z, 0, r) * sum;
      d_ends[(R + r) * N + i] = xi.mode(z, 2, r) * sum;
    }
  for (int64_t r = 0; z.links && r < R; ++r) {
    S sum = 0;
    for (int64_t i = r * N; i < (r + 1) * N; ++i) sum += d_contents[i] * contents[i];
    d_modes[R + r] = sum;
  }
}

// Links and precedence: adds to the gradients of the write weights [N] and of the last reads [R, N].
// d_modes becomes the gradient of the modes' sums: pi d_pi comes out of the sweep without the ends themselves.
template <typename S>
void order_backward(
    const DncSizes& z, const DncPast<S>& past, const DncGradients<S>& d, const S* d_ends, S* d_written,
    S* d_modes, S* rows, S* from_backward) {
  const int64_t N = z.N, R = z.R;
  const S *precedence = past.before.precedence, *written = past.after.written;
  S product = 0, kept = 1;
  for (int64_t i = 0; i < N; ++i) product += d.after.precedence[i] * precedence[i], kept -= written[i];
  for (int64_t i = 0; i < N; ++i) {
    d_written[i] += d.after.precedence[i] - product;
    d.before.precedence[i] = kept * d.after.precedence[i];
  }
  relink_example_backward<S>(
      {N, R, precedence, written, past.before.reads}, past.links,
      {d_ends, d.link, d_written, d.before.precedence, d.before.reads, from_backward}, rows);
  for (int64_t r = 0; r < R; ++r) {
    S back = 0, both = 0;
    for (int64_t i = 0; i < N; ++i) {
      const S read = past.before.reads[r * N + i];
      back += read * from_backward[r * N + i];
      both += read * (d.before.reads[r * N + i] + from_backward[r * N + i]);
      d.before.reads[r * N + i] += from_backward[r * N + i];
    }
    d_modes[r] = back, d_modes[2 * R + r] = both - back;
  }
}

// The write: adds to the gradients of write weights and retention [N], and gives those of erase and vector.
template <typename S>
void write_backward(
    const DncSizes& z, const DncInterface<S>& xi, const DncPast<S>& past, const S* retained, S* d_memory,
    S* d_written, S* d_retained, S* d_erase, S* d_vector) {
  std::fill(d_erase, d_erase + z.W, S(0));
  std::fill(d_vector, d_vector + z.W, S(0));
  for (int64_t i = 0; i < z.N; ++i) {
    const S *slot = past.memory_before + i * z.W, w = past.after.written[i];
    const S kept = z.deallocating ? retained[i] : S(1), erased = kept * w;
    S* grown = d_memory + i * z.W;
    Sum<S> all, erasing, writing;
    in_lanes<S>(z.W, [&](int64_t k, auto kind) {
      using T = decltype(kind);
      const T g = fetch<T>(grown + k), factor = g * fetch<T>(slot + k), erase = fetch<T>(xi.erase + k);
      all.add(factor);
      erasing.add(factor * erase);
      writing.add(g * fetch<T>(xi.vector + k));
      put(d_erase + k, fetch<T>(d_erase + k) - erased * factor);
      put(d_vector + k, fetch<T>(d_vector + k) + w * g);
      put(grown + k, g * (kept - erased * erase));
    });
    d_written[i] += writing.total() - kept * erasing.total();
    d_retained[i] = z.deallocating ? all.total() - w * erasing.total() : S(0);
  }
}

// From the gradients of allocation and retention [N] to those of the state before and of the free gates.
template <typename S>
void usage_backward(
    const DncSizes& z, const DncInterface<S>& xi, const DncPast<S>& past, const Allocation<S>& allocation,
    const S* retained, const DncGradients<S>& d, const S* d_free, S* d_retained, S* d_free_gates) {
  const int64_t N = z.N, R = z.R;
  S later = 0;
  for (int64_t place = N - 1; place >= 0; --place) {
    const int64_t i = allocation.order[place];
    const S d_moved = later / allocation.moved[i] - d_free[i] * allocation.products[i];
    later += d_free[i] * allocation.free[i];
    const S d_usage = d.after.usage[i] + (1 - S(kSlotEpsilon)) * d_moved;
    const S usage = past.before.usage[i], written = past.before.written[i];
    d_retained[i] += d_usage * (usage + written * (1 - usage));
    d.before.usage[i] = d_usage * retained[i] * (1 - written);
    d.before.written[i] = z.usage_gradient ? d_usage * retained[i] * (1 - usage) : S(0);
  }
  for (int64_t r = 0; r < R; ++r) {
    S sum = 0;
    for (int64_t i = 0; i < N; ++i) {
      S others = d_retained[i];
      for (int64_t other = 0; other < R; ++other)
        if (other != r) others *= 1 - xi.free_gates[other] * past.before.reads[other * N + i];
      sum -= others * past.before.reads[r * N + i];
      d.before.reads[r * N + i] -= others * xi.free_gates[r];
    }
    d_free_gates[r] = sum;
  }
}

// Through the nonlinearities: `d` [U] goes from the parts to the raw interface vector.
template <typename S>
void interface_backward(const DncSizes& z, const DncInterface<S>& xi, const S* raw, S* d) {
  for (int64_t k = z.strengths(); k < z.masks(); ++k) d[k] *= 1 - std::exp(1 - xi.values[k]);
  const S least = S(z.mask_minimum);
  for (int64_t k = z.masks(); k < z.erase(); ++k) {
    const S gate = (xi.values[k] - least) / (1 - least);
    d[k] *= (1 - least) * gate * (1 - gate);
  }
  for (int64_t k = z.erase(); k < z.modes(); ++k) d[k] *= xi.values[k] * (1 - xi.values[k]);
  for (int64_t r = 0; z.links && r < z.R; ++r) {
    S *mode = d + z.modes() + r, sum = mode[0] + mode[z.R] + mode[2 * z.R];
    for (int64_t way = 0; way < 3; ++way) mode[way * z.R] -= xi.mode(z, way, r) * sum;
  }
  for (int64_t k = 0; k < z.U(); ++k)
    if (!(std::abs(raw[k]) <= 20)) d[k] = 0;
}

template <typename S>
void dnc_backward(
    const DncSizes& z, const DncPast<S>& past, const DncGradients<S>& d, S* scratch, int64_t* order) {
  const int64_t N = z.N, W = z.W, R = z.R;
  Carver<S> carver(scratch);
  const DncInterface<S> xi(z, past.raw, carver.take(z.U()));
  S *retained = carver.take(N), *d_written = carver.take(N), *d_retained = carver.take(N);
  S *d_free = carver.take(N), *d_found = carver.take(N), *rows = carver.take(2 * N);
  S *d_contents = carver.take(R * N), *d_ends = carver.take(2 * R * N), *from_backward = carver.take(R * N);
  S* more = carver.take(R * N + 2 * R * W);
  retain(z, xi, past.before.reads, retained);
  const Allocation<S> allocation(z, past.after.usage, order, carver);
  Lookup<S> written(1, N, W, carver), found(R, N, W, carver);
  const S *write_key = xi.keys + R * W, *write_mask = xi.masks ? xi.masks + R * W : nullptr;
  written.run(write_key, write_mask, xi.strengths + R, past.memory_before);
  found.run(xi.keys, xi.masks, xi.strengths, past.memory);
  S *d_keys = d.vector, *d_masks = d.vector + z.masks(), *d_strengths = d.vector + z.strengths();
  S* d_modes = d.vector + z.modes();

  std::copy(d.after.written, d.after.written + N, d_written);
  std::fill(d.before.reads, d.before.reads + R * N, S(0));
  reads_backward(z, xi, past, d, found.weights, d_contents, d_ends, d_modes);
  if (z.links) order_backward(z, past, d, d_ends, d_written, d_modes, rows, from_backward);
  look_up_backward<S>(
      found, xi.keys, xi.masks, xi.strengths, past.memory, d_contents, d.memory,
      {d_keys, d_masks, d_strengths}, more);
  write_backward(
      z, xi, past, retained, d.memory, d_written, d_retained, d.vector + z.erase(), d.vector + z.vector());
  S d_gate = 0, d_allocation = 0;
  const S gate = xi.allocation_gate;
  for (int64_t i = 0; i < N; ++i) {
    const S free = allocation.free[i], looked = written.weights[i], d_chosen = xi.write_gate * d_written[i];
    d_gate += d_written[i] * (looked + gate * (free - looked));
    d_allocation += d_chosen * (free - looked);
    d_free[i] = gate * d_chosen, d_found[i] = (1 - gate) * d_chosen;
  }
  d.vector[z.write_gate()] = d_gate, d.vector[z.allocation_gate()] = d_allocation;
  look_up_backward<S>(
      written, write_key, write_mask, xi.strengths + R, past.memory_before, d_found, d.memory,
      {d_keys + R * W, d_masks + R * W, d_strengths + R}, more);
  usage_backward(z, xi, past, allocation, retained, d, d_free, d_retained, d.vector + z.free_gates());
  interface_backward(z, xi, past.raw, d.vector);
}

}  // namespace mnm
