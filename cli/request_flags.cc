#include "cli/request_flags.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace troupe {

void RequestFlags::Declare(ProgramConfig* program) {
  program->Add("max_tokens", &max_tokens,
               {.help = "Most tokens to generate; 0: the model's default.", .unit = "tokens"});
  program->Add("max_steps", &max_steps, {.help = "Most reasoning steps; 0: no limit."});
  program->Add("temperature", &temperature,
               {.help = "0 is greedy; -1: the model's default.", .min = -1, .max = 100});
  program->Add("seed", &seed, {.help = "The same seed gives the same text; -1: drawn.", .min = -1});
  program->Add("gate", &gate,
               {.help = "Which attention heads are skipped: default, off, adaptive, or the "
                        "threshold under which a head is."});
  program->Add("use_cache", &use_cache, {.help = "Reuse and fill cached KV blocks."});
}

absl::Status RequestFlags::Check() const {
  float threshold;
  if (gate == "default" || gate == "off" || gate == "adaptive") return absl::OkStatus();
  if (absl::SimpleAtof(gate, &threshold) && threshold >= 0 && threshold <= 1) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--gate: found ", gate, ", wanted default, off, adaptive, or 0 to 1"));
}

void RequestFlags::Fill(v1::GenerateOptions* options) const {
  options->set_max_tokens(max_tokens);
  options->set_max_steps(max_steps);
  options->set_use_cache(use_cache);
  if (temperature >= 0) options->mutable_sampling()->set_temperature(temperature);
  if (seed >= 0) options->mutable_sampling()->set_seed(static_cast<uint64_t>(seed));
  v1::AttentionGate& out = *options->mutable_attention_gate();
  float threshold;
  if (gate == "off") {
    out.set_mode(v1::AttentionGate::MODE_OFF);
  } else if (gate == "adaptive") {
    out.set_mode(v1::AttentionGate::MODE_ADAPTIVE);
  } else if (absl::SimpleAtof(gate, &threshold)) {
    out.set_mode(v1::AttentionGate::MODE_THRESHOLD);
    out.set_threshold(threshold);
  }
}

}  // namespace troupe
