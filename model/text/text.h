// Tokenizer and chat template of a model folder.
//
// The work is done by a small Rust library (model/text/src) over the crates `tokenizers` and
// `minijinja`; this header hides its C ABI.
//
// Thread model: Tokenizer and ChatTemplate are immutable; any thread may call. A StreamDecoder
// belongs to one thread at a time.
// Ownership: a StreamDecoder keeps its Tokenizer alive.
// Errors: NotFound for a missing file, InvalidArgument for a malformed file, for text that is not
// UTF-8 and for a template that raises; ResourceExhausted for input over a limit and for a template
// that exceeds its budget of instructions, bytes or time. Hostile input never aborts the process.
#ifndef TROUPE_MODEL_TEXT_TEXT_H_
#define TROUPE_MODEL_TEXT_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace troupe {

// Sized for prompts of a million tokens: encoding needs some 200 bytes of memory and half a
// microsecond for each byte of text. The Rust library enforces the same numbers.
struct TextLimits {
  static constexpr size_t kMaxTextBytes = size_t{16} << 20;  // Encode, and a rendered chat
  static constexpr size_t kMaxTokenizerFileBytes = size_t{256} << 20;
  static constexpr size_t kMaxTemplateBytes = size_t{256} << 10;
  static constexpr size_t kMaxDecodeTokens = size_t{16} << 20;
  static constexpr uint32_t kMaxVocabulary = uint32_t{1} << 24;  // as a config's vocab_size
};

class Tokenizer {
 public:
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> Load(const std::string& tokenizer_json);
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> FromJson(absl::string_view json);

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Special tokens spelled out in the text become their ids. `add_special` also adds what the
  // tokenizer's post-processor adds around a text (a rendered chat has it already).
  absl::StatusOr<std::vector<uint32_t>> Encode(absl::string_view text,
                                               bool add_special = false) const;
  // Ids without a token decode to nothing: models may have more rows than tokens.
  absl::StatusOr<std::string> Decode(std::span<const uint32_t> ids, bool skip_special) const;

  std::optional<uint32_t> TokenToId(absl::string_view token) const;
  std::optional<std::string> IdToToken(uint32_t id) const;  // as stored, e.g. "Ġworld"
  // One more than the highest id, added tokens included.
  uint32_t vocab_size() const { return vocab_size_; }

 private:
  friend class StreamDecoder;
  explicit Tokenizer(const void* handle);

  const void* handle_;
  uint32_t vocab_size_;
};

// Text of a growing token sequence. The concatenation of all deltas equals
// Tokenizer::Decode of the whole sequence, and no delta ends inside a UTF-8 character: bytes that
// may still become one are held back until they do, or cannot. Amortised O(1) a token.
// Vocabularies with byte fallback (Llama 2's) hold a run of byte tokens until it ends, because such
// a run decodes as a whole or not at all.
class StreamDecoder {
 public:
  static absl::StatusOr<StreamDecoder> Create(std::shared_ptr<const Tokenizer> tokenizer,
                                              bool skip_special);

  absl::StatusOr<std::string> Push(uint32_t id);  // the text that this token completes, often empty
  absl::StatusOr<std::string> Flush();            // what was held back; the stream starts afresh

 private:
  struct Free {
    void operator()(void* handle) const;
  };
  explicit StreamDecoder(void* handle) : handle_(handle) {}

  std::unique_ptr<void, Free> handle_;
};

// A chat template, rendered as transformers' apply_chat_template does.
class ChatTemplate {
 public:
  struct RenderOptions {
    bool add_generation_prompt = true;
    // A JSON object of further variables ("tools", "enable_thinking", ...).
    absl::string_view variables_json = "{}";
    // What `strftime_now` reads, seconds since 1970 in UTC; the current time when absent.
    std::optional<int64_t> now_unix_s;
  };

  // chat_template.jinja where the folder has one, else `chat_template` of tokenizer_config.json;
  // bos_token, eos_token and the like come from tokenizer_config.json. NotFound without a template.
  static absl::StatusOr<std::shared_ptr<const ChatTemplate>> Load(const std::string& folder);
  // `variables_json` holds the variables that every rendering sees: {"bos_token": "<s>", ...}.
  static absl::StatusOr<std::shared_ptr<const ChatTemplate>> FromSource(
      absl::string_view source, absl::string_view variables_json = "{}");

  ~ChatTemplate();
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;

  // `messages_json` is a JSON array of {"role", "content", ...}; key order is kept.
  absl::StatusOr<std::string> Render(absl::string_view messages_json,
                                     const RenderOptions& options) const;

 private:
  explicit ChatTemplate(const void* handle) : handle_(handle) {}

  const void* handle_;
};

}  // namespace troupe

#endif  // TROUPE_MODEL_TEXT_TEXT_H_
