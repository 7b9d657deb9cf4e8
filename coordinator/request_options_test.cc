#include "coordinator/request_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

ModelDefaults Model() {
  ModelDefaults model;
  model.name = "abacus";
  model.vocab_size = 512;
  model.end_token_ids = {2, 7};
  return model;
}

v1::WorkerInfo Worker(uint32_t max_context = 100) {
  v1::WorkerInfo worker;
  worker.set_max_context(max_context);
  worker.set_default_gate_threshold(0.25f);
  return worker;
}

v1::GenerateRequest TextRequest() {
  v1::GenerateRequest request;
  request.set_text("1+1=");
  return request;
}

struct BadRequest {
  const char* field;
  std::function<void(v1::GenerateRequest&)> spoil;
};

std::vector<BadRequest> BadPrompts() {
  return {
      {"prompt", [](auto& r) { r.clear_text(); }},
      {"text", [](auto& r) { r.set_text(""); }},
      {"chat.messages", [](auto& r) { r.mutable_chat(); }},
      {"token_ids.ids", [](auto& r) { r.mutable_token_ids(); }},
      {"token_ids.ids", [](auto& r) { r.mutable_token_ids()->add_ids(512); }},
  };
}

std::vector<BadRequest> BadSampling() {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const auto with = [](const char* field, std::function<void(v1::Sampling&)> spoil) {
    return BadRequest{field, [spoil](v1::GenerateRequest& r) {
                        spoil(*r.mutable_options()->mutable_sampling());
                      }};
  };
  return {
      with("sampling.temperature", [](auto& s) { s.set_temperature(-0.1f); }),
      with("sampling.temperature", [](auto& s) { s.set_temperature(kNan); }),
      with("sampling.temperature", [](auto& s) { s.set_temperature(INFINITY); }),
      with("sampling.top_p", [](auto& s) { s.set_top_p(0); }),
      with("sampling.top_p", [](auto& s) { s.set_top_p(1.1f); }),
      with("sampling.top_p", [](auto& s) { s.set_top_p(kNan); }),
      with("sampling.min_p", [](auto& s) { s.set_min_p(-0.1f); }),
      with("sampling.min_p", [](auto& s) { s.set_min_p(kNan); }),
      with("sampling.repetition_penalty", [](auto& s) { s.set_repetition_penalty(0); }),
      with("sampling.repetition_penalty", [](auto& s) { s.set_repetition_penalty(kNan); }),
      with("sampling.presence_penalty", [](auto& s) { s.set_presence_penalty(2.5f); }),
      with("sampling.frequency_penalty", [](auto& s) { s.set_frequency_penalty(-2.5f); }),
      with("sampling.logprobs", [](auto& s) { s.set_logprobs(21); }),
  };
}

std::vector<BadRequest> BadOptions() {
  const auto with = [](const char* field, std::function<void(v1::GenerateOptions&)> spoil) {
    return BadRequest{field, [spoil](v1::GenerateRequest& r) { spoil(*r.mutable_options()); }};
  };
  return {
      with("stop", [](auto& o) { o.add_stop(""); }),
      with("stop", [](auto& o) { o.add_stop(std::string(1025, 'x')); }),
      with("stop",
           [](auto& o) {
             for (int i = 0; i < 65; ++i) o.add_stop("x");
           }),
      with("stop_token_ids",
           [](auto& o) {
             for (int i = 0; i < 65; ++i) o.add_stop_token_ids(1);
           }),
      with("priority", [](auto& o) { o.set_priority(101); }),
      with("priority", [](auto& o) { o.set_priority(-101); }),
      with("attention_gate.mode",
           [](auto& o) {
             o.mutable_attention_gate()->set_mode(static_cast<v1::AttentionGate::Mode>(9));
           }),
      with("attention_gate.threshold",
           [](auto& o) {
             o.mutable_attention_gate()->set_mode(v1::AttentionGate::MODE_THRESHOLD);
             o.mutable_attention_gate()->set_threshold(1.5f);
           }),
  };
}

TEST(CheckRequest, EachErrorNamesItsField) {
  ASSERT_EQ(CheckRequest(TextRequest(), Model()), absl::OkStatus());
  for (const auto& cases : {BadPrompts(), BadSampling(), BadOptions()}) {
    for (const BadRequest& bad : cases) {
      v1::GenerateRequest request = TextRequest();
      bad.spoil(request);
      const absl::Status status = CheckRequest(request, Model());
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << request.ShortDebugString();
      EXPECT_THAT(std::string(status.message()), StartsWith(std::string(bad.field) + ": found "));
      EXPECT_THAT(std::string(status.message()), HasSubstr("wanted"));
    }
  }
}

TEST(CheckRequest, TakesTheEndsOfEachRange) {
  v1::GenerateRequest request = TextRequest();
  request.set_model("abacus");
  v1::GenerateOptions& options = *request.mutable_options();
  options.set_priority(-100);
  options.add_stop(std::string(1024, 'x'));
  v1::Sampling& sampling = *options.mutable_sampling();
  sampling.set_temperature(100);
  sampling.set_top_p(1);
  sampling.set_min_p(1);
  sampling.set_repetition_penalty(100);
  sampling.set_presence_penalty(2);
  sampling.set_frequency_penalty(-2);
  sampling.set_logprobs(20);
  EXPECT_EQ(CheckRequest(request, Model()), absl::OkStatus());
  request.mutable_token_ids()->add_ids(511);
  EXPECT_EQ(CheckRequest(request, Model()), absl::OkStatus());
}

TEST(CheckRequest, AnotherModelIsNotFound) {
  v1::GenerateRequest request = TextRequest();
  request.set_model("other");
  const absl::Status status = CheckRequest(request, Model());
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("abacus"));
}

