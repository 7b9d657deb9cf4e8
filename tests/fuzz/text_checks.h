// What holds for every tokenizer and text, for the fuzz targets. CHECKs.
#ifndef TROUPE_TESTS_FUZZ_TEXT_CHECKS_H_
#define TROUPE_TESTS_FUZZ_TEXT_CHECKS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "model/text/text.h"

namespace troupe {

// The input or a limit is at fault, and never the library.
inline void CheckTextError(const absl::Status& status) {
  CHECK(absl::IsInvalidArgument(status) || absl::IsResourceExhausted(status)) << status;
  CHECK(!status.message().empty());
}

// RFC 3629: shortest forms only, no surrogates.
inline bool IsUtf8(absl::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i]);
    const int more = first < 0x80       ? 0
                     : first >> 5 == 6  ? 1
                     : first >> 4 == 14 ? 2
                     : first >> 3 == 30 ? 3
                                        : -1;
    if (more < 0 || i + more >= text.size()) return false;
    uint32_t point = more == 0 ? first : first & (0x3F >> more);
    for (int k = 1; k <= more; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if (next >> 6 != 2) return false;
      point = point << 6 | (next & 0x3F);
    }
    constexpr uint32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
    if (point < kLeast[more] || point > 0x10FFFF || (point >> 11) == 0x1B) return false;
    i += more + 1;
  }
  return true;
}

// Streams `ids`: every delta whole characters, all together what decoding them at once gives.
inline void CheckStream(const std::shared_ptr<const Tokenizer>& tokenizer,
                        const std::vector<uint32_t>& ids, bool skip_special) {
  const auto whole = tokenizer->Decode(ids, skip_special);
  auto stream = StreamDecoder::Create(tokenizer, skip_special);
  if (!whole.ok() || !stream.ok()) {
    CheckTextError(whole.ok() ? stream.status() : whole.status());
    return;
  }
  std::string text;
  for (size_t i = 0; i <= ids.size(); ++i) {
    const auto delta = i == ids.size() ? stream->Flush() : stream->Push(ids[i]);
    if (!delta.ok()) return CheckTextError(delta.status());
    CHECK(IsUtf8(*delta)) << "delta " << i;
    text += *delta;
  }
  CHECK_EQ(text, *whole);
}

inline void CheckTokenizer(const std::shared_ptr<const Tokenizer>& tokenizer,
                           absl::string_view text) {
  const auto ids = tokenizer->Encode(text);
  if (!ids.ok()) {
    CheckTextError(ids.status());
  } else {
    for (const uint32_t id : *ids) CHECK_LT(id, tokenizer->vocab_size());
    CheckStream(tokenizer, *ids, false);
    CheckStream(tokenizer, *ids, true);
  }
  // Ids that no text gives.
  std::vector<uint32_t> any;
  for (size_t i = 0; i < text.size() && i < 64; ++i) {
    any.push_back(static_cast<unsigned char>(text[i]) % (tokenizer->vocab_size() + 2));
  }
  CheckStream(tokenizer, any, false);
}

}  // namespace troupe

#endif  // TROUPE_TESTS_FUZZ_TEXT_CHECKS_H_
