// The activations of a forward pass: one allocation, carved once, reused by every step.
//
// Thread model and ownership: ModelRunner's; nothing else touches it.
#ifndef TROUPE_WORKER_RUNNER_ARENA_H_
#define TROUPE_WORKER_RUNNER_ARENA_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/ops.h"
#include "worker/loaded_model.h"
#include "worker/model_runner.h"

namespace troupe {

// T is max_step_tokens, N max_logit_tokens; widths are the widest of any layer.
struct RunnerArena {
  Buffer memory;
  int64_t bytes = 0;

  Tensor hidden;                    // [T, d] the residual stream
  Tensor normed;                    // [T, d] what a sublayer reads
  Tensor change;                    // [T, d] what a sublayer gives, where a norm comes after it
  Tensor projected;                 // [T, LoadedAttention::in outputs]
  Tensor mla_queries;               // [T, H * D], where queries have latents of their own
  Tensor gate_inner;                // [T, head gate inner]
  Tensor gate_logits;               // [T, H of all ranks]
  Tensor gates;                     // likewise
  Tensor factors;                   // [T, H of all ranks * branches]
  Tensor attended;                  // [T, H * Dv]
  Tensor ffn_inner;                 // [T, 2 * dense inner]
  Tensor ffn_activated;             // [T, dense inner]
  Tensor router_logits;             // [T, E]
  Tensor mtp_joined;                // [T, 2 * d], with Options::mtp
  Tensor logit_normed;              // [N, d]
  Tensor logits;                    // [N, V]
  std::vector<Tensor> exit_normed;  // [N, d] each, with Options::early_exits

  absl::Span<float> expert_weights;   // [T, top_k]
  absl::Span<float> square_sums;      // [T]
  absl::Span<int32_t> chosen;         // [T, top_k]
  absl::Span<int32_t> assigned;       // [T, top_k], as this rank numbers its experts
  absl::Span<int32_t> selected;       // [T, G, selected_blocks]
  absl::Span<int32_t> closed;         // [max_rows]
  absl::Span<uint32_t> drawn;         // [N]
  absl::Span<uint32_t> last_tokens;   // [slots] that were drawn; kept from step to step
  absl::Span<int32_t> expert_tokens;  // [MoE layers of all stages, MTP's included, E]
  float* one = nullptr;               // 1.0, the factor of heads without gates

  static absl::StatusOr<std::unique_ptr<RunnerArena>> Allocate(const LoadedModel& model,
                                                               const ModelRunner::Options& options,
                                                               int slots, Ops* ops);
};

}  // namespace troupe

#endif  // TROUPE_WORKER_RUNNER_ARENA_H_
