// A step's rows where operations find them.
//
// Thread model: values of ModelRunner's for one step. Ownership: borrows the StepInput and what Ops
// staged, which live until the next step begins.
#ifndef TROUPE_WORKER_DEVICE_INPUT_H_
#define TROUPE_WORKER_DEVICE_INPUT_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/ops.h"
#include "worker/device_memory.h"
#include "worker/model_runner.h"

namespace troupe {

// The same as StepInput, but that pointers are to device memory; logit_tokens are the caller's.
class DeviceInput {
 public:
  DeviceInput(const StepInput& input, Ops& ops);

  // Lets the longest row's length stand for a range of lengths, so that steps stay alike for a
  // while: up to 512 tokens, and twice as many each time.
  void WidenLongest();

  int rows() const { return batch_.rows; }
  int tokens() const { return batch_.tokens; }
  const BatchView& batch() const { return batch_; }
  const uint32_t* token_ids() const { return token_ids_; }
  const GateRule* gate_rules() const { return gate_rules_; }
  // Null: the step draws no tokens.
  const SampleRule* draw_rules() const { return draw_rules_; }
  absl::Span<const int32_t> logit_tokens() const { return logit_tokens_; }

 private:
  BatchView batch_;
  const uint32_t* token_ids_;
  const GateRule* gate_rules_;
  const SampleRule* draw_rules_ = nullptr;
  absl::Span<const int32_t> logit_tokens_;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_DEVICE_INPUT_H_
