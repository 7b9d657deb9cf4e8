// troupe inspect --ranks: how a model would be laid out over ranks, what each would hold, and why
// not otherwise.
//
// Thread model: pure functions, but for printing. Ownership: plain values.
#ifndef TROUPE_CLI_INSPECT_RANKS_H_
#define TROUPE_CLI_INSPECT_RANKS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "model/description.h"
#include "nlohmann/json.hpp"
#include "sharding/weight_parts.h"

namespace troupe {

struct RankQuestion {
  int ranks = 0;
  int64_t memory_bytes = 0;  // of each; 0: not known
  std::string layout;        // empty: the best one
  WeightBits bits;
};

// Errors are those of the layout, with the arithmetic.
absl::StatusOr<nlohmann::ordered_json> DescribeRanks(const ModelDescription& model,
                                                     const RankQuestion& question);

void PrintRanks(const nlohmann::ordered_json& ranks);

}  // namespace troupe

#endif  // TROUPE_CLI_INSPECT_RANKS_H_
