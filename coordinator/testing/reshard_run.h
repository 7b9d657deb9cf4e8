// One run of a change of layout in simulation: a whole coordinator, ranks, a disk with the decision
// log, 64 clients, and one kill at a numbered event.
//
// Thread model: the simulation's one thread. Ownership: owns everything it runs. What must always
// hold fails the current gtest test.
#ifndef TROUPE_COORDINATOR_TESTING_RESHARD_RUN_H_
#define TROUPE_COORDINATOR_TESTING_RESHARD_RUN_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "coordinator/fleet_actor.h"
#include "coordinator/job_actor.h"
#include "coordinator/reshard/reshard_actor.h"
#include "coordinator/testing/sim_disk.h"
#include "coordinator/testing/sim_rank.h"
#include "coordinator/testing/sim_worker.h"
#include "sharding/layout_rules.h"
#include "sharding/reshard_test_model.h"
#include "sharding/shard_map_proto.h"

namespace troupe::testing {

inline constexpr uint32_t kStreams = 64;
inline constexpr uint32_t kVocabulary = 300;
inline constexpr char kIdentity[] = "identity";
// Of the two MoE layers of 8 experts: tokens prefer few, which lie on the same rank of two at
// first.
inline const std::vector<uint32_t> kSkewed = {60, 1,  20, 2,  10, 1,  5, 1,
                                              1,  40, 2,  30, 1,  10, 1, 15};

inline std::shared_ptr<const Tokenizer> AbacusTokenizer() {
  static const auto tokenizer = Tokenizer::Load(
      absl::StrCat(std::getenv("TROUPE_SOURCE_DIR"), "/models/abacus/tokenizer.json"));
  return tokenizer.value();
}

struct Scenario {
  const char* name;
  int machines;
  const char* from;
  const char* to;
  bool comes_back;          // a rank that was killed is started again
  double bytes_per_us = 0;  // of peers and disk; 0: the simulation's
  bool by_load = false;     // experts are placed by their loads, which are skewed
  int have_weights = 100;   // machines with a checkpoint, the first ones; others read from peers
};

// One client: it asks again, with the same seed, when the coordinator it spoke to is gone, and
// passes over what it has already.
struct Client {
  JobActor::Request request;
  std::vector<uint32_t> tokens;
  std::vector<uint32_t> expected;
  bool finished = false;
  absl::Status failed;
  ActorHandle<JobMessage> job;
};

class ClientSink final : public EventSink {
 public:
  ClientSink(Client* client, std::shared_ptr<const bool> alive)
      : client_(*client), alive_(std::move(alive)) {}

  absl::Status Send(v1::GenerateEvent event) override {
    if (!*alive_) return absl::OkStatus();
    EXPECT_FALSE(client_.finished);
    if (event.has_tokens()) {
      EXPECT_EQ(event.tokens().index(), next_) << "a token is lost or repeated";
      for (const uint32_t id : event.tokens().ids()) {
        if (next_ == client_.tokens.size()) client_.tokens.push_back(id);
        EXPECT_EQ(client_.tokens[next_], id) << "token " << next_ << " is another one now";
        ++next_;
      }
    }
    client_.finished = client_.finished || event.has_finished();
    return absl::OkStatus();
  }

  void Close(absl::Status status) override {
    if (*alive_ && !status.ok()) client_.failed = std::move(status);
  }

 private:
  Client& client_;
  const std::shared_ptr<const bool> alive_;
  size_t next_ = 0;
};

class ReshardRun {
 public:
  // `kill_at` 0: nobody is killed. `victim` is a rank's name or "coordinator".
  ReshardRun(const Scenario& scenario, std::string victim, uint64_t kill_at, uint64_t seed = 1)
      : scenario_(scenario),
        victim_(std::move(victim)),
        kill_at_(kill_at),
        sim_({.seed = seed, .max_steps = 5'000'000}),
        model_(std::make_shared<ModelDescription>(MoeModel(3, 8))),
        disk_(&sim_, [this](const std::string& what) { Event(what); }),
        ranks_(RanksConfig(), &sim_, [this](const std::string& what) { Event(what); }) {
    for (int i = 0; i < scenario.machines; ++i) {
      SimRank& rank = ranks_.Add(absl::StrCat("w", i));
      if (i >= scenario.have_weights) rank.LacksWeights();
    }
  }
  ~ReshardRun() { StopCoordinator(); }

  void Run() {
    StartCoordinator();
    for (const auto& [name, rank] : ranks_.all()) rank->Start();
    for (uint32_t i = 0; i < kStreams; ++i) AddClient(i);
    // All of them run before the layout changes.
    ASSERT_TRUE(RunUntil([&] { return Decoding() == kStreams; })) << "the replica never formed";
    old_epoch_ = disk_.Record().decided->epoch();
    if (restart_before) RestartCoordinator();
    counting_ = true;
    ranks_.ResetStall();
    Ask();
    ASSERT_TRUE(RunUntil([&] { return outcome_.has_value() || (killed_ && AllFinished()); }));
    ASSERT_TRUE(RunUntil([&] { return AllFinished(); })) << "streams are stuck";
    counting_ = false;
    CheckStreams();
    // Everybody who was away is back, everybody who holds too much has been told.
    sim_.RunFor(absl::Milliseconds(1500));
    CheckRest();
  }

