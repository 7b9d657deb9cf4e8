#include "coordinator/tenant.h"

#include <sys/stat.h>

#include <fstream>

#include "absl/strings/escaping.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

std::string TempFile(const std::string& name) {
  const std::string file = testing::TempDir() + "/" + name;
  std::remove(file.c_str());
  return file;
}

TEST(TenantTest, NamesAreChecked) {
  EXPECT_TRUE(ValidateTenantName("team-a_1.x").ok());
  EXPECT_FALSE(ValidateTenantName("").ok());
  EXPECT_FALSE(ValidateTenantName("a b").ok());
  EXPECT_FALSE(ValidateTenantName(std::string(65, 'a')).ok());
}

TEST(TenantTest, NamespaceIsHmacSha256) {
  // RFC 4231, test case 1.
  const TenantNamespaces namespaces(std::string(20, '\x0b'));
  EXPECT_EQ(absl::BytesToHexString(namespaces.Of("Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
}

TEST(TenantTest, SecretIsMadeOnceAndKept) {
  const std::string file = TempFile("secret");
  auto first = TenantNamespaces::Open(file);
  ASSERT_TRUE(first.ok()) << first.status();
  auto second = TenantNamespaces::Open(file);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(first->Of("a"), second->Of("a"));
  EXPECT_NE(first->Of("a"), first->Of("b"));
  struct stat info;
  ASSERT_EQ(stat(file.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST(TenantTest, DamagedSecretIsRefused) {
  const std::string file = TempFile("damaged");
  std::ofstream(file) << "short";
  auto opened = TenantNamespaces::Open(file);
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(opened.status().message(), HasSubstr(file));
  EXPECT_FALSE(TenantNamespaces::Open("/no/such/folder/secret").ok());
}

}  // namespace
}  // namespace troupe
