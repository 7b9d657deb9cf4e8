// The live sequences of a session by slot: tokens, how far they are computed, how they sample.
//
// The coordinator says what to compute, but tokens live here: one sampled in step N is there for
// step N + 1 before the coordinator has heard of it, and, drawn on the device, even before this
// table has: until it is settled the slot stands in its place (kernels/embed/embed.h).
//
// Thread model: one owner. Ownership: owns all. Errors are InvalidArgument or FailedPrecondition
// and name field, slot, found and wanted; after one the table is only good for Clear. Invariants:
// rows of a sequence follow each other without gap or overlap, one a step; only the first may begin
// behind token 0, where a prefix is reused.
#ifndef TROUPE_WORKER_SEQUENCE_TABLE_H_
#define TROUPE_WORKER_SEQUENCE_TABLE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/head_gate/head_gate.h"
#include "troupe/v1/worker.pb.h"
#include "worker/sampler.h"

namespace troupe {

class SequenceTable {
 public:
  struct Limits {
    uint32_t slots = 0;
    uint32_t vocab_size = 0;
    uint32_t max_context = 0;  // tokens a sequence may reach
  };

  // Tokens that a step computes; valid until the sequence changes.
  struct Row {
    absl::Span<const uint32_t> tokens;
    GateRule gate;
    bool samples = false;  // reaches the last known token
  };

  // A token drawn on the device: of which sequence, and where.
  struct Drawn {
    uint32_t slot = 0;
    uint64_t serial = 0;
    uint32_t index = 0;
  };

  explicit SequenceTable(const Limits& limits);

  void Clear();
  absl::Status Add(const v1::NewSequence& message);
  absl::Status Finish(uint32_t slot);
  // OK if `slot` holds a sequence; `field` names it in the error.
  absl::Status CheckLive(absl::string_view field, uint32_t slot) const;

  // Begins a step, in which every sequence may have one row.
  void BeginStep() { ++step_; }
  // Counts tokens [start, start + count) as computed.
  absl::Status TakeRow(uint32_t slot, uint32_t start, uint32_t count, Row& row);

  // Draws the sequence's next token from `logits` [V], which are overwritten, and appends it.
  // Internal, with token 0 appended: the logits are damaged.
  absl::StatusOr<SampledToken> SampleNext(uint32_t slot, absl::Span<float> logits,
                                          SamplerScratch& scratch);
  // How the device is to draw the sequence's next token, which is appended and not known yet.
  // REQUIRES: FitsDevice.
  void DrawNext(uint32_t slot, SampleRule& rule, Drawn& drawn);
  // What was drawn. A sequence that is over by now is fine.
  void Settle(const Drawn& drawn, uint32_t token);
  bool FitsDevice(uint32_t slot) const { return slots_[slot]->sampling.FitsDevice(); }
  // Appends the sequence's next token, which another rank has drawn.
  void Append(uint32_t slot, uint32_t token);
  bool WantsLogprobs(uint32_t slot) const { return slots_[slot]->sampling.logprobs.has_value(); }

  uint32_t live() const { return live_; }

 private:
  struct Sequence {
    uint64_t serial = 0;  // no other sequence of the table ever has the same
    std::vector<uint32_t> tokens;
    uint32_t prompt_tokens = 0;
    uint32_t computed = 0;
    bool started = false;    // a row was taken, so `computed` is known
    uint64_t last_step = 0;  // of its last row
    SamplingParams sampling;
    GateRule gate;
    TokenCounts counts;  // kept where `sampling` has penalties
  };

  Limits limits_;
  std::vector<std::optional<Sequence>> slots_;
  uint32_t live_ = 0;
  uint64_t step_ = 0;
  uint64_t last_serial_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_SEQUENCE_TABLE_H_
