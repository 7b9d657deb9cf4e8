// A chat template, a zero byte, messages, a zero byte and variables: what is rendered is text.

#include <string>
#include <utility>

#include "base/check.h"
#include "model/json_reader.h"
#include "model/text/text.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/text_checks.h"

// A template that puts a namespace into itself makes a cycle of minijinja's counted references,
// which nothing frees: some hundred bytes each time a checkpoint with such a template renders.
extern "C" const char* __lsan_default_suppressions() {  // NOLINT: LeakSanitizer's name
  return "leak:minijinja::value::namespace_object";
}

namespace troupe {

std::vector<std::string> FuzzSeeds() {
  const std::string path = InSourceTree("tests/golden/tokenizers/chat_templates.json");
  const auto file = ReadTextFile(path, 1 << 24);
  CHECK_OK(file.status());
  const auto cases = ParseJson(path, *file);
  CHECK_OK(cases.status());
  std::vector<std::string> seeds;
  for (const auto& entry : *cases) {
    if (!entry.contains("source")) continue;
    seeds.push_back(entry["source"].get<std::string>() + '\0' +
                    entry.value("messages", nlohmann::json::array()).dump() + '\0' +
                    entry.value("kwargs", nlohmann::json::object()).dump());
  }
  return seeds;
}

std::vector<std::string> FuzzWords() {
  return {"{% for m in messages %}",
          "{% endfor %}",
          "{{",
          "}}",
          "{%",
          "%}",
          "{#",
          "#}",
          "| tojson",
          "| trim",
          "| length",
          "[::-1]",
          "messages[0]",
          "['role']",
          "loop.index0",
          "namespace(a=1)",
          "{% set x = x * 9 %}",
          "range(1000000000)",
          "raise_exception('x')",
          "strftime_now('%Y')",
          ".split(' ')",
          "* 1000000",
          "{% macro f(x) %}{{ f(x) }}{% endmacro %}",
          "is defined",
          "{% if",
          "{% elif",
          "{% endif %}",
          "{%- ",
          " -%}",
          "~",
          "\\u0000",
          "'",
          "\""};
}

}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view input = troupe::AsText(data, size);
  const auto part = [rest = input]() mutable {
    const absl::string_view text = rest.substr(0, rest.find('\0'));
    rest.remove_prefix(std::min(rest.size(), text.size() + 1));
    return text;
  };
  auto next = part;
  const absl::string_view source = next();
  const absl::string_view messages = next();
  const absl::string_view variables = next();
  const auto chat = troupe::ChatTemplate::FromSource(source, R"({"bos_token":"<s>"})");
  if (!chat.ok()) {
    troupe::CheckTextError(chat.status());
    return 0;
  }
  const auto text =
      (*chat)->Render(messages, {.variables_json = variables, .now_unix_s = int64_t{1717718400}});
  if (!text.ok()) {
    troupe::CheckTextError(text.status());
  } else {
    CHECK(troupe::IsUtf8(*text));
  }
  return 0;
}
