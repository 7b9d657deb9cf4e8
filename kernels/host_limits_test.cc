#include "kernels/host_limits.h"

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "gtest/gtest.h"

namespace troupe {
namespace {

class CgroupLimitsTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = testing::TempDir() + "/cgroup_" +
            testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(root_);
  }

  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text << "\n";
  }

  std::string root_;
};

TEST_F(CgroupLimitsTest, NoLimits) {
  Write("/job/cpu.max", "max 100000");
  Write("/job/memory.max", "max");
  const CgroupLimits limits = ReadCgroupLimits(root_, "0::/job\n");
  EXPECT_EQ(limits.cores, std::numeric_limits<int>::max());
  EXPECT_EQ(limits.memory_bytes, std::numeric_limits<int64_t>::max());
}

TEST_F(CgroupLimitsTest, TightestAncestorCounts) {
  Write("/cpu.max", "800000 100000");
  Write("/pod/cpu.max", "250000 100000");
  Write("/pod/memory.max", "5000");
  Write("/pod/memory.current", "2000");
  Write("/pod/job/cpu.max", "400000 100000");
  Write("/pod/job/memory.max", "9000");
  const CgroupLimits limits = ReadCgroupLimits(root_, "0::/pod/job\n");
  EXPECT_EQ(limits.cores, 2);
  EXPECT_EQ(limits.memory_bytes, 3000);
}

TEST_F(CgroupLimitsTest, PartOfACoreIsOne) {
  Write("/cpu.max", "50000 100000");
  EXPECT_EQ(ReadCgroupLimits(root_, "0::/\n").cores, 1);
}

TEST_F(CgroupLimitsTest, Version1) {
  Write("/cpu/job/cpu.cfs_quota_us", "300000");
  Write("/cpu/job/cpu.cfs_period_us", "100000");
  Write("/memory/memory.limit_in_bytes", "1000");
  Write("/memory/memory.usage_in_bytes", "100");
  const CgroupLimits limits =
      ReadCgroupLimits(root_, "7:cpuacct,cpu:/job\n3:memory:/job\n1:name=systemd:/job\n");
  EXPECT_EQ(limits.cores, 3);
  EXPECT_EQ(limits.memory_bytes, 900);
}

TEST(HostLimitsTest, ThisMachineHasCoresAndMemory) {
  EXPECT_GE(AvailableCores(), 1);
  EXPECT_GT(AvailableMemoryBytes(), 1 << 20);
}

}  // namespace
}  // namespace troupe
