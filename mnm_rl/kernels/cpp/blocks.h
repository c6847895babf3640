// Sequences go through time in blocks. The blocks depend on the batch size alone, so that results do not
// depend on the number of threads that share them.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>

#include <algorithm>

namespace mnm {

constexpr int64_t kBlock = 32;

// work(block, begin, end) for all blocks of sequences [begin, end), in parallel.
template <typename Work>
void for_blocks(int64_t batch, Work work) {
  const int64_t blocks = (batch + kBlock - 1) / kBlock;
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    for (int64_t block = begin; block < end; ++block)
      work(block, block * kBlock, std::min(batch, (block + 1) * kBlock));
  });
}

}  // namespace mnm
