#include "model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// A file of the format: length, header, data. `length` overrides the true header length.
std::string File(const std::string& header, const std::string& data,
                 std::optional<uint64_t> length = std::nullopt) {
  const uint64_t size = length.value_or(header.size());
  std::string file(reinterpret_cast<const char*>(&size), sizeof(size));
  return file + header + data;
}

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Parse(const std::string& bytes) {
  return SafetensorsFile::Parse("x.safetensors", std::as_bytes(std::span(bytes)));
}

class FolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "safetensors_" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& bytes) {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << bytes;
  }
  void WriteIndex(const std::string& weight_map) {
    Write("model.safetensors.index.json", R"({"metadata":{},"weight_map":)" + weight_map + "}");
  }
  // A file with one U8 tensor of two bytes.
  void WriteShard(const std::string& name, const std::string& tensor) {
    Write(name, File(absl::StrCat(R"({")", tensor,
                                  R"(":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})"),
                     "ab"));
  }
  absl::Status Open() { return SafetensorsCheckpoint::OpenFolder(folder_).status(); }

  std::string folder_;
};

TEST(SafetensorsFileTest, ReadsTensorsInTheOrderOfTheirData) {
  const std::string bytes =
      File(R"({"b":{"dtype":"F32","shape":[1,2],"data_offsets":[4,12]},)"
           R"("a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},)"
           R"("empty":{"dtype":"I64","shape":[3,0],"data_offsets":[12,12]},)"
           R"("scalar":{"dtype":"U8","shape":[],"data_offsets":[12,13]},)"
           R"("__metadata__":{"format":"pt"}}   )",
           std::string("\x80\x3f\x00\x40\x00\x00\x80\x3f\x00\x00\x00\x40\x07", 13));
  const auto file = Parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto& tensors = (*file)->tensors();
  ASSERT_EQ(tensors.size(), 4);
  EXPECT_EQ(tensors[0].name, "a");
  EXPECT_EQ(tensors[0].dtype, StoredDType::kBF16);
  EXPECT_EQ(tensors[1].name, "b");
  EXPECT_EQ(tensors[1].ShapeString(), "[1, 2]");
  EXPECT_EQ(tensors[1].elements(), 2);
  float values[2];
  std::memcpy(values, tensors[1].bytes.data(), sizeof(values));
  EXPECT_EQ(values[0], 1.0f);
  EXPECT_EQ(values[1], 2.0f);
  EXPECT_EQ(tensors[2].elements(), 0);
  EXPECT_EQ(tensors[3].elements(), 1);
  EXPECT_EQ(static_cast<int>(tensors[3].bytes[0]), 7);
  EXPECT_EQ((*file)->metadata().at("format"), "pt");
}

TEST(SafetensorsFileTest, AlignsWhatTheFileDoesNot) {
  for (int padding = 0; padding < 8; ++padding) {
    const std::string bytes = File(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                   R"("b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})" +
                                       std::string(padding, ' '),
                                   std::string("\x01\x00\x00\x80\x3f", 5));
    const auto file = Parse(bytes);
    ASSERT_TRUE(file.ok()) << file.status();
    const std::byte* data = (*file)->tensors()[1].bytes.data();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % alignof(float), 0);
    EXPECT_EQ(*reinterpret_cast<const float*>(data), 1.0f);
  }
}

TEST(SafetensorsFileTest, KnowsEveryDType) {
  for (int i = 0; i <= static_cast<int>(StoredDType::kC64); ++i) {
    const auto dtype = static_cast<StoredDType>(i);
    EXPECT_EQ(DTypeFromName(DTypeName(dtype)), dtype);
    EXPECT_GT(BitsPerElement(dtype), 0);
  }
  EXPECT_EQ(DTypeFromName("bf16"), std::nullopt);
  const std::string packed =
      File(R"({"a":{"dtype":"F4","shape":[3,2],"data_offsets":[0,3]}})", "abc");
  EXPECT_TRUE(Parse(packed).ok());
}

struct Malformed {
  const char* what;
  std::string bytes;
  const char* field;   // named by the error
  const char* wanted;  // part of what it says was wanted, or found
};

std::string OneTensor(const std::string& info, const std::string& data = "abcd") {
  return File(absl::StrCat(R"({"t":)", info, "}"), data);
}

