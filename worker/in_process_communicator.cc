#include "worker/in_process_communicator.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "worker/failure_latch.h"

namespace troupe {
namespace {

// What a member brings to an operation.
struct Offer {
  enum class Kind { kNone, kSum, kGather, kAllToAll, kBarrier };
  Kind kind = Kind::kNone;
  void* values = nullptr;          // kSum
  const void* mine = nullptr;      // kGather
  int64_t size = 0;                // kSum: elements; kGather: bytes
  absl::Span<const CommBytes> to;  // kAllToAll
};

// Where the members meet. An operation is: Open with an offer, work on everybody's offers, Close.
class Group {
 public:
  Group(std::vector<int> names, std::shared_ptr<FailureLatch> latch, absl::Duration timeout)
      : names_(std::move(names)),
        latch_(std::move(latch)),
        timeout_(timeout),
        here_(names_.size()),
        gone_(names_.size()),
        offers_(names_.size()),
        boxes_(names_.size() * names_.size()) {
    listener_ = latch_->Listen([this] {
      const std::lock_guard lock(mutex_);
      changed_.notify_all();
    });
  }
  ~Group() { latch_->Forget(listener_); }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  int size() const { return static_cast<int>(names_.size()); }
  FailureLatch& latch() { return *latch_; }
  const Offer& offer(int rank) const { return offers_[rank]; }

  // False: the operation does not take place, and Close is not called.
  bool Open(int rank, const Offer& offer);
  // Returns when no member works on the offers any more.
  void Close(int rank);

  void Send(int from, int to, const void* data, int64_t bytes);
  void Receive(int from, int to, void* data, int64_t bytes);

  // The group of those that give the same (sequence, colour); `names` are the same for all of them.
  std::shared_ptr<Group> Part(uint64_t sequence, int colour, const std::vector<int>& names);
  int name(int rank) const { return names_[rank]; }

  void Leave(int rank);

 private:
  struct Box {
    const void* data = nullptr;  // null: empty
    int64_t bytes = 0;
    uint64_t taken = 0;  // messages that the receiver has had
  };
  struct PartInMaking {
    std::shared_ptr<Group> group;
    size_t came = 0;
  };

  // Waits until all members are here; then `working` are between Open and Close. False: they will
  // not be here.
  bool Arrive(std::unique_lock<std::mutex>& lock, int rank, int working);
  // Waits for `ready`; false where the family failed or `missing` did not come in time.
  template <class Ready, class Missing>
  bool Await(std::unique_lock<std::mutex>& lock, const Ready& ready, const Missing& missing);
  std::vector<int> Absent() const;
  bool AnyGone() const { return std::find(gone_.begin(), gone_.end(), true) != gone_.end(); }
  // Trips the latch, whose listener takes the lock.
  void Fail(std::unique_lock<std::mutex>& lock, const std::vector<int>& missing, bool left);

