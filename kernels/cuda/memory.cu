#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/context.cuh"
#include "kernels/cuda/memory.cuh"

namespace troupe {
namespace {

constexpr int64_t kAlignment = 256;
constexpr int64_t kSlabBytes = int64_t{256} << 20;
constexpr int64_t kLargestInSlab = kSlabBytes / 8;
constexpr int64_t kSmallestBlock = int64_t{16} << 20;
constexpr int64_t kSmallestRegion = int64_t{1} << 20;

// What crosses with one step, beside which pages may cross in their millions of bytes: a copy would
// wait behind those in the copy engine's queue, a kernel that reads or writes host memory does not.
constexpr int64_t kMostByKernel = 256 << 10;
constexpr int kCrossThreads = 256;

template <class Unit>
__global__ void CrossKernel(Unit* to, const Unit* from, int64_t units) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kCrossThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kCrossThreads + threadIdx.x; i < units;
       i += step) {
    to[i] = from[i];
  }
}

template <class Unit>
bool LaunchCross(void* to, const void* from, int64_t bytes, cudaStream_t stream) {
  constexpr int64_t kUnit = sizeof(Unit);
  const uintptr_t bits = reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from) |
                         static_cast<uintptr_t>(bytes);
  if (bits % kUnit != 0) return false;
  const int64_t units = bytes / kUnit;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(CeilDiv(units, kCrossThreads), 32));
  CrossKernel<<<blocks, kCrossThreads, 0, stream>>>(static_cast<Unit*>(to),
                                                    static_cast<const Unit*>(from), units);
  return true;
}

// Between pinned host memory and the device, in the order of the stream.
cudaError_t Cross(void* to, const void* from, int64_t bytes, cudaMemcpyKind kind,
                  cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (bytes > kMostByKernel) {
    return cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), kind, stream);
  }
  if (!LaunchCross<uint4>(to, from, bytes, stream) &&
      !LaunchCross<uint32_t>(to, from, bytes, stream)) {
    LaunchCross<std::byte>(to, from, bytes, stream);
  }
  return cudaGetLastError();
}

int64_t Aligned(int64_t bytes) {
  return CeilDiv(std::max<int64_t>(bytes, 1), kAlignment) * kAlignment;
}

absl::Status Exhausted(int64_t bytes) {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  cudaMemGetInfo(&free_bytes, &total_bytes);
  cudaGetLastError();  // being out of memory leaves the device as it was
  return absl::ResourceExhaustedError(
      absl::StrCat("wanted ", bytes, " bytes of device memory, ", free_bytes, " of ", total_bytes,
                   " are free; make the KV cache or the batch smaller"));
}

}  // namespace

bool CudaOk(cudaError_t error, const char* what, CudaErrors& errors) {
  if (error == cudaSuccess) return true;
  errors.Note(absl::InternalError(absl::StrCat("CUDA: ", what, ": ", cudaGetErrorString(error),
                                               " (", cudaGetErrorName(error), ")")));
  return false;
}

absl::StatusOr<std::shared_ptr<std::byte>> CudaArena::AllocateSlab(int64_t bytes) {
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, static_cast<size_t>(bytes));
  if (error == cudaErrorMemoryAllocation) return Exhausted(bytes);
  CudaErrors errors;
  if (!CudaOk(error, "cudaMalloc", errors)) return errors.status();
  std::shared_ptr<std::byte> slab(static_cast<std::byte*>(memory),
                                  [](std::byte* slab_memory) { cudaFree(slab_memory); });
  if (!CudaOk(cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), stream_), "cudaMemset",
              errors)) {
    return errors.status();
  }
  return slab;
}

absl::StatusOr<std::shared_ptr<std::byte>> CudaArena::Allocate(int64_t bytes) {
  bytes = Aligned(bytes);
  if (bytes > kLargestInSlab) return AllocateSlab(bytes);
  if (slab_ == nullptr || slab_used_ + bytes > kSlabBytes) {
    auto slab = AllocateSlab(kSlabBytes);
    if (!slab.ok()) return AllocateSlab(bytes);
    slab_ = *std::move(slab);
    slab_used_ = 0;
  }
  std::byte* piece = slab_.get() + std::exchange(slab_used_, slab_used_ + bytes);
  return std::shared_ptr<std::byte>(slab_, piece);
}

CudaScratch::~CudaScratch() {
  for (const Block& block : blocks_) cudaFree(block.memory);
}

void CudaScratch::AddBlock(int64_t bytes) {
  Block block;
  block.bytes = std::max(Aligned(bytes), kSmallestBlock);
  const cudaError_t error = cudaMalloc(&block.memory, static_cast<size_t>(block.bytes));
  if (error == cudaErrorMemoryAllocation) {
    errors_->Note(Exhausted(block.bytes));
  } else if (CudaOk(error, "cudaMalloc", *errors_)) {
    blocks_.push_back(block);
    used_ = 0;
  }
}

void* CudaScratch::TakeBytes(int64_t bytes) {
  bytes = Aligned(bytes);
  if (blocks_.empty() || used_ + bytes > blocks_.back().bytes) AddBlock(bytes);
  if (!errors_->ok()) return nullptr;
  return static_cast<std::byte*>(blocks_.back().memory) + std::exchange(used_, used_ + bytes);
}

