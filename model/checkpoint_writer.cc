#include "model/checkpoint_writer.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_util.h"
#include "kernels/bf16.h"
#include "model/json_reader.h"

namespace troupe {
namespace {

using Json = nlohmann::ordered_json;

struct OutTensor {
  std::string name;
  StoredDType dtype;
  std::vector<int64_t> shape;
  std::function<std::string()> bytes;
  int64_t byte_count;
};

std::string AsText(const void* data, size_t bytes) {
  return std::string(static_cast<const char*>(data), bytes);
}

// Rows filled up to whole words of 32 bits.
std::string PackedWords(const CodedWeights& coded) {
  const int64_t row_bytes = coded.view().row_bytes();
  const int64_t padded = (row_bytes + 3) / 4 * 4;
  std::string words(static_cast<size_t>(coded.rows * padded), '\0');
  for (int64_t r = 0; r < coded.rows; ++r) {
    std::memcpy(words.data() + r * padded, coded.codes.data() + r * row_bytes,
                static_cast<size_t>(row_bytes));
  }
  return words;
}

std::string ScalesAsBf16(const CodedWeights& coded) {
  std::vector<Bf16> scales;
  for (float scale : coded.scales) scales.push_back(ToBf16(scale));
  return AsText(scales.data(), scales.size() * sizeof(Bf16));
}

void AddQuantized(const std::string& name, const CodedWeights& coded,
                  std::vector<OutTensor>& tensors) {
  const std::string module(absl::StripSuffix(name, "weight"));
  const int64_t words = (coded.view().row_bytes() + 3) / 4;
  const int64_t groups = coded.view().groups();
  tensors.push_back({absl::StrCat(module, "weight_packed"),
                     StoredDType::kI32,
                     {coded.rows, words},
                     [&coded] { return PackedWords(coded); },
                     coded.rows * words * 4});
  tensors.push_back({absl::StrCat(module, "weight_scale"),
                     StoredDType::kBF16,
                     {coded.rows, groups},
                     [&coded] { return ScalesAsBf16(coded); },
                     coded.rows * groups * 2});
  const int64_t shape[2] = {coded.rows, coded.cols};
  tensors.push_back({absl::StrCat(module, "weight_shape"),
                     StoredDType::kI64,
                     {2},
                     [text = AsText(shape, sizeof(shape))] { return text; },
                     sizeof(shape)});
}

absl::Status WriteTensors(const std::string& path, const std::vector<OutTensor>& tensors) {
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  int64_t at = 0;
  for (const OutTensor& tensor : tensors) {
    header[tensor.name] = {{"dtype", DTypeName(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {at, at + tensor.byte_count}}};
    at += tensor.byte_count;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::ofstream file(path, std::ios::binary);
  const uint64_t size = text.size();
  file.write(reinterpret_cast<const char*>(&size), sizeof(size));
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  for (const OutTensor& tensor : tensors) {
    const std::string bytes = tensor.bytes();
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  file.close();
  if (!file) return absl::UnavailableError(absl::StrCat(path, ": writing failed"));
  return absl::OkStatus();
}

Json QuantizationConfig(const IntegerFormat& format, const std::vector<std::string>& ignored) {
  const Json weights = {
      {"num_bits", format.bits},    {"type", "int"},    {"symmetric", true}, {"strategy", "group"},
      {"group_size", format.group}, {"dynamic", false}, {"observer", "mse"}, {"actorder", nullptr}};
  const Json group = {{"targets", {"Linear"}},
                      {"weights", weights},
                      {"input_activations", nullptr},
                      {"output_activations", nullptr}};
  return {{"quant_method", "compressed-tensors"}, {"format", "pack-quantized"},
          {"quantization_status", "compressed"},  {"ignore", ignored},
          {"kv_cache_scheme", nullptr},           {"config_groups", {{"group_0", group}}}};
}

// Everything but weights, their index, and config.json.
absl::Status CopyTextFiles(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(from, error)) {
    const std::string name = entry.path().filename().string();
    const bool text = absl::EndsWith(name, ".json") || absl::EndsWith(name, ".jinja") ||
                      absl::EndsWith(name, ".model") || absl::EndsWith(name, ".txt");
    if (!text || name == "config.json" || absl::EndsWith(name, ".index.json")) continue;
    std::filesystem::copy_file(entry.path(), to / name, error);
    if (error) {
      return absl::UnavailableError(
          absl::StrCat((to / name).string(), ": copying failed: ", error.message()));
    }
  }
  if (error) return absl::UnavailableError(absl::StrCat(from.string(), ": ", error.message()));
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteQuantizedCheckpoint(const Checkpoint& checkpoint, const IntegerFormat& format,
                                      const std::map<std::string, CodedWeights>& quantized,
                                      const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error || !std::filesystem::is_empty(folder, error) || error) {
    return absl::InvalidArgumentError(absl::StrCat(
        folder, ": found ", error ? error.message() : "files in it", ", wanted an empty folder"));
  }
  std::vector<OutTensor> tensors;
  std::vector<std::string> ignored;
  for (const auto& [name, view] : checkpoint.files().tensors()) {
    if (const auto found = quantized.find(std::string(name)); found != quantized.end()) {
      AddQuantized(found->first, found->second, tensors);
      continue;
    }
    if (view.shape.size() == 2 && absl::EndsWith(name, ".weight")) {
      ignored.emplace_back(absl::StripSuffix(name, ".weight"));
    }
    tensors.push_back({std::string(name),
                       view.dtype,
                       {view.shape.begin(), view.shape.end()},
                       [bytes = view.bytes] { return AsText(bytes.data(), bytes.size()); },
                       static_cast<int64_t>(view.bytes.size())});
  }
  const std::string source = checkpoint.folder();
  TROUPE_ASSIGN_OR_RETURN(const nlohmann::json parsed, ReadJsonFile(source + "/config.json"));
  Json config = parsed;
  config["quantization_config"] = QuantizationConfig(format, ignored);
  TROUPE_RETURN_IF_ERROR(WriteTensors(folder + "/model.safetensors", tensors));
  TROUPE_RETURN_IF_ERROR(CopyTextFiles(source, folder));
  std::ofstream file(folder + "/config.json");
  file << config.dump(2) << "\n";
  file.close();
  if (!file) return absl::UnavailableError(folder + "/config.json: writing failed");
  return absl::OkStatus();
}

}  // namespace troupe
