#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/cuda/context.cuh"
#include "kernels/cuda/side_copies.cuh"
#include "kernels/host_limits.h"

namespace troupe {
namespace {

constexpr int64_t kSmallestSection = int64_t{32} << 20;
constexpr int64_t kAlignment = 256;

// Copies on the device, few enough to be a kernel's parameters.
constexpr size_t kMostAside = 64;
constexpr int kAsideThreads = 512;
constexpr int kAsideBlocks = 8;  // a copy
struct AsideCopies {
  struct Each {
    std::byte* to;
    const std::byte* from;
    int64_t bytes;
  };
  Each each[kMostAside];
};

// Grid: pieces of a copy in x, copies in y. What does not divide into units is copied by bytes.
__global__ void AsideKernel(AsideCopies copies) {
  const AsideCopies::Each copy = copies.each[blockIdx.y];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kAsideThreads + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kAsideThreads;
  const bool aligned = (reinterpret_cast<uintptr_t>(copy.from) % sizeof(uint4)) == 0;
  const int64_t units = aligned ? copy.bytes / static_cast<int64_t>(sizeof(uint4)) : 0;
  const auto* from = reinterpret_cast<const uint4*>(copy.from);
  auto* to = reinterpret_cast<uint4*>(copy.to);
#pragma unroll 4
  for (int64_t i = first; i < units; i += step) to[i] = from[i];
  for (int64_t i = units * static_cast<int64_t>(sizeof(uint4)) + first; i < copy.bytes; i += step) {
    copy.to[i] = copy.from[i];
  }
}

int64_t Aligned(int64_t bytes) { return CeilDiv(bytes, kAlignment) * kAlignment; }

}  // namespace

CudaSideCopies::CudaSideCopies(int device, cudaStream_t operations, CudaErrors* errors)
    : device_(device), operations_(operations), errors_(errors), waiter_(device) {
  if (!Use()) return;
  for (cudaStream_t* stream : {&out_, &in_}) {
    Ok(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking), "stream of copies");
  }
  for (cudaEvent_t* event : {&ordered_, &out_ordered_}) {
    Ok(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "event");
  }
  for (Section& section : sections_) {
    Ok(cudaEventCreateWithFlags(&section.left, cudaEventDisableTiming), "event");
  }
}

CudaSideCopies::~CudaSideCopies() {
  cudaSetDevice(device_);
  for (const cudaStream_t stream : {operations_, out_, in_}) cudaStreamSynchronize(stream);
  for (const Section& section : sections_) cudaEventDestroy(section.left);
  for (const cudaEvent_t event : {ordered_, out_ordered_}) cudaEventDestroy(event);
  for (const cudaStream_t stream : {out_, in_}) cudaStreamDestroy(stream);
  cudaFree(buffer_);
}

bool CudaSideCopies::Ok(cudaError_t error, const char* what) {
  return CudaOk(error, what, *errors_);
}

bool CudaSideCopies::Use() { return errors_->ok() && Ok(cudaSetDevice(device_), "device"); }

absl::StatusOr<std::shared_ptr<std::byte>> CudaSideCopies::AllocateHost(int64_t bytes) {
  if (!Use()) return errors_->status();
  const int64_t available = AvailableMemoryBytes();
  const auto refused = [&](const std::string& why) {
    return absl::ResourceExhaustedError(
        absl::StrCat("wanted ", bytes, " bytes of pinned host memory, ", why));
  };
  // Pinning more than there is would take the machine down before it failed.
  if (bytes > available) return refused(absl::StrCat(available, " bytes of memory are free"));
  void* memory = nullptr;
  const cudaError_t error =
      cudaHostAlloc(&memory, static_cast<size_t>(bytes), cudaHostAllocPortable);
  if (error != cudaSuccess) {
    cudaGetLastError();  // being out of memory leaves the device as it was
    return refused(absl::StrCat(
        "cudaHostAlloc: ", cudaGetErrorString(error), " (", cudaGetErrorName(error), "), ",
        available, " bytes of memory are free; is locked memory limited (ulimit -l)?"));
  }
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(memory),
                                    [](std::byte* pinned) { cudaFreeHost(pinned); });
}

