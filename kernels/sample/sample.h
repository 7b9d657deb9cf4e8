// Chooses the next token of each row of logits.
//
//     weight[i] = exp((logit[i] - largest logit) / temperature)
//
// Order, as in HF transformers: temperature, top-k, top-p, min-p, then a draw. Candidates are
// ordered by weight and then by token id, so ties go to the lower id. The draw takes the first
// token, by id, up to which the kept weights' sum exceeds u times their sum, where u is Uniform01.
// It is keyed by (seed, output index) and by nothing else, so a sequence that is preempted, moved
// to another worker or batched with others gets the same tokens.
//
// Implementations form sums in their own ways; where a sum meets its bound within rounding, they
// may choose differently.
#ifndef TROUPE_KERNELS_SAMPLE_SAMPLE_H_
#define TROUPE_KERNELS_SAMPLE_SAMPLE_H_

#include <cstdint>

#include "kernels/tensor.h"

namespace troupe {

struct SampleRule {
  uint64_t seed = 0;
  uint64_t output_index = 0;  // of the token among the sequence's output
  float temperature = 0;      // 0: greedy, and the next three do not matter
  uint32_t top_k = 0;         // the best so many; 0: all
  float top_p = 1;            // (0, 1]: the fewest best ones that hold this share of the weight
  float min_p = 0;            // [0, 1]: those of at least this weight
  uint32_t slot = 0;          // of SampleParams::last_tokens
};

// In place of a token: the logits hold a NaN or +infinity, or none is finite.
inline constexpr uint32_t kDamagedLogits = 0xffffffffU;

struct SampleParams {
  Tensor logits;                      // [N, V] f32
  const SampleRule* rules = nullptr;  // [N]
  uint32_t* tokens = nullptr;         // [N] out; or kDamagedLogits
  // [slots] out: the row's token where its rule says, for Embed; 0 where the logits are damaged.
  // Null: not wanted.
  uint32_t* last_tokens = nullptr;
};

// A number in [0, 1) that depends on its arguments alone: Philox 4x32-10 (Salmon et al., 2011).
constexpr double Uniform01(uint64_t seed, uint64_t index) {
  auto x0 = static_cast<uint32_t>(index);
  auto x1 = static_cast<uint32_t>(index >> 32);
  uint32_t x2 = 0;
  uint32_t x3 = 0;
  auto k0 = static_cast<uint32_t>(seed);
  auto k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * x0;
    const uint64_t b = uint64_t{0xCD9E8D57} * x2;
    x0 = static_cast<uint32_t>(b >> 32) ^ x1 ^ k0;
    x1 = static_cast<uint32_t>(b);
    x2 = static_cast<uint32_t>(a >> 32) ^ x3 ^ k1;
    x3 = static_cast<uint32_t>(a);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  const uint64_t bits = (uint64_t{x0} << 32 | x1) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_SAMPLE_SAMPLE_H_
