// A tokenizer.json, a zero byte and a text: what is loaded encodes and decodes.

#include <memory>
#include <string>

#include "base/check.h"
#include "model/text/text.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/text_checks.h"

namespace troupe {
namespace {

// Small, so that thousands are read in a second; tests/golden/tokenizers has whole ones.
std::string ByteLevel() {
  return R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":6,"content":)"
         R"("<|x|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,)"
         R"("special":true}],"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Sequence",)"
         R"("pretokenizers":[{"type":"Split","pattern":{"Regex":"\\p{N}{1,3}| ?\\p{L}+"},)"
         R"("behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,)"
         R"("trim_offsets":true,"use_regex":false}]},"post_processor":null,"decoder":)"
         R"({"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},)"
         R"("model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":)"
         R"(null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"vocab":)"
         R"({"a":0,"b":1,"ab":2,"Ġ":3,"Ã":4,"©":5},"merges":[["a","b"]]}})";
}

std::string ByteFallback() {
  return R"({"version":"1.0","added_tokens":[],"normalizer":{"type":"Sequence","normalizers":)"
         R"([{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},)"
         R"("content":"▁"}]},"pre_tokenizer":null,"post_processor":null,"decoder":{"type":)"
         R"("Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},)"
         R"({"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,)"
         R"("stop":0}]},"model":{"type":"BPE","dropout":null,"unk_token":"<unk>",)"
         R"("fuse_unk":true,"byte_fallback":true,"vocab":{"<unk>":0,"<0xC3>":1,"<0xA9>":2,)"
         R"("▁":3,"a":4,"▁a":5},"merges":["▁ a"]}})";
}

std::string Words() {
  return R"({"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":)"
         R"("WhitespaceSplit"},"post_processor":null,"decoder":null,"model":{"type":)"
         R"("WordLevel","unk_token":"a","vocab":{"a":0,"bc":1}}})";
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  std::vector<std::string> seeds;
  for (const std::string& json : {ByteLevel(), ByteFallback(), Words()}) {
    seeds.push_back(json + '\0' + "ab é a <|x|> 123 bc");
  }
  return seeds;
}

std::vector<std::string> FuzzWords() {
  return {R"("type":)", R"("BPE")",       R"("WordLevel")", R"("Unigram")",    R"("ByteLevel")",
          R"("Split")", R"("Metaspace")", R"("Strip")",     R"("Fuse")",       R"("vocab":)",
          R"("Regex")", R"("merges":)",   "(a+)+$",         "\\p{L}*",         "null",
          "[]",         R"("<0xFF>":7,)", "\xc3",           "\xf0\x9f\x98\x80"};
}

}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view input = troupe::AsText(data, size);
  const size_t cut = input.find('\0');
  const auto tokenizer = troupe::Tokenizer::FromJson(input.substr(0, cut));
  if (!tokenizer.ok()) {
    troupe::CheckTextError(tokenizer.status());
    return 0;
  }
  const absl::string_view text = cut == absl::string_view::npos ? "" : input.substr(cut + 1);
  troupe::CheckTokenizer(*tokenizer, text);
  return 0;
}
