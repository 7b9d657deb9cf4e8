// Tenants: their names, and the namespaces that keep their cached blocks apart.
//
// A namespace is an HMAC of the tenant's name under the coordinator's own secret: no client can
// name another tenant's, and it cannot be computed from a name alone.
//
// Thread model: immutable after construction; any thread.
#ifndef TROUPE_COORDINATOR_TENANT_H_
#define TROUPE_COORDINATOR_TENANT_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace troupe {

inline constexpr std::string_view kDefaultTenant = "default";

// InvalidArgument unless 1 to 64 letters, digits, '-', '_' and '.'.
absl::Status ValidateTenantName(std::string_view name);

class TenantNamespaces {
 public:
  // Reads the secret (32 bytes) from `file`, made there (mode 0600) on the first start: the same
  // secret after a restart means that the cache still hits. FailedPrecondition when the file holds
  // something else; otherwise the file system's errors.
  static absl::StatusOr<TenantNamespaces> Open(const std::string& file);

  explicit TenantNamespaces(std::string secret);

  // HMAC-SHA256(secret, tenant), 32 bytes.
  std::string Of(std::string_view tenant) const;

 private:
  std::string secret_;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_TENANT_H_
