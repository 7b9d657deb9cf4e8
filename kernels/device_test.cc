#include "kernels/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

TEST(DeviceTest, TheCpuIsAlwaysThere) {
  const auto ops = MakeOps("cpu", {.threads = 1});
  ASSERT_TRUE(ops.ok()) << ops.status();
  EXPECT_THAT((*ops)->Describe(), testing::HasSubstr("cpu"));
}

TEST(DeviceTest, RefusesOtherNames) {
  for (const char* name :
       {"", "gpu", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "cuda0", "cuda,", "cuda,0"}) {
    const auto ops = MakeOps(name, {});
    EXPECT_EQ(ops.status().code(), absl::StatusCode::kInvalidArgument) << name;
  }
}

TEST(DeviceTest, SaysWhyThereIsNoSuchGpu) {
  const auto ops = MakeOps("cuda:4096", {});
  EXPECT_EQ(ops.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(ops.status().message()), testing::HasSubstr("CUDA"));
}

}  // namespace
}  // namespace troupe
