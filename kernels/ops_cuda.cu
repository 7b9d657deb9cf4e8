// The CUDA operations: check, then hand over to the operation's own folder. This is where a
// device's errors become a Status.
#include <cuda_runtime.h>
#include <nvtx3/nvToolsExt.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/cuda/context.cuh"
#include "kernels/cuda/cublas_lt.cuh"
#include "kernels/cuda/matrix.cuh"
#include "kernels/cuda/memory.cuh"
#include "kernels/cuda/pointer_tables.cuh"
#include "kernels/cuda/replays.cuh"
#include "kernels/cuda/side_copies.cuh"
#include "kernels/cuda/waiter.cuh"
#include "kernels/embed/embed_cuda.h"
#include "kernels/head_gate/head_gate_cuda.h"
#include "kernels/head_norm_rope/head_norm_rope_cuda.h"
#include "kernels/kv_write/kv_write_cuda.h"
#include "kernels/linear/coded_cuda.cuh"
#include "kernels/linear/fp8_cuda.cuh"
#include "kernels/linear/linear_cuda.h"
#include "kernels/linear/stream_choice.h"
#include "kernels/mla_attention/mla_attention_cuda.h"
#include "kernels/moe_assign/moe_assign_cuda.h"
#include "kernels/moe_experts/coded_experts.cuh"
#include "kernels/moe_experts/expert_list.cuh"
#include "kernels/moe_experts/fp8_experts.cuh"
#include "kernels/moe_experts/moe_experts_cuda.h"
#include "kernels/moe_route/moe_route_cuda.h"
#include "kernels/nsa_attention/nsa_attention_cuda.h"
#include "kernels/nsa_compress/nsa_compress_cuda.h"
#include "kernels/nsa_select/nsa_select_cuda.h"
#include "kernels/ops.h"
#include "kernels/page_copy/page_copy_cuda.h"
#include "kernels/paged_attention/paged_attention_cuda.h"
#include "kernels/qkv_write/qkv_write_cuda.h"
#include "kernels/rms_norm/rms_norm_cuda.h"
#include "kernels/row_add/row_add_cuda.h"
#include "kernels/sample/sample_cuda.h"
#include "kernels/swiglu/swiglu_cuda.h"