  const std::vector<int> names_;  // ranks in the communicator that all were split from
  const std::shared_ptr<FailureLatch> latch_;
  const absl::Duration timeout_;
  uint64_t listener_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  // All below are guarded by mutex_, except that offers are read without it between Open and Close.
  std::vector<bool> here_;
  std::vector<bool> gone_;
  int arrived_ = 0;
  int working_ = 0;  // members between Open and Close
  uint64_t meetings_ = 0;
  std::vector<Offer> offers_;
  std::vector<Box> boxes_;  // [from][to]
  std::map<std::pair<uint64_t, int>, PartInMaking> parts_;
};

template <class Ready, class Missing>
bool Group::Await(std::unique_lock<std::mutex>& lock, const Ready& ready, const Missing& missing) {
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout_);
  while (!ready()) {
    if (latch_->tripped()) return false;
    std::vector<int> left;
    for (const int rank : missing()) {
      if (gone_[rank]) left.push_back(rank);
    }
    if (!left.empty()) {
      Fail(lock, left, /*left=*/true);
      return false;
    }
    if (changed_.wait_until(lock, deadline) == std::cv_status::timeout && !ready()) {
      Fail(lock, missing(), /*left=*/false);
      return false;
    }
  }
  return true;
}

void Group::Fail(std::unique_lock<std::mutex>& lock, const std::vector<int>& missing, bool left) {
  std::vector<int> names;
  names.reserve(missing.size());
  for (const int rank : missing) names.push_back(names_[rank]);
  const std::string who = absl::StrCat("rank ", absl::StrJoin(names, ", "), " of ", size());
  lock.unlock();
  latch_->Trip(left ? absl::UnavailableError(absl::StrCat(who, " has left"))
                    : absl::DeadlineExceededError(absl::StrCat(who, " did not come within ",
                                                               absl::FormatDuration(timeout_))));
  lock.lock();
}

std::vector<int> Group::Absent() const {
  std::vector<int> absent;
  for (int rank = 0; rank < size(); ++rank) {
    if (!here_[rank]) absent.push_back(rank);
  }
  return absent;
}

bool Group::Arrive(std::unique_lock<std::mutex>& lock, int rank, int working) {
  if (latch_->tripped()) return false;
  here_[rank] = true;
  if (++arrived_ == size()) {
    arrived_ = 0;
    working_ = working;
    here_.assign(names_.size(), false);
    ++meetings_;
    changed_.notify_all();
    return true;
  }
  const uint64_t meeting = meetings_;
  return Await(
      lock, [&] { return meetings_ != meeting; }, [&] { return Absent(); });
}

bool Group::Open(int rank, const Offer& offer) {
  std::unique_lock lock(mutex_);
  if (latch_->tripped()) return false;
  offers_[rank] = offer;
  return Arrive(lock, rank, size());
}

void Group::Close(int rank) {
  std::unique_lock lock(mutex_);
  --working_;
  if (Arrive(lock, rank, 0)) return;
  // The others may still be reading this member's memory; they need nobody to finish.
  changed_.notify_all();
  changed_.wait(lock, [this] { return working_ == 0; });
}

void Group::Send(int from, int to, const void* data, int64_t bytes) {
  std::unique_lock lock(mutex_);
  if (latch_->tripped()) return;
  Box& box = boxes_[from * size() + to];
  CHECK(box.data == nullptr) << "a member sends one message at a time";
  box.data = data;
  box.bytes = bytes;
  const uint64_t taken = box.taken;
  changed_.notify_all();
  Await(
      lock, [&] { return box.taken != taken; }, [&] { return std::vector<int>{to}; });
  box.data = nullptr;
}

void Group::Receive(int from, int to, void* data, int64_t bytes) {
  std::unique_lock lock(mutex_);
  if (latch_->tripped()) return;
  Box& box = boxes_[from * size() + to];
  const auto full = [&] { return box.data != nullptr; };
  if (!Await(lock, full, [&] { return std::vector<int>{from}; })) return;
  CHECK_EQ(box.bytes, bytes) << "from member " << from << " to member " << to;
  std::memcpy(data, box.data, bytes);
  box.data = nullptr;
  ++box.taken;
  changed_.notify_all();
}

std::shared_ptr<Group> Group::Part(uint64_t sequence, int colour, const std::vector<int>& names) {
  // Made and, where another member was first, destroyed without the lock, as the latch wants it.
  auto fresh = std::make_shared<Group>(names, latch_, timeout_);
  const std::lock_guard lock(mutex_);
  PartInMaking& part = parts_[{sequence, colour}];
  if (part.group == nullptr) std::swap(part.group, fresh);
  std::shared_ptr<Group> group = part.group;
  if (++part.came == names.size()) parts_.erase({sequence, colour});
  return group;
}

void Group::Leave(int rank) {
  const std::lock_guard lock(mutex_);
  gone_[rank] = true;
  changed_.notify_all();
}

class InProcessCommunicator final : public Communicator {
 public:
  InProcessCommunicator(std::shared_ptr<Group> group, int rank, Ops* ops)
      : group_(std::move(group)), rank_(rank), ops_(ops) {}
  ~InProcessCommunicator() override { group_->Leave(rank_); }

  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }

  void AllReduceSum(float* values, int64_t count) override;
  void AllGather(const void* mine, int64_t bytes_each, void* all) override;
  void AllToAll(absl::Span<const CommBytes> to, absl::Span<const CommBytes> from) override;
  void Send(int to_rank, const void* data, int64_t bytes) override;
  void Receive(int from_rank, void* data, int64_t bytes) override;
  void Barrier() override;
  absl::StatusOr<std::unique_ptr<Communicator>> Split(int colour) override;
  void Abort(const absl::Status& reason) override { group_->latch().Trip(reason); }
  absl::Status status() const override { return group_->latch().status(); }

 private:
  // Runs `work` on the offers of all.
  template <class Work>
  void Meet(const Offer& offer, const Work& work);

  const std::shared_ptr<Group> group_;
  const int rank_;
  Ops* const ops_;
  uint64_t splits_ = 0;
};

