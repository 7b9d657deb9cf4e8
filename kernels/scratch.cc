#include "kernels/scratch.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "kernels/host_memory.h"

namespace troupe {
namespace {

constexpr int64_t kSmallestBlockBytes = 1 << 18;

}  // namespace

void Scratch::Reset() {
  if (blocks_.size() > 1) {
    // One block that would have held everything, so that the next time one is enough.
    int64_t bytes = 0;
    for (const Block& block : blocks_) bytes += block.bytes;
    blocks_.clear();
    used_bytes_ = 0;
    TakeBytes(bytes);
  }
  used_bytes_ = 0;
}

std::byte* Scratch::TakeBytes(int64_t bytes) {
  bytes = (bytes + kHostAlignment - 1) / kHostAlignment * kHostAlignment;
  if (blocks_.empty() || used_bytes_ + bytes > blocks_.back().bytes) {
    const int64_t block_bytes = std::max(bytes, kSmallestBlockBytes);
    auto memory = AllocateHostMemory(block_bytes);
    CHECK_OK(memory);
    blocks_.push_back(Block{*std::move(memory), block_bytes});
    used_bytes_ = 0;
  }
  std::byte* piece = blocks_.back().memory.get() + used_bytes_;
  used_bytes_ += bytes;
  return piece;
}

}  // namespace troupe
