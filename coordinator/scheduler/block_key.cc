#include "coordinator/scheduler/block_key.h"

#include <openssl/evp.h>

#include <bit>
#include <memory>

#include "base/check.h"

namespace troupe {
namespace {

// Tokens and floats are hashed as they lie in memory.
static_assert(std::endian::native == std::endian::little);

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

// One hash in the making. The context is kept for the thread: making one costs more than a block.
class Sha256 {
 public:
  Sha256() { CHECK(EVP_DigestInit_ex(context(), EVP_sha256(), nullptr) == 1); }

  void Update(const void* data, size_t bytes) {
    CHECK(EVP_DigestUpdate(context(), data, bytes) == 1);
  }
  void Update(std::string_view data) { Update(data.data(), data.size()); }

  BlockKey Final() {
    BlockKey key;
    CHECK(EVP_DigestFinal_ex(context(), key.bytes.data(), nullptr) == 1);
    return key;
  }

 private:
  static EVP_MD_CTX* context() {
    thread_local const std::unique_ptr<EVP_MD_CTX, FreeContext> context(EVP_MD_CTX_new());
    CHECK(context != nullptr);
    return context.get();
  }
};

}  // namespace

BlockKey RootKey(std::string_view identity, std::string_view tenant_namespace,
                 const v1::GateSetting& gate) {
  Sha256 hash;
  hash.Update("troupe.kv.v1");
  hash.Update(identity);
  CHECK_LE(tenant_namespace.size(), kMaxTenantNamespaceBytes);
  const uint8_t length = static_cast<uint8_t>(tenant_namespace.size());
  hash.Update(&length, sizeof(length));
  hash.Update(tenant_namespace);
  // Adding zero makes -0 and 0, which mean the same, the same bytes.
  const float setting[2] = {gate.threshold() + 0.0f, gate.adaptive_mass() + 0.0f};
  hash.Update(setting, sizeof(setting));
  return hash.Final();
}

BlockKey NextKey(const BlockKey& parent, absl::Span<const uint32_t> tokens) {
  Sha256 hash;
  hash.Update(parent.view());
  hash.Update(tokens.data(), tokens.size() * sizeof(uint32_t));
  return hash.Final();
}

std::vector<BlockKey> BlockKeys(const BlockKey& root, absl::Span<const uint32_t> tokens,
                                uint32_t block_tokens, size_t max_blocks) {
  const size_t blocks = std::min(max_blocks, tokens.size() / block_tokens);
  std::vector<BlockKey> keys;
  keys.reserve(blocks);
  const BlockKey* parent = &root;
  for (size_t i = 0; i < blocks; ++i) {
    keys.push_back(NextKey(*parent, tokens.subspan(i * block_tokens, block_tokens)));
    parent = &keys.back();
  }
  return keys;
}

}  // namespace troupe
