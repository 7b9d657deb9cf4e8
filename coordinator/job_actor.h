// One request, from its prompt to its last event.
//
// It has the prompt tokenised on the executor, asks the fleet for the model's limits and the cache
// service for the blocks it has, hands one sequence to the fleet, and turns the tokens that come
// back into text, reasoning steps, figures and the end. It lives until it has closed its sink.
//
// Ownership: shares the JobContext; owns the sink.
// Invariants: token indexes in the stream are consecutive from 0, whatever happens to workers.
#ifndef TROUPE_COORDINATOR_JOB_ACTOR_H_
#define TROUPE_COORDINATOR_JOB_ACTOR_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/actor.h"
#include "coordinator/event_sink.h"
#include "coordinator/job_trace.h"
#include "coordinator/messages.h"
#include "coordinator/request_options.h"
#include "coordinator/step_cutter.h"
#include "coordinator/stop_matcher.h"
#include "model/text/text.h"
#include "troupe/v1/inference.pb.h"

namespace troupe {

// Asks the cache service which of these blocks it holds, and answers once, from any thread, with
// bits as in SequenceRequest::cached_groups; nothing when it cannot tell.
using BlockLookup = std::function<void(
    const v1::WorkerInfo& model, const std::string& tenant_namespace, std::vector<BlockKey> keys,
    absl::AnyInvocable<void(std::vector<uint32_t>)> done)>;

// What all jobs share; immutable but for the counters.
struct JobContext {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const ChatTemplate> chat_template;  // null: the model has none
  ModelDefaults model;
  ActorRef<FleetMessage> fleet;
  BlockLookup lookup_blocks;  // null: no cache service
  // Tokenises long prompts, so that those of others do not wait; null: the jobs' own executor.
  Executor* long_prompts = nullptr;
  std::atomic<uint64_t> next_sequence{1};
  std::atomic<uint64_t> finished{0};
  std::atomic<uint64_t> failed{0};
  std::atomic<uint64_t> cancelled{0};
};

class JobActor final : public Actor<JobMessage> {
 public:
  struct Request {
    v1::GenerateRequest body;  // has passed CheckRequest
    std::string request_id;
    std::string tenant;
    std::string tenant_namespace;
    uint64_t drawn_seed = 0;
  };

  JobActor(std::shared_ptr<JobContext> context, Request request, std::unique_ptr<EventSink> sink);

 private:
  void OnStart() override;
  void Handle(JobMessage message) override;

  void On(PromptReady message);
  void On(ModelKnown message);
  void On(CacheKnown message);
  void On(const SequenceStarted& message);
  void On(SequenceProgress message);
  void On(SequenceFailed message);
  void On(ClientGone message);

  // Once prompt and model are known.
  void Prepare();
  void Submit(std::vector<uint32_t> cached_groups);
  void OnToken(const SequenceProgress& progress);
  // Sends one token's event, with the text it completes, and the steps that ended with it.
  void SendToken(const SequenceProgress& progress, std::string text);
  void SendSteps(const std::vector<StepCutter::Step>& steps);
  void Send(v1::GenerateEvent event);
  void Finish(v1::Finished::Reason reason);
  // Closes the sink and ends this actor; also drops the sequence where one may still run.
  void End(absl::Status status);
  int64_t NowUs() const;

  const std::shared_ptr<JobContext> context_;
  Request request_;
  std::unique_ptr<EventSink> sink_;
  int64_t accepted_us_ = 0;

  std::optional<std::vector<uint32_t>> prompt_;
  std::optional<v1::WorkerInfo> model_;
  ResolvedOptions options_;
  std::vector<BlockKey> keys_;

  uint64_t sequence_ = 0;  // 0: not handed to the fleet
  uint32_t next_index_ = 0;
  bool ended_ = false;
  std::optional<StreamDecoder> decoder_;
  std::optional<StopMatcher> stops_;
  StepCutter cutter_;
  JobTrace trace_;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_JOB_ACTOR_H_
