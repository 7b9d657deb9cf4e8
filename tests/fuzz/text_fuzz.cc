// A text for whole tokenizers of real families: the first byte says which.

#include <memory>
#include <string>

#include "base/check.h"
#include "model/text/text.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/text_checks.h"

namespace troupe {
namespace {

const std::vector<std::shared_ptr<const Tokenizer>>& Tokenizers() {
  static const auto* tokenizers = [] {
    auto* made = new std::vector<std::shared_ptr<const Tokenizer>>();
    for (const char* kind : {"deepseek_v3", "digits", "gpt2", "llama2_spm", "llama3", "qwen2"}) {
      auto tokenizer = Tokenizer::Load(
          InSourceTree(std::string("tests/golden/tokenizers/") + kind + "/tokenizer.json"));
      CHECK_OK(tokenizer.status());
      made->push_back(*std::move(tokenizer));
    }
    return made;
  }();
  return *tokenizers;
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  std::vector<std::string> seeds;
  for (char kind = 0; kind < 6; ++kind) {
    for (const char* text :
         {"Hello, world! 1234567 + 89 = ?", "naïve Ünïcödé 漢字 😀👩‍👩‍👧",
          "<|begin_of_text|>\n\n\t  x<s></s> ▁", "\r\n'll 'S  3.14159e-10"}) {
      seeds.push_back(std::string(1, kind) + text);
    }
  }
  return seeds;
}

std::vector<std::string> FuzzWords() {
  return {"<|endoftext|>",      "<|im_start|>", "</s>", "<0x0A>", "\xcc\x81", "\xe2\x80\x8d",
          "\xef\xbf\xbd",       "\xf0\x9f",     " ",    "\n",     "'re",      "\xc2\xa0",
          std::string(100, 'a')};
}

}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto& tokenizers = troupe::Tokenizers();
  troupe::CheckTokenizer(tokenizers[data[0] % tokenizers.size()],
                         troupe::AsText(data + 1, size - 1));
  return 0;
}
