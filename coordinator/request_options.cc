#include "coordinator/request_options.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

constexpr int kMaxStops = 64;
constexpr size_t kMaxStopBytes = 1024;
constexpr uint32_t kMaxLogprobs = 20;
// See AttentionGate::MODE_ADAPTIVE.
constexpr float kAdaptiveMass = 0.1f;

template <typename T>
absl::Status Wrong(absl::string_view field, const T& found, absl::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": found ", found, ", wanted ", wanted));
}

// NaN is in no range.
bool In(float value, float least, float most) { return value >= least && value <= most; }

absl::Status CheckSampling(const v1::Sampling& s, const ModelDefaults& model) {
  if (s.has_temperature() && !In(s.temperature(), 0, 100)) {
    return Wrong("sampling.temperature", s.temperature(), "0 (greedy) to 100");
  }
  if (s.has_top_p() && !(s.top_p() > 0 && s.top_p() <= 1)) {
    return Wrong("sampling.top_p", s.top_p(), "more than 0, at most 1");
  }
  if (!In(s.min_p(), 0, 1)) return Wrong("sampling.min_p", s.min_p(), "0 to 1");
  if (s.has_repetition_penalty() &&
      !(s.repetition_penalty() > 0 && s.repetition_penalty() <= 100)) {
    return Wrong("sampling.repetition_penalty", s.repetition_penalty(), "more than 0, at most 100");
  }
  if (!In(s.presence_penalty(), -2, 2)) {
    return Wrong("sampling.presence_penalty", s.presence_penalty(), "-2 to 2");
  }
  if (!In(s.frequency_penalty(), -2, 2)) {
    return Wrong("sampling.frequency_penalty", s.frequency_penalty(), "-2 to 2");
  }
  if (s.logprobs() > kMaxLogprobs) return Wrong("sampling.logprobs", s.logprobs(), "0 to 20");
  if (s.logprobs() > model.vocab_size) {
    return Wrong("sampling.logprobs", s.logprobs(), "at most the vocabulary's size");
  }
  return absl::OkStatus();
}

absl::Status CheckGate(const v1::AttentionGate& gate) {
  if (!v1::AttentionGate::Mode_IsValid(gate.mode())) {
    return Wrong("attention_gate.mode", static_cast<int>(gate.mode()), "a mode that is known");
  }
  if (gate.mode() == v1::AttentionGate::MODE_THRESHOLD && !In(gate.threshold(), 0, 1)) {
    return Wrong("attention_gate.threshold", gate.threshold(), "0 to 1");
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const v1::GenerateOptions& options, const ModelDefaults& model) {
  if (options.stop_size() > kMaxStops) return Wrong("stop", options.stop_size(), "at most 64");
  for (const std::string& stop : options.stop()) {
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      return Wrong("stop", absl::StrCat("a string of ", stop.size(), " bytes"), "1 to 1024 bytes");
    }
  }
  if (options.stop_token_ids_size() > kMaxStops) {
    return Wrong("stop_token_ids", options.stop_token_ids_size(), "at most 64");
  }
  if (options.priority() < -100 || options.priority() > 100) {
    return Wrong("priority", options.priority(), "-100 to 100");
  }
  const absl::Status sampling = CheckSampling(options.sampling(), model);
  return sampling.ok() ? CheckGate(options.attention_gate()) : sampling;
}

v1::Sampling ResolveSampling(v1::Sampling asked, const v1::Sampling& defaults, uint64_t seed) {
  if (!asked.has_temperature()) {
    // The folder's other settings belong to its temperature.
    v1::Sampling merged = defaults;
    merged.MergeFrom(asked);
    asked = merged;
  }
  if (!asked.has_temperature()) asked.set_temperature(0);
  if (!asked.has_top_p()) asked.set_top_p(1);
  if (!asked.has_repetition_penalty()) asked.set_repetition_penalty(1);
  if (!asked.has_seed()) asked.set_seed(seed);
  return asked;
}

v1::GateSetting ResolveGate(const v1::AttentionGate& asked, float default_threshold) {
  v1::GateSetting gate;
  switch (asked.mode()) {
    case v1::AttentionGate::MODE_OFF:
      break;
    case v1::AttentionGate::MODE_THRESHOLD:
      gate.set_threshold(asked.threshold());
      break;
    case v1::AttentionGate::MODE_ADAPTIVE:
      gate.set_threshold(default_threshold);
      gate.set_adaptive_mass(kAdaptiveMass);
      break;
    default:
      gate.set_threshold(default_threshold);
  }
  return gate;
}

}  // namespace

absl::Status CheckRequest(const v1::GenerateRequest& request, const ModelDefaults& model) {
  if (!request.model().empty() && request.model() != model.name) {
    return absl::NotFoundError(
        absl::StrCat("model: found ", request.model(), ", this server has ", model.name));
  }
  switch (request.prompt_case()) {
    case v1::GenerateRequest::kText:
      if (request.text().empty()) return Wrong("text", "an empty string", "a prompt");
      break;
    case v1::GenerateRequest::kChat:
      if (request.chat().messages().empty()) return Wrong("chat.messages", "none", "at least one");
      break;
    case v1::GenerateRequest::kTokenIds:
      if (request.token_ids().ids().empty()) return Wrong("token_ids.ids", "none", "at least one");
      for (uint32_t id : request.token_ids().ids()) {
        if (id >= model.vocab_size) {
          return Wrong("token_ids.ids", id, absl::StrCat("less than ", model.vocab_size));
        }
      }
      break;
    case v1::GenerateRequest::PROMPT_NOT_SET:
      return Wrong("prompt", "none", "text, chat or token_ids");
  }
  return CheckOptions(request.options(), model);
}

absl::StatusOr<ResolvedOptions> ResolveOptions(const v1::GenerateOptions& options,
                                               const ModelDefaults& model,
                                               const v1::WorkerInfo& worker, uint32_t prompt_tokens,
                                               uint64_t drawn_seed) {
  const uint32_t context = worker.max_context();
  if (prompt_tokens >= context) {
    return absl::InvalidArgumentError(absl::StrCat("prompt: found ", prompt_tokens,
                                                   " tokens, wanted less than the context of ",
                                                   context, " tokens"));
  }
  const uint32_t room = context - prompt_tokens;
  if (options.max_tokens() > room) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_tokens: found ", options.max_tokens(), ", wanted at most ", room, ": ",
                     prompt_tokens, " of the context's ", context, " tokens are the prompt's"));
  }
  ResolvedOptions out;
  out.max_tokens = options.max_tokens();
  if (out.max_tokens == 0) {
    out.max_tokens = model.max_tokens == 0 ? room : std::min(room, model.max_tokens);
  }
  out.sampling = ResolveSampling(options.sampling(), model.sampling, drawn_seed);
  out.gate = ResolveGate(options.attention_gate(), worker.default_gate_threshold());
  out.max_steps = options.max_steps();
  out.stop_token_ids.assign(options.stop_token_ids().begin(), options.stop_token_ids().end());
  if (!options.ignore_eos()) {
    out.stop_token_ids.insert(out.stop_token_ids.end(), model.end_token_ids.begin(),
                              model.end_token_ids.end());
  }
  out.stop.assign(options.stop().begin(), options.stop().end());
  out.use_cache = !options.has_use_cache() || options.use_cache();
  out.trace = options.trace();
  out.priority = options.priority();
  return out;
}

}  // namespace troupe
