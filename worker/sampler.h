// Chooses the next token from a row of logits in the host's memory: what kernels/sample/sample.h
// does, after penalties and with log-probabilities, which devices do not know.
//
// Penalties come before everything else, as in HF transformers. Log-probabilities are those of the
// model: the log-softmax of the logits before any of this.
//
// Thread model: pure functions; a SamplerScratch serves one call at a time.
#ifndef TROUPE_WORKER_SAMPLER_H_
#define TROUPE_WORKER_SAMPLER_H_

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/sample/choose_token.h"

namespace troupe {

struct SamplingParams {
  float temperature = 0;  // 0: greedy
  uint32_t top_k = 0;     // 0: off
  float top_p = 1;        // (0, 1]; 1: off
  float min_p = 0;        // [0, 1]; 0: off
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  uint64_t seed = 0;
  std::optional<uint32_t> logprobs;  // how many of the best tokens; unset: no log-probabilities

  bool HasPenalties() const {
    return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0;
  }
  // Nothing is wanted but what Ops::Sample does.
  bool FitsDevice() const { return !HasPenalties() && !logprobs.has_value(); }
};

// What Ops::Sample needs to know to choose token number `output_index` of a sequence's output.
inline SampleRule RuleOf(const SamplingParams& params, uint64_t output_index) {
  return {.seed = params.seed,
          .output_index = output_index,
          .temperature = params.temperature,
          .top_k = params.top_k,
          .top_p = params.top_p,
          .min_p = params.min_p};
}

// InvalidArgument naming the field, what was found and what was wanted.
absl::Status ValidateSampling(const SamplingParams& params);

// How often each token occurred, kept as tokens arrive.
class TokenCounts {
 public:
  void AddPrompt(absl::Span<const uint32_t> tokens);
  void AddOutput(uint32_t token);

 private:
  friend void ApplyPenalties(const SamplingParams&, const TokenCounts&, absl::Span<float>);
  struct Count {
    uint32_t output = 0;  // 0: the token is in the prompt alone
  };
  absl::flat_hash_map<uint32_t, Count> counts_;
};

// Repetition penalty (Keskar et al., 2019) over prompt and output, then presence and frequency
// penalties over the output. Ids beyond `logits` are ignored.
void ApplyPenalties(const SamplingParams& params, const TokenCounts& counts,
                    absl::Span<float> logits);

struct SampledToken {
  uint32_t token = 0;
  float logprob = 0;                            // only if asked for, as is `top`
  std::vector<std::pair<uint32_t, float>> top;  // best first
};

// Memory that Sample reuses between calls.
struct SamplerScratch {
  std::vector<TokenCandidate> candidates;
};

// Draws token number `output_index` of a sequence's output. `logits` [V] is overwritten. `counts`
// may be null without penalties. Internal: the logits hold a NaN or +infinity, or none is finite.
absl::StatusOr<SampledToken> Sample(const SamplingParams& params, const TokenCounts* counts,
                                    uint64_t output_index, absl::Span<float> logits,
                                    SamplerScratch& scratch);

}  // namespace troupe

#endif  // TROUPE_WORKER_SAMPLER_H_
