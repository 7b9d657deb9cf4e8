// Which layouts a model can be cut into, and the map that a layout stands for where nothing is
// known of loads.
//
// Thread model: pure functions. Errors: InvalidArgument with the arithmetic.
#ifndef TROUPE_SHARDING_LAYOUT_RULES_H_
#define TROUPE_SHARDING_LAYOUT_RULES_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "sharding/shard_map.h"

namespace troupe {

// The layer that `index` names: the decoder's, or the MTP module's as mtp_layer_index().
const LayerDescription& LayerOf(const ModelDescription& model, int index);

// "tp2 dp2 ep", "pp 2", "tp4 ep +8" in any order, spaces or commas between; what is left out is 1.
absl::StatusOr<Layout> ParseLayout(absl::string_view text);

// Whether heads, inner sizes, experts and layers divide as `layout` asks. KV heads fewer than tp
// are replicated where they divide it, but those of sparse attention, which chooses blocks for all
// heads of a group together, are not.
absl::Status CheckLayout(const ModelDescription& model, const Layout& layout);

// Stages of about the same bytes, and experts spread evenly.
absl::StatusOr<ShardMap> BuildShardMap(const ModelDescription& model, const Layout& layout,
                                       uint64_t epoch);

// Copies of experts on the ranks of a stage, by the tokens that chose each expert: `redundant`
// copies beyond one go where the load of a copy is largest; copies go, experts of most copies
// first, to the least loaded ranks that have room and do not hold the expert. Ranks hold the same
// number of copies, or one fewer. Deterministic: ties go to the lower index.
ExpertPlacement PlaceExperts(absl::Span<const int64_t> loads, int ranks, int redundant);

// Of the holders of `expert`, the one that computes it for a token at `position` of its sequence.
// It depends on nothing else, so that a token's sums do not depend on who shares the step.
int HolderFor(const ExpertPlacement& placement, int expert, int position);

}  // namespace troupe

#endif  // TROUPE_SHARDING_LAYOUT_RULES_H_
