#include "coordinator/prompt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::shared_ptr<const Tokenizer> AbacusTokenizer() {
  return Tokenizer::Load(std::string(std::getenv("TROUPE_SOURCE_DIR")) +
                         "/models/abacus/tokenizer.json")
      .value();
}

TEST(TokenisePrompt, TokenIdsAreTakenAsTheyAre) {
  v1::GenerateRequest request;
  for (const uint32_t id : {5, 2, 9}) request.mutable_token_ids()->add_ids(id);
  EXPECT_THAT(TokenisePrompt(request, *AbacusTokenizer(), nullptr).value(), ElementsAre(5, 2, 9));
}

TEST(TokenisePrompt, TextIsEncoded) {
  const auto tokenizer = AbacusTokenizer();
  v1::GenerateRequest request;
  request.set_text("12 + 34 =");
  EXPECT_EQ(TokenisePrompt(request, *tokenizer, nullptr).value(),
            tokenizer->Encode("12 + 34 =", /*add_special=*/true).value());
}

TEST(TokenisePrompt, AChatGoesThroughTheTemplate) {
  const auto tokenizer = AbacusTokenizer();
  const auto chat_template =
      ChatTemplate::FromSource(
          "{% for m in messages %}{{ m.role }}:{{ m.content }};{{ m.reasoning_content }}"
          "{% endfor %}{{ extra }}")
          .value();
  v1::GenerateRequest request;
  v1::ChatMessage& message = *request.mutable_chat()->add_messages();
  message.set_role("user");
  message.set_content("1");
  message.set_reasoning_content("2");
  request.mutable_chat()->set_template_variables_json(R"({"extra": "3"})");
  EXPECT_EQ(TokenisePrompt(request, *tokenizer, chat_template.get()).value(),
            tokenizer->Encode("user:1;23").value());

  request.mutable_chat()->set_template_variables_json("[");
  const absl::Status malformed = TokenisePrompt(request, *tokenizer, chat_template.get()).status();
  EXPECT_EQ(malformed.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(malformed.message()), HasSubstr("chat"));
}

TEST(TokenisePrompt, WhatCannotBeTokenised) {
  v1::GenerateRequest request;
  request.mutable_chat()->add_messages()->set_role("user");
  EXPECT_EQ(TokenisePrompt(request, *AbacusTokenizer(), nullptr).status().code(),
            absl::StatusCode::kFailedPrecondition);
  const auto empty = ChatTemplate::FromSource("").value();
  EXPECT_EQ(TokenisePrompt(request, *AbacusTokenizer(), empty.get()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace troupe
