// Bytes as a config.json.

#include <filesystem>

#include "base/check.h"
#include "model/architectures/architecture.h"
#include "model/description.h"
#include "model/json_reader.h"
#include "tests/fuzz/fuzz_target.h"

namespace troupe {

std::vector<std::string> FuzzSeeds() {
  namespace fs = std::filesystem;
  std::vector<std::string> seeds;
  for (const char* folder : {"models", "tests/golden/models", "bench/shapes"}) {
    std::error_code error;
    for (const auto& entry : fs::recursive_directory_iterator(InSourceTree(folder), error)) {
      const std::string name = entry.path().filename().string();
      if (name != "config.json" && name != "config.legacy.json") continue;
      const auto text = ReadTextFile(entry.path().string(), 1 << 20);
      if (text.ok()) seeds.push_back(*text);
    }
  }
  std::sort(seeds.begin(), seeds.end());  // folders have no order of their own
  return seeds;
}

std::vector<std::string> FuzzWords() {
  return {"null",
          "true",
          "false",
          "[]",
          "{}",
          R"("")",
          R"("yarn")",
          R"("linear")",
          R"("default")",
          R"("sliding_attention")",
          R"("rope_scaling":)",
          R"("rope_parameters":)",
          R"("rope_theta":)",
          R"("head_dim":)",
          R"("layer_types":)",
          R"("quantization_config":)",
          R"("n_group":)",
          R"("sliding_window":)",
          ","};
}

}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr char kPath[] = "fuzz/config.json";
  const auto json = troupe::ParseJson(kPath, troupe::AsText(data, size));
  const absl::StatusOr<troupe::ConfiguredModel> model =
      json.ok() ? troupe::DescribeConfig(kPath, *json) : json.status();
  if (!model.ok()) {
    CHECK(absl::IsInvalidArgument(model.status()) || absl::IsUnimplemented(model.status()))
        << model.status();
    CHECK(model.status().message().find(kPath) == 0) << model.status();
    return 0;
  }
  CHECK_OK(troupe::ValidateDescription(model->description));
  for (const int bytes : {2, 4}) {
    const auto groups =
        troupe::StateGroups(model->description, {.kv_bytes_per_element = bytes, .with_mtp = true});
    CHECK(!groups.empty());
    for (const troupe::StateGroup& group : groups) CHECK_GT(group.page_bytes, 0) << group.name;
  }
  return 0;
}
