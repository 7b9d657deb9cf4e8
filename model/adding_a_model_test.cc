// docs/adding-a-model.md shows code; it is the code.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "absl/strings/str_split.h"
#include "model/json_reader.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

std::string Source(const std::string& path) {
  const char* root = std::getenv("TROUPE_SOURCE_DIR");
  const auto text = ReadTextFile(std::string(root != nullptr ? root : ".") + "/" + path, 1 << 20);
  EXPECT_TRUE(text.ok()) << text.status();
  return text.value_or("");
}

TEST(AddingAModelTest, ShowsTheExampleAsItIs) {
  const std::string code = Source("model/architectures/smollm3.cc");
  int blocks = 0;
  for (absl::string_view block :
       absl::StrSplit(Source("docs/adding-a-model.md"), "```cpp\n", absl::SkipEmpty())) {
    if (blocks++ == 0) continue;  // what stands before the first block
    const absl::string_view shown = block.substr(0, block.find("```"));
    EXPECT_THAT(code, HasSubstr(std::string(shown)));
  }
  EXPECT_EQ(blocks, 4);
}

}  // namespace
}  // namespace troupe