const Malformed kMalformedFiles[] = {
    {"empty file", "", "size", "at least 8 bytes"},
    {"short length", "abc", "size", "at least 8 bytes"},
    {"zero length", File("", ""), "header length", "2 to"},
    {"huge length", File("{}", "", uint64_t{1} << 63), "header length", "2 to 100000000"},
    {"length over the limit", File("{}", "", 100'000'001), "header length", "2 to 100000000"},
    {"truncated header", File("{}", "", 50), "header length", "truncated"},
    {"leading space", File(" {}", ""), "first byte", "'{'"},
    {"header is a list", File("[]", ""), "first byte", "'{'"},
    {"unfinished JSON", File(R"({"a")", ""), "byte", "valid JSON"},
    {"text after the JSON", File("{}x", ""), "byte", "valid JSON"},
    {"not UTF-8", File("{\"\xff\":1}", ""), "byte", "valid JSON"},
    {"NaN", File(R"({"a":NaN})", ""), "byte", "valid JSON"},
    {"duplicate tensor",
     File(R"({"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
          R"("t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
          ""),
     "t", "twice"},
    {"duplicate field",
     OneTensor(R"({"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]})"), "dtype",
     "twice"},
    {"deep nesting", File(R"({"t":)" + std::string(100, '[') + std::string(100, ']') + "}", ""),
     "nesting", "at most 64"},
    {"tensor is a number", File(R"({"t":7})", ""), "t", "an object of dtype"},
    {"no dtype", OneTensor(R"({"shape":[4],"data_offsets":[0,4]})"), "t", "an object of dtype"},
    {"extra field", OneTensor(R"({"dtype":"U8","shape":[4],"data_offsets":[0,4],"x":1})"), "t",
     "an object of dtype"},
    {"unknown dtype", OneTensor(R"({"dtype":"F23","shape":[4],"data_offsets":[0,4]})"), "t.dtype",
     "a known dtype"},
    {"dtype is a number", OneTensor(R"({"dtype":8,"shape":[4],"data_offsets":[0,4]})"), "t.dtype",
     "a known dtype"},
    {"shape is a number", OneTensor(R"({"dtype":"U8","shape":4,"data_offsets":[0,4]})"), "t.shape",
     "a list"},
    {"negative size", OneTensor(R"({"dtype":"U8","shape":[-4],"data_offsets":[0,4]})"),
     "t.shape[0]", "an integer"},
    {"fractional size", OneTensor(R"({"dtype":"U8","shape":[4.0],"data_offsets":[0,4]})"),
     "t.shape[0]", "an integer"},
    {"size over 2^63",
     OneTensor(R"({"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,4]})"), "t.shape",
     "under 2^63"},
    {"size over 2^64",
     OneTensor(R"({"dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,4]})"),
     "t.shape[0]", "an integer"},
    {"overflowing product",
     OneTensor(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]})"),
     "t.shape", "whole bytes"},
    {"half a byte", OneTensor(R"({"dtype":"F4","shape":[3],"data_offsets":[0,2]})", "ab"),
     "t.shape", "whole bytes"},
    {"one offset", OneTensor(R"({"dtype":"U8","shape":[4],"data_offsets":[0]})"), "t.data_offsets",
     "begin <= end"},
    {"offsets reversed", OneTensor(R"({"dtype":"U8","shape":[4],"data_offsets":[4,0]})"),
     "t.data_offsets", "begin <= end"},
    {"negative offset", OneTensor(R"({"dtype":"U8","shape":[4],"data_offsets":[-4,0]})"),
     "t.data_offsets[0]", "an integer"},
    {"too few bytes", OneTensor(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})"),
     "t.data_offsets", "8 bytes for F32 [2]"},
    {"hole at the start", OneTensor(R"({"dtype":"U8","shape":[3],"data_offsets":[1,4]})"),
     "t.data_offsets", "without holes"},
    {"hole between",
     File(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
          R"("b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
          "abc"),
     "b.data_offsets", "without holes"},
    {"overlap",
     File(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
          R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
          "abc"),
     "b.data_offsets", "without overlap"},
    {"truncated data", OneTensor(R"({"dtype":"U8","shape":[9],"data_offsets":[0,9]})"), "data",
     "truncated"},
    {"trailing data", OneTensor(R"({"dtype":"U8","shape":[2],"data_offsets":[0,2]})"), "data",
     "2 bytes, where the last tensor ends"},
    {"data without tensors", File("{}", "abc"), "data", "0 bytes"},
    {"metadata is a list", File(R"({"__metadata__":[]})", ""), "__metadata__",
     "an object of strings"},
    {"metadata of a number", File(R"({"__metadata__":{"a":1}})", ""), "__metadata__.a", "a string"},
};

