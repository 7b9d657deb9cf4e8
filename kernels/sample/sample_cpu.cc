#include "kernels/sample/sample_cpu.h"

#include <vector>

#include "kernels/sample/choose_token.h"

namespace troupe {

void SampleCpu(const SampleParams& params, const CpuContext& context) {
  const auto width = static_cast<size_t>(params.logits.cols);
  context.pool.ParallelFor(params.logits.rows, 1, [&](WorkRange range) {
    std::vector<TokenCandidate> candidates;
    for (int64_t row = range.begin; row < range.end; ++row) {
      const SampleRule& rule = params.rules[row];
      const uint32_t token =
          ChooseToken(rule, absl::MakeConstSpan(params.logits.f32(row), width), candidates);
      params.tokens[row] = token;
      if (params.last_tokens != nullptr) {
        params.last_tokens[rule.slot] = token == kDamagedLogits ? 0 : token;
      }
    }
  });
}

}  // namespace troupe