  // Nobody asks: until all streams have ended, and for a while longer.
  void RunByItself() {
    StartCoordinator();
    for (const auto& [name, rank] : ranks_.all()) rank->Start();
    for (uint32_t i = 0; i < kStreams; ++i) AddClient(i);
    ASSERT_TRUE(RunUntil([&] { return AllFinished(); })) << "streams are stuck";
    CheckStreams();
    sim_.RunFor(absl::Milliseconds(1500));
    CheckRest();
  }

  uint64_t events() const { return event_count_; }
  const std::vector<std::string>& trace() const { return trace_; }
  bool killed() const { return killed_; }
  int64_t longest_stall_us() const { return ranks_.longest_stall_us(); }
  const std::optional<absl::StatusOr<v1::ReshardOutcome>>& outcome() const { return outcome_; }
  const v1::ReshardPlan& plan() const { return plan_; }
  // Of the replica that serves in the end, as its status tells; 0: it has counted no tokens.
  double observed_balance() {
    std::optional<double> balance;
    (void)fleet_.ref().TellReply(DescribeFleet{[&](v1::ClusterStatus status) {
      balance = status.workers_size() > 0 ? status.workers(0).expert_balance().mean() : 0;
    }});
    (void)RunUntil([&] { return balance.has_value(); });
    return balance.value_or(0);
  }
  SimRanks& ranks() { return ranks_; }
  SimDisk& disk() { return disk_; }
  uint64_t trace_hash() const { return sim_.trace_hash(); }
  uint64_t old_epoch() const { return old_epoch_; }
  uint32_t deadline_ms = 0;
  bool restart_before = false;  // the coordinator, before it is asked
  RebalanceRules rebalance;

 private:
  SimRanks::Config RanksConfig() const {
    SimRanks::Config config;
    config.model = *model_;
    config.identity = kIdentity;
    config.info = SmallWorkerInfo("replica");
    config.info.set_max_rows(kStreams);
    for (v1::KvGroup& group : *config.info.mutable_groups()) group.set_page_count(1000);
    config.worker.vocabulary = kVocabulary;
    if (scenario_.by_load) config.expert_tokens = kSkewed;
    if (scenario_.bytes_per_us > 0) {
      config.peer_bytes_per_us = config.disk_bytes_per_us = scenario_.bytes_per_us;
    }
    return config;
  }

  bool RunUntil(absl::FunctionRef<bool()> done) {
    const int64_t limit_us = NowUs() + 20'000'000;
    return sim_.RunUntil([&] { return done() || NowUs() > limit_us; }) && done();
  }

  int64_t NowUs() const { return sim_.clock().MonotonicNs() / 1000; }

  void Event(const std::string& what) {
    if (!counting_) return;
    trace_.push_back(what);
    if (++event_count_ != kill_at_) return;
    killed_ = true;
    SCOPED_TRACE(what);
    if (victim_ == "coordinator") {
      StopCoordinator();
      sim_.PostAfter(absl::Milliseconds(30), [this] { StartCoordinator(); });
      return;
    }
    ranks_.at(victim_).Kill();
    if (scenario_.comes_back) {
      sim_.PostAfter(absl::Milliseconds(100), [this] { ranks_.at(victim_).Start(); });
    }
  }

  void StartCoordinator() {
    alive_ = std::make_shared<bool>(true);
    context_ = std::make_shared<JobContext>();
    context_->model.name = "fake";
    context_->tokenizer = AbacusTokenizer();
    context_->model.vocab_size = context_->tokenizer->vocab_size();
    context_->model.end_token_ids = {2};
    ReshardActor::Config config;
    config.model = model_;
    config.layout = ParseLayout(scenario_.from).value();
    config.rank_timeout_ms = 200;
    config.gather_timeout_ms = 150;
    config.retry_ms = 50;
    config.retire_timeout_ms = 500;
    config.prepare_timeout_ms = 5'000;
    config.tick_ms = 20;
    config.rebalance = rebalance;
    const auto make = [this, config](ActorRef<FleetMessage> fleet) {
      return Spawn<ReshardActor>(sim_, ActorOptions{.name = "reshard"}, config,
                                 ranks_.Control(alive_),
                                 std::make_unique<SimDisk::Log>(&disk_, alive_), std::move(fleet),
                                 [this, alive = alive_](const std::string& what) {
                                   if (*alive) Event(what);
                                 });
    };
    FleetActor::Config fleet;
    fleet.scheduler.max_batch_size = kStreams;
    fleet_ = Spawn<FleetActor>(
        sim_, ActorOptions{.name = "fleet", .mailbox_capacity = 1024}, fleet, ranks_.Links(alive_),
        [](bool) {}, make);
    context_->fleet = fleet_.ref();
    ranks_.SetFleet(fleet_.ref());
    for (const auto& client : clients_) {
      if (!client->finished) Submit(*client);
    }
  }

