// Looks at a checkpoint's weights while they are loaded: what they are, and how many bytes were
// read.
//
// Thread model: one thread, which starts and joins others. Ownership: borrows checkpoint and shard.
#ifndef TROUPE_WORKER_CHECKPOINT_READER_H_
#define TROUPE_WORKER_CHECKPOINT_READER_H_

#include <cstdint>
#include <map>
#include <vector>

#include "absl/types/span.h"
#include "model/checkpoint.h"
#include "worker/loaded_model.h"
#include "worker/weight_walk.h"

namespace troupe {

// Stored bytes of weights that were read, by where they came from.
struct WeightBytes {
  int64_t peers = 0;
  int64_t disk = 0;
};

// Brings a part's bytes to where a checkpoint's views look.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual absl::Status Bring(const WeightPart& part, absl::Span<const WeightPatch> patches) = 0;
  virtual void Release(absl::Span<const WeightPatch> patches) = 0;
  virtual const WeightBytes& read() const = 0;
};

class CheckpointReader final : public PartReader {
 public:
  // `source` null: the bytes are there, and come from disk when they are looked at.
  CheckpointReader(const Checkpoint& checkpoint, const RankShard& shard, int threads,
                   WeightSource* source = nullptr);

  absl::StatusOr<std::vector<WeightPiece>> Begin(const WeightPart& part) override;
  void End(const WeightPart& part) override;

  const WeightBytes& read() const { return source_ == nullptr ? read_ : source_->read(); }

 private:
  const SlicedWeights sliced_;
  const std::vector<WeightPatch> patches_;
  std::map<WeightPart, absl::Span<const WeightPatch>> by_part_;
  const int threads_;
  WeightSource* const source_;
  WeightBytes read_;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_CHECKPOINT_READER_H_
