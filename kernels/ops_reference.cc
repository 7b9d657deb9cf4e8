// The oracle of every operation, on the calling thread. Slow: for tests, never for serving.
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/embed/embed_reference.h"
#include "kernels/head_gate/head_gate_reference.h"
#include "kernels/head_norm_rope/head_norm_rope_reference.h"
#include "kernels/host_ops.h"
#include "kernels/kv_write/kv_write_reference.h"
#include "kernels/linear/linear_reference.h"
#include "kernels/mla_attention/mla_attention_reference.h"
#include "kernels/moe_assign/moe_assign_reference.h"
#include "kernels/moe_experts/moe_experts_reference.h"
#include "kernels/moe_route/moe_route_reference.h"
#include "kernels/nsa_attention/nsa_attention_reference.h"
#include "kernels/nsa_compress/nsa_compress_reference.h"
#include "kernels/nsa_select/nsa_select_reference.h"
#include "kernels/ops.h"
#include "kernels/page_copy/page_copy_reference.h"
#include "kernels/paged_attention/paged_attention_reference.h"
#include "kernels/qkv_write/qkv_write_reference.h"
#include "kernels/rms_norm/rms_norm_reference.h"
#include "kernels/row_add/row_add_reference.h"
#include "kernels/sample/sample_reference.h"
#include "kernels/swiglu/swiglu_reference.h"

namespace troupe {
namespace {

class ReferenceOps : public HostOps {
 public:
  std::string Describe() const override { return "reference, 1 thread"; }

  absl::StatusOr<Buffer> Allocate(int64_t bytes) override {
    auto* memory = static_cast<std::byte*>(std::calloc(1, static_cast<size_t>(bytes)));
    if (memory == nullptr) {
      return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", bytes, " bytes"));
    }
    return Buffer(memory, std::free);
  }

  std::unique_ptr<PackedMatrix> Pack(absl::Span<const Tensor> parts, Precision precision) override {
    return std::make_unique<ReferenceMatrix>(parts, precision);
  }

  std::unique_ptr<PackedMatrix> PackCoded(absl::Span<const CodedMatrix> parts,
                                          Precision precision) override {
    return std::make_unique<ReferenceMatrix>(parts, precision);
  }
  bool HasIntegerProducts() const override { return true; }

  void Embed(const EmbedParams& params) override { EmbedReference(params); }
  void RmsNorm(const RmsNormParams& params) override { RmsNormReference(params); }
  void SquareSums(const SquareSumsParams& params) override { SquareSumsReference(params); }
  void Linear(const LinearParams& params) override { LinearReference(params); }
  void HeadNormRope(const HeadNormRopeParams& params) override { HeadNormRopeReference(params); }
  void KvWrite(const KvWriteParams& params) override { KvWriteReference(params); }
  void QkvWrite(const QkvWriteParams& params) override { QkvWriteReference(params); }
  void HeadGate(const HeadGateParams& params) override { HeadGateReference(params); }
  void PagedAttention(const PagedAttentionParams& params) override {
    PagedAttentionReference(params);
  }
  void MlaAttention(const MlaAttentionParams& params) override { MlaAttentionReference(params); }
  void NsaCompress(const NsaCompressParams& params) override { NsaCompressReference(params); }
  void NsaSelect(const NsaSelectParams& params) override { NsaSelectReference(params); }
  void NsaAttention(const NsaAttentionParams& params) override { NsaAttentionReference(params); }
  void Swiglu(const SwigluParams& params) override { SwigluReference(params); }
  void MoeRoute(const MoeRouteParams& params) override { MoeRouteReference(params); }
  void MoeAssign(const MoeAssignParams& params) override { MoeAssignReference(params); }
  void MoeExperts(const MoeExpertsParams& params) override { MoeExpertsReference(params); }
  void RowAdd(const RowAddParams& params) override { RowAddReference(params); }
  void Sample(const SampleParams& params) override { SampleReference(params); }
  void PageCopy(const PageCopyParams& params) override { PageCopyReference(params); }
};

}  // namespace

std::unique_ptr<Ops> MakeReferenceOps() { return std::make_unique<ReferenceOps>(); }

}  // namespace troupe