  void RestartCoordinator() {
    StopCoordinator();
    StartCoordinator();
    const int64_t since_us = NowUs();
    ASSERT_TRUE(RunUntil([&] { return ranks_.last_step_us() > since_us; })) << "it never came back";
  }

  // As SIGKILL does: nothing that it wanted to do gets out any more.
  void StopCoordinator() {
    if (alive_ == nullptr || !std::exchange(*alive_, false)) return;
    ranks_.SetFleet({});
    fleet_.Stop(StopMode::kDrop);
    fleet_ = {};
    for (const auto& client : clients_) client->job = {};
  }

  void AddClient(uint32_t i) {
    clients_.push_back(std::make_unique<Client>());
    Client& client = *clients_.back();
    std::vector<uint32_t> prompt(3 + i % 5);
    for (size_t t = 0; t < prompt.size(); ++t) prompt[t] = 10 + i + static_cast<uint32_t>(t);
    const uint64_t seed = FakeWorker::EncodeSeed(0, i);
    const uint32_t outputs = 24 + i % 7;
    client.request.body.mutable_token_ids()->mutable_ids()->Assign(prompt.begin(), prompt.end());
    v1::GenerateOptions& options = *client.request.body.mutable_options();
    options.set_max_tokens(outputs);
    options.set_ignore_eos(true);
    options.mutable_sampling()->set_seed(seed);
    client.request.tenant = "default";
    client.request.tenant_namespace = "0";
    client.request.request_id = absl::StrCat(i);
    v1::GateSetting gate;
    gate.set_threshold(ranks_.config().info.default_gate_threshold());
    Tag tag = RootTag("0", gate);
    for (const uint32_t token : prompt) tag = NextTag(tag, token);
    while (client.expected.size() < outputs) {
      client.expected.push_back(ExpectedToken(tag, seed & 0xffffffff, kVocabulary));
      tag = NextTag(tag, client.expected.back());
    }
    Submit(client);
  }

  void Submit(Client& client) {
    client.job = Spawn<JobActor>(sim_, ActorOptions{.name = "job"}, context_, client.request,
                                 std::make_unique<ClientSink>(&client, alive_));
  }

  void Ask() {
    v1::ReshardRequest request;
    ShardMap wanted;
    wanted.layout = ParseLayout(scenario_.to).value();
    *request.mutable_layout() = ToProto(wanted).layout();
    request.set_apply(true);
    request.set_by_load(scenario_.by_load);
    request.set_deadline_ms(deadline_ms);
    (void)fleet_.ref().TellReply(
        ReshardReplica{{request, [this](absl::StatusOr<v1::ReshardEvent> event) {
                          if (!event.ok()) {
                            outcome_ = event.status();
                          } else if (event->has_plan()) {
                            plan_ = event->plan();
                          } else if (event->has_outcome()) {
                            outcome_ = event->outcome();
                          }
                        }}});
  }

  uint32_t Decoding() const {
    return static_cast<uint32_t>(std::count_if(clients_.begin(), clients_.end(),
                                               [](const auto& c) { return !c->tokens.empty(); }));
  }

  bool AllFinished() const {
    return std::all_of(clients_.begin(), clients_.end(),
                       [](const auto& c) { return c->finished || !c->failed.ok(); });
  }

  void CheckStreams() {
    for (const auto& client : clients_) {
      SCOPED_TRACE(absl::StrCat("stream ", client->request.request_id));
      EXPECT_EQ(client->failed, absl::OkStatus());
      EXPECT_EQ(client->tokens, client->expected);
    }
  }

  // One map is the truth, it serves, and nobody holds anything else.
  void CheckRest() {
    const DecisionRecord record = disk_.Record();
    ASSERT_TRUE(record.decided.has_value());
    const v1::ShardMap& map = *record.decided;
    for (int r = 0; r < map.members_size(); ++r) {
      EXPECT_TRUE(ranks_.at(map.members(r).worker()).Holds(map, r)) << map.members(r).worker();
    }
    for (const auto& [name, rank] : ranks_.all()) {
      std::set<uint64_t> wanted;
      for (const v1::RankMember& member : map.members()) {
        if (member.worker() == name && rank->on()) wanted.insert(map.epoch());
      }
      EXPECT_EQ(rank->epochs(), wanted) << name;
    }
  }

  const Scenario scenario_;
  const std::string victim_;
  const uint64_t kill_at_;
  SimExecutor sim_;
  const std::shared_ptr<const ModelDescription> model_;
  SimDisk disk_;
  SimRanks ranks_;
  std::shared_ptr<bool> alive_;
  std::shared_ptr<JobContext> context_;
  ActorHandle<FleetMessage> fleet_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::optional<absl::StatusOr<v1::ReshardOutcome>> outcome_;
  v1::ReshardPlan plan_;
  std::vector<std::string> trace_;
  uint64_t event_count_ = 0;
  uint64_t old_epoch_ = 0;
  bool counting_ = false;
  bool killed_ = false;
};

}  // namespace troupe::testing

#endif  // TROUPE_COORDINATOR_TESTING_RESHARD_RUN_H_
