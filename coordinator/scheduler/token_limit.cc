#include "coordinator/scheduler/token_limit.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "absl/strings/str_cat.h"
#include "coordinator/scheduler/block_key.h"
#include "coordinator/scheduler/priority.h"

namespace troupe {
namespace {

absl::Status CheckFields(const SequenceRequest& request) {
  if (request.prompt_tokens == 0) return absl::InvalidArgumentError("the prompt has no tokens");
  if (request.prompt_tokens > request.tokens.size()) {
    return absl::InvalidArgumentError(absl::StrCat("prompt_tokens ", request.prompt_tokens,
                                                   " exceed the ", request.tokens.size(),
                                                   " tokens given"));
  }
  if (std::abs(request.priority) > kMaxPriority) {
    return absl::InvalidArgumentError(absl::StrCat("priority ", request.priority, " is not in -",
                                                   kMaxPriority, "..", kMaxPriority));
  }
  if (!(request.tenant_weight > 0) || !std::isfinite(request.tenant_weight)) {
    return absl::InvalidArgumentError(absl::StrCat("weight ", request.tenant_weight, " of tenant '",
                                                   request.tenant, "' is not a positive number"));
  }
  if (request.tenant_namespace.size() > kMaxTenantNamespaceBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the tenant namespace has ",
                                                   request.tenant_namespace.size(),
                                                   " bytes, more than ", kMaxTenantNamespaceBytes));
  }
  return absl::OkStatus();
}

// Tokens that fit into the pages of `group`, one sequence alone. The last generated token needs no
// page: nothing is computed from it.
uint64_t TokensThatFit(const ReplicaInfo& replica, uint32_t group) {
  const KvGroupInfo& info = replica.groups[group];
  const uint64_t all = std::numeric_limits<uint32_t>::max();
  if (replica.PagesNeeded(group, replica.max_context) <= info.page_count) return all;
  return uint64_t{info.page_count} * replica.block_tokens + 1;
}

}  // namespace

absl::StatusOr<uint32_t> TokenLimit(const SequenceRequest& request, const ReplicaInfo& replica) {
  if (absl::Status status = CheckFields(request); !status.ok()) return status;
  uint64_t fits = replica.max_context;
  std::string why = absl::StrCat("a context of ", replica.max_context, " tokens");
  for (uint32_t g = 0; g < replica.groups.size(); ++g) {
    const uint64_t tokens = TokensThatFit(replica, g);
    if (tokens >= fits) continue;
    fits = tokens;
    why = absl::StrCat(replica.groups[g].page_count, " pages of ", replica.block_tokens,
                       " tokens in KV group '", replica.groups[g].name, "'");
  }
  const uint64_t wanted_output = std::max(request.max_output_tokens, 1u);
  const uint64_t wanted = request.prompt_tokens + wanted_output;
  if (wanted > fits) {
    return absl::InvalidArgumentError(
        absl::StrCat(request.prompt_tokens, " prompt tokens + ", wanted_output,
                     " tokens to generate = ", wanted, " exceed the ", fits, " that fit: worker '",
                     replica.worker, "' has ", why, "; shorten the prompt or lower max_tokens"));
  }
  const uint64_t limit = request.max_output_tokens == 0 ? fits : wanted;
  if (request.tokens.size() >= limit) {
    return absl::InvalidArgumentError(
        absl::StrCat("of ", limit, " tokens in all ", request.tokens.size(),
                     " are there already: nothing is left to generate"));
  }
  return static_cast<uint32_t>(limit);
}

}  // namespace troupe