absl::Status CudaSideCopies::Reserve(int64_t largest_bytes) {
  if (!Use()) return errors_->status();
  section_bytes_ = std::max(Aligned(largest_bytes), kSmallestSection);
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, kSections * static_cast<size_t>(section_bytes_));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return absl::ResourceExhaustedError(
        absl::StrCat("wanted ", kSections * static_cast<size_t>(section_bytes_),
                     " bytes of device memory for pages on their way to the host, and they are not "
                     "free; make the KV cache smaller"));
  }
  if (!Ok(error, "cudaMalloc")) return errors_->status();
  buffer_ = static_cast<std::byte*>(memory);
  for (size_t i = 0; i < kSections; ++i) {
    sections_[i].memory = buffer_ + static_cast<int64_t>(i) * section_bytes_;
  }
  return absl::OkStatus();
}

void CudaSideCopies::Order(cudaStream_t first, cudaStream_t then, cudaEvent_t event) {
  Ok(cudaEventRecord(event, first), "event");
  Ok(cudaStreamWaitEvent(then, event), "order of streams");
}

void CudaSideCopies::Send(absl::Span<const SideCopy> copies, cudaMemcpyKind kind,
                          cudaStream_t stream) {
  to_.clear();
  from_.clear();
  sizes_.clear();
  const bool in = kind == cudaMemcpyHostToDevice;
  for (const SideCopy& copy : copies) {
    to_.push_back(in ? copy.device : copy.host);
    from_.push_back(in ? copy.host : copy.device);
    sizes_.push_back(static_cast<size_t>(copy.bytes));
  }
  cudaMemcpyAttributes attributes = {};
  attributes.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
  attributes.flags = cudaMemcpyFlagPreferOverlapWithCompute;
  size_t first = 0;
  Ok(cudaMemcpyBatchAsync(to_.data(), from_.data(), sizes_.data(), sizes_.size(), &attributes,
                          &first, 1, stream),
     "copy of pages");
}

void CudaSideCopies::Out(absl::Span<const SideCopy> copies, Reuse reuse) {
  if (copies.empty() || !Use()) return;
  if (reuse == Reuse::kAfterIn) {
    Order(operations_, out_, ordered_);
    Send(copies, cudaMemcpyDeviceToHost, out_);
    return;
  }
  while (!copies.empty() && errors_->ok()) copies.remove_prefix(SendThroughSection(copies));
}

size_t CudaSideCopies::SendThroughSection(absl::Span<const SideCopy> copies) {
  Section& section = sections_[std::exchange(next_section_, (next_section_ + 1) % kSections)];
  Ok(cudaStreamWaitEvent(operations_, section.left), "a section of copies");
  std::vector<SideCopy> onwards;
  AsideCopies aside = {};
  int64_t used = 0;
  for (const SideCopy& copy : copies) {
    if (onwards.size() == kMostAside || used + Aligned(copy.bytes) > section_bytes_) break;
    std::byte* place = section.memory + used;
    used += Aligned(copy.bytes);
    aside.each[onwards.size()] = {.to = place, .from = copy.device, .bytes = copy.bytes};
    onwards.push_back({.device = place, .host = copy.host, .bytes = copy.bytes});
  }
  CHECK(!onwards.empty()) << "a copy of " << copies[0].bytes << " bytes, room for "
                          << section_bytes_;
  AsideKernel<<<dim3(kAsideBlocks, static_cast<unsigned>(onwards.size())), kAsideThreads, 0,
                operations_>>>(aside);
  Ok(cudaGetLastError(), "copy of pages aside");
  Order(operations_, out_, ordered_);
  Send(onwards, cudaMemcpyDeviceToHost, out_);
  Ok(cudaEventRecord(section.left, out_), "event");
  return onwards.size();
}

void CudaSideCopies::In(absl::Span<const SideCopy> copies) {
  if (copies.empty() || !Use()) return;
  Order(operations_, in_, ordered_);
  Order(out_, in_, out_ordered_);
  Send(copies, cudaMemcpyHostToDevice, in_);
}

bool CudaSideCopies::WhenDone(absl::AnyInvocable<void()> done) {
  if (!Use()) return false;
  Order(out_, in_, out_ordered_);
  waiter_.WhenDone(in_, std::move(done), *errors_);
  return true;
}

void CudaSideCopies::Synchronize() {
  if (!Use()) return;
  Ok(cudaStreamSynchronize(out_), "copies to the host");
  Ok(cudaStreamSynchronize(in_), "copies to the device");
}

}  // namespace troupe
