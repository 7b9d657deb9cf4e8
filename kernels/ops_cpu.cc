// The fast CPU operations: validate, then hand over to the operation's own folder.
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/cpu_context.h"
#include "kernels/embed/embed_cpu.h"
#include "kernels/head_gate/head_gate_cpu.h"
#include "kernels/head_norm_rope/head_norm_rope_cpu.h"
#include "kernels/host_memory.h"
#include "kernels/host_ops.h"
#include "kernels/kv_write/kv_write_cpu.h"
#include "kernels/linear/linear_cpu.h"
#include "kernels/linear/linear_pack.h"
#include "kernels/mla_attention/mla_attention_cpu.h"
#include "kernels/moe_assign/moe_assign_cpu.h"
#include "kernels/moe_experts/moe_experts_cpu.h"
#include "kernels/moe_route/moe_route_cpu.h"
#include "kernels/nsa_attention/nsa_attention_cpu.h"
#include "kernels/nsa_compress/nsa_compress_cpu.h"
#include "kernels/nsa_select/nsa_select_cpu.h"
#include "kernels/ops.h"
#include "kernels/page_copy/page_copy_cpu.h"
#include "kernels/paged_attention/paged_attention_cpu.h"
#include "kernels/qkv_write/qkv_write_cpu.h"
#include "kernels/rms_norm/rms_norm_cpu.h"
#include "kernels/row_add/row_add_cpu.h"
#include "kernels/sample/sample_cpu.h"
#include "kernels/swiglu/swiglu_cpu.h"

namespace troupe {
namespace {

void CheckF32(const Tensor& tensor) {
  CHECK(tensor.dtype == DType::kF32);
  CHECK_GE(tensor.stride, tensor.cols);
}

void CheckExpert(const ExpertWeights& expert, int64_t hidden) {
  CHECK_EQ(expert.gate_up->inputs(), hidden);
  CHECK_EQ(expert.gate_up->outputs(), 2 * expert.down->inputs());
  CHECK_EQ(expert.down->outputs(), hidden);
}

class CpuOps : public HostOps {
 public:
  explicit CpuOps(const CpuOpsOptions& options)
      : isa_(options.isa), pool_(ThreadPool::Config{.threads = options.threads}) {
    const auto best = DetectCpuIsa();
    CHECK_OK(best);
    CHECK(options.isa <= *best) << CpuIsaName(options.isa) << " asked for, this CPU's best is "
                                << CpuIsaName(*best);
  }

  std::string Describe() const override {
    return absl::StrCat("cpu, ", CpuIsaName(isa_), ", ", pool_.threads(),
                        pool_.threads() == 1 ? " thread" : " threads");
  }

  absl::StatusOr<Buffer> Allocate(int64_t bytes) override { return AllocateHostMemory(bytes); }

  std::unique_ptr<PackedMatrix> Pack(absl::Span<const Tensor> parts, Precision precision) override {
    return CpuMatrix::Pack(parts, precision, isa_, pool_);
  }

  std::unique_ptr<PackedMatrix> PackCoded(absl::Span<const CodedMatrix> parts,
                                          Precision precision) override {
    return CpuMatrix::PackCoded(parts, precision, isa_, pool_);
  }
  bool HasIntegerProducts() const override { return true; }

