#include "model/checkpoint.h"

#include <bit>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_util.h"
#include "model/architectures/architecture.h"
#include "model/identity.h"
#include "model/json_reader.h"
#include "model/parameter_counts.h"
#include "model/weight_binder.h"

namespace troupe {
namespace {

constexpr size_t kMaxTextFileBytes = size_t{256} << 20;

// Files beside the weights that decide what tokens mean and what the model computes with them.
constexpr absl::string_view kIdentityTextFiles[] = {"config.json", "tokenizer.json",
                                                    "tokenizer_config.json", "chat_template.jinja"};

std::string PathIn(const std::string& folder, absl::string_view name) {
  return absl::StrCat(folder, "/", name);
}

bool Exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

std::optional<float> OptionalNumber(JsonFields& fields, absl::string_view key, double min,
                                    double max) {
  const double value = fields.NumberOr(key, min, max, min);
  return fields.Has(key) ? std::optional<float>(static_cast<float>(value)) : std::nullopt;
}

std::optional<int> OptionalInt(JsonFields& fields, absl::string_view key, int64_t min,
                               int64_t max) {
  const int64_t value = fields.IntOr(key, min, max, min);
  return fields.Has(key) ? std::optional<int>(static_cast<int>(value)) : std::nullopt;
}

// What transformers writes beside the settings that are read: what is kept or reported, how fast,
// and ways of choosing tokens that are there but off.
void PassOver(JsonFields& fields) {
  fields.Ignore({"transformers_version", "_from_model_config", "bos_token_id", "pad_token_id",
                 "decoder_start_token_id", "max_length", "use_cache", "cache_implementation",
                 "cache_config", "max_cache_len", "compile_config", "disable_compile", "low_memory",
                 "prefill_chunk_size", "output_attentions", "output_hidden_states", "output_scores",
                 "output_logits", "return_dict_in_generate"});
  // They say how beams are compared, and there is one.
  fields.Ignore({"length_penalty", "early_stopping"});
  // Speculation leaves results as they are.
  fields.Ignore({"is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule",
                 "assistant_confidence_threshold", "assistant_lookbehind", "target_lookbehind",
                 "prompt_lookup_num_tokens", "max_matching_ngram_size"});
  for (const absl::string_view key : {"num_beams", "num_beam_groups", "num_return_sequences",
                                      "typical_p", "encoder_repetition_penalty"}) {
    fields.Only(key, 1);
  }
  for (const absl::string_view key :
       {"min_length", "epsilon_cutoff", "eta_cutoff", "diversity_penalty", "no_repeat_ngram_size",
        "encoder_no_repeat_ngram_size"}) {
    fields.Only(key, 0);
  }
  for (const absl::string_view key :
       {"renormalize_logits", "remove_invalid_values", "token_healing"}) {
    fields.Only(key, false);
  }
}

// Fills `defaults`, and the end tokens where the file names them: it goes before config.json.
absl::Status ReadGenerationConfig(const std::string& path, ModelDescription& description,
                                  GenerationDefaults& defaults) {
  if (!Exists(path)) return absl::OkStatus();
  TROUPE_ASSIGN_OR_RETURN(const nlohmann::json config, ReadJsonFile(path));
  JsonFields fields(path, "", config);
  PassOver(fields);
  defaults.do_sample = fields.BoolOr("do_sample", false);
  defaults.temperature = OptionalNumber(fields, "temperature", 0.0, 100.0);
  defaults.top_p = OptionalNumber(fields, "top_p", 0.0, 1.0);
  defaults.top_k = OptionalInt(fields, "top_k", 0, 1 << 24);
  defaults.min_p = OptionalNumber(fields, "min_p", 0.0, 1.0);
  defaults.repetition_penalty = OptionalNumber(fields, "repetition_penalty", 1e-3, 1e3);
  defaults.max_new_tokens = OptionalInt(fields, "max_new_tokens", 1, 1 << 30);
  const std::vector<int64_t> end_tokens =
      fields.IntOrList("eos_token_id", 0, description.vocab_size - 1);
  TROUPE_RETURN_IF_ERROR(fields.Finish());
  if (!end_tokens.empty()) description.end_tokens.assign(end_tokens.begin(), end_tokens.end());
  return absl::OkStatus();
}

}  // namespace

std::string ModelIdentity::Hex() const {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(sha256.data()), sha256.size()));
}

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& folder) {
  const std::string path = PathIn(folder, "config.json");
  TROUPE_ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonFile(path));
  TROUPE_ASSIGN_OR_RETURN(ConfiguredModel model, DescribeConfig(path, json));
  ModelConfig config{
      model.architecture, std::move(model.description), {}, std::move(model.quantization)};
  TROUPE_RETURN_IF_ERROR(ReadGenerationConfig(PathIn(folder, "generation_config.json"),
                                              config.description, config.generation_defaults));
  return config;
}

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& folder) {
  Checkpoint checkpoint;
  checkpoint.folder_ = folder;
  TROUPE_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(folder));
  TROUPE_ASSIGN_OR_RETURN(SafetensorsCheckpoint files, SafetensorsCheckpoint::OpenFolder(folder));
  TROUPE_RETURN_IF_ERROR(checkpoint.Bind(config, std::move(files)));
  return checkpoint;
}

