// Every operation that a model's forward pass needs, on one device.
//
// ModelRunner is written against this interface alone. Implementations: the naive reference
// (MakeReferenceOps), which is the oracle, the fast CPU one (MakeCpuOps) and CUDA (MakeCudaOps);
// all list the same operations in the same order, and one table of cases tests them
// (kernels/ops_test.cc).
//
// Memory: every pointer in an operation's parameters is to device memory, except for the
// PackedMatrix objects and the lists of experts, which name some. Device memory comes from
// Allocate and from Stage. The caller may address it only on a device that computes in the caller's
// own memory, which callers do not ask: they hand bytes over with Upload, Clear and Stage and get
// them back with Fetch, and where the memory is shared, Stage and Fetch copy nothing.
//
// Thread model: one caller at a time. Operations and copies run in the order of the calls; what
// they wrote is visible to the caller after Synchronize().
// Ownership: an Ops owns its threads. Buffers and matrices outlive it, for others of its device.
// Invariants: a token's results do not depend, bit for bit, on which other sequences share the
// step, nor on how its own sequence was cut into steps. One operation keeps the first half only:
// the form that MlaAttention chooses depends on the number of its sequence's tokens in the step,
// and the two forms round differently (docs/adr/0006). Shapes are checked (CHECK): callers validate
// user input. A device that fails says so in status(), and from then on operations do nothing.
#ifndef TROUPE_KERNELS_OPS_H_
#define TROUPE_KERNELS_OPS_H_

#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cpu_isa.h"
#include "kernels/embed/embed.h"
#include "kernels/head_gate/head_gate.h"
#include "kernels/head_norm_rope/head_norm_rope.h"
#include "kernels/kv_write/kv_write.h"
#include "kernels/linear/coded_matrix.h"
#include "kernels/linear/linear.h"
#include "kernels/mla_attention/mla_attention.h"
#include "kernels/moe_assign/moe_assign.h"
#include "kernels/moe_experts/moe_experts.h"
#include "kernels/moe_route/moe_route.h"
#include "kernels/nsa_attention/nsa_attention.h"
#include "kernels/nsa_compress/nsa_compress.h"
#include "kernels/nsa_select/nsa_select.h"
#include "kernels/page_copy/page_copy.h"
#include "kernels/paged_attention/paged_attention.h"
#include "kernels/qkv_write/qkv_write.h"
#include "kernels/replays.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/row_add/row_add.h"
#include "kernels/sample/sample.h"
#include "kernels/side_copies.h"
#include "kernels/swiglu/swiglu.h"
#include "kernels/tensor.h"

namespace troupe {

// Zeroed device memory, aligned for any operation, freed with the last reference.
using Buffer = std::shared_ptr<std::byte>;

class Ops {
 public:
  virtual ~Ops() = default;

  // For people: device, instruction set, threads.
  virtual std::string Describe() const = 0;

  // ResourceExhausted when the device has not that much.
  virtual absl::StatusOr<Buffer> Allocate(int64_t bytes) = 0;

  // Copies to device memory; `from` may be used again at once.
  virtual void Upload(void* to, const void* from, int64_t bytes) = 0;
  // Sets device memory to zero.
  virtual void Clear(void* to, int64_t bytes) = 0;

  // A step begins: ends the life of what Stage and Fetch gave out in the step before.
  virtual void BeginStep() = 0;
  // The caller's bytes where operations find them, for the step: they themselves, so they stay as
  // they are until the step has run, or a copy.
  virtual const void* Stage(const void* from, int64_t bytes) = 0;
  // Device bytes where the caller may read, and write over, them: after the next Synchronize() and
  // for the step. They themselves, or a copy.
  virtual void* Fetch(void* from, int64_t bytes) = 0;

  // Packs the rows of `parts`, one after another, as one matrix. All parts lie in the caller's
  // memory, have the same number of columns, and dtype f32 or bf16. Storage keeps the parts' dtype;
  // `precision` says how products are formed with it. Where memory is short, status() says so.
  virtual std::unique_ptr<PackedMatrix> Pack(absl::Span<const Tensor> parts,
                                             Precision precision) = 0;

  // The same with weights that stay codes in memory; `parts` must pack together
  // (kernels/linear/coded_matrix.h). A device without kernels for codes need not override it: the
  // numbers that they stand for are packed as f32.
  virtual std::unique_ptr<PackedMatrix> PackCoded(absl::Span<const CodedMatrix> parts,
                                                  Precision precision);
  // Whether PackCoded takes precisions that round x to integers, for what SuitsIntegerProducts.
  virtual bool HasIntegerProducts() const { return false; }

