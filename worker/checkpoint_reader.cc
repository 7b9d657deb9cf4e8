#include "worker/checkpoint_reader.h"

#include "worker/weight_digests.h"

namespace troupe {

CheckpointReader::CheckpointReader(const Checkpoint& checkpoint, const RankShard& shard,
                                   int threads)
    : sliced_(SliceWeights(checkpoint.description(), checkpoint.weights(), shard)),
      patches_(WalkWeights(shard, sliced_.weights, checkpoint.weights())),
      threads_(threads) {
  for (size_t begin = 0; begin < patches_.size();) {
    size_t end = begin;
    while (end < patches_.size() && patches_[end].part == patches_[begin].part) ++end;
    by_part_[patches_[begin].part] = absl::MakeSpan(patches_).subspan(begin, end - begin);
    begin = end;
  }
}

absl::StatusOr<std::vector<WeightPiece>> CheckpointReader::Begin(const WeightPart& part) {
  const absl::Span<const WeightPatch> patches = by_part_[part];
  for (const WeightPatch& patch : patches) read_.disk += patch.view.stored_bytes();
  return DigestPatches(patches, threads_);
}

}  // namespace troupe
