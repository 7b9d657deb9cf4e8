#include "kernels/cuda/context.cuh"
#include "kernels/cuda/replays.cuh"

namespace troupe {
namespace {

// Every size of batch in some ranges of context; a graph takes memory on the device.
constexpr size_t kMostGraphs = 2048;

}  // namespace

CudaReplays::~CudaReplays() {
  cudaSetDevice(device_);
  Forget();
}

void CudaReplays::Forget() {
  if (graphs_.empty()) return;
  cudaStreamSynchronize(stream_);  // one of them may be running
  for (const auto& [key, graph] : graphs_) {
    if (graph != nullptr) cudaGraphExecDestroy(graph);
  }
  graphs_.clear();
}

bool CudaReplays::Begin(const ReplayKey& key) {
  if (!errors_->ok() || !CudaOk(cudaSetDevice(device_), "device", *errors_)) return true;
  // What is staged must be on its way before the section, which holds no copies.
  transfers_->Flush();
  if (generation_ != scratch_->generation()) {
    Forget();
    generation_ = scratch_->generation();
  }
  const Place place = transfers_->StagedPlace();
  if (place.first == nullptr) return true;
  if (graphs_.size() >= kMostGraphs) Forget();
  const auto [found, first_time] = graphs_.try_emplace(FullKey(key, place), nullptr);
  if (first_time) return true;
  if (found->second != nullptr) {
    CudaOk(cudaGraphLaunch(found->second, stream_), "launch of a graph", *errors_);
    return false;
  }
  // Other threads may load weights or copy pages meanwhile.
  if (CudaOk(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), "recording a graph",
             *errors_)) {
    scratch_->Hold(true);
    recording_ = &found->second;
  }
  return true;
}

void CudaReplays::End() {
  if (recording_ == nullptr) return;
  cudaGraphExec_t& place = *recording_;
  recording_ = nullptr;
  scratch_->Hold(false);
  cudaGraph_t graph = nullptr;
  if (!CudaOk(cudaStreamEndCapture(stream_, &graph), "recording a graph", *errors_)) return;
  if (CudaOk(cudaGraphInstantiate(&place, graph, 0), "a graph", *errors_)) {
    CudaOk(cudaGraphLaunch(place, stream_), "launch of a graph", *errors_);
  }
  CudaOk(cudaGraphDestroy(graph), "a graph", *errors_);
}

}  // namespace troupe
