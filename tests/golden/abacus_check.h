// The bundled model in any layout of ranks against its goldens (tests/golden/abacus): all prompts
// beside each other, in ragged chunks, then on greedily.
//
// Thread model: one thread. Ownership: plain values.
#ifndef TROUPE_TESTS_GOLDEN_ABACUS_CHECK_H_
#define TROUPE_TESTS_GOLDEN_ABACUS_CHECK_H_

#include "absl/status/statusor.h"
#include "tests/golden/model_check.h"

namespace troupe {

// In f32; `feeds` of the options are not looked at.
absl::StatusOr<ModelComparison> CompareAbacus(const CompareOptions& options);

}  // namespace troupe

#endif  // TROUPE_TESTS_GOLDEN_ABACUS_CHECK_H_
