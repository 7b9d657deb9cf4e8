// Ops that run behind their caller, as a device does, on any other Ops: operations and copies queue
// for a thread, in order; what is staged is copied at once, what is fetched arrives late, and its
// place is overwritten two steps on. A caller who reads too early, or counts on memory that he no
// longer has, sees other numbers.
//
// Thread model: as Ops. Ownership: owns the Ops it runs on and the thread.
#ifndef TROUPE_WORKER_TESTING_QUEUED_OPS_H_
#define TROUPE_WORKER_TESTING_QUEUED_OPS_H_

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "kernels/ops.h"
#include "worker/testing/work_queue.h"

namespace troupe {

class QueuedOps final : public Ops {
 public:
  // `inner` computes in the caller's own memory.
  explicit QueuedOps(std::unique_ptr<Ops> inner);

  std::string Describe() const override { return inner_->Describe() + ", queued"; }
  absl::StatusOr<Buffer> Allocate(int64_t bytes) override;
  void Upload(void* to, const void* from, int64_t bytes) override;
  void Clear(void* to, int64_t bytes) override;
  void BeginStep() override;
  const void* Stage(const void* from, int64_t bytes) override;
  void* Fetch(void* from, int64_t bytes) override;
  std::unique_ptr<PackedMatrix> Pack(absl::Span<const Tensor> parts, Precision precision) override;
  std::unique_ptr<PackedMatrix> PackCoded(absl::Span<const CodedMatrix> parts,
                                          Precision precision) override;
  bool HasIntegerProducts() const override { return inner_->HasIntegerProducts(); }
  std::unique_ptr<SideCopies> MakeSideCopies() override;
  bool WhenDone(absl::AnyInvocable<void()> done) override;
  void Synchronize() override { queue_.WaitFor(queue_.pushed()); }
  absl::Status status() const override { return inner_->status(); }

  void Embed(const EmbedParams& p) override { Later(&Ops::Embed, p); }
  void RmsNorm(const RmsNormParams& p) override { Later(&Ops::RmsNorm, p); }
  void SquareSums(const SquareSumsParams& p) override { Later(&Ops::SquareSums, p); }
  void Linear(const LinearParams& p) override { Later(&Ops::Linear, p); }
  void HeadNormRope(const HeadNormRopeParams& p) override { Later(&Ops::HeadNormRope, p); }
  void KvWrite(const KvWriteParams& p) override { Later(&Ops::KvWrite, p); }
  void QkvWrite(const QkvWriteParams& p) override { Later(&Ops::QkvWrite, p); }
  void HeadGate(const HeadGateParams& p) override { Later(&Ops::HeadGate, p); }
  void PagedAttention(const PagedAttentionParams& p) override { Later(&Ops::PagedAttention, p); }
  void MlaAttention(const MlaAttentionParams& p) override { Later(&Ops::MlaAttention, p); }
  void NsaCompress(const NsaCompressParams& p) override { Later(&Ops::NsaCompress, p); }
  void NsaSelect(const NsaSelectParams& p) override { Later(&Ops::NsaSelect, p); }
  void NsaAttention(const NsaAttentionParams& p) override { Later(&Ops::NsaAttention, p); }
  void Swiglu(const SwigluParams& p) override { Later(&Ops::Swiglu, p); }
  void MoeRoute(const MoeRouteParams& p) override { Later(&Ops::MoeRoute, p); }
  void MoeAssign(const MoeAssignParams& p) override { Later(&Ops::MoeAssign, p); }
  void MoeExperts(const MoeExpertsParams& p) override { Later(&Ops::MoeExperts, p); }
  void RowAdd(const RowAddParams& p) override { Later(&Ops::RowAdd, p); }
  void Sample(const SampleParams& p) override { Later(&Ops::Sample, p); }
  void PageCopy(const PageCopyParams& p) override { Later(&Ops::PageCopy, p); }

 private:
  using Bytes = std::vector<std::byte>;
  static constexpr ptrdiff_t kKeptPieces = 64;  // of a turn that is over
  // What one step staged and fetches.
  struct Turn {
    std::deque<Bytes> pieces;
    int64_t end = 0;  // of the queue, when the next step began
  };

  template <class Params>
  void Later(void (Ops::*operation)(const Params&), const Params& params) {
    Push([this, operation, params] { (inner_.get()->*operation)(params); });
  }
  void Push(absl::AnyInvocable<void()> work) { queue_.Push(std::move(work)); }

  std::unique_ptr<Ops> inner_;
  std::array<Turn, 2> turns_;
  int turn_ = 0;
  WorkQueue queue_;  // runs to its end before the others go
};

}  // namespace troupe

#endif  // TROUPE_WORKER_TESTING_QUEUED_OPS_H_
