#include "model/text/text.h"

#include <chrono>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_util.h"
#include "model/json_reader.h"
#include "model/text/troupe_text.h"

namespace troupe {
namespace {

const uint8_t* Data(absl::string_view text) {
  return reinterpret_cast<const uint8_t*>(text.data());
}

std::string TakeString(TroupeTextBytes bytes) {
  std::string text(reinterpret_cast<const char*>(bytes.data), bytes.size);
  troupe_text_bytes_free(bytes);
  return text;
}

// Calls `function(args..., &out, &error)`.
template <typename Out, typename Function, typename... Args>
absl::StatusOr<Out> Call(Function function, Args... args) {
  Out out{};
  TroupeTextBytes error{};
  switch (function(args..., &out, &error)) {
    case TROUPE_TEXT_OK:
      return out;
    case TROUPE_TEXT_INVALID:
      return absl::InvalidArgumentError(TakeString(error));
    case TROUPE_TEXT_EXHAUSTED:
      return absl::ResourceExhaustedError(TakeString(error));
    default:
      return absl::InternalError(TakeString(error));
  }
}

template <typename Function, typename... Args>
absl::StatusOr<std::string> CallForText(Function function, Args... args) {
  TROUPE_ASSIGN_OR_RETURN(TroupeTextBytes bytes, Call<TroupeTextBytes>(function, args...));
  return TakeString(bytes);
}

const TroupeTextTokenizer* AsTokenizer(const void* handle) {
  return static_cast<const TroupeTextTokenizer*>(handle);
}

// Special tokens of tokenizer_config.json that templates use: a string, or an object that holds
// one.
absl::StatusOr<nlohmann::json> TemplateVariables(const std::string& path,
                                                 const nlohmann::json& config) {
  nlohmann::json variables = nlohmann::json::object();
  for (const char* name : {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token",
                           "cls_token", "mask_token"}) {
    const auto found = config.find(name);
    if (found == config.end() || found->is_null()) continue;
    const nlohmann::json& token =
        found->is_object() && found->contains("content") ? found->at("content") : *found;
    if (!token.is_string()) {
      return FieldError(path, name, Shown(*found), "a string, or an object with string content");
    }
    variables[name] = token;
  }
  return variables;
}

// The template in tokenizer_config.json: one string, or a list of named ones with a "default".
absl::StatusOr<std::string> TemplateInConfig(const std::string& path,
                                             const nlohmann::json& config) {
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) {
    return absl::NotFoundError(
        absl::StrCat(path,
                     ": chat_template: found nothing, wanted a template here or a "
                     "chat_template.jinja beside it"));
  }
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array()) {
    for (const nlohmann::json& entry : *found) {
      if (entry.is_object() && entry.value("name", nlohmann::json()) == "default" &&
          entry.contains("template") && entry["template"].is_string()) {
        return entry["template"].get<std::string>();
      }
    }
  }
  return FieldError(path, "chat_template", Shown(*found),
                    "a string, or a list with an entry named default");
}

int64_t NowUnixSeconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

// --- Tokenizer --------------------------------------------------------------------------------

Tokenizer::Tokenizer(const void* handle)
    : handle_(handle), vocab_size_(troupe_text_tokenizer_vocab_size(AsTokenizer(handle))) {}

Tokenizer::~Tokenizer() { troupe_text_tokenizer_free(AsTokenizer(handle_)); }

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::Load(
    const std::string& tokenizer_json) {
  TROUPE_ASSIGN_OR_RETURN(std::string json,
                          ReadTextFile(tokenizer_json, TextLimits::kMaxTokenizerFileBytes));
  absl::StatusOr<std::shared_ptr<const Tokenizer>> tokenizer = FromJson(json);
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), tokenizer_json);
  return tokenizer;
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::FromJson(absl::string_view json) {
  TROUPE_ASSIGN_OR_RETURN(
      const TroupeTextTokenizer* handle,
      Call<const TroupeTextTokenizer*>(troupe_text_tokenizer_new, Data(json), json.size()));
  std::shared_ptr<const Tokenizer> tokenizer(new Tokenizer(handle));
  if (tokenizer->vocab_size() > TextLimits::kMaxVocabulary) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer: vocabulary: found an id of ",
                                                   tokenizer->vocab_size() - 1, " or more, wanted ",
                                                   "ids below ", TextLimits::kMaxVocabulary));
  }
  return tokenizer;
}

