#include "worker/checkpoint_reader.h"

#include "base/status_util.h"
#include "worker/weight_digests.h"

namespace troupe {

CheckpointReader::CheckpointReader(const Checkpoint& checkpoint, const RankShard& shard,
                                   int threads, WeightSource* source)
    : sliced_(SliceWeights(checkpoint.description(), checkpoint.weights(), shard)),
      patches_(WalkWeights(shard, sliced_.weights, checkpoint.weights())),
      threads_(threads),
      source_(source) {
  for (size_t begin = 0; begin < patches_.size();) {
    size_t end = begin;
    while (end < patches_.size() && patches_[end].part == patches_[begin].part) ++end;
    by_part_[patches_[begin].part] = absl::MakeSpan(patches_).subspan(begin, end - begin);
    begin = end;
  }
}

absl::StatusOr<std::vector<WeightPiece>> CheckpointReader::Begin(const WeightPart& part) {
  const absl::Span<const WeightPatch> patches = by_part_[part];
  if (source_ != nullptr) {
    TROUPE_RETURN_IF_ERROR(source_->Bring(part, patches));
  } else {
    for (const WeightPatch& patch : patches) read_.disk += patch.view.stored_bytes();
  }
  return DigestPatches(patches, threads_);
}

void CheckpointReader::End(const WeightPart& part) {
  if (source_ != nullptr) source_->Release(by_part_[part]);
}

}  // namespace troupe