absl::StatusOr<Checkpoint> Checkpoint::OpenOver(const std::string& folder,
                                                SafetensorsCheckpoint files) {
  Checkpoint checkpoint;
  checkpoint.folder_ = folder;
  TROUPE_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(folder));
  TROUPE_RETURN_IF_ERROR(checkpoint.Bind(config, std::move(files)));
  return checkpoint;
}

absl::StatusOr<Checkpoint> Checkpoint::OpenDummy(const std::string& folder,
                                                 const DummyOptions& options) {
  Checkpoint checkpoint;
  checkpoint.folder_ = folder;
  checkpoint.dummy_ = absl::StrCat("dummy ", DTypeName(options.dtype), " ", options.seed);
  TROUPE_ASSIGN_OR_RETURN(ModelConfig config, ReadModelConfig(folder));
  config.quantization = {};  // random weights are plain
  TROUPE_ASSIGN_OR_RETURN(
      SafetensorsCheckpoint files,
      MakeDummyTensors(absl::StrCat(folder, " (dummy weights)"),
                       TensorsOf(config.description, config.architecture->names), options));
  TROUPE_RETURN_IF_ERROR(checkpoint.Bind(config, std::move(files)));
  return checkpoint;
}

absl::Status Checkpoint::Bind(const ModelConfig& config, SafetensorsCheckpoint files) {
  description_ = config.description;
  generation_defaults_ = config.generation_defaults;
  files_ = std::move(files);
  const TensorNames& names = config.architecture->names;
  if (description_.mtp && !HoldsMtp(files_, description_, names)) description_.mtp.reset();
  TROUPE_ASSIGN_OR_RETURN(weights_,
                          BindWeights(folder_, files_, description_, names, config.quantization));
  parameters_ = CountParameters(files_, description_, weights_);
  quantization_ = config.quantization.name();
  return absl::OkStatus();
}

std::string Checkpoint::tokenizer_path() const { return PathIn(folder_, "tokenizer.json"); }

absl::StatusOr<ModelIdentity> Checkpoint::ComputeIdentity(int threads,
                                                          const Progress& progress) const {
  std::vector<std::string> texts;
  std::vector<IdentityFile> files;
  texts.reserve(std::size(kIdentityTextFiles));  // the spans below point into it
  for (absl::string_view name : kIdentityTextFiles) {
    const std::string path = PathIn(folder_, name);
    if (!Exists(path)) continue;
    TROUPE_ASSIGN_OR_RETURN(std::string text, ReadTextFile(path, kMaxTextFileBytes));
    texts.push_back(std::move(text));
    files.push_back({std::string(name), std::as_bytes(std::span(texts.back()))});
  }
  if (!dummy_.empty()) files.push_back({"weights", std::as_bytes(std::span(dummy_))});
  for (const auto& file : files_.files()) {
    if (!dummy_.empty()) break;  // as many bytes as a checkpoint's, and nothing new in them
    files.push_back({std::filesystem::path(file->path()).filename().string(), file->bytes()});
  }
  return ModelIdentity{HashFiles(files, threads, progress)};
}

}  // namespace troupe