  void Embed(const EmbedParams& params) override {
    CheckF32(params.out);
    CHECK_EQ(params.table.cols, params.out.cols);
    EmbedCpu(params, Begin());
  }
  void RmsNorm(const RmsNormParams& params) override {
    CheckF32(params.x);
    CheckF32(params.weight);
    CheckF32(params.out);
    CHECK_EQ(params.weight.cols, params.x.cols);
    CHECK_EQ(params.out.rows, params.x.rows);
    CHECK_EQ(params.out.cols, params.x.cols);
    RmsNormCpu(params, Begin());
  }
  void SquareSums(const SquareSumsParams& params) override {
    CheckF32(params.x);
    SquareSumsCpu(params, Begin());
  }
  void Linear(const LinearParams& params) override {
    CheckF32(params.x);
    CheckF32(params.out);
    CHECK_EQ(params.x.cols, params.w->inputs());
    CHECK_EQ(params.out.cols, params.w->outputs());
    CHECK_EQ(params.out.rows, params.x.rows);
    LinearCpu(params, Begin());
  }
  void HeadNormRope(const HeadNormRopeParams& params) override { HeadNormRopeCpu(params, Begin()); }
  void KvWrite(const KvWriteParams& params) override { KvWriteCpu(params, Begin()); }
  void QkvWrite(const QkvWriteParams& params) override { QkvWriteCpu(params, Begin()); }
  void HeadGate(const HeadGateParams& params) override { HeadGateCpu(params, Begin()); }
  void PagedAttention(const PagedAttentionParams& params) override {
    PagedAttentionCpu(params, Begin());
  }
  void MlaAttention(const MlaAttentionParams& params) override {
    CheckF32(params.q);
    CheckF32(params.out);
    CHECK_EQ(params.q.rows, params.batch.tokens);
    CHECK_EQ(params.out.rows, params.batch.tokens);
    MlaAttentionCpu(params, Begin());
  }
  void NsaCompress(const NsaCompressParams& params) override { NsaCompressCpu(params, Begin()); }
  void NsaSelect(const NsaSelectParams& params) override { NsaSelectCpu(params, Begin()); }
  void NsaAttention(const NsaAttentionParams& params) override { NsaAttentionCpu(params, Begin()); }
  void Swiglu(const SwigluParams& params) override {
    CheckF32(params.gate_up);
    CheckF32(params.out);
    if (params.gate_up.cols != params.out.cols) {
      CHECK_EQ(params.gate_up.cols, 2 * params.out.cols);
    }
    CHECK_EQ(params.gate_up.rows, params.out.rows);
    SwigluCpu(params, Begin());
  }
  void MoeRoute(const MoeRouteParams& params) override {
    CheckF32(params.logits);
    if (params.router != nullptr) {
      Linear({params.x, params.router, params.logits, /*accumulate=*/false, params.router_bias});
    }
    CHECK_LE(params.top_k, params.logits.cols);
    CHECK_EQ(params.logits.cols % params.groups, 0);
    CHECK_LE(params.groups_chosen, params.groups);
    CHECK_LE(params.top_k, params.logits.cols / params.groups * params.groups_chosen);
    MoeRouteCpu(params, Begin());
  }
  void MoeAssign(const MoeAssignParams& params) override { MoeAssignCpu(params); }
  void MoeExperts(const MoeExpertsParams& params) override {
    CheckF32(params.x);
    CheckF32(params.out);
    CHECK_EQ(params.x.cols, params.out.cols);
    CHECK_EQ(params.x.rows, params.out.rows);
    for (int e = 0; e < params.experts->size(); ++e) {
      CheckExpert((*params.experts)[e], params.x.cols);
    }
    if (params.shared != nullptr) CheckExpert(*params.shared, params.x.cols);
    MoeExpertsCpu(params, Begin());
  }
  void RowAdd(const RowAddParams& params) override {
    CheckF32(params.x);
    CheckF32(params.out);
    CHECK_EQ(params.x.cols, params.out.cols);
    RowAddCpu(params, Begin());
  }
  void Sample(const SampleParams& params) override { SampleCpu(params, Begin()); }
  void PageCopy(const PageCopyParams& params) override { PageCopyCpu(params, Begin()); }

 private:
  CpuContext Begin() {
    scratch_.Reset();
    return CpuContext{isa_, pool_, scratch_};
  }

  CpuIsa isa_;
  ThreadPool pool_;
  Scratch scratch_;
};

}  // namespace

std::unique_ptr<Ops> MakeCpuOps(const CpuOpsOptions& options) {
  return std::make_unique<CpuOps>(options);
}

}  // namespace troupe
