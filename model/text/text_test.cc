#include "model/text/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "model/json_reader.h"

namespace troupe {
namespace {

// Templates see the order of keys, so golden files are read with it kept.
using json = nlohmann::ordered_json;
using ::testing::HasSubstr;

constexpr const char* kKinds[] = {"deepseek_v3", "digits", "gpt2", "llama2_spm", "llama3", "qwen2"};

std::string SourcePath(const std::string& path) {
  const char* root = std::getenv("TROUPE_SOURCE_DIR");
  return std::string(root != nullptr ? root : ".") + "/" + path;
}

std::string GoldenPath(const std::string& name) {
  return SourcePath("tests/golden/tokenizers/" + name);
}

json ReadGolden(const std::string& name) {
  absl::StatusOr<std::string> text = ReadTextFile(GoldenPath(name), 1 << 24);
  EXPECT_TRUE(text.ok()) << text.status();
  return json::parse(text.value_or("null"), nullptr, /*allow_exceptions=*/false);
}

std::shared_ptr<const Tokenizer> LoadGolden(const std::string& kind) {
  absl::StatusOr<std::shared_ptr<const Tokenizer>> tokenizer =
      Tokenizer::Load(GoldenPath(kind + "/tokenizer.json"));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *tokenizer : nullptr;
}

bool IsUtf8(const std::string& text) {
  return json(text).dump(-1, ' ', false, json::error_handler_t::ignore) ==
         json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

// The streamed text; each delta is checked to be whole characters.
std::string Stream(const std::shared_ptr<const Tokenizer>& tokenizer,
                   const std::vector<uint32_t>& ids, bool skip_special) {
  absl::StatusOr<StreamDecoder> decoder = StreamDecoder::Create(tokenizer, skip_special);
  EXPECT_TRUE(decoder.ok()) << decoder.status();
  // A flushed stream is as new, whatever went through it.
  for (uint32_t id : ids) EXPECT_TRUE(decoder->Push(id).ok());
  EXPECT_TRUE(decoder->Flush().ok());
  std::string text;
  for (uint32_t id : ids) {
    absl::StatusOr<std::string> delta = decoder->Push(id);
    EXPECT_TRUE(delta.ok()) << delta.status();
    EXPECT_TRUE(IsUtf8(*delta)) << "half a character after token " << id;
    text += *delta;
  }
  absl::StatusOr<std::string> rest = decoder->Flush();
  EXPECT_TRUE(rest.ok()) << rest.status();
  return text + *rest;
}

absl::StatusOr<std::string> RenderSource(absl::string_view source,
                                         absl::string_view messages = "[]",
                                         ChatTemplate::RenderOptions options = {}) {
  auto chat_template = ChatTemplate::FromSource(source);
  if (!chat_template.ok()) return chat_template.status();
  return (*chat_template)->Render(messages, options);
}

double SecondsOf(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

class GoldenTokenizerTest : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenTokenizerTest, EncodesDecodesAndStreamsEveryCase) {
  const auto tokenizer = LoadGolden(GetParam());
  const json cases = ReadGolden(std::string(GetParam()) + "/cases.json");
  ASSERT_GE(cases.size(), 90);
  for (const json& test : cases) {
    const auto text = test["text"].get<std::string>();
    const auto ids = test["ids"].get<std::vector<uint32_t>>();
    SCOPED_TRACE(text);
    EXPECT_EQ(tokenizer->Encode(text).value(), ids);
    EXPECT_EQ(tokenizer->Decode(ids, false).value(), test["decoded"].get<std::string>());
    EXPECT_EQ(tokenizer->Decode(ids, true).value(), test["decoded_skip"].get<std::string>());
    EXPECT_EQ(Stream(tokenizer, ids, false), test["decoded"].get<std::string>());
    EXPECT_EQ(Stream(tokenizer, ids, true), test["decoded_skip"].get<std::string>());
  }
}

// What a model emits need not be text: any ids, cut characters and unknown ids included.
TEST_P(GoldenTokenizerTest, StreamsAnyIdsAsWholeDecodingDoes) {
  const auto tokenizer = LoadGolden(GetParam());
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    // Low ids are the bytes and specials; their mixtures make the most broken text.
    const uint32_t bound = round % 2 == 0 ? 300 : tokenizer->vocab_size() + 3;
    std::vector<uint32_t> ids(1 + random() % 60);
    for (uint32_t& id : ids) id = random() % bound;
    for (bool skip_special : {false, true}) {
      EXPECT_EQ(Stream(tokenizer, ids, skip_special), tokenizer->Decode(ids, skip_special).value());
    }
  }
}

TEST_P(GoldenTokenizerTest, LooksUpEveryToken) {
  const auto tokenizer = LoadGolden(GetParam());
  ASSERT_GT(tokenizer->vocab_size(), 256);
  for (uint32_t id = 0; id < tokenizer->vocab_size(); ++id) {
    const std::optional<std::string> token = tokenizer->IdToToken(id);
    ASSERT_TRUE(token.has_value()) << id;
    EXPECT_EQ(tokenizer->TokenToId(*token), id);
  }
  EXPECT_EQ(tokenizer->IdToToken(tokenizer->vocab_size()), std::nullopt);
  EXPECT_EQ(tokenizer->TokenToId("no such token"), std::nullopt);
}

INSTANTIATE_TEST_SUITE_P(Kinds, GoldenTokenizerTest, ::testing::ValuesIn(kKinds),
                         [](const auto& info) { return std::string(info.param); });

TEST(TokenizerTest, AbacusRoundTripsText) {
  const auto tokenizer = Tokenizer::Load(SourcePath("models/abacus/tokenizer.json"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 512);
  EXPECT_EQ((*tokenizer)->TokenToId("<|end|>"), 2);
  const std::string text = "What is 4821 * 7306? naïve 😀";
  const auto ids = (*tokenizer)->Encode(text);
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ((*tokenizer)->Decode(*ids, false).value(), text);
}

TEST(TokenizerTest, FailsByName) {
  EXPECT_EQ(Tokenizer::Load("/no/such/tokenizer.json").status().code(),
            absl::StatusCode::kNotFound);
  for (const char* bad :
       {"", "{", "[]", "{}", "null", R"({"version":"1.0"})", R"({"model":{"type":"Nothing"}})",
        R"({"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{"a":0},)"
        R"("merges":["a b"]}})",
        R"({"version":"1.0","added_tokens":[],"decoder":7,"model":{"type":"BPE","vocab":{},)"
        R"("merges":[]}})",
        R"({"version":"1.0","added_tokens":[],"pre_tokenizer":{"type":"Split","pattern":)"
        R"({"Regex":"(("},"behavior":"Isolated","invert":false},"model":{"type":"BPE",)"
        R"("vocab":{},"merges":[]}})"}) {
    EXPECT_EQ(Tokenizer::FromJson(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_EQ(Tokenizer::FromJson(std::string(100000, '[')).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(TokenizerTest, BoundsAndChecksItsInput) {
  const auto tokenizer = LoadGolden("llama3");
  const std::string too_long(TextLimits::kMaxTextBytes + 1, 'a');
  EXPECT_EQ(tokenizer->Encode(too_long).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(tokenizer->Encode("ab\xff").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tokenizer->Encode(absl::string_view("a\0b", 3))->size(), 3);
}

TEST(TokenizerTest, RefusesIdsThatNoVocabularyHas) {
  const auto with_id = [](const std::string& id) {
    return Tokenizer::FromJson(R"({"version":"1.0","added_tokens":[],"model":{"type":"WordLevel",)"
                               R"("unk_token":"a","vocab":{"a":)" +
                               id + "}}}");
  };
  EXPECT_TRUE(with_id("16777215").ok());
  const absl::Status refused = with_id("4294967295").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(refused.message(), HasSubstr("wanted ids below 16777216"));
}

TEST(TokenizerTest, LongHostileTextTakesBoundedTime) {
  for (const char* kind : kKinds) {
    const auto tokenizer = LoadGolden(kind);
    for (const char* unit : {"a", " ", "\n", "1", "🙂", "'", "<|"}) {
      std::string text;
      while (text.size() < 50'000) text += unit;
      const double seconds = SecondsOf([&] { EXPECT_TRUE(tokenizer->Encode(text).ok()); });
      EXPECT_LT(seconds, 5.0) << kind << " on a run of '" << unit << "'";
    }
  }
}

TEST(StreamDecoderTest, HoldsBytesUntilTheCharacterIsWhole) {
  const auto tokenizer = LoadGolden("gpt2");
  const auto ids = tokenizer->Encode("🙂").value();
  ASSERT_GT(ids.size(), 1);
  auto decoder = StreamDecoder::Create(tokenizer, true).value();
  for (size_t i = 0; i + 1 < ids.size(); ++i) EXPECT_EQ(decoder.Push(ids[i]).value(), "");
  EXPECT_EQ(decoder.Push(ids.back()).value(), "🙂");
  EXPECT_EQ(decoder.Push(ids.front()).value(), "");
  EXPECT_EQ(decoder.Flush().value(), "\uFFFD");
  EXPECT_EQ(decoder.Flush().value(), "");
}

// A stream's cost must not grow with what it has already decoded.
TEST(StreamDecoderTest, LongStreamsAreLinear) {
  for (const char* kind : {"gpt2", "llama2_spm"}) {
    const auto tokenizer = LoadGolden(kind);
    auto decoder = StreamDecoder::Create(tokenizer, true).value();
    const double seconds = SecondsOf([&] {
      for (int i = 0; i < 200'000; ++i) ASSERT_TRUE(decoder.Push(260 + i % 50).ok());
    });
    EXPECT_LT(seconds, 5.0) << kind;
  }
}

TEST(ChatTemplateTest, RendersEveryGoldenCase) {
  const json cases = ReadGolden("chat_templates.json");
  ASSERT_EQ(cases.size(), 42);
  for (const json& test : cases) {
    SCOPED_TRACE(test["template"].get<std::string>() + " / " +
                 test["conversation"].get<std::string>());
    const auto chat_template = ChatTemplate::FromSource(
        test["source"].get<std::string>(), R"({"bos_token":"<|bos|>","eos_token":"<|end|>"})");
    ASSERT_TRUE(chat_template.ok()) << chat_template.status();
    const std::string messages = test["messages"].dump();
    json variables = test["kwargs"];
    const bool add_generation_prompt = variables.value("add_generation_prompt", false);
    variables.erase("add_generation_prompt");
    const std::string variables_json = variables.dump();
    const auto text = (*chat_template)
                          ->Render(messages, {.add_generation_prompt = add_generation_prompt,
                                              .variables_json = variables_json});
    if (test.contains("error") && !test["error"].is_null()) {
      ASSERT_FALSE(text.ok()) << *text;
      EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(text.status().message()), HasSubstr("Roles must alternate"));
    } else {
      ASSERT_TRUE(text.ok()) << text.status();
      EXPECT_EQ(*text, test["text"].get<std::string>());
    }
  }
}

TEST(ChatTemplateTest, LoadsAbacus) {
  const auto chat_template = ChatTemplate::Load(SourcePath("models/abacus"));
  ASSERT_TRUE(chat_template.ok()) << chat_template.status();
  EXPECT_EQ((*chat_template)->Render(R"([{"role":"user","content":"2+2?"}])", {}).value(),
            "<|bos|><|user|>2+2?<|assistant|>");
  EXPECT_EQ((*chat_template)
                ->Render(R"([{"role":"user","content":"a"},)"
                         R"({"role":"assistant","content":"b","reasoning_content":"\nc\n"}])",
                         {.add_generation_prompt = false})
                .value(),
            "<|bos|><|user|>a<|assistant|><think>\nc\n</think>\nb<|end|>");
  EXPECT_EQ(ChatTemplate::Load("/no/such/folder").status().code(), absl::StatusCode::kNotFound);
}

struct PrintCase {
  const char* source;
  const char* text;
};

TEST(ChatTemplateTest, PrintsAsPythonDoes) {
  const PrintCase cases[] = {
      {"{{ [1, 'a', 1.0, true, none] }}", "[1, 'a', 1.0, True, None]"},
      {"{{ {'k': [{'x': 'it\\'s'}]} }}", "{'k': [{'x': \"it's\"}]}"},
      {"{{ 'a' ~ 1 ~ 2.5 ~ true ~ none ~ [1] }}", "a12.5TrueNone[1]"},
      {"{{ 1e16 }} {{ 1e-5 }} {{ 123456.789 }} {{ 0.1 }}", "1e+16 1e-05 123456.789 0.1"},
      {"{{ 3 * 2.0 }} {{ 7 / 2 }} {{ 7 // 2 }} {{ 'ab' * 2 }} {{ 2 * [1] }}",
       "6.0 3.5 3 abab [1, 1]"},
      {"{{ missing }}|{{ missing is defined }}|{{ tools is none }}", "|False|True"},
      {"{{ {'b': 1, 'a': [1.5, none, true], 'c': '<é\"\\n'} | tojson }}",
       R"({"b": 1, "a": [1.5, null, true], "c": "<é\"\n"})"},
      {"{{ {'a': [], 'b': {}, 'c': [1]} | tojson(indent=2) }}",
       "{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1\n  ]\n}"},
      {"{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':'), sort_keys=true) }}",
       R"({"a":2,"b":1})"},
      {"{{ 'é' | tojson(ensure_ascii=true) }}", R"("\u00e9")"},
      {"{{ 'a,b,c'.rsplit(',', 1) }} {{ 'xay'.partition('a') }}", "['a,b', 'c'] ['x', 'a', 'y']"},
      {"{{ 'pre-x'.removeprefix('pre-') }} {{ '7'.zfill(3) }} {{ 'ab'.ljust(4) }}|", "x 007 ab  |"},
      {"{{ ['a', 1, none] | join('-') }} {{ 'a\\nb' | indent(2) }}", "a-1-None a\n  b"},
      {"{{ 'abc' is sequence }} {{ 'abc' is iterable }} {{ 3 is iterable }}", "True True False"},
      {"{% generation %}x{%- endgeneration -%} y", "xy"},
      {"{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}"
       "{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
       "02"},
      {"{% macro f(x, y=2) %}{{ x * y }}{% endmacro %}{{ f(3) }} {{ f('a', y=3) }}", "6 aaa"},
      {"{% set x %}a{{ 1 }}{% endset %}{{ x }}{% if x == 'a1' and not false %}!{% endif %}", "a1!"},
      {"{%- for a in [[1, [2]]] recursive -%}{{ a if a is number else loop(a) }}{%- endfor %}",
       "12"},
      {"{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"},
      {"  {% if true %}\n  a\n  {% endif %}\nb\n", "  a\nb"},
  };
  for (const PrintCase& test : cases) {
    const auto text = RenderSource(test.source, "[]", {.now_unix_s = 1722000000});
    ASSERT_TRUE(text.ok()) << test.source << ": " << text.status();
    EXPECT_EQ(*text, test.text) << test.source;
  }
}

TEST(ChatTemplateTest, KeepsTheOrderOfKeys) {
  EXPECT_EQ(RenderSource("{{ messages[0] | tojson }}", R"([{"z":1,"a":{"y":2,"b":3}}])").value(),
            R"({"z": 1, "a": {"y": 2, "b": 3}})");
  EXPECT_EQ(RenderSource("{% for k in tools[0] %}{{ k }},{% endfor %}", "[]",
                         {.variables_json = R"({"tools":[{"z":1,"a":2}]})"})
                .value(),
            "z,a,");
}

TEST(ChatTemplateTest, BadInputIsAnError) {
  for (const char* source :
       {"{{", "{% if %}", "{% for x in %}", "{{ messages[0].a.b }}", "{{ 'a' + 1 }}",
        "{{ 1 | nothing }}", "{{ nothing() }}", "{% include 'x' %}", "{{ missing | tojson }}",
        "{{ raise_exception('no') }}", "{{ 'a'.nothing() }}", "{{ [1] * 'a' }}"}) {
    EXPECT_EQ(RenderSource(source, R"([{"role":"user"}])").status().code(),
              absl::StatusCode::kInvalidArgument)
        << source;
  }
  for (const char* messages : {"", "{", "{}", "7", "null", "[1,", "\"\xff\""}) {
    EXPECT_EQ(RenderSource("x", messages).status().code(), absl::StatusCode::kInvalidArgument)
        << messages;
  }
  EXPECT_EQ(RenderSource("x", std::string(1000, '[')).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(RenderSource("x", "[]", {.variables_json = "[]"}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// Each of these would run, or grow, without end.
TEST(ChatTemplateTest, HostileTemplatesRunOutOfBudget) {
  const std::string loop = "{% for i in range(100000) %}";
  const std::string ns = "{% set ns = namespace(x='ab', l=[1]) %}";
  const std::string sources[] = {
      loop + loop + loop + "{% endfor %}{% endfor %}{% endfor %}",
      ns + loop + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
      ns + loop + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
      ns + loop + "{% set ns.x = ns.x.replace('b', ns.x) %}{% endfor %}",
      ns + loop + "{% set ns.x = ns.x | replace('b', ns.x) %}{% endfor %}",
      ns + loop + "{% set ns.x = [ns.x, ns.x] | join(ns.x) %}{% endfor %}",
      ns + loop + "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
      ns + loop + "{% set ns.l = (ns.l + ns.l) | list %}{% endfor %}",
      "{{ 'a' * 100000000000 }}",
      "{{ ([1] * 100000000000) | list }}",
      "{{ 'a' | center(100000000000) }}",
      "{{ '%100000000000d' | format(1) }}",
      "{{ '{:100000000000}'.format(1) }}",
      "{{ 'a' | indent(100000000000) }}",
      "{{ [1] | tojson(indent=100000000000) }}",
      "{{ [1] | slice(100000000000) | list }}",
      "{{ [1] | batch(100000000000) | list }}",
      "{{ 'a'.ljust(100000000000) }}",
  };
  for (const std::string& source : sources) {
    absl::StatusOr<std::string> text;
    const double seconds = SecondsOf([&] { text = RenderSource(source); });
    ASSERT_FALSE(text.ok()) << source;
    EXPECT_EQ(text.status().code(), absl::StatusCode::kResourceExhausted)
        << source << ": " << text.status();
    EXPECT_LT(seconds, 12.0) << source;
  }
}

// Recursion is refused or survived; it never ends the process.
TEST(ChatTemplateTest, DeepRecursionIsSurvived) {
  const std::string ns = "{% set ns = namespace(x=1) %}";
  std::string chain = "{{ 1";
  while (chain.size() < TextLimits::kMaxTemplateBytes - 10) chain += "~1";
  EXPECT_TRUE(RenderSource(chain + " }}").ok());
  EXPECT_FALSE(RenderSource("{{ " + std::string(10000, '(') + " }}").ok());
  EXPECT_FALSE(RenderSource("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").ok());
  EXPECT_FALSE(RenderSource(ns + "{% set ns.x = ns %}{{ ns }}").ok());
  const std::string nest = ns +
                           "{% for i in range(100000) %}{% for j in range(100000) %}"
                           "{% set ns.x = [ns.x] %}{% endfor %}{% endfor %}";
  EXPECT_FALSE(RenderSource(nest).ok());
  const std::string shallow =
      ns + "{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}";
  EXPECT_TRUE(RenderSource(shallow + "done").ok());
  EXPECT_FALSE(RenderSource(shallow + "{{ ns.x }}").ok());
  EXPECT_FALSE(RenderSource(shallow + "{{ ns.x | tojson }}").ok());
  EXPECT_EQ(RenderSource(std::string(TextLimits::kMaxTemplateBytes + 1, 'a')).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace troupe
