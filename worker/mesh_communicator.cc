#include "worker/mesh_communicator.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "base/check.h"

namespace troupe {
namespace {

// Up to here a sum is one round in which everybody gets everything; above, two in which each member
// sums its share. Both add in rank order, so that the bits are the same.
constexpr int64_t kOneRoundBytes = 8 << 10;

// Communicators that one member split from another have slots of their own, so that a pair of
// members needs no common order of calls beyond that of each communicator.
constexpr uint64_t kSlotsEach = 64;

class MeshCommunicator final : public Communicator {
 public:
  // `peers`: ranks of the mesh, by rank here.
  MeshCommunicator(std::shared_ptr<Mesh> mesh, std::vector<int> peers, int rank, uint64_t slot,
                   Ops* ops)
      : mesh_(std::move(mesh)), peers_(std::move(peers)), rank_(rank), slot_(slot), ops_(ops) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(peers_.size()); }

  void AllReduceSum(float* values, int64_t count) override;
  void AllGather(const void* mine, int64_t bytes_each, void* all) override;
  void AllToAll(absl::Span<const CommBytes> to, absl::Span<const CommBytes> from) override;
  void Send(int to_rank, const void* data, int64_t bytes) override;
  void Receive(int from_rank, void* data, int64_t bytes) override;
  void Barrier() override;
  absl::StatusOr<std::unique_ptr<Communicator>> Split(int colour) override;
  void Abort(const absl::Status& reason) override { mesh_->latch().Trip(reason); }
  absl::Status status() const override { return mesh_->latch().status(); }

 private:
  struct Range {
    int64_t begin = 0;
    int64_t count = 0;
  };

  void AwaitOps() const {
    if (ops_ != nullptr) ops_->Synchronize();
  }
  // The members' shares of `count` elements.
  Range Share(int64_t count, int rank) const {
    const int64_t begin = count * rank / size();
    return {begin, count * (rank + 1) / size() - begin};
  }
  // Fills sends_ or receives_ with part_of(rank) for each other member.
  template <class PartOf>
  void Fill(std::vector<Transfer>& transfers, const PartOf& part_of) const;
  void Exchange() { mesh_->Exchange(slot_, sends_, receives_); }
  // out[i] = part(0)[i] + part(1)[i] + ..., from left to right. `out` may be one of the parts.
  template <class Part>
  void SumInRankOrder(float* out, int64_t count, const Part& part) const;

