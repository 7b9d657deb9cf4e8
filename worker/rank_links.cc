#include "worker/rank_links.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_util.h"

namespace troupe {
namespace {

// Its only member's values are the sums, and lie where they should.
class LoneCommunicator : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void AllReduceSum(float* /*values*/, int64_t /*count*/) override {}
  void AllGather(const void* mine, int64_t /*bytes_each*/, void* all) override {
    CHECK(mine == all) << "a group of one gathers in place";
  }
  void AllToAll(absl::Span<const CommBytes> to, absl::Span<const CommBytes> from) override {
    CHECK(to.size() == 1 && from.size() == 1 && to[0].data == from[0].data)
        << "a group of one exchanges in place";
  }
  void Send(int to_rank, const void* /*data*/, int64_t /*bytes*/) override {
    CHECK(false) << "sent to rank " << to_rank << " of one";
  }
  void Receive(int from_rank, void* /*data*/, int64_t /*bytes*/) override {
    CHECK(false) << "received from rank " << from_rank << " of one";
  }
  void Barrier() override {}
  absl::StatusOr<std::unique_ptr<Communicator>> Split(int /*colour*/) override {
    return std::make_unique<LoneCommunicator>();
  }
  void Abort(const absl::Status& reason) override { status_.Update(reason); }
  absl::Status status() const override { return status_; }

 private:
  absl::Status status_;
};

absl::StatusOr<std::unique_ptr<Communicator>> Group(Communicator& world, int colour, int size) {
  if (size == 1) return std::make_unique<LoneCommunicator>();
  TROUPE_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> group, world.Split(colour));
  CHECK_EQ(group->size(), size);
  return group;
}

}  // namespace

absl::Status RankLinks::status() const {
  for (const Communicator* link : {world.get(), tp.get(), dp.get(), pp.get()}) {
    TROUPE_RETURN_IF_ERROR(link->status());
  }
  return absl::OkStatus();
}

absl::StatusOr<RankLinks> MakeRankLinks(std::unique_ptr<Communicator> world, const ShardMap& map) {
  const Layout& layout = map.layout;
  if (world->size() != layout.world()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layout ", NameOf(layout), ": found ", world->size(), " ranks, wanted ", layout.world()));
  }
  const RankPlace place = map.Place(world->rank());
  RankLinks links;
  TROUPE_ASSIGN_OR_RETURN(links.tp,
                          Group(*world, place.stage * layout.dp + place.dp_index, layout.tp));
  TROUPE_ASSIGN_OR_RETURN(links.dp,
                          Group(*world, place.stage * layout.tp + place.tp_index, layout.dp));
  TROUPE_ASSIGN_OR_RETURN(links.pp,
                          Group(*world, place.dp_index * layout.tp + place.tp_index, layout.pp));
  links.world = std::move(world);
  return links;
}

RankLinks LoneLinks() {
  return {std::make_unique<LoneCommunicator>(), std::make_unique<LoneCommunicator>(),
          std::make_unique<LoneCommunicator>(), std::make_unique<LoneCommunicator>()};
}

}  // namespace troupe
