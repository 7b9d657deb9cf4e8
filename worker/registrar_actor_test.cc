#include "worker/registrar_actor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "base/sim_executor.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;

// Answers at once, and notes when it was asked.
class FakeClient final : public RegistrationClient {
 public:
  explicit FakeClient(const Clock* clock) : clock_(clock) {}

  void Register(const v1::RegisterWorkerRequest& request, Done done) override {
    EXPECT_EQ(request.worker(), "w");
    asked_ms.push_back(clock_->MonotonicNs() / 1'000'000);
    done(answer);
  }

  absl::StatusOr<v1::RegisterWorkerReply> answer = absl::UnavailableError("nobody listens");
  std::vector<int64_t> asked_ms;

 private:
  const Clock* const clock_;
};

TEST(RegistrarActorTest, RetriesWithGrowingPausesThenKeepsTheHeartbeat) {
  SimExecutor executor({.seed = 3});
  FakeClient client(&executor.clock());
  v1::RegisterWorkerRequest request;
  request.set_worker("w");
  ActorHandle<RegistrarMessage> registrar = Spawn<RegistrarActor>(
      executor, ActorOptions{.name = "registrar"},
      RegistrarActor::Config{.first_retry_ms = 100, .max_retry_ms = 350}, request, &client);
  executor.RunFor(absl::Milliseconds(1500));
  EXPECT_THAT(client.asked_ms, ElementsAre(0, 100, 300, 650, 1000, 1350));

  client.asked_ms.clear();
  client.answer = v1::RegisterWorkerReply();
  client.answer->set_heartbeat_ms(1000);
  executor.RunFor(absl::Milliseconds(1500));
  EXPECT_THAT(client.asked_ms, ElementsAre(1700, 2200, 2700));

  // A coordinator that goes away is looked for as eagerly as at first.
  client.asked_ms.clear();
  client.answer = absl::UnavailableError("gone");
  executor.RunFor(absl::Milliseconds(550));
  EXPECT_THAT(client.asked_ms, ElementsAre(3200, 3300, 3500));
}

}  // namespace
}  // namespace troupe
