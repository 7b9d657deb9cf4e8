// The weights of a model as parts that ranks hold or do not hold, and their sizes.
//
// Parts are what a change of layout moves: a part that a rank holds under both maps stays, one that
// another rank holds can be copied from there, byte for byte, any other comes from the checkpoint.
//
// Thread model: plain values and pure functions.
#ifndef TROUPE_SHARDING_WEIGHT_PARTS_H_
#define TROUPE_SHARDING_WEIGHT_PARTS_H_

#include <compare>
#include <cstdint>
#include <string>
#include <vector>

#include "model/description.h"
#include "sharding/rank_shard.h"
#include "sharding/shard_map.h"

namespace troupe {

enum class WeightRole : uint8_t {
  kEmbedding,
  kHead,        // sliced by vocabulary
  kFinalNorms,  // before the head, and before early exits' heads
  kMtp,         // the MTP module but for its layer
  kAttention,   // of a layer, its norms included; sliced by heads
  kDenseFfn,    // of a layer, its norms included; sliced by neurons
  kRouter,      // of a layer with experts, the norms of its FFN included
  kShared,      // its shared expert; sliced by neurons
  kExpert,      // one routed expert; sliced by neurons where experts are split
};

// Two parts that compare equal are the same bytes, on whatever rank.
struct WeightPart {
  WeightRole role = WeightRole::kEmbedding;
  int layer = -1;  // mtp_layer_index() for the MTP module's
  int expert = -1;
  Slice slice;

  std::strong_ordering operator<=>(const WeightPart& other) const;
  bool operator==(const WeightPart&) const = default;
};

// "layer 3 expert 17", "layer 0 attention 1/4", for messages.
std::string NameOf(const WeightPart& part);

// What a rank holds, in ascending order.
std::vector<WeightPart> PartsOf(const RankShard& shard, bool with_mtp);

// Numbers that a part is made of.
struct PartNumbers {
  int64_t matrices = 0;  // in matrices that quantisation at load may pack
  int64_t others = 0;    // kept as they are: embeddings, routers, norms, biases, latents' matrices
  int64_t repeated = 0;  // of `others`, held in two forms (MLA's keys and their transpose)

  PartNumbers& operator+=(const PartNumbers& other);
};
PartNumbers NumbersOf(const ModelDescription& model, const WeightPart& part);

// Bits of a number in memory.
struct WeightBits {
  double matrices = 16;
  double others = 16;
};
int64_t BytesOf(const PartNumbers& numbers, const WeightBits& bits);
int64_t BytesOf(const ModelDescription& model, const std::vector<WeightPart>& parts,
                const WeightBits& bits);

}  // namespace troupe

#endif  // TROUPE_SHARDING_WEIGHT_PARTS_H_
