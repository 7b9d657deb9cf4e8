#include "worker/part_sharing.h"

#include <utility>
#include <vector>

namespace troupe {

void PartSharing::Take(const WeightPart& part,
                       absl::FunctionRef<void(const LoadedModel& from)> share,
                       absl::FunctionRef<void()> load) {
  if (!loader_.status().ok()) return;
  if (const LoadedPart* kept = Kept(part)) {
    model_.parts[part] = *kept;
    model_.kept_bytes += kept->device_bytes;
    share(*keep_);
    return;
  }
  LoadedPart loaded;
  if (reader_ != nullptr) {
    absl::StatusOr<std::vector<WeightPiece>> pieces = reader_->Begin(part);
    // The bytes are not there.
    if (!pieces.ok()) return loader_.Fail(pieces.status());
    loaded.pieces = *std::move(pieces);
  }
  const int64_t stored = loader_.stored_bytes();
  const int64_t device = loader_.device_bytes();
  load();
  if (reader_ != nullptr) reader_->End(part);
  loaded.stored_bytes = loader_.stored_bytes() - stored;
  loaded.device_bytes = loader_.device_bytes() - device;
  model_.parts[part] = std::move(loaded);
}

const LoadedPart* PartSharing::Kept(const WeightPart& part) const {
  if (keep_ == nullptr) return nullptr;
  const auto found = keep_->parts.find(part);
  if (found == keep_->parts.end()) return nullptr;
  // Nobody looked at it when it was loaded.
  if (reader_ != nullptr && found->second.pieces.empty()) return nullptr;
  return &found->second;
}

}  // namespace troupe
