// The CPU's way to choose one token, for SampleCpu and for samplers that change logits first.
//
// Thread model: pure; a scratch serves one call at a time.
#ifndef TROUPE_KERNELS_SAMPLE_CHOOSE_TOKEN_H_
#define TROUPE_KERNELS_SAMPLE_CHOOSE_TOKEN_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "kernels/sample/sample.h"

namespace troupe {

// A candidate's weight, or what else candidates are ordered by, and its token.
using TokenCandidate = std::pair<float, uint32_t>;

// Largest first; ties go to the lower token.
inline bool IsBetter(const TokenCandidate& a, const TokenCandidate& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

// The token of the largest logit, or kDamagedLogits.
uint32_t BestToken(absl::Span<const float> logits);

// As kernels/sample/sample.h has it; `candidates` is memory to work with.
uint32_t ChooseToken(const SampleRule& rule, absl::Span<const float> logits,
                     std::vector<TokenCandidate>& candidates);

}  // namespace troupe

#endif  // TROUPE_KERNELS_SAMPLE_CHOOSE_TOKEN_H_
