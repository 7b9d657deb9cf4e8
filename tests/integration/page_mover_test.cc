// Sequences whose pages go to host memory and come back say what they would have said with plenty
// of pages: bit by bit, on a device that runs behind its caller, and on a GPU where there is one.
//
// Requests are new in each run; TROUPE_TEST_SEED repeats one. TROUPE_TEST_BACKENDS as in
// kernels/ops_testing.h.

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "coordinator/scheduler/scheduler.h"
#include "kernels/device.h"
#include "worker/server.h"
#include "worker/testing/queued_ops.h"
#include "worker/testing/session_client.h"
#include "worker/testing/test_config.h"

namespace troupe {
namespace {

constexpr uint32_t kMaxContext = 640;
constexpr uint32_t kRows = 6;
constexpr uint32_t kRequests = 8;  // that come twice

struct Said {
  std::map<uint64_t, std::vector<uint32_t>> tokens;  // by sequence
  v1::WorkerStatus status;
};

struct Memory {
  int64_t device_bytes = 0;
  int64_t host_bytes = 0;
};

uint64_t Seed() {
  const char* given = std::getenv("TROUPE_TEST_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
}

bool IsWanted(const std::string& backend) {
  const char* wanted = std::getenv("TROUPE_TEST_BACKENDS");
  return wanted == nullptr || absl::StrContains(backend, wanted);
}

std::vector<std::string> Devices() {
  std::vector<std::string> devices;
  if (IsWanted("cpu")) devices.push_back("cpu");
  if (IsWanted("cuda") && MakeOps("cuda", {}).ok()) devices.push_back("cuda");
  return devices;
}

std::unique_ptr<WorkerServer> StartWorker(const std::string& device, const Memory& memory) {
  WorkerServer::Config config = testing::TestWorkerConfig("mover");
  config.rank.device = device;
  if (device == "cuda") config.rank.mode = ComputeMode::kBf16;
  config.rank.kv_memory_bytes = memory.device_bytes;
  config.rank.host_kv_memory_bytes = memory.host_bytes;
  config.rank.max_rows = kRows;
  config.rank.max_step_tokens = 128;
  config.rank.max_context = kMaxContext;
  if (device == "cpu") {
    config.rank.wrap_ops = [](std::unique_ptr<Ops> ops) {
      return std::make_unique<QueuedOps>(std::move(ops));
    };
  }
  auto worker = WorkerServer::Start(config);
  CHECK_OK(worker);
  return *std::move(worker);
}

// Prompts share prefixes and come again later, so that some are found again after they have left.
std::vector<SequenceRequest> Requests(uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto below = [&](uint32_t limit) { return static_cast<uint32_t>(random() % limit); };
  std::vector<SequenceRequest> requests;
  for (uint64_t id = 1; id <= kRequests; ++id) {
    SequenceRequest request{.id = id};
    request.tenant = "t";
    request.tenant_namespace = "t";
    request.arrival_us = static_cast<int64_t>(id);
    request.priority = static_cast<int32_t>(below(3));
    const uint32_t family = below(3);
    // Short ones are admitted before it is known how much they will need.
    const uint32_t prompt = below(2) == 0 ? 10 + below(60) : 80 + below(300);
    const uint32_t common = below(prompt);
    for (uint32_t i = 0; i < prompt; ++i) {
      request.tokens.push_back(8 + (i < common ? (i * i + 31 * family) % 400 : below(400)));
    }
    request.prompt_tokens = prompt;
    request.max_output_tokens = 40 + below(160);
    request.sampling.set_temperature(below(2) == 0 ? 0.0F : 0.8F);
    request.sampling.set_seed(below(1000));
    request.gate.set_threshold(0.3F);
    requests.push_back(std::move(request));
  }
  for (uint64_t id = 1; id <= kRequests; ++id) {
    SequenceRequest again = requests[id - 1];
    again.id += kRequests;
    again.priority = -1;
    again.sampling.set_seed(again.sampling.seed() + 1);
    requests.push_back(std::move(again));
  }
  return requests;
}

Said RunAll(const std::string& device, const Memory& memory,
            const std::vector<SequenceRequest>& requests) {
  const auto worker = StartWorker(device, memory);
  SessionClient session(worker->address());
  const auto info = session.Hello(1);
  CHECK_OK(info);
  auto replica = ReplicaInfo::From(*info);
  CHECK_OK(replica);
  Scheduler scheduler({.max_batch_size = kRows}, *std::move(replica), /*epoch=*/1);
  for (const SequenceRequest& request : requests) CHECK_OK(scheduler.Add(request));
  Said said;
  int64_t now_us = 1000;
  while (scheduler.running() + scheduler.waiting() + scheduler.steps_in_flight() > 0) {
    while (const auto plan = scheduler.Plan(now_us)) session.Send(*plan);
    now_us += 1000;
    if (scheduler.steps_in_flight() == 0) continue;
    auto result = session.Receive();
    CHECK_OK(result);
    // Fills are to be worth it however slow this machine is.
    for (v1::TransferDone& done : *result->mutable_transfers()) done.set_duration_us(1);
    const auto events = scheduler.Retire(*result, now_us);
    CHECK_OK(events);
    for (const SequenceEvent& event : *events) {
      if (event.has_token) said.tokens[event.sequence].push_back(event.token);
    }
  }
  scheduler.Describe(said.status);
  return said;
}

class PageMoverTest : public ::testing::TestWithParam<std::string> {};

TEST_P(PageMoverTest, WhatLeftAndCameBackIsTheSame) {
  const uint64_t seed = Seed();
  SCOPED_TRACE(::testing::Message() << "TROUPE_TEST_SEED=" << seed);
  const std::vector<SequenceRequest> requests = Requests(seed);
  const Said want = RunAll(GetParam(), {.device_bytes = int64_t{256} << 20}, requests);
  EXPECT_EQ(want.status.preemptions(), 0U);
  EXPECT_EQ(want.tokens.size(), requests.size());
  // Room for all that leaves, and for some of it.
  const int64_t tight = GetParam() == "cuda" ? int64_t{14} << 20 : int64_t{28} << 20;
  const int64_t ample = int64_t{256} << 20;
  for (const int64_t host_bytes : {ample, tight / 2}) {
    SCOPED_TRACE(::testing::Message() << host_bytes << " bytes of host memory");
    const Said got =
        RunAll(GetParam(), {.device_bytes = tight, .host_bytes = host_bytes}, requests);
    EXPECT_GT(got.status.blocks_spilled(), 0U);
    // Of little host memory, what comes back may all have made room for others before.
    if (host_bytes == ample) EXPECT_GT(got.status.blocks_filled(), 0U);
    for (const auto& [id, tokens] : want.tokens) {
      EXPECT_EQ(got.tokens.at(id), tokens) << "sequence " << id;
    }
    RecordProperty("blocks_filled", static_cast<int>(got.status.blocks_filled()));
    std::cout << got.status.ShortDebugString() << "\n";
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, PageMoverTest, ::testing::ValuesIn(Devices()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace troupe
