#include "worker/testing/communicator_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <utility>

#include "base/check.h"

namespace troupe::testing {
namespace {

// Numbers in a member's memory.
template <class T>
class Array {
 public:
  Array(Ops* ops, std::vector<T> values) : ops_(ops), values_(std::move(values)) {
    if (ops_ == nullptr) return;
    auto made = ops_->Allocate(std::max<int64_t>(bytes(), 1));
    CHECK_OK(made.status());
    buffer_ = *std::move(made);
    ops_->Upload(buffer_.get(), values_.data(), bytes());
  }

  int64_t bytes() const { return static_cast<int64_t>(values_.size() * sizeof(T)); }
  T* data() { return ops_ == nullptr ? values_.data() : reinterpret_cast<T*>(buffer_.get()); }

  const std::vector<T>& Read() {
    if (ops_ == nullptr || values_.empty()) return values_;
    ops_->BeginStep();
    const void* fetched = ops_->Fetch(buffer_.get(), bytes());
    ops_->Synchronize();
    std::memcpy(values_.data(), fetched, bytes());
    return values_;
  }

 private:
  Ops* const ops_;
  std::vector<T> values_;
  Buffer buffer_;
};

// Values whose sum depends on the order.
std::vector<float> Values(int rank, int64_t count, uint32_t seed) {
  std::mt19937 random(seed * 1000 + rank);
  std::uniform_real_distribution<float> mantissa(-1, 1);
  std::uniform_int_distribution<int> exponent(-12, 12);
  std::vector<float> values(count);
  for (float& value : values) value = std::ldexp(mantissa(random), exponent(random));
  return values;
}

std::vector<float> SumInRankOrder(int size, int64_t count, uint32_t seed) {
  std::vector<float> sum = Values(0, count, seed);
  for (int r = 1; r < size; ++r) {
    const std::vector<float> more = Values(r, count, seed);
    for (int64_t i = 0; i < count; ++i) sum[i] += more[i];
  }
  return sum;
}

void SumsInRankOrder(const CommunicatorMember& member) {
  Communicator& comm = member.communicator;
  for (const int64_t count : {0, 1, 2, 7, 64, 1000, 4099, 70'000, 200'001}) {
    const auto seed = static_cast<uint32_t>(count + comm.size());
    Array<float> values(member.ops, Values(comm.rank(), count, seed));
    comm.AllReduceSum(values.data(), count);
    EXPECT_EQ(values.Read(), SumInRankOrder(comm.size(), count, seed))
        << comm.size() << " members, " << count;
  }
  EXPECT_TRUE(comm.status().ok()) << comm.status();
}

void GathersInRankOrder(const CommunicatorMember& member) {
  Communicator& comm = member.communicator;
  const auto letter = [](int rank) { return static_cast<char>('a' + rank); };
  for (const int64_t bytes : {0, 1, 5, 4096, 300'001}) {
    std::vector<char> wanted;
    for (int r = 0; r < comm.size(); ++r) wanted.insert(wanted.end(), bytes, letter(r));
    Array<char> mine(member.ops, std::vector<char>(bytes, letter(comm.rank())));
    Array<char> all(member.ops, std::vector<char>(wanted.size(), '?'));
    comm.AllGather(mine.data(), bytes, all.data());
    EXPECT_EQ(all.Read(), wanted);

    std::vector<char> own(wanted.size(), '?');
    std::fill_n(own.begin() + comm.rank() * bytes, bytes, letter(comm.rank()));
    Array<char> in_place(member.ops, own);
    comm.AllGather(in_place.data() + comm.rank() * bytes, bytes, in_place.data());
    EXPECT_EQ(in_place.Read(), wanted);
  }
}

// From member a to member b go a * 1000 + b numbers, none where a + b is 3.
std::vector<int> Sent(int from, int to, int round) {
  std::vector<int> numbers(from + to == 3 ? 0 : from * 1000 + to);
  std::iota(numbers.begin(), numbers.end(), round + from * 7 + to);
  return numbers;
}

void ExchangesPartsOfAnySize(const CommunicatorMember& member) {
  Communicator& comm = member.communicator;
  const int me = comm.rank();
  for (int round = 0; round < 3; ++round) {
    std::vector<Array<int>> sent;
    std::vector<Array<int>> received;
    for (int r = 0; r < comm.size(); ++r) {
      sent.emplace_back(member.ops, Sent(me, r, round));
      received.emplace_back(member.ops, std::vector<int>(Sent(r, me, round).size()));
    }
    std::vector<CommBytes> to(comm.size());
    std::vector<CommBytes> from(comm.size());
    for (int r = 0; r < comm.size(); ++r) {
      to[r] = {sent[r].data(), sent[r].bytes()};
      from[r] = {received[r].data(), received[r].bytes()};
    }
    comm.AllToAll(to, from);
    for (int r = 0; r < comm.size(); ++r) {
      EXPECT_EQ(received[r].Read(), Sent(r, me, round)) << r << " to " << me;
    }
  }
}

void PassesAlongAPipeline(const CommunicatorMember& member) {
  Communicator& comm = member.communicator;
  for (int batch = 0; batch < 20; ++batch) {
    std::vector<int> numbers(1 + batch * 999, batch + comm.rank());
    if (comm.rank() > 0) {
      Array<int> got(member.ops, std::vector<int>(numbers.size()));
      comm.Receive(comm.rank() - 1, got.data(), got.bytes());
      std::vector<int> next = got.Read();
      for (int& n : next) ++n;
      EXPECT_EQ(next, numbers);
    }
    if (comm.rank() + 1 < comm.size()) {
      Array<int> out(member.ops, std::move(numbers));
      comm.Send(comm.rank() + 1, out.data(), out.bytes());
      // What is sent stays as it is until it has gone.
      if (member.ops != nullptr) member.ops->Synchronize();
    }
  }
}

void SplitsByColourAndAgain(const CommunicatorMember& member) {
  Communicator& comm = member.communicator;
  const auto sum = [&](Communicator& of, float value) {
    Array<float> values(member.ops, {value});
    of.AllReduceSum(values.data(), 1);
    return values.Read()[0];
  };
  auto pair = comm.Split(comm.rank() / 2);
  auto stride = comm.Split(comm.rank() % 2);
  ASSERT_TRUE(pair.ok() && stride.ok()) << pair.status() << stride.status();
  EXPECT_EQ((*pair)->size(), 2);
  EXPECT_EQ((*pair)->rank(), comm.rank() % 2);
  EXPECT_EQ((*stride)->rank(), comm.rank() / 2);
  for (int round = 0; round < 10; ++round) {
    float value = sum(**pair, static_cast<float>(1 << comm.rank()));
    EXPECT_EQ(value, comm.rank() < 2 ? 3 : 12);
    value = sum(**stride, value);
    EXPECT_EQ(value, 15);
    EXPECT_EQ(sum(comm, value), 60);
  }
  auto alone = (*pair)->Split(comm.rank());
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_EQ(sum(**alone, 5), 5);
}

void NobodyPassesABarrierAlone(const CommunicatorMember& member) {
  Communicator& comm = member.communicator;
  for (int round = 1; round <= 50; ++round) {
    ++member.came;
    comm.Barrier();
    EXPECT_GE(member.came.load(), comm.size() * round);
    comm.Barrier();
  }
}

}  // namespace

const std::vector<CommunicatorCase>& CommunicatorCases() {
  static const auto* const cases = new std::vector<CommunicatorCase>{
      {"SumsInRankOrder", {1, 2, 3, 4, 8}, SumsInRankOrder},
      {"GathersInRankOrder", {2, 4}, GathersInRankOrder},
      {"ExchangesPartsOfAnySize", {2, 4}, ExchangesPartsOfAnySize},
      {"PassesAlongAPipeline", {2, 3}, PassesAlongAPipeline},
      {"SplitsByColourAndAgain", {4}, SplitsByColourAndAgain},
      {"NobodyPassesABarrierAlone", {2, 4}, NobodyPassesABarrierAlone},
  };
  return *cases;
}

}  // namespace troupe::testing
