// A checkpoint of which no byte is here until it is wanted, and then comes from another rank, or
// from this one's own files where there are any.
//
// Its files are anonymous memory of the files' sizes, whose headers are read when it is opened, so
// that everything that reads checkpoints reads it. Bring fills in the bytes of one part of the
// weights, Release gives their memory back: no more than a part is there at a time.
//
// A part comes from the peer that the plan names for it; then, and where it names none, from the
// files, if their SHA-256 is the peers' checkpoint's; then from the other peers. A peer that fails
// once is not asked again.
//
// Thread model: one thread. Ownership: owns peers and memory. Errors: UNAVAILABLE, with what each
// place said, where nobody has the bytes.
#ifndef TROUPE_WORKER_PEER_CHECKPOINT_H_
#define TROUPE_WORKER_PEER_CHECKPOINT_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "worker/checkpoint_reader.h"
#include "worker/weight_peer.h"
#include "worker/weight_ranges.h"

namespace troupe {

// Where a plan has weights come from.
struct PeerPlan {
  std::vector<std::unique_ptr<WeightPeer>> peers;
  std::map<WeightPart, size_t> sources;  // into peers; parts of any slice
};

class PeerCheckpoint final : public WeightSource {
 public:
  // This machine's own copy.
  struct Local {
    const Checkpoint* files = nullptr;
    std::function<absl::StatusOr<ModelIdentity>()> identity;  // of them; asked for when needed
  };

  // `folder` has the model's config.
  static absl::StatusOr<std::unique_ptr<PeerCheckpoint>> Open(const std::string& folder,
                                                              PeerPlan plan,
                                                              const std::optional<Local>& local);
  ~PeerCheckpoint() override;

  const Checkpoint& checkpoint() const { return *checkpoint_; }
  const ModelIdentity& identity() const { return identity_; }

  absl::Status Bring(const WeightPart& part, absl::Span<const WeightPatch> patches) override;
  void Release(absl::Span<const WeightPatch> patches) override;
  const WeightBytes& read() const override { return read_; }

 private:
  class Image;

  PeerCheckpoint(PeerPlan plan, std::optional<Local> local);
  absl::Status ReadHeaders(const std::string& folder, const WeightPeer::Files& files);
  // What binding looks at, beside the headers.
  absl::Status ReadSmall(const SafetensorsFile& file, int index);
  absl::Status Fetch(absl::Span<const FileRange> ranges, std::optional<size_t> planned);
  absl::Status FromPeer(size_t peer, absl::Span<const FileRange> ranges);
  absl::Status FromFiles(absl::Span<const FileRange> ranges);
  absl::StatusOr<std::vector<FileRange>> RangesOf(absl::Span<const WeightPatch> patches) const;

  PeerPlan plan_;
  const std::optional<Local> local_;
  std::vector<absl::Status> failed_;  // by peer
  absl::Status local_failed_;
  ModelIdentity identity_;
  bool local_checked_ = false;
  std::vector<std::shared_ptr<Image>> images_;  // by file
  std::optional<Checkpoint> checkpoint_;
  std::optional<FileIndex> index_;
  WeightBytes read_;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_PEER_CHECKPOINT_H_
