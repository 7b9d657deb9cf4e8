// How the tokens of a step meet the experts that they chose.
//
// x of a home's tokens is on every rank of its tensor-parallel group, so a rank computes the chosen
// experts that it holds itself for all of its own home's tokens, and the sum over the group that
// follows adds up what its ranks found. Where there are several homes, tokens also go to experts on
// ranks of others: from the rank of the same tp_index, once to each rank that has any of a token's
// experts, and back as one sum over them. Sums are formed by rising home, so that they depend on
// where experts lie and not on where the token came from.
//
// Thread model and ownership: ModelRunner's. All members of `links.dp` run it for each layer, also
// with no tokens.
#ifndef TROUPE_WORKER_EXPERT_EXCHANGE_H_
#define TROUPE_WORKER_EXPERT_EXCHANGE_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/layer_context.h"

namespace troupe {

class ExpertExchange {
 public:
  virtual ~ExpertExchange() = default;

  // Of rows whose choices lie in the arena: this rank's term of the chosen experts' and the shared
  // expert's sum. Where there are several homes, rows were normed.
  virtual void Run(const LayerContext& context, const MoeFfn& description, const LoadedMoe& moe,
                   const SublayerIn& in, const SublayerOut& out) = 0;

  // Device memory of its own.
  virtual int64_t bytes() const = 0;
};

// `max_tokens` a home and step. ResourceExhausted when memory is short.
absl::StatusOr<std::unique_ptr<ExpertExchange>> MakeExpertExchange(const LoadedModel& model,
                                                                   int max_tokens,
                                                                   const RankLinks& links,
                                                                   Ops* ops);

}  // namespace troupe

#endif  // TROUPE_WORKER_EXPERT_EXCHANGE_H_
