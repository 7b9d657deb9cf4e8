#include "model/identity.h"

#include <openssl/evp.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <thread>

#include "base/check.h"

namespace troupe {
namespace {

using Digest = std::array<uint8_t, 32>;

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    CHECK(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
  }

  void Add(const void* data, size_t size) {
    CHECK(EVP_DigestUpdate(context_.get(), data, size) == 1);
  }

  void AddNumber(uint64_t number) {
    std::array<uint8_t, 8> bytes;
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(number >> (8 * i));
    Add(bytes.data(), bytes.size());
  }

  Digest Take() {
    Digest digest;
    CHECK(EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr) == 1);
    return digest;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

struct Chunk {
  std::span<const std::byte> bytes;
  Digest* leaf;
};

}  // namespace

std::array<uint8_t, 32> HashFiles(const std::vector<IdentityFile>& files, int threads,
                                  const std::function<void(uint64_t, uint64_t)>& progress) {
  std::vector<std::vector<Digest>> leaves(files.size());
  std::vector<Chunk> chunks;
  uint64_t bytes_total = 0;
  for (size_t f = 0; f < files.size(); ++f) {
    const std::span<const std::byte> bytes = files[f].bytes;
    leaves[f].resize((bytes.size() + kIdentityChunkBytes - 1) / kIdentityChunkBytes);
    bytes_total += bytes.size();
    for (size_t i = 0; i < leaves[f].size(); ++i) {
      const size_t begin = i * kIdentityChunkBytes;
      chunks.push_back({bytes.subspan(begin, std::min(kIdentityChunkBytes, bytes.size() - begin)),
                        &leaves[f][i]});
    }
  }

  std::atomic<size_t> next_chunk = 0;
  std::mutex progress_mutex;
  uint64_t bytes_done = 0;  // guarded by progress_mutex
  const auto work = [&] {
    for (size_t i = next_chunk++; i < chunks.size(); i = next_chunk++) {
      Sha256 leaf;
      leaf.Add(chunks[i].bytes.data(), chunks[i].bytes.size());
      *chunks[i].leaf = leaf.Take();
      if (!progress) continue;
      std::lock_guard lock(progress_mutex);
      bytes_done += chunks[i].bytes.size();
      progress(bytes_done, bytes_total);
    }
  };
  const size_t workers = std::clamp<size_t>(threads, 1, std::max<size_t>(chunks.size(), 1));
  std::vector<std::jthread> pool;
  for (size_t i = 1; i < workers; ++i) pool.emplace_back(work);
  work();
  pool.clear();

  Sha256 root;
  root.AddNumber(files.size());
  for (size_t f = 0; f < files.size(); ++f) {
    Sha256 file;
    file.Add(files[f].name.c_str(), files[f].name.size() + 1);
    file.AddNumber(files[f].bytes.size());
    for (const Digest& leaf : leaves[f]) file.Add(leaf.data(), leaf.size());
    const Digest digest = file.Take();
    root.Add(digest.data(), digest.size());
  }
  return root.Take();
}

}  // namespace troupe
