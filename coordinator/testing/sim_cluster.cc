#include "coordinator/testing/sim_cluster.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace troupe::testing {
namespace {

constexpr uint32_t kEndToken = 2;

}  // namespace

class SimCluster::Sink final : public EventSink {
 public:
  Sink(SimStream* stream, const SimCluster* cluster) : stream_(*stream), cluster_(*cluster) {}

  absl::Status Send(v1::GenerateEvent event) override {
    EXPECT_FALSE(stream_.closed.has_value()) << "an event after the end";
    EXPECT_FALSE(stream_.finished.has_value()) << "an event after Finished";
    if (stream_.give_up_after == stream_.events) return absl::ResourceExhaustedError("too slow");
    EXPECT_EQ(event.has_started(), stream_.events == 0) << "one Started, first";
    ++stream_.events;
    if (event.has_started()) stream_.started = event.started();
    if (event.has_tokens()) OnTokens(event.tokens());
    if (event.has_step()) {
      EXPECT_EQ(event.step().index(), stream_.steps);
      ++stream_.steps;
    }
    if (event.has_finished()) stream_.finished = event.finished();
    return absl::OkStatus();
  }

  void Close(absl::Status status) override {
    EXPECT_FALSE(stream_.closed.has_value()) << "closed twice";
    EXPECT_EQ(status.ok(), stream_.finished.has_value()) << status;
    stream_.closed = std::move(status);
    stream_.closed_us = cluster_.NowUs();
  }

 private:
  void OnTokens(const v1::Tokens& tokens) {
    EXPECT_EQ(tokens.index(), stream_.tokens.size()) << "indexes are consecutive from 0";
    EXPECT_GE(tokens.epoch(), stream_.epoch) << "epochs never fall";
    EXPECT_GE(tokens.epoch(), 1u);
    stream_.epoch = tokens.epoch();
    stream_.tokens.insert(stream_.tokens.end(), tokens.ids().begin(), tokens.ids().end());
    stream_.text += tokens.text();
  }

  SimStream& stream_;
  const SimCluster& cluster_;
};

SimCluster::SimCluster(const Config& config, std::shared_ptr<const Tokenizer> tokenizer)
    : config_(config),
      network_(&sim_),
      sim_({.seed = config.seed, .max_steps = 2'000'000}),
      context_(std::make_shared<JobContext>()),
      fleet_(Spawn<FleetActor>(sim_, ActorOptions{.name = "fleet"}, config_.fleet,
                               network_.Factory(),
                               [this](bool ready) { readiness_.push_back(ready); })) {
  context_->model.name = "fake";
  context_->model.vocab_size = tokenizer->vocab_size();
  context_->model.end_token_ids = {kEndToken};
  context_->tokenizer = std::move(tokenizer);
  context_->fleet = fleet_.ref();
  if (config_.lookup_cache) context_->lookup_blocks = Lookup();
}

// Now and then the answer is wrong: what the cache holds changes behind one's back.
BlockLookup SimCluster::Lookup() {
  return [this](const v1::WorkerInfo& model, const std::string& /*tenant_namespace*/,
                const std::vector<BlockKey>& keys,
                absl::AnyInvocable<void(std::vector<uint32_t>)> done) {
    std::vector<uint32_t> cached_groups;
    for (const BlockKey& key : keys) {
      uint32_t mask = 0;
      for (int g = 0; g < model.groups_size(); ++g) {
        const bool there = cache_.contains({key.ToString(), static_cast<uint32_t>(g)});
        if (there != (sim_.random().Below(30) == 0)) mask |= 1u << g;
      }
      cached_groups.push_back(mask);
    }
    const auto delay = absl::Microseconds(sim_.random().Below(1000));
    sim_.PostAfter(delay, [done = std::move(done), groups = std::move(cached_groups)]() mutable {
      done(std::move(groups));
    });
  };
}

