// Launches of kernels.
//
// A launch that overlaps may begin while the stream's earlier kernels still run, so that its start
// and what it can do without them (reading weights) cost no time of their own. Its kernel calls
// WaitForEarlierKernels (kernels/cuda/hopper.cuh) before it reads or writes anything else.
#ifndef TROUPE_KERNELS_CUDA_LAUNCH_CUH_
#define TROUPE_KERNELS_CUDA_LAUNCH_CUH_

#include <cuda_runtime.h>

#include <utility>

#include "kernels/cuda/context.cuh"

namespace troupe {

struct LaunchShape {
  dim3 grid;
  int threads = 0;
  int64_t shared_bytes = 0;  // dynamic
  bool overlaps = true;
  int cluster = 1;  // blocks next to each other in x that see each other's shared memory
};

template <class... Params, class... Arguments>
void Launch(void (*kernel)(Params...), const LaunchShape& shape, const CudaContext& context,
            Arguments&&... arguments) {
  AllowSharedMemory(kernel, shape.shared_bytes, context.errors);
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes);
  config.stream = context.stream;
  cudaLaunchAttribute attributes[2] = {};
  if (shape.overlaps) {
    cudaLaunchAttribute& overlap = attributes[config.numAttrs++];
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster > 1) {
    cudaLaunchAttribute& cluster = attributes[config.numAttrs++];
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = static_cast<unsigned>(shape.cluster);
    cluster.val.clusterDim.y = 1;
    cluster.val.clusterDim.z = 1;
  }
  config.attrs = attributes;
  CudaOk(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), "launch",
         context.errors);
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_LAUNCH_CUH_