absl::StatusOr<std::vector<uint32_t>> Tokenizer::Encode(absl::string_view text,
                                                        bool add_special) const {
  TROUPE_ASSIGN_OR_RETURN(const TroupeTextIds ids,
                          Call<TroupeTextIds>(troupe_text_encode, AsTokenizer(handle_), Data(text),
                                              text.size(), add_special));
  std::vector<uint32_t> tokens(ids.data, ids.data + ids.size);
  troupe_text_ids_free(ids);
  return tokens;
}

absl::StatusOr<std::string> Tokenizer::Decode(std::span<const uint32_t> ids,
                                              bool skip_special) const {
  return CallForText(troupe_text_decode, AsTokenizer(handle_), ids.data(), ids.size(),
                     skip_special);
}

std::optional<uint32_t> Tokenizer::TokenToId(absl::string_view token) const {
  const absl::StatusOr<int64_t> id =
      Call<int64_t>(troupe_text_token_to_id, AsTokenizer(handle_), Data(token), token.size());
  if (!id.ok() || *id < 0) return std::nullopt;
  return static_cast<uint32_t>(*id);
}

std::optional<std::string> Tokenizer::IdToToken(uint32_t id) const {
  absl::StatusOr<std::string> token =
      CallForText(troupe_text_id_to_token, AsTokenizer(handle_), id);
  if (!token.ok()) return std::nullopt;
  return *std::move(token);
}

// --- StreamDecoder ----------------------------------------------------------------------------

absl::StatusOr<StreamDecoder> StreamDecoder::Create(std::shared_ptr<const Tokenizer> tokenizer,
                                                    bool skip_special) {
  TROUPE_ASSIGN_OR_RETURN(TroupeTextStream * stream,
                          Call<TroupeTextStream*>(troupe_text_stream_new,
                                                  AsTokenizer(tokenizer->handle_), skip_special));
  return StreamDecoder(stream);
}

void StreamDecoder::Free::operator()(void* handle) const {
  troupe_text_stream_free(static_cast<TroupeTextStream*>(handle));
}

absl::StatusOr<std::string> StreamDecoder::Push(uint32_t id) {
  return CallForText(troupe_text_stream_push, static_cast<TroupeTextStream*>(handle_.get()), id);
}

absl::StatusOr<std::string> StreamDecoder::Flush() {
  return CallForText(troupe_text_stream_flush, static_cast<TroupeTextStream*>(handle_.get()));
}

// --- ChatTemplate -----------------------------------------------------------------------------

ChatTemplate::~ChatTemplate() {
  troupe_text_template_free(static_cast<const TroupeTextTemplate*>(handle_));
}

absl::StatusOr<std::shared_ptr<const ChatTemplate>> ChatTemplate::Load(const std::string& folder) {
  const std::string config_path = absl::StrCat(folder, "/tokenizer_config.json");
  TROUPE_ASSIGN_OR_RETURN(const nlohmann::json config, ReadJsonFile(config_path));
  TROUPE_ASSIGN_OR_RETURN(const nlohmann::json variables, TemplateVariables(config_path, config));

  const std::string jinja_path = absl::StrCat(folder, "/chat_template.jinja");
  std::error_code ignored;
  const bool in_own_file = std::filesystem::exists(jinja_path, ignored);
  TROUPE_ASSIGN_OR_RETURN(const std::string source,
                          in_own_file ? ReadTextFile(jinja_path, TextLimits::kMaxTemplateBytes)
                                      : TemplateInConfig(config_path, config));
  auto chat_template = FromSource(source, variables.dump());
  if (!chat_template.ok()) {
    return Annotate(chat_template.status(), in_own_file ? jinja_path : config_path);
  }
  return chat_template;
}

absl::StatusOr<std::shared_ptr<const ChatTemplate>> ChatTemplate::FromSource(
    absl::string_view source, absl::string_view variables_json) {
  TROUPE_ASSIGN_OR_RETURN(
      const TroupeTextTemplate* handle,
      Call<const TroupeTextTemplate*>(troupe_text_template_new, Data(source), source.size(),
                                      Data(variables_json), variables_json.size()));
  return std::shared_ptr<const ChatTemplate>(new ChatTemplate(handle));
}

absl::StatusOr<std::string> ChatTemplate::Render(absl::string_view messages_json,
                                                 const RenderOptions& options) const {
  return CallForText(troupe_text_template_render, static_cast<const TroupeTextTemplate*>(handle_),
                     Data(messages_json), messages_json.size(), Data(options.variables_json),
                     options.variables_json.size(), options.add_generation_prompt,
                     options.now_unix_s.value_or(NowUnixSeconds()));
}

}  // namespace troupe
