// Random copies out and in among operations that write the same pages, on every backend, against
// what the order of the calls says.
#include "kernels/side_copies.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>
#include <vector>

#include "absl/synchronization/notification.h"
#include "kernels/ops_testing.h"

namespace troupe {
namespace {

std::vector<Backend> Backends() {
  std::vector<Backend> backends = CandidateBackends();
  backends.push_back(ReferenceBackend());
  return backends;
}

// Pages of a device and of the host, and what they hold if every call is over at once.
class Simulation {
 public:
  Simulation(Ops& ops, int64_t page_bytes, uint64_t seed)
      : ops_(ops), copies_(ops.MakeSideCopies()), page_bytes_(page_bytes), random_(seed) {
    CHECK_OK(copies_->Reserve(page_bytes));
    device_memory_ = *ops.Allocate(kPages * page_bytes);
    host_memory_ = *copies_->AllocateHost(kHostPages * page_bytes);
    std::memset(host_memory_.get(), 0, static_cast<size_t>(kHostPages * page_bytes));
    work_ = *ops.Allocate(kWorkBytes);
    device_.assign(kPages, Bytes(page_bytes));
    host_.assign(kHostPages, Bytes(page_bytes));
  }

  void Run(int rounds) {
    for (int round = 0; round < rounds; ++round) {
      ops_.BeginStep();
      // Operations that the copies must not overtake.
      if (Random(2) == 0) ops_.Clear(work_.get(), kWorkBytes);
      for (uint32_t i = Random(3); i > 0; --i) Write(FreePage());
      Move();
      for (uint32_t i = Random(3); i > 0; --i) Write(FreePage());
      if (Random(4) == 0) Settle();
    }
    Settle();
    for (int page = 0; page < kPages; ++page) {
      ops_.BeginStep();
      const void* read = ops_.Fetch(device_memory_.get() + page * page_bytes_, page_bytes_);
      ops_.Synchronize();
      ASSERT_EQ(std::memcmp(read, device_[page].data(), device_[page].size()), 0)
          << "device page " << page;
    }
    for (int page = 0; page < kHostPages; ++page) {
      ASSERT_EQ(std::memcmp(HostPage(page), host_[page].data(), host_[page].size()), 0)
          << "host page " << page;
    }
    ASSERT_TRUE(ops_.status().ok()) << ops_.status();
  }

 private:
  using Bytes = std::vector<std::byte>;
  static constexpr int kPages = 12;
  static constexpr int kHostPages = 20;
  static constexpr int64_t kWorkBytes = int64_t{16} << 20;

  uint32_t Random(uint32_t below) { return static_cast<uint32_t>(random_() % below); }
  std::byte* HostPage(int page) { return host_memory_.get() + page * page_bytes_; }
  // Pages that no copy under way fills; there are always some.
  int FreePage() {
    int page = 0;
    do {
      page = static_cast<int>(Random(kPages));
    } while (filling_.contains(page));
    return page;
  }
  int FreeHostPage() {
    int page = 0;
    do {
      page = static_cast<int>(Random(kHostPages));
    } while (reading_.contains(page));
    return page;
  }
  SideCopy CopyOf(int page, int host_page) {
    return {device_memory_.get() + page * page_bytes_, HostPage(host_page), page_bytes_};
  }

  // In the order of operations.
  void Write(int page) {
    Bytes& bytes = device_[page];
    std::memset(bytes.data(), static_cast<int>(random_() & 0xff), bytes.size());
    for (uint32_t i = 0; i < 64; ++i) bytes[random_() % bytes.size()] = std::byte(random_() & 0xff);
    ops_.Upload(device_memory_.get() + page * page_bytes_, device_[page].data(), page_bytes_);
  }

  void Move() {
    if (filling_.size() > kPages / 2) Settle();
    std::vector<SideCopy> at_once, after_in, in;
    std::set<int> left_to_fills;
    for (uint32_t i = Random(4); i > 0; --i) {
      const int page = FreePage();
      const int host_page = FreeHostPage();
      const bool fills = Random(2) == 0 && !left_to_fills.contains(page);
      // One call's copies have no order among themselves.
      if (!written_.insert(host_page).second) continue;
      host_[host_page] = device_[page];
      (fills ? after_in : at_once).push_back(CopyOf(page, host_page));
      if (fills) left_to_fills.insert(page);
    }
    written_.clear();
    copies_->Out(at_once, SideCopies::Reuse::kAtOnce);
    copies_->Out(after_in, SideCopies::Reuse::kAfterIn);
    for (uint32_t i = Random(3); i > 0; --i) left_to_fills.insert(FreePage());
    for (const int page : left_to_fills) {
      const auto host_page = static_cast<int>(Random(kHostPages));
      device_[page] = host_[host_page];
      filling_.insert(page);
      reading_.insert(host_page);
      in.push_back(CopyOf(page, host_page));
    }
    copies_->In(in);
  }

  void Settle() {
    absl::Notification done;
    if (copies_->WhenDone([&done] { done.Notify(); })) done.WaitForNotification();
    filling_.clear();
    reading_.clear();
  }

  Ops& ops_;
  const std::unique_ptr<SideCopies> copies_;
  const int64_t page_bytes_;
  std::mt19937_64 random_;
  Buffer device_memory_;
  Buffer work_;
  std::shared_ptr<std::byte> host_memory_;
  std::vector<Bytes> device_;
  std::vector<Bytes> host_;
  std::set<int> filling_;
  std::set<int> reading_;
  std::set<int> written_;
};

TEST(SideCopies, ComeAsTheirCallsAreOrdered) {
  const uint64_t seed = TestSeed();
  for (const Backend& backend : Backends()) {
    SCOPED_TRACE(testing::Message() << backend.name << ", TROUPE_TEST_SEED=" << seed);
    // Odd ones, and one of which a section takes few.
    for (const int64_t page_bytes : {int64_t{100}, int64_t{4096 + 8}, int64_t{9} << 20}) {
      SCOPED_TRACE(testing::Message() << page_bytes << " bytes");
      TestDevice device(backend);
      Simulation(device.ops(), page_bytes, seed).Run(page_bytes > 1 << 20 ? 5 : 60);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(SideCopies, MoreThanThereIsIsRefused) {
  for (const Backend& backend : Backends()) {
    TestDevice device(backend);
    const auto copies = device.ops().MakeSideCopies();
    const auto memory = copies->AllocateHost(int64_t{1} << 50);
    EXPECT_EQ(memory.status().code(), absl::StatusCode::kResourceExhausted) << backend.name;
    EXPECT_TRUE(device.ops().status().ok());
  }
}

}  // namespace
}  // namespace troupe
