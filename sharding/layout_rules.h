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

}  // namespace troupe

#endif  // TROUPE_SHARDING_LAYOUT_RULES_H_
