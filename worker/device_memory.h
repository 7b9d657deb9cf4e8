// Typed shorthands for what crosses between the caller's memory and a device's (kernels/ops.h).
#ifndef TROUPE_WORKER_DEVICE_MEMORY_H_
#define TROUPE_WORKER_DEVICE_MEMORY_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/ops.h"

namespace troupe {

// `count` of the caller's elements in device memory.
template <class T>
const T* Staged(Ops& ops, const T* from, int64_t count) {
  return static_cast<const T*>(ops.Stage(from, count * static_cast<int64_t>(sizeof(T))));
}

// Device memory as the caller may read it after the next Synchronize().
template <class T>
absl::Span<T> Fetched(Ops& ops, absl::Span<T> device) {
  const auto bytes = static_cast<int64_t>(device.size() * sizeof(T));
  return absl::MakeSpan(static_cast<T*>(ops.Fetch(device.data(), bytes)), device.size());
}
inline Tensor Fetched(Ops& ops, const Tensor& device) {
  Tensor fetched = device;
  const int64_t elements = device.rows == 0 ? 0 : (device.rows - 1) * device.stride + device.cols;
  fetched.data = ops.Fetch(device.data, elements * BytesOf(device.dtype));
  return fetched;
}

}  // namespace troupe

#endif  // TROUPE_WORKER_DEVICE_MEMORY_H_
