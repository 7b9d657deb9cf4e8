#include "model/dummy_tokenizer.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace troupe {

absl::StatusOr<std::shared_ptr<const Tokenizer>> MakeDummyTokenizer(int vocab_size) {
  std::string json = R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[],)"
                     R"("normalizer":null,"pre_tokenizer":{"type":"WhitespaceSplit"},)"
                     R"("post_processor":null,"decoder":null,)"
                     R"("model":{"type":"WordLevel","unk_token":"t0","vocab":{)";
  for (int i = 0; i < vocab_size; ++i) {
    absl::StrAppend(&json, i == 0 ? "" : ",", "\"t", i, "\":", i);
  }
  absl::StrAppend(&json, "}}}");
  return Tokenizer::FromJson(json);
}

}  // namespace troupe