  const std::shared_ptr<Mesh> mesh_;
  const std::vector<int> peers_;
  const int rank_;
  const uint64_t slot_;
  Ops* const ops_;
  uint64_t splits_ = 0;
  // Kept from call to call, so that a step allocates nothing.
  std::vector<Transfer> sends_;
  std::vector<Transfer> receives_;
  std::vector<float> scratch_;
};

template <class PartOf>
void MeshCommunicator::Fill(std::vector<Transfer>& transfers, const PartOf& part_of) const {
  transfers.clear();
  for (int r = 0; r < size(); ++r) {
    if (r == rank_) continue;
    const CommBytes part = part_of(r);
    transfers.push_back({peers_[r], part.data, part.bytes});
  }
}

template <class Part>
void MeshCommunicator::SumInRankOrder(float* out, int64_t count, const Part& part) const {
  // Blocks stay in the first cache while all parts are added.
  constexpr int64_t kBlock = 1024;
  float sum[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    std::copy_n(part(0) + begin, n, sum);
    for (int r = 1; r < size(); ++r) {
      const float* more = part(r) + begin;
      for (int64_t i = 0; i < n; ++i) sum[i] += more[i];
    }
    std::copy_n(sum, n, out + begin);
  }
}

void MeshCommunicator::AllReduceSum(float* values, int64_t count) {
  AwaitOps();
  if (size() == 1) return;
  const auto bytes = [](int64_t n) { return n * static_cast<int64_t>(sizeof(float)); };
  const bool one_round = bytes(count) <= kOneRoundBytes;
  const Range mine = one_round ? Range{0, count} : Share(count, rank_);
  scratch_.resize(size() * mine.count);
  const auto part = [&](int r) {
    return r == rank_ ? values + mine.begin : scratch_.data() + r * mine.count;
  };
  Fill(sends_, [&](int r) {
    const Range share = one_round ? mine : Share(count, r);
    return CommBytes{values + share.begin, bytes(share.count)};
  });
  Fill(receives_, [&](int r) { return CommBytes{part(r), bytes(mine.count)}; });
  Exchange();
  if (mesh_->latch().tripped()) return;
  SumInRankOrder(values + mine.begin, mine.count, part);
  if (one_round) return;
  Fill(sends_, [&](int) { return CommBytes{values + mine.begin, bytes(mine.count)}; });
  Fill(receives_, [&](int r) {
    const Range share = Share(count, r);
    return CommBytes{values + share.begin, bytes(share.count)};
  });
  Exchange();
}

void MeshCommunicator::AllGather(const void* mine, int64_t bytes_each, void* all) {
  AwaitOps();
  const auto place = [&](int r) { return static_cast<std::byte*>(all) + r * bytes_each; };
  if (bytes_each > 0 && place(rank_) != mine) std::memcpy(place(rank_), mine, bytes_each);
  Fill(sends_, [&](int) { return CommBytes{place(rank_), bytes_each}; });
  Fill(receives_, [&](int r) { return CommBytes{place(r), bytes_each}; });
  Exchange();
}

void MeshCommunicator::AllToAll(absl::Span<const CommBytes> to, absl::Span<const CommBytes> from) {
  CHECK_EQ(static_cast<int>(to.size()), size());
  CHECK_EQ(static_cast<int>(from.size()), size());
  // Sizes that members would have agreed on mean nothing after a failure.
  if (mesh_->latch().tripped()) return;
  CHECK_EQ(to[rank_].bytes, from[rank_].bytes) << "of member " << rank_ << " to itself";
  AwaitOps();
  if (to[rank_].bytes > 0) std::memcpy(from[rank_].data, to[rank_].data, to[rank_].bytes);
  Fill(sends_, [&](int r) { return to[r]; });
  Fill(receives_, [&](int r) { return from[r]; });
  Exchange();
}

void MeshCommunicator::Send(int to_rank, const void* data, int64_t bytes) {
  CHECK_NE(to_rank, rank_);
  AwaitOps();
  const Transfer transfer{peers_.at(to_rank), const_cast<void*>(data), bytes};
  mesh_->Exchange(slot_, absl::MakeConstSpan(&transfer, 1), {});
}

void MeshCommunicator::Receive(int from_rank, void* data, int64_t bytes) {
  CHECK_NE(from_rank, rank_);
  AwaitOps();
  const Transfer transfer{peers_.at(from_rank), data, bytes};
  mesh_->Exchange(slot_, {}, absl::MakeConstSpan(&transfer, 1));
}

void MeshCommunicator::Barrier() {
  AwaitOps();
  char sent = 0;
  std::vector<char> received(size());
  Fill(sends_, [&](int) { return CommBytes{&sent, 1}; });
  Fill(receives_, [&](int r) { return CommBytes{&received[r], 1}; });
  Exchange();
}

absl::StatusOr<std::unique_ptr<Communicator>> MeshCommunicator::Split(int colour) {
  std::vector<int> colours(size());
  AllGather(&colour, sizeof(colour), colours.data());
  if (const absl::Status failed = status(); !failed.ok()) return failed;
  std::vector<int> peers;
  int rank = 0;
  for (int r = 0; r < size(); ++r) {
    if (colours[r] != colour) continue;
    if (r == rank_) rank = static_cast<int>(peers.size());
    peers.push_back(peers_[r]);
  }
  const uint64_t slot = slot_ * kSlotsEach + ++splits_;
  return std::make_unique<MeshCommunicator>(mesh_, std::move(peers), rank, slot, ops_);
}

}  // namespace

std::unique_ptr<Communicator> MakeMeshCommunicator(std::shared_ptr<Mesh> mesh, uint64_t first_slot,
                                                   Ops* ops) {
  std::vector<int> peers(mesh->size());
  std::iota(peers.begin(), peers.end(), 0);
  const int rank = mesh->rank();
  return std::make_unique<MeshCommunicator>(std::move(mesh), std::move(peers), rank, first_slot,
                                            ops);
}

}  // namespace troupe
