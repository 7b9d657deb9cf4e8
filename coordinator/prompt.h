// Turns what a client sent into tokens.
//
// Pure; any thread. Long prompts take a while: run it where waiting is fine.
#ifndef TROUPE_COORDINATOR_PROMPT_H_
#define TROUPE_COORDINATOR_PROMPT_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "model/text/text.h"
#include "troupe/v1/inference.pb.h"

namespace troupe {

// The prompt's tokens, at least one. `chat_template` may be null. INVALID_ARGUMENT for what cannot
// be rendered or tokenised, RESOURCE_EXHAUSTED over the text library's limits, FAILED_PRECONDITION
// for a chat without a template.
absl::StatusOr<std::vector<uint32_t>> TokenisePrompt(const v1::GenerateRequest& request,
                                                     const Tokenizer& tokenizer,
                                                     const ChatTemplate* chat_template);

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_PROMPT_H_