  // Whether operations on so many rows that take an InputNorm do best to norm what they read.
  // Otherwise callers norm first: then no InputNorm may be given.
  virtual bool NormsInputs(int64_t /*rows*/) const { return false; }

  // Whether Linear with this matrix takes so many rows of x as bf16 too, and Swiglu gives them:
  // then rounding them costs nothing.
  virtual bool TakesRounded(const PackedMatrix& /*w*/, int64_t /*rows*/) const { return false; }

  // Whether operations take keys and values of DType::kE4M3 so used. Others must not be asked to.
  virtual bool TakesE4M3(const KvUse& /*use*/) const { return true; }

  // The queue that operations run in, for libraries that order their own work among them: a
  // cudaStream_t. Null: operations are over when they return.
  virtual void* Queue() { return nullptr; }

  // Lists a layer's experts, of which there is one at least and all are of one shape and format.
  // The list borrows the weights it names. By default it holds nothing else.
  virtual std::unique_ptr<ExpertList> ListExperts(absl::Span<const ExpertWeights> experts);

  // Sections of operations that a device keeps and repeats in one go. Not to outlive the Ops.
  virtual std::unique_ptr<Replays> MakeReplays();

  // Copies between device and host beside operations. Not to outlive the Ops.
  virtual std::unique_ptr<SideCopies> MakeSideCopies();

  // What this thread does until EndRange goes by this name in a device's profile; ranges nest.
  virtual void BeginRange(const char* /*name*/) {}
  virtual void EndRange() {}

  // Calls `done`, from a thread of its own, once the device has come here; the caller may go on.
  // False, and no call: the caller has to Synchronize.
  virtual bool WhenDone(absl::AnyInvocable<void()> done);
  virtual void Synchronize() = 0;
  // OK, or the first thing that went wrong on the device, as of the last Synchronize().
  virtual absl::Status status() const = 0;

  virtual void Embed(const EmbedParams& params) = 0;
  virtual void RmsNorm(const RmsNormParams& params) = 0;
  virtual void SquareSums(const SquareSumsParams& params) = 0;
  virtual void Linear(const LinearParams& params) = 0;
  virtual void HeadNormRope(const HeadNormRopeParams& params) = 0;
  virtual void KvWrite(const KvWriteParams& params) = 0;
  virtual void QkvWrite(const QkvWriteParams& params) = 0;
  virtual void HeadGate(const HeadGateParams& params) = 0;
  virtual void PagedAttention(const PagedAttentionParams& params) = 0;
  virtual void MlaAttention(const MlaAttentionParams& params) = 0;
  virtual void NsaCompress(const NsaCompressParams& params) = 0;
  virtual void NsaSelect(const NsaSelectParams& params) = 0;
  virtual void NsaAttention(const NsaAttentionParams& params) = 0;
  virtual void Swiglu(const SwigluParams& params) = 0;
  virtual void MoeRoute(const MoeRouteParams& params) = 0;
  virtual void MoeAssign(const MoeAssignParams& params) = 0;
  virtual void MoeExperts(const MoeExpertsParams& params) = 0;
  virtual void RowAdd(const RowAddParams& params) = 0;
  virtual void Sample(const SampleParams& params) = 0;
  virtual void PageCopy(const PageCopyParams& params) = 0;
};

// A range for as long as it lives.
class OpsRange {
 public:
  OpsRange(Ops& ops, const char* name) : ops_(ops) { ops_.BeginRange(name); }
  OpsRange(const OpsRange&) = delete;
  OpsRange& operator=(const OpsRange&) = delete;
  ~OpsRange() { ops_.EndRange(); }

 private:
  Ops& ops_;
};

struct CpuOpsOptions {
  int threads = 0;  // 0: the cores that this process may use (affinity, cgroup quota)
  CpuIsa isa = CpuIsa::kAvx2;
};

std::unique_ptr<Ops> MakeCpuOps(const CpuOpsOptions& options);
std::unique_ptr<Ops> MakeReferenceOps();

struct CudaOpsOptions {
  int device = 0;
  // Dense bf16 products by cuBLASLt where this machine has it, else, and without, by our own
  // kernels.
  bool cublas = true;
};

// FailedPrecondition when there is no such device, its driver is too old, or this build has no
// CUDA. Device: Hopper (compute capability 9.0).
absl::StatusOr<std::unique_ptr<Ops>> MakeCudaOps(const CudaOpsOptions& options);

}  // namespace troupe

#endif  // TROUPE_KERNELS_OPS_H_
