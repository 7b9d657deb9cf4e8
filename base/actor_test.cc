#include "base/actor.h"

#include <gtest/gtest.h>

#include <variant>

#include "base/gate.h"
#include "base/ids.h"
#include "base/log.h"
#include "base/status_util.h"
#include "base/thread_executor.h"

namespace troupe {
namespace {

struct Add {
  int amount;
};
struct Get {
  ActorRef<int> reply_to;
};
using CounterMessage = std::variant<Add, Get>;

class Counter : public Actor<CounterMessage> {
  void Handle(CounterMessage message) override {
    std::visit(Overloaded{[this](Add& add) { sum_ += add.amount; },
                          [this](Get& get) { get.reply_to.TellReply(int{sum_}).IgnoreError(); }},
               message);
  }
  int sum_ = 0;
};

class Collector : public Actor<int> {
 public:
  explicit Collector(std::vector<int>* out) : out_(*out) {}

 private:
  void Handle(int value) override { out_.push_back(value); }
  std::vector<int>& out_;
};

TEST(ActorTest, RequestAndReply) {
  ThreadExecutor executor({});
  std::vector<int> seen;
  auto collector = Spawn<Collector>(executor, {.name = "collector"}, &seen);
  auto counter = Spawn<Counter>(executor, {.name = "counter"});
  ActorRef<Add> add = counter.ref();
  CHECK_OK(counter.ref().Tell(Add{1}));
  CHECK_OK(add.Tell(Add{2}));
  CHECK_OK(counter.ref().Tell(Get{collector.ref()}));
  counter.Stop(StopMode::kDrain);
  counter.Join();
  collector.Stop(StopMode::kDrain);
  collector.Join();
  EXPECT_EQ(seen, std::vector<int>{3});
  EXPECT_EQ(add.Tell(Add{2}).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace troupe
