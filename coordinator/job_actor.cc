#include "coordinator/job_actor.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "coordinator/prompt.h"

namespace troupe {
namespace {

// Tokenised in less than a tenth of a second.
constexpr size_t kLongPromptBytes = size_t{32} << 10;

}  // namespace

JobActor::JobActor(std::shared_ptr<JobContext> context, Request request,
                   std::unique_ptr<EventSink> sink)
    : context_(std::move(context)), request_(std::move(request)), sink_(std::move(sink)) {}

void JobActor::OnStart() {
  accepted_us_ = NowUs();
  // A prompt of a million tokens takes seconds: not in a handler, nor where all jobs run.
  const bool is_long = request_.body.ByteSizeLong() > kLongPromptBytes;
  Executor& tokenising =
      is_long && context_->long_prompts != nullptr ? *context_->long_prompts : executor();
  const bool posted = tokenising.Post([context = context_, body = request_.body, job = self()] {
    if (!job.alive()) return;  // its client is gone
    (void)job.TellReply(
        PromptReady{TokenisePrompt(body, *context->tokenizer, context->chat_template.get())});
  });
  if (!posted || !context_->fleet.Tell(AskModel{self()}).ok()) {
    End(absl::UnavailableError("the server is shutting down or overloaded; retry later"));
  }
}

void JobActor::Handle(JobMessage message) {
  if (ended_) return;
  std::visit([this](auto&& m) { On(std::forward<decltype(m)>(m)); }, std::move(message));
}

void JobActor::On(PromptReady message) {
  if (!message.tokens.ok()) {
    End(message.tokens.status());
    return;
  }
  prompt_ = *std::move(message.tokens);
  if (model_.has_value()) Prepare();
}

void JobActor::On(ModelKnown message) {
  if (!message.model.ok()) {
    End(message.model.status());
    return;
  }
  model_ = *std::move(message.model);
  if (prompt_.has_value()) Prepare();
}

void JobActor::Prepare() {
  const auto prompt_tokens = static_cast<uint32_t>(prompt_->size());
  absl::StatusOr<ResolvedOptions> options = ResolveOptions(
      request_.body.options(), context_->model, *model_, prompt_tokens, request_.drawn_seed);
  if (!options.ok()) {
    End(options.status());
    return;
  }
  options_ = *std::move(options);
  absl::StatusOr<StreamDecoder> decoder =
      StreamDecoder::Create(context_->tokenizer, /*skip_special=*/true);
  if (!decoder.ok()) {
    End(decoder.status());
    return;
  }
  decoder_ = *std::move(decoder);
  stops_.emplace(options_.stop);
  trace_.OnPrompt(prompt_tokens);

  v1::GenerateEvent started;
  started.mutable_started()->set_request_id(request_.request_id);
  started.mutable_started()->set_model(context_->model.name);
  started.mutable_started()->set_prompt_tokens(prompt_tokens);
  started.mutable_started()->set_seed(options_.sampling.seed());
  Send(std::move(started));
  if (ended_) return;

  const uint32_t reusable = ReusableBlocks(prompt_->size(), model_->block_tokens());
  if (options_.use_cache) {
    keys_ = BlockKeys(RootKey(model_->identity(), request_.tenant_namespace, options_.gate),
                      *prompt_, model_->block_tokens(), reusable);
  }
  if (keys_.empty() || context_->lookup_blocks == nullptr) {
    Submit({});
    return;
  }
  context_->lookup_blocks(*model_, request_.tenant_namespace, keys_,
                          [job = self()](std::vector<uint32_t> cached_groups) {
                            (void)job.TellReply(CacheKnown{std::move(cached_groups)});
                          });
}

void JobActor::On(CacheKnown message) { Submit(std::move(message.cached_groups)); }

void JobActor::Submit(std::vector<uint32_t> cached_groups) {
  SequenceRequest sequence;
  sequence.id = context_->next_sequence.fetch_add(1);
  sequence.prompt_tokens = static_cast<uint32_t>(prompt_->size());
  sequence.tokens = *std::move(prompt_);
  sequence.max_output_tokens = options_.max_tokens;
  sequence.stop_token_ids.assign(options_.stop_token_ids.begin(), options_.stop_token_ids.end());
  sequence.sampling = options_.sampling;
  sequence.gate = options_.gate;
  sequence.tenant = request_.tenant;
  sequence.tenant_namespace = request_.tenant_namespace;
  sequence.priority = options_.priority;
  sequence.arrival_us = accepted_us_;
  sequence.use_cache = options_.use_cache;
  sequence.cached_groups = std::move(cached_groups);
  sequence_ = sequence.id;
  const absl::Status routed =
      context_->fleet.Tell(RouteSequence{std::move(sequence), std::move(keys_), self()});
  if (!routed.ok()) {
    sequence_ = 0;
    End(absl::ResourceExhaustedError("too many requests are waiting; retry later"));
  }
}

void JobActor::On(const SequenceStarted& message) { trace_.OnStarted(message.worker); }

void JobActor::On(SequenceProgress message) {
  if (message.event.figures) message.event.figures->admitted_us -= accepted_us_;
  trace_.OnProgress(message.event, model_->heads_per_token(), NowUs() - accepted_us_);
  if (message.event.finish != FinishReason::kNone) sequence_ = 0;
  if (message.event.has_token) OnToken(message);
}

void JobActor::OnToken(const SequenceProgress& progress) {
  const SequenceEvent& event = progress.event;
  CHECK_EQ(event.index, next_index_);
  ++next_index_;
  absl::StatusOr<std::string> text = decoder_->Push(event.token);
  if (text.ok() && event.finish != FinishReason::kNone) {
    absl::StatusOr<std::string> rest = decoder_->Flush();
    if (rest.ok()) *text += *rest;
  }
  if (!text.ok()) {
    End(absl::InternalError(
        absl::StrCat("detokenising token ", event.token, ": ", text.status().message())));
    return;
  }
  std::string safe = stops_->Push(*text);
  if (event.finish != FinishReason::kNone) safe += stops_->Flush();
  SendToken(progress, std::move(safe));
  if (ended_) return;
  if (stops_->matched().has_value() || event.finish == FinishReason::kStopToken) {
    Finish(v1::Finished::REASON_STOP);
  } else if (options_.max_steps > 0 && cutter_.steps() >= options_.max_steps) {
    Finish(v1::Finished::REASON_MAX_STEPS);
  } else if (event.finish == FinishReason::kMaxTokens) {
    Finish(v1::Finished::REASON_MAX_TOKENS);
  }
}

void JobActor::SendToken(const SequenceProgress& progress, std::string text) {
  const std::vector<StepCutter::Step> steps = cutter_.Push(text, progress.event.index);
  v1::GenerateEvent event;
  v1::Tokens& tokens = *event.mutable_tokens();
  tokens.set_epoch(trace_.epoch());
  tokens.set_index(progress.event.index);
  tokens.add_ids(progress.event.token);
  tokens.set_text(std::move(text));
  if (progress.logprobs.has_value()) *tokens.add_logprobs() = *progress.logprobs;
  Send(std::move(event));
  SendSteps(steps);
}

void JobActor::SendSteps(const std::vector<StepCutter::Step>& steps) {
  for (const StepCutter::Step& step : steps) {
    v1::GenerateEvent event;
    *event.mutable_step() = trace_.OnStep(step, NowUs() - accepted_us_);
    Send(std::move(event));
  }
}

void JobActor::Send(v1::GenerateEvent event) {
  if (ended_) return;
  const absl::Status sent = sink_->Send(std::move(event));
  if (!sent.ok()) End(sent);
}

void JobActor::Finish(v1::Finished::Reason reason) {
  if (reason != v1::Finished::REASON_MAX_STEPS) SendSteps(cutter_.Flush());
  v1::GenerateEvent event;
  *event.mutable_finished() = trace_.Finish(options_.trace, NowUs() - accepted_us_);
  event.mutable_finished()->set_reason(reason);
  event.mutable_finished()->set_answer(cutter_.answer());
  event.mutable_finished()->set_stop_string(stops_->matched().value_or(""));
  Send(std::move(event));
  End(absl::OkStatus());
}

void JobActor::On(SequenceFailed message) {
  sequence_ = 0;
  End(std::move(message.status));
}

void JobActor::On(ClientGone message) { End(std::move(message.status)); }

void JobActor::End(absl::Status status) {
  if (std::exchange(ended_, true)) return;
  if (sequence_ != 0) (void)context_->fleet.TellReply(DropSequence{sequence_});
  if (status.ok()) {
    ++context_->finished;
  } else if (absl::IsCancelled(status) || absl::IsDeadlineExceeded(status)) {
    ++context_->cancelled;
  } else {
    ++context_->failed;
  }
  sink_->Close(std::move(status));
  Stop(StopMode::kDrop);
}

int64_t JobActor::NowUs() const { return clock().MonotonicNs() / 1000; }

}  // namespace troupe