JobActor::Request SimCluster::Request(std::vector<uint32_t> prompt, uint32_t max_tokens) {
  JobActor::Request request;
  request.body.mutable_token_ids()->mutable_ids()->Assign(prompt.begin(), prompt.end());
  request.body.mutable_options()->set_max_tokens(max_tokens);
  request.body.mutable_options()->mutable_sampling()->set_seed(FakeWorker::EncodeSeed(0, 1));
  request.tenant = "default";
  request.tenant_namespace = "0";
  return request;
}

SimStream& SimCluster::Submit(JobActor::Request request) {
  streams_.push_back(std::make_unique<SimStream>());
  SimStream& stream = *streams_.back();
  request.request_id = absl::StrCat(streams_.size());
  EXPECT_EQ(CheckRequest(request.body, context_->model), absl::OkStatus());
  stream.request = request;
  stream.accepted_us = NowUs();
  stream.job = Spawn<JobActor>(sim_, ActorOptions{.name = "job"}, context_, std::move(request),
                               std::make_unique<Sink>(&stream, this));
  return stream;
}

void SimCluster::Cancel(SimStream& stream) {
  stream.cancelled = true;
  (void)stream.job.ref().TellReply(ClientGone{absl::CancelledError("the client is gone")});
}

absl::StatusOr<v1::RegisterWorkerReply> SimCluster::Register(const std::string& name,
                                                             const std::string& address,
                                                             uint64_t incarnation) {
  v1::RegisterWorkerRequest request;
  request.set_worker(name);
  request.set_address(address);
  request.set_incarnation(incarnation);
  std::optional<absl::StatusOr<v1::RegisterWorkerReply>> answer;
  const absl::Status told = fleet().Tell(
      RegisterWorker{request, [&answer](absl::StatusOr<v1::RegisterWorkerReply> reply) {
                       EXPECT_FALSE(answer.has_value()) << "answered twice";
                       answer = std::move(reply);
                     }});
  EXPECT_EQ(told, absl::OkStatus());
  EXPECT_TRUE(sim_.RunUntil([&] { return answer.has_value(); }));
  return *std::move(answer);
}

v1::ClusterStatus SimCluster::Describe() {
  std::optional<v1::ClusterStatus> answer;
  EXPECT_EQ(fleet().Tell(DescribeFleet{[&](v1::ClusterStatus status) { answer = status; }}),
            absl::OkStatus());
  EXPECT_TRUE(sim_.RunUntil([&] { return answer.has_value(); }));
  return *std::move(answer);
}

v1::WorkerStatus SimCluster::DescribeWorker(const std::string& name) {
  const v1::ClusterStatus status = Describe();
  for (const v1::WorkerStatus& worker : status.workers()) {
    if (worker.worker() == name) return worker;
  }
  return {};
}

SimCluster::Expected SimCluster::Expect(const JobActor::Request& request,
                                        const v1::WorkerInfo& info) const {
  const std::vector<uint32_t> prompt(request.body.token_ids().ids().begin(),
                                     request.body.token_ids().ids().end());
  const ResolvedOptions options =
      ResolveOptions(request.body.options(), context_->model, info,
                     static_cast<uint32_t>(prompt.size()), request.drawn_seed)
          .value();
  Tag tag = RootTag(request.tenant_namespace, options.gate);
  for (const uint32_t token : prompt) tag = NextTag(tag, token);
  Expected expected;
  while (!expected.stopped && expected.tokens.size() < options.max_tokens) {
    const uint32_t token =
        ExpectedToken(tag, options.sampling.seed() & 0xffffffff, config_.machine.worker.vocabulary);
    tag = NextTag(tag, token);
    expected.tokens.push_back(token);
    expected.stopped = std::find(options.stop_token_ids.begin(), options.stop_token_ids.end(),
                                 token) != options.stop_token_ids.end();
  }
  return expected;
}

bool SimCluster::AllClosed() const {
  return std::all_of(streams_.begin(), streams_.end(),
                     [](const auto& stream) { return stream->closed.has_value(); });
}

}  // namespace troupe::testing