namespace troupe {
namespace {

// A stream for as long as its owner lives.
class Stream {
 public:
  explicit Stream(CudaErrors& errors) {
    CudaOk(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream", errors);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class CudaOps : public Ops {
 public:
  CudaOps(const CudaOpsOptions& options, const cudaDeviceProp& properties,
          std::unique_ptr<CublasLt> cublas)
      : device_(options.device),
        name_(properties.name),
        multiprocessors_(properties.multiProcessorCount),
        stream_(errors_),
        arena_(stream_.get()),
        scratch_(&errors_),
        transfers_(stream_.get(), &errors_),
        pointer_tables_(&arena_, stream_.get(), &errors_),
        cublas_(std::move(cublas)),
        waiter_(device_) {
    auto arrivals = arena_.Allocate(kArrivalCounters * sizeof(unsigned));
    if (arrivals.ok()) {
      arrivals_ = *std::move(arrivals);
    } else {
      errors_.Note(arrivals.status());
    }
  }

  ~CudaOps() override {
    cudaSetDevice(device_);
    cudaStreamSynchronize(stream_.get());
  }

  std::string Describe() const override {
    return absl::StrCat("cuda:", device_, ", ", name_, ", ", multiprocessors_, " multiprocessors, ",
                        cublas_ != nullptr ? "with cuBLASLt" : "without cuBLASLt");
  }

  absl::StatusOr<Buffer> Allocate(int64_t bytes) override {
    if (!Use()) return errors_.status();
    return arena_.Allocate(bytes);
  }

  void Upload(void* to, const void* from, int64_t bytes) override {
    // Small ones go through pinned memory, and nothing waits for them.
    constexpr int64_t kMostStaged = 64 << 10;
    if (bytes <= 0 || !Use()) return;
    if (bytes <= kMostStaged) {
      transfers_.Upload(to, from, bytes);
      return;
    }
    Ok(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_.get()),
       "copy to the device");
    // The driver may read pageable memory after it has returned.
    Ok(cudaStreamSynchronize(stream_.get()), "copy to the device");
  }
  void Clear(void* to, int64_t bytes) override {
    if (bytes <= 0 || !Use()) return;
    Ok(cudaMemsetAsync(to, 0, static_cast<size_t>(bytes), stream_.get()), "clearing memory");
  }

  void BeginStep() override {
    if (Use()) transfers_.BeginStep();
  }
  const void* Stage(const void* from, int64_t bytes) override {
    return Use() ? transfers_.Stage(from, bytes) : nullptr;
  }
  void* Fetch(void* from, int64_t bytes) override {
    cudaSetDevice(device_);
    return transfers_.Fetch(from, bytes);
  }

  std::unique_ptr<PackedMatrix> Pack(absl::Span<const Tensor> parts, Precision precision) override {
    Use();
    auto matrix = CudaMatrix::Pack(parts, precision, arena_, stream_.get(), errors_);
    // The parts may go away, and the driver reads them when it comes to it.
    if (Use()) Ok(cudaStreamSynchronize(stream_.get()), "copy of weights to the device");
    return matrix;
  }

  std::unique_ptr<PackedMatrix> PackCoded(absl::Span<const CodedMatrix> parts,
                                          Precision precision) override {
    Use();
    auto fp8 = CudaFp8::Pack(parts, precision, arena_, stream_.get(), errors_);
    if (fp8 != nullptr) return fp8;
    auto codes = CudaCodes::Pack(parts, precision, arena_, stream_.get(), errors_);
    if (codes != nullptr) return codes;
    return Ops::PackCoded(parts, precision);
  }

  std::unique_ptr<Replays> MakeReplays() override {
    return std::make_unique<CudaReplays>(device_, stream_.get(), &scratch_, &transfers_, &errors_);
  }

  std::unique_ptr<SideCopies> MakeSideCopies() override {
    return std::make_unique<CudaSideCopies>(device_, stream_.get(), &errors_);
  }

  bool WhenDone(absl::AnyInvocable<void()> done) override {
    if (!Use()) return false;
    waiter_.WhenDone(stream_.get(), std::move(done), errors_);
    return true;
  }

  void BeginRange(const char* name) override { nvtxRangePushA(name); }
  void EndRange() override { nvtxRangePop(); }

  bool NormsInputs(int64_t rows) const override { return rows <= kMostStreamRows; }
  bool TakesRounded(const PackedMatrix& w, int64_t rows) const override {
    return TakesRoundedCuda(w, rows);
  }
  bool TakesE4M3(const KvUse& use) const override {
    return use.reader == KvReader::kPagedAttention &&
           CodedAttentionTakes(use.key_dim, use.value_dim);
  }
  void* Queue() override { return stream_.get(); }
  std::unique_ptr<ExpertList> ListExperts(absl::Span<const ExpertWeights> experts) override {
    Use();
    if (AnyFp8(experts[0])) return Fp8ExpertList::Make(experts, arena_, stream_.get(), errors_);
    if (IsCoded(experts[0])) return CodedExpertList::Make(experts, arena_, stream_.get(), errors_);
    return CudaExpertList::Make(experts, arena_, stream_.get(), errors_);
  }

  void Synchronize() override {
    if (Use()) Ok(cudaStreamSynchronize(stream_.get()), "synchronize");
  }
  absl::Status status() const override { return errors_.status(); }

  void Embed(const EmbedParams& params) override { Run(EmbedCuda, params, "embed"); }
  void RmsNorm(const RmsNormParams& params) override { Run(RmsNormCuda, params, "rms_norm"); }
  void SquareSums(const SquareSumsParams& params) override {
    Run(SquareSumsCuda, params, "square_sums");
  }
  void Linear(const LinearParams& params) override { Run(LinearCuda, params, "linear"); }
  void HeadNormRope(const HeadNormRopeParams& params) override {
    Run(HeadNormRopeCuda, params, "head_norm_rope");
  }
  void KvWrite(const KvWriteParams& params) override { Run(KvWriteCuda, params, "kv_write"); }
  void QkvWrite(const QkvWriteParams& params) override { Run(QkvWriteCuda, params, "qkv_write"); }
  void HeadGate(const HeadGateParams& params) override { Run(HeadGateCuda, params, "head_gate"); }
  void PagedAttention(const PagedAttentionParams& params) override {
    Run(PagedAttentionCuda, params, "paged_attention");
  }
  void MlaAttention(const MlaAttentionParams& params) override {
    Run(MlaAttentionCuda, params, "mla_attention");
  }
  void NsaCompress(const NsaCompressParams& params) override {
    Run(NsaCompressCuda, params, "nsa_compress");
  }
  void NsaSelect(const NsaSelectParams& params) override {
    Run(NsaSelectCuda, params, "nsa_select");
  }
  void NsaAttention(const NsaAttentionParams& params) override {
    Run(NsaAttentionCuda, params, "nsa_attention");
  }
  void Swiglu(const SwigluParams& params) override { Run(SwigluCuda, params, "swiglu"); }
  void MoeRoute(const MoeRouteParams& params) override { Run(MoeRouteCuda, params, "moe_route"); }
  void MoeAssign(const MoeAssignParams& params) override {
    Run(MoeAssignCuda, params, "moe_assign");
  }
  void MoeExperts(const MoeExpertsParams& params) override {
    Run(MoeExpertsCuda, params, "moe_experts");
  }
  void RowAdd(const RowAddParams& params) override { Run(RowAddCuda, params, "row_add"); }
  void Sample(const SampleParams& params) override { Run(SampleCuda, params, "sample"); }
  void PageCopy(const PageCopyParams& params) override { Run(PageCopyCuda, params, "page_copy"); }

 private:
  bool Ok(cudaError_t error, const char* what) { return CudaOk(error, what, errors_); }

  // Makes the device the thread's own; false once it has failed.
  bool Use() { return errors_.ok() && Ok(cudaSetDevice(device_), "device"); }

  template <class Params>
  void Run(void (*operation)(const Params&, const CudaContext&), const Params& params,
           const char* name) {
    if (!Use()) return;
    const OpsRange range(*this, name);
    transfers_.Flush();
    scratch_.Reset();
    operation(params, {stream_.get(), multiprocessors_, scratch_, cublas_.get(), pointer_tables_,
                       errors_, reinterpret_cast<unsigned*>(arrivals_.get())});
    Ok(cudaGetLastError(), name);
  }

  int device_;
  std::string name_;
  int multiprocessors_;
  CudaErrors errors_;
  Stream stream_;
  CudaArena arena_;
  CudaScratch scratch_;
  CudaTransfers transfers_;
  PointerTables pointer_tables_;
  Buffer arrivals_;
  std::unique_ptr<CublasLt> cublas_;  // null: not on this machine, or not asked for
  CudaWaiter waiter_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Ops>> MakeCudaOps(const CudaOpsOptions& options) {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    return absl::FailedPreconditionError(
        absl::StrCat("CUDA: no device can be used: ", cudaGetErrorString(error)));
  }
  if (options.device < 0 || options.device >= count) {
    return absl::FailedPreconditionError(
        absl::StrCat("CUDA: found ", count, " devices, wanted number ", options.device));
  }
  cudaDeviceProp properties = {};
  CudaErrors errors;
  if (!CudaOk(cudaGetDeviceProperties(&properties, options.device), "device properties", errors) ||
      !CudaOk(cudaSetDevice(options.device), "device", errors)) {
    return errors.status();
  }
  if (properties.major != 9 || properties.minor != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "CUDA: cuda:", options.device, " is ", properties.name, " of compute capability ",
        properties.major, ".", properties.minor, ", wanted 9.0 (Hopper)"));
  }
  std::unique_ptr<CublasLt> cublas;
  if (options.cublas) {
    auto loaded = CublasLt::Load();
    if (loaded.ok()) cublas = *std::move(loaded);
  }
  return std::make_unique<CudaOps>(options, properties, std::move(cublas));
}

}  // namespace troupe
