// A model's weights part by part: loaded, or shared with a model that has the same part already.
//
// Thread model: one thread. Ownership: borrows everything.
#ifndef TROUPE_WORKER_PART_SHARING_H_
#define TROUPE_WORKER_PART_SHARING_H_

#include "absl/functional/function_ref.h"
#include "sharding/weight_parts.h"
#include "worker/loaded_model.h"
#include "worker/weight_loader.h"

namespace troupe {

class PartSharing {
 public:
  // Keeps record in `model`.
  PartSharing(const LoadOptions& options, WeightLoader& loader, LoadedModel& model)
      : reader_(options.reader), keep_(options.keep), loader_(loader), model_(model) {}

  // `share` takes the part from LoadOptions::keep, which has it; else `load` loads it. Neither
  // after an error.
  void Take(const WeightPart& part, absl::FunctionRef<void(const LoadedModel& from)> share,
            absl::FunctionRef<void()> load);

 private:
  // Null: it is to be loaded.
  const LoadedPart* Kept(const WeightPart& part) const;

  PartReader* const reader_;
  const LoadedModel* const keep_;
  WeightLoader& loader_;
  LoadedModel& model_;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_PART_SHARING_H_