template <class Work>
void InProcessCommunicator::Meet(const Offer& offer, const Work& work) {
  if (ops_ != nullptr) ops_->Synchronize();
  if (!group_->Open(rank_, offer)) return;
  for (int r = 0; r < size(); ++r) {
    const Offer& other = group_->offer(r);
    CHECK(other.kind == offer.kind)
        << "members " << rank_ << " and " << r << " call different operations";
    CHECK_EQ(other.size, offer.size) << "members " << rank_ << " and " << r;
  }
  work();
  group_->Close(rank_);
}

void InProcessCommunicator::AllReduceSum(float* values, int64_t count) {
  Meet({.kind = Offer::Kind::kSum, .values = values, .size = count}, [&] {
    // Each member sums its share of the elements and writes it everywhere: nobody else reads it.
    const int64_t begin = count * rank_ / size();
    const int64_t end = count * (rank_ + 1) / size();
    for (int64_t i = begin; i < end; ++i) {
      float sum = static_cast<const float*>(group_->offer(0).values)[i];
      for (int r = 1; r < size(); ++r) sum += static_cast<const float*>(group_->offer(r).values)[i];
      for (int r = 0; r < size(); ++r) static_cast<float*>(group_->offer(r).values)[i] = sum;
    }
  });
}

void InProcessCommunicator::AllGather(const void* mine, int64_t bytes_each, void* all) {
  Meet({.kind = Offer::Kind::kGather, .mine = mine, .size = bytes_each}, [&] {
    for (int r = 0; r < size(); ++r) {
      std::byte* to = static_cast<std::byte*>(all) + r * bytes_each;
      // In place: the others read it.
      if (to != group_->offer(r).mine) std::memcpy(to, group_->offer(r).mine, bytes_each);
    }
  });
}

void InProcessCommunicator::AllToAll(absl::Span<const CommBytes> to,
                                     absl::Span<const CommBytes> from) {
  CHECK_EQ(static_cast<int>(to.size()), size());
  CHECK_EQ(static_cast<int>(from.size()), size());
  Meet({.kind = Offer::Kind::kAllToAll, .to = to}, [&] {
    for (int r = 0; r < size(); ++r) {
      const CommBytes& sent = group_->offer(r).to[rank_];
      CHECK_EQ(sent.bytes, from[r].bytes) << "from member " << r << " to member " << rank_;
      if (sent.bytes > 0) std::memcpy(from[r].data, sent.data, sent.bytes);
    }
  });
}

void InProcessCommunicator::Send(int to_rank, const void* data, int64_t bytes) {
  if (ops_ != nullptr) ops_->Synchronize();
  if (bytes > 0) group_->Send(rank_, to_rank, data, bytes);
}

void InProcessCommunicator::Receive(int from_rank, void* data, int64_t bytes) {
  if (ops_ != nullptr) ops_->Synchronize();
  if (bytes > 0) group_->Receive(from_rank, rank_, data, bytes);
}

void InProcessCommunicator::Barrier() {
  Meet({.kind = Offer::Kind::kBarrier}, [] {});
}

absl::StatusOr<std::unique_ptr<Communicator>> InProcessCommunicator::Split(int colour) {
  std::vector<int> colours(size());
  AllGather(&colour, sizeof(colour), colours.data());
  if (const absl::Status failed = status(); !failed.ok()) return failed;
  std::vector<int> names;
  int rank = 0;
  for (int r = 0; r < size(); ++r) {
    if (colours[r] != colour) continue;
    if (r == rank_) rank = static_cast<int>(names.size());
    names.push_back(group_->name(r));
  }
  return std::make_unique<InProcessCommunicator>(group_->Part(++splits_, colour, names), rank,
                                                 ops_);
}

}  // namespace

std::vector<std::unique_ptr<Communicator>> MakeInProcessCommunicators(
    absl::Span<Ops* const> ops, const InProcessOptions& options) {
  std::vector<int> names(ops.size());
  std::iota(names.begin(), names.end(), 0);
  auto group =
      std::make_shared<Group>(std::move(names), std::make_shared<FailureLatch>(), options.timeout);
  std::vector<std::unique_ptr<Communicator>> members;
  for (size_t r = 0; r < ops.size(); ++r) {
    members.push_back(std::make_unique<InProcessCommunicator>(group, static_cast<int>(r), ops[r]));
  }
  return members;
}

}  // namespace troupe