void CudaScratch::Reset() {
  used_ = 0;
  if (blocks_.size() <= 1 || held_) return;
  // One block that would have done for all. cudaFree waits for what still uses the old ones.
  int64_t bytes = 0;
  for (const Block& block : std::exchange(blocks_, {})) {
    bytes += block.bytes;
    cudaFree(block.memory);
  }
  ++generation_;
  AddBlock(bytes);
}

CudaTransfers::~CudaTransfers() {
  for (Turn& turn : turns_) {
    FreeRegions(turn.up, 0);
    FreeRegions(turn.down, 0);
    if (turn.done != nullptr) cudaEventDestroy(turn.done);
  }
}

void CudaTransfers::FreeRegions(Pool& pool, size_t keep) {
  const size_t count = pool.regions.size() - std::min(keep, pool.regions.size());
  for (size_t i = 0; i < count; ++i) {
    cudaFreeHost(pool.regions[i].host);
    cudaFree(pool.regions[i].device);
  }
  pool.regions.erase(pool.regions.begin(), pool.regions.begin() + static_cast<int64_t>(count));
}

void CudaTransfers::BeginStep() {
  if (!errors_->ok()) return;
  Flush();
  Turn& last = turns_[turn_];
  if (last.done == nullptr) {
    CudaOk(cudaEventCreateWithFlags(&last.done, cudaEventDisableTiming), "event", *errors_);
  }
  CudaOk(cudaEventRecord(last.done, stream_), "event", *errors_);
  turn_ ^= 1;
  Turn& next = turns_[turn_];
  if (next.done != nullptr) CudaOk(cudaEventSynchronize(next.done), "a step", *errors_);
  for (Pool* pool : {&next.up, &next.down}) {
    FreeRegions(*pool, 1);  // the last one is the largest
    pool->used = 0;
    pool->sent = 0;
  }
}

bool CudaTransfers::Reserve(Pool& pool, int64_t bytes, bool on_device) {
  if (!pool.regions.empty() && pool.used + bytes <= pool.regions.back().bytes) return true;
  if (on_device) Flush();
  Region region;
  region.bytes = std::max(bytes, kSmallestRegion);
  if (!pool.regions.empty()) region.bytes = std::max(region.bytes, 2 * pool.regions.back().bytes);
  const auto size = static_cast<size_t>(region.bytes);
  void* host = nullptr;
  void* device = nullptr;
  if (!CudaOk(cudaMallocHost(&host, size), "pinned host memory", *errors_)) return false;
  // Read even where a failed device has written nothing.
  std::memset(host, 0, size);
  if (on_device && !CudaOk(cudaMalloc(&device, size), "cudaMalloc", *errors_)) {
    cudaFreeHost(host);
    return false;
  }
  region.host = static_cast<std::byte*>(host);
  region.device = static_cast<std::byte*>(device);
  pool.regions.push_back(region);
  pool.used = 0;
  pool.sent = 0;
  return true;
}

const void* CudaTransfers::Stage(const void* from, int64_t bytes) {
  Pool& pool = turns_[turn_].up;
  const int64_t size = Aligned(bytes);
  if (!Reserve(pool, size, /*on_device=*/true)) return nullptr;
  const Region& region = pool.regions.back();
  const int64_t offset = std::exchange(pool.used, pool.used + size);
  if (bytes > 0) std::memcpy(region.host + offset, from, static_cast<size_t>(bytes));
  return region.device + offset;
}

void CudaTransfers::Upload(void* to, const void* from, int64_t bytes) {
  Flush();
  Pool& pool = turns_[turn_].up;
  const int64_t size = Aligned(bytes);
  if (!Reserve(pool, size, /*on_device=*/true)) return;
  std::byte* pinned = pool.regions.back().host + pool.used;
  pool.used += size;
  pool.sent = pool.used;  // it goes elsewhere than to the region's own place on the device
  std::memcpy(pinned, from, static_cast<size_t>(bytes));
  CudaOk(Cross(to, pinned, bytes, cudaMemcpyHostToDevice, stream_), "copy to the device", *errors_);
}

void CudaTransfers::Flush() {
  Pool& pool = turns_[turn_].up;
  if (pool.sent == pool.used) return;
  const Region& region = pool.regions.back();
  CudaOk(Cross(region.device + pool.sent, region.host + pool.sent, pool.used - pool.sent,
               cudaMemcpyHostToDevice, stream_),
         "copy to the device", *errors_);
  pool.sent = pool.used;
}

std::pair<const void*, int64_t> CudaTransfers::StagedPlace() const {
  const Pool& pool = turns_[turn_].up;
  if (pool.regions.size() != 1) return {nullptr, 0};
  return {pool.regions.front().device, pool.used};
}

void* CudaTransfers::Fetch(const void* from, int64_t bytes) {
  Pool& pool = turns_[turn_].down;
  const int64_t size = Aligned(bytes);
  // Where even that fails there is nothing to hand out; the caller sees the status first.
  if (!Reserve(pool, size, /*on_device=*/false)) return nullptr;
  std::byte* to = pool.regions.back().host + std::exchange(pool.used, pool.used + size);
  if (errors_->ok() && bytes > 0) {
    CudaOk(Cross(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "copy from the device",
           *errors_);
  }
  return to;
}

}  // namespace troupe
