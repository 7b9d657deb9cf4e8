#include "coordinator/block_lookup_client.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace troupe {
namespace {

// Of one Stat call; a longer prefix is asked for as far as this goes.
constexpr size_t kMaxKeys = 16384;

}  // namespace

BlockLookup LookupByStat(std::shared_ptr<CacheClient> client) {
  return [client = std::move(client)](
             const v1::WorkerInfo& model, const std::string& tenant_namespace,
             std::vector<BlockKey> keys, absl::AnyInvocable<void(std::vector<uint32_t>)> done) {
    const auto groups = static_cast<size_t>(model.groups_size());
    const size_t blocks = std::min(keys.size(), kMaxKeys / std::max<size_t>(groups, 1));
    std::vector<CacheClient::Key> asked;
    asked.reserve(blocks * groups);
    for (size_t block = 0; block < blocks; ++block) {
      for (uint32_t group = 0; group < groups; ++group) {
        asked.push_back({keys[block].ToString(), tenant_namespace, group});
      }
    }
    client->Stat(
        model.cache_identity().empty() ? model.identity() : model.cache_identity(), asked,
        [groups, blocks, done = std::move(done)](absl::StatusOr<std::vector<bool>> found) mutable {
          std::vector<uint32_t> cached(found.ok() ? blocks : 0);
          if (!found.ok()) LOG(WARNING) << "cache lookup failed: " << found.status();
          for (size_t i = 0; i < cached.size() * groups; ++i) {
            if ((*found)[i]) cached[i / groups] |= 1u << (i % groups);
          }
          // The end that nothing is known of costs space and tells nothing.
          while (!cached.empty() && cached.back() == 0) cached.pop_back();
          done(std::move(cached));
        });
  };
}

}  // namespace troupe
