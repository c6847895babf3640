// Sequences go through time in blocks. The blocks depend on the batch size alone, so that results do not
// depend on the number of threads that share them.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>

#include <algorithm>

namespace mnm {

constexpr int64_t kBlock = 16;
constexpr int64_t kLeastShare = 4;  // fewer sequences are not worth a thread

// work(block, begin, end) for all blocks of sequences [begin, end), in parallel.
template <typename Work>
void for_blocks(int64_t batch, Work work, int64_t size = kBlock) {
  const int64_t blocks = (batch + size - 1) / size;
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    for (int64_t block = begin; block < end; ++block)
      work(block, block * size, std::min(batch, (block + 1) * size));
  });
}

// The size of blocks for work whose results do not depend on it, such as that of one step without gradient
// with packed weights: one block for each thread, unless blocks would be too small to be worth a thread.
inline int64_t block_of_thread(int64_t batch) {
  const int64_t threads = at::get_num_threads();
  return std::clamp((batch + threads - 1) / threads, kLeastShare, kBlock);
}

// How many threads share a block, where blocks do not go around evenly: then they run one after the other.
inline int64_t shares_of_block(int64_t batch) {
  const int64_t threads = at::get_num_threads(), blocks = (batch + kBlock - 1) / kBlock;
  if (threads == 0 || blocks % threads == 0) return 1;
  return std::clamp<int64_t>(std::min(batch, kBlock) / kLeastShare, 1, threads);
}

}  // namespace mnm
