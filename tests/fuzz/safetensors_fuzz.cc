// Bytes as a .safetensors file.

#include <cstring>
#include <memory>
#include <span>

#include "base/check.h"
#include "model/json_reader.h"
#include "model/safetensors.h"
#include "tests/fuzz/fuzz_target.h"

namespace troupe {
namespace {

constexpr char kPath[] = "fuzz.safetensors";

std::string FileOf(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  return file + header + data;
}

// What every view of a file that was taken must be.
void CheckTensors(const SafetensorsFile& file) {
  uint64_t bytes = 0;
  unsigned char touched = 0;
  for (const TensorView& view : file.tensors()) {
    CHECK_EQ(static_cast<uint64_t>(view.elements()) * BitsPerElement(view.dtype),
             view.bytes.size() * 8)
        << view.name;
    for (const std::byte byte : view.bytes) touched ^= static_cast<unsigned char>(byte);
    bytes += view.bytes.size();
  }
  CHECK_LE(bytes, file.bytes().size());
  static volatile unsigned char sink;
  sink = touched;
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  std::vector<std::string> seeds = {
      FileOf("{}", ""),
      FileOf(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "ab"),
      FileOf(R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[1,2],)"
             R"("data_offsets":[0,8]},"a":{"dtype":"BF16","shape":[],"data_offsets":[8,10]}})",
             "0123456789"),
      FileOf(R"({"x":{"dtype":"F4","shape":[2,2],"data_offsets":[0,2]},)"
             R"("y":{"dtype":"F8_E4M3","shape":[0,7],"data_offsets":[2,2]}})",
             "ab"),
  };
  for (const char* name : {"llama", "gpt_oss_mxfp4"}) {
    const auto file = ReadTextFile(
        InSourceTree(std::string("tests/golden/models/") + name + "/golden.safetensors"), 1 << 20);
    if (file.ok()) seeds.push_back(*file);
  }
  return seeds;
}

std::vector<std::string> FuzzWords() {
  return {R"("dtype")",
          R"("shape")",
          R"("data_offsets")",
          R"("__metadata__")",
          "[",
          "]",
          "{",
          "}",
          ",",
          ":",
          R"("BF16")",
          R"("I64")",
          R"("F6_E2M3")",
          R"("C64")",
          "[0,0]",
          "[4294967296,4294967296]",
          "\xff\xff\xff\xff\xff\xff\xff\x7f"};
}

}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy of exactly this size: a read beyond it is seen.
  const std::unique_ptr<std::byte[]> copy = std::make_unique<std::byte[]>(size);
  std::memcpy(copy.get(), data, size);
  const auto file = troupe::SafetensorsFile::Parse(troupe::kPath, std::span(copy.get(), size));
  if (file.ok()) {
    troupe::CheckTensors(**file);
  } else {
    CHECK(absl::IsInvalidArgument(file.status())) << file.status();
    CHECK(file.status().message().find(troupe::kPath) == 0) << file.status();
  }
  return 0;
}
