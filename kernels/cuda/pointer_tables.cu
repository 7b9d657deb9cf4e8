#include <utility>

#include "kernels/cuda/context.cuh"
#include "kernels/cuda/pointer_tables.cuh"

namespace troupe {

const void* const* PointerTables::Find(const void* key, std::vector<const void*> pointers) {
  Entry& entry = entries_[key];
  if (entry.host != pointers) {
    const size_t bytes = pointers.size() * sizeof(pointers.front());
    auto device = arena_->Allocate(static_cast<int64_t>(bytes));
    if (!device.ok()) {
      errors_->Note(device.status());
      return nullptr;
    }
    entry = {std::move(pointers), *std::move(device)};
    CudaOk(cudaMemcpyAsync(entry.device.get(), entry.host.data(), bytes, cudaMemcpyHostToDevice,
                           stream_),
           "copy of a list of pointers", *errors_);
  }
  return reinterpret_cast<const void* const*>(entry.device.get());
}

}  // namespace troupe
