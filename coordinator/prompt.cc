#include "coordinator/prompt.h"

#include <string>

#include "base/status_util.h"
#include "nlohmann/json.hpp"

namespace troupe {
namespace {

absl::StatusOr<std::string> RenderChat(const v1::ChatMessages& chat,
                                       const ChatTemplate* chat_template) {
  if (chat_template == nullptr) {
    return absl::FailedPreconditionError(
        "chat: the model has no chat template; send text or token_ids");
  }
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  for (const v1::ChatMessage& message : chat.messages()) {
    nlohmann::ordered_json item = {{"role", message.role()}, {"content", message.content()}};
    if (!message.reasoning_content().empty()) {
      item["reasoning_content"] = message.reasoning_content();
    }
    messages.push_back(std::move(item));
  }
  ChatTemplate::RenderOptions options;
  if (!chat.template_variables_json().empty()) {
    options.variables_json = chat.template_variables_json();
  }
  // Proto strings are UTF-8, so dumping cannot meet anything else.
  absl::StatusOr<std::string> text = chat_template->Render(messages.dump(), options);
  if (!text.ok()) return Annotate(text.status(), "chat");
  return text;
}

}  // namespace

absl::StatusOr<std::vector<uint32_t>> TokenisePrompt(const v1::GenerateRequest& request,
                                                     const Tokenizer& tokenizer,
                                                     const ChatTemplate* chat_template) {
  if (request.has_token_ids()) {
    return std::vector<uint32_t>(request.token_ids().ids().begin(),
                                 request.token_ids().ids().end());
  }
  std::string rendered;
  if (request.has_chat()) {
    TROUPE_ASSIGN_OR_RETURN(rendered, RenderChat(request.chat(), chat_template));
  }
  const std::string& text = request.has_chat() ? rendered : request.text();
  // A template writes the tokens around a text itself.
  TROUPE_ASSIGN_OR_RETURN(std::vector<uint32_t> tokens,
                          tokenizer.Encode(text, /*add_special=*/!request.has_chat()));
  if (tokens.empty()) return absl::InvalidArgumentError("prompt: found no tokens, wanted some");
  return tokens;
}

}  // namespace troupe