TEST(SafetensorsFileTest, MalformedFilesFailByName) {
  EXPECT_GE(std::size(kMalformedFiles), 20);
  for (const Malformed& test : kMalformedFiles) {
    SCOPED_TRACE(test.what);
    const auto file = Parse(test.bytes);
    ASSERT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument) << file.status();
    EXPECT_THAT(std::string(file.status().message()),
                AllOf(HasSubstr("x.safetensors: "), HasSubstr(test.field), HasSubstr(": found "),
                      HasSubstr(", wanted "), HasSubstr(test.wanted)));
  }
}

// Any cut of a good file is an error, never a read past its end.
TEST(SafetensorsFileTest, EveryTruncationFails) {
  const std::string whole = OneTensor(R"({"dtype":"U8","shape":[4],"data_offsets":[0,4]})");
  ASSERT_TRUE(Parse(whole).ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(Parse(whole.substr(0, size)).ok()) << size;
  }
}

TEST_F(FolderTest, OpensOneFileOrShards) {
  WriteShard("a.safetensors", "first");
  WriteShard("b.safetensors", "second");
  WriteIndex(R"({"first":"a.safetensors","second":"b.safetensors"})");
  const auto checkpoint = SafetensorsCheckpoint::OpenFolder(folder_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->files().size(), 2);
  ASSERT_NE(checkpoint->Find("second"), nullptr);
  EXPECT_EQ(static_cast<char>(checkpoint->Find("second")->bytes[1]), 'b');
  EXPECT_EQ(checkpoint->Find("third"), nullptr);

  WriteShard("model.safetensors", "only");
  const auto single = SafetensorsCheckpoint::OpenFolder(folder_);
  ASSERT_TRUE(single.ok()) << single.status();
  EXPECT_EQ(single->tensors().size(), 1);
}

TEST_F(FolderTest, MissingFilesAreNotFound) {
  EXPECT_EQ(Open().code(), absl::StatusCode::kNotFound);
  WriteShard("a.safetensors", "first");
  WriteIndex(R"({"first":"a.safetensors","second":"b.safetensors"})");
  EXPECT_EQ(Open().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Open().message()), HasSubstr("b.safetensors"));
}

TEST_F(FolderTest, MalformedIndexesFailByName) {
  WriteShard("a.safetensors", "first");
  WriteShard("b.safetensors", "first");
  const std::pair<const char*, const char*> cases[] = {
      {"[]", "weight_map"},
      {"{}", "weight_map"},
      {"7", "weight_map"},
      {R"({"first":7})", "the name of a file"},
      {R"({"first":""})", "the name of a file"},
      {R"({"first":"../a.safetensors"})", "the name of a file"},
      {R"({"first":"/a.safetensors"})", "the name of a file"},
      {R"({"first":".."})", "the name of a file"},
      {R"({"first":"a.safetensors","first":"a.safetensors"})", "twice"},
      {R"({"second":"a.safetensors"})", "weight_map.first: found nothing"},
      {R"({"first":"a.safetensors","second":"a.safetensors"})", "second: found no such tensor"},
      {R"({"first":"a.safetensors","second":"b.safetensors"})", "weight_map.first"},
  };
  for (const auto& [weight_map, expected] : cases) {
    WriteIndex(weight_map);
    EXPECT_EQ(Open().code(), absl::StatusCode::kInvalidArgument) << weight_map;
    EXPECT_THAT(std::string(Open().message()), HasSubstr(expected)) << weight_map;
  }
  Write("model.safetensors.index.json", "not JSON");
  EXPECT_THAT(std::string(Open().message()), HasSubstr("valid JSON"));
}

TEST_F(FolderTest, AFolderInPlaceOfAFileIsAnError) {
  std::filesystem::create_directories(folder_ + "/model.safetensors");
  EXPECT_EQ(Open().code(), absl::StatusCode::kInvalidArgument) << Open();
}

}  // namespace
}  // namespace troupe
