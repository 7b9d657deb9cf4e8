#include "coordinator/tenant.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace troupe {
namespace {

constexpr size_t kSecretBytes = 32;
constexpr size_t kMaxNameBytes = 64;

absl::Status FileError(absl::string_view what, const std::string& file) {
  return absl::ErrnoToStatus(errno, absl::StrCat("tenant secret ", file, ": cannot ", what));
}

absl::StatusOr<std::string> ReadSecret(const std::string& file) {
  const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FileError("open it", file);
  const auto close_fd = absl::MakeCleanup([fd] { close(fd); });
  std::string secret(kSecretBytes + 1, '\0');
  const ssize_t count = read(fd, secret.data(), secret.size());
  if (count < 0) return FileError("read it", file);
  if (count != kSecretBytes) {
    return absl::FailedPreconditionError(
        absl::StrCat("tenant secret ", file, ": found ", count, " bytes or more, wanted ",
                     kSecretBytes, "; remove it to start with a new one (and an empty cache)"));
  }
  secret.resize(kSecretBytes);
  return secret;
}

// Written beside and linked into place: two starts at once agree on one secret, and a crash leaves
// none or a whole one.
absl::Status CreateSecret(const std::string& file) {
  std::string secret(kSecretBytes, '\0');
  CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(secret.data()), kSecretBytes) == 1);
  const std::string temporary = absl::StrCat(file, ".", getpid(), ".new");
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return FileError("create it", file);
  const auto remove = absl::MakeCleanup([&] { unlink(temporary.c_str()); });
  const bool written = write(fd, secret.data(), secret.size()) == kSecretBytes && fsync(fd) == 0;
  if (close(fd) != 0 || !written) return FileError("write it", file);
  if (link(temporary.c_str(), file.c_str()) != 0 && errno != EEXIST) {
    return FileError("create it", file);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateTenantName(std::string_view name) {
  const bool known = std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
  });
  if (!name.empty() && name.size() <= kMaxNameBytes && known) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("tenant: found ", name.size(),
                                                 " bytes, wanted 1 to ", kMaxNameBytes,
                                                 " letters, digits, '-', '_' or '.'"));
}

absl::StatusOr<TenantNamespaces> TenantNamespaces::Open(const std::string& file) {
  if (access(file.c_str(), F_OK) != 0) {
    absl::Status created = CreateSecret(file);
    if (!created.ok()) return created;
  }
  absl::StatusOr<std::string> secret = ReadSecret(file);
  if (!secret.ok()) return secret.status();
  return TenantNamespaces(*std::move(secret));
}

TenantNamespaces::TenantNamespaces(std::string secret) : secret_(std::move(secret)) {}

std::string TenantNamespaces::Of(std::string_view tenant) const {
  std::string out(EVP_MAX_MD_SIZE, '\0');
  unsigned length = 0;
  CHECK(HMAC(EVP_sha256(), secret_.data(), static_cast<int>(secret_.size()),
             reinterpret_cast<const unsigned char*>(tenant.data()), tenant.size(),
             reinterpret_cast<unsigned char*>(out.data()), &length) != nullptr);
  out.resize(length);
  return out;
}

}  // namespace troupe
