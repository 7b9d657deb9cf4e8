// Another rank as a place to read a checkpoint's bytes from, whatever carries them: gRPC
// (weight_peer_client.h), or memory in tests.
#ifndef TROUPE_WORKER_WEIGHT_PEER_H_
#define TROUPE_WORKER_WEIGHT_PEER_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/checkpoint.h"
#include "worker/weight_ranges.h"

namespace troupe {

// Thread model: one caller. Calls block, for as long as bytes come and not much longer.
class WeightPeer {
 public:
  struct File {
    std::string name;
    int64_t bytes = 0;
  };
  struct Files {
    ModelIdentity checkpoint;
    std::vector<File> files;
  };

  virtual ~WeightPeer() = default;

  // For messages.
  virtual std::string Name() const = 0;
  // What it has. FAILED_PRECONDITION: nothing, it read from peers itself.
  virtual absl::StatusOr<Files> List() = 0;
  // Hands over the ranges' bytes, all of them and in order, unless it fails. They are those that
  // the peer sent: DATA_LOSS otherwise.
  virtual absl::Status Read(const ModelIdentity& checkpoint, absl::Span<const FileRange> ranges,
                            absl::FunctionRef<void(std::span<const std::byte>)> take) = 0;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_WEIGHT_PEER_H_