TEST(CheckRequest, LogprobsAreBoundedByTheVocabulary) {
  ModelDefaults model = Model();
  model.vocab_size = 10;
  v1::GenerateRequest request = TextRequest();
  request.mutable_options()->mutable_sampling()->set_logprobs(11);
  EXPECT_THAT(std::string(CheckRequest(request, model).message()), StartsWith("sampling.logprobs"));
}

TEST(ResolveOptions, FillsWhatIsLeftOpen) {
  const ResolvedOptions out = ResolveOptions({}, Model(), Worker(), 40, 99).value();
  EXPECT_EQ(out.max_tokens, 60u);
  EXPECT_EQ(out.max_steps, 0u);
  EXPECT_THAT(out.stop_token_ids, ElementsAre(2, 7));
  EXPECT_TRUE(out.use_cache);
  EXPECT_FALSE(out.trace);
  EXPECT_EQ(out.priority, 0);
  ASSERT_TRUE(out.sampling.has_temperature());
  EXPECT_EQ(out.sampling.temperature(), 0);
  EXPECT_EQ(out.sampling.top_p(), 1);
  EXPECT_EQ(out.sampling.repetition_penalty(), 1);
  EXPECT_EQ(out.sampling.seed(), 99u);
  EXPECT_FALSE(out.sampling.has_logprobs());
}

TEST(ResolveOptions, TheModelsSettingsGoWithItsTemperature) {
  ModelDefaults model = Model();
  model.sampling.set_temperature(0.6f);
  model.sampling.set_top_p(0.9f);
  model.sampling.set_top_k(20);
  v1::GenerateOptions options;
  EXPECT_EQ(ResolveOptions(options, model, Worker(), 1, 0)->sampling.top_k(), 20u);
  options.mutable_sampling()->set_top_k(5);
  options.mutable_sampling()->set_seed(0);
  v1::Sampling sampling = ResolveOptions(options, model, Worker(), 1, 99)->sampling;
  EXPECT_EQ(sampling.temperature(), 0.6f);
  EXPECT_EQ(sampling.top_k(), 5u);
  EXPECT_EQ(sampling.seed(), 0u) << "a given 0 is a seed";
  options.mutable_sampling()->set_temperature(1);
  sampling = ResolveOptions(options, model, Worker(), 1, 0)->sampling;
  EXPECT_EQ(sampling.temperature(), 1);
  EXPECT_EQ(sampling.top_p(), 1) << "the client chose how to sample";
}

TEST(ResolveOptions, GateModes) {
  const auto resolve = [](v1::AttentionGate::Mode mode, float threshold) {
    v1::GenerateOptions options;
    options.mutable_attention_gate()->set_mode(mode);
    options.mutable_attention_gate()->set_threshold(threshold);
    return ResolveOptions(options, Model(), Worker(), 1, 0)->gate;
  };
  EXPECT_EQ(resolve(v1::AttentionGate::MODE_DEFAULT, 0.9f).threshold(), 0.25f);
  EXPECT_EQ(resolve(v1::AttentionGate::MODE_OFF, 0.9f).threshold(), 0);
  EXPECT_EQ(resolve(v1::AttentionGate::MODE_THRESHOLD, 0.9f).threshold(), 0.9f);
  EXPECT_EQ(resolve(v1::AttentionGate::MODE_THRESHOLD, 0.9f).adaptive_mass(), 0);
  EXPECT_EQ(resolve(v1::AttentionGate::MODE_ADAPTIVE, 0.9f).threshold(), 0.25f);
  EXPECT_FLOAT_EQ(resolve(v1::AttentionGate::MODE_ADAPTIVE, 0.9f).adaptive_mass(), 0.1f);
}

TEST(ResolveOptions, PromptAndOutputFitTheContext) {
  v1::GenerateOptions options;
  EXPECT_EQ(ResolveOptions(options, Model(), Worker(), 99, 0)->max_tokens, 1u);
  const absl::Status full = ResolveOptions(options, Model(), Worker(), 100, 0).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(full.message()), StartsWith("prompt: found 100 tokens"));

  options.set_max_tokens(60);
  EXPECT_EQ(ResolveOptions(options, Model(), Worker(), 40, 0)->max_tokens, 60u);
  const absl::Status over = ResolveOptions(options, Model(), Worker(), 41, 0).status();
  EXPECT_EQ(over.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(over.message()), StartsWith("max_tokens: found 60, wanted at most 59"));
  options.set_max_tokens(UINT32_MAX);
  EXPECT_FALSE(ResolveOptions(options, Model(), Worker(), 40, 0).ok());

  ModelDefaults model = Model();
  model.max_tokens = 30;
  EXPECT_EQ(ResolveOptions({}, model, Worker(), 40, 0)->max_tokens, 30u);
  EXPECT_EQ(ResolveOptions({}, model, Worker(), 90, 0)->max_tokens, 10u);
}

TEST(ResolveOptions, TakesWhatIsAskedFor) {
  v1::GenerateOptions options;
  options.set_ignore_eos(true);
  options.add_stop_token_ids(9);
  options.add_stop("end");
  options.set_use_cache(false);
  options.set_trace(true);
  options.set_max_steps(3);
  options.set_priority(-7);
  const ResolvedOptions out = ResolveOptions(options, Model(), Worker(), 1, 0).value();
  EXPECT_THAT(out.stop_token_ids, ElementsAre(9));
  EXPECT_THAT(out.stop, ElementsAre("end"));
  EXPECT_FALSE(out.use_cache);
  EXPECT_TRUE(out.trace);
  EXPECT_EQ(out.max_steps, 3u);
  EXPECT_EQ(out.priority, -7);
}

}  // namespace
}  // namespace troupe
