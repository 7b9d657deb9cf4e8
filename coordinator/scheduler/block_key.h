// Names of KV blocks that are the same for the same content, on every replica and after restarts.
//
//     root = SHA-256("troupe.kv.v1" || identity || len || tenant_namespace || gate)
//
//     key  = SHA-256(parent key || the block's tokens as little-endian u32)
//
// as cache.proto says; `len` is the namespace's length as one byte, `gate` the resolved setting's
// threshold and adaptive mass as two little-endian f32. A key covers all tokens before its block,
// so equal keys mean equal prefixes under equal settings, and tenants or gates never meet.
//
// Pure functions; any thread.
#ifndef TROUPE_COORDINATOR_SCHEDULER_BLOCK_KEY_H_
#define TROUPE_COORDINATOR_SCHEDULER_BLOCK_KEY_H_

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "troupe/v1/worker.pb.h"

namespace troupe {

inline constexpr size_t kMaxTenantNamespaceBytes = 64;

struct BlockKey {
  std::array<uint8_t, 32> bytes = {};

  std::string_view view() const {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  std::string ToString() const { return std::string(view()); }

  friend bool operator==(const BlockKey&, const BlockKey&) = default;

  // The key is a hash already: its first bytes are as good as a hash of all.
  template <typename H>
  friend H AbslHashValue(H state, const BlockKey& key) {
    uint64_t head;
    std::memcpy(&head, key.bytes.data(), sizeof(head));
    return H::combine(std::move(state), head);
  }
};

// The parent of a sequence's first block. `identity` is the model's, 32 bytes. REQUIRES: the
// namespace has at most kMaxTenantNamespaceBytes.
BlockKey RootKey(std::string_view identity, std::string_view tenant_namespace,
                 const v1::GateSetting& gate);

// The key of the block that holds `tokens` and follows the block `parent`.
BlockKey NextKey(const BlockKey& parent, absl::Span<const uint32_t> tokens);

// Keys of the leading full blocks of `tokens`, at most `max_blocks`.
std::vector<BlockKey> BlockKeys(const BlockKey& root, absl::Span<const uint32_t> tokens,
                                uint32_t block_tokens, size_t max_blocks = SIZE_MAX);

// How many leading blocks of a sequence of so many tokens can be reused: all that are full, except
// that the last token is always computed, since its logits are needed.
constexpr uint32_t ReusableBlocks(size_t tokens, uint32_t block_tokens) {
  return tokens == 0 ? 0 : static_cast<uint32_t>((tokens - 1) / block_tokens);
}

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_BLOCK_KEY_H_
