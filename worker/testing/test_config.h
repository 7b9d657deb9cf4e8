// The configuration of workers in tests: the bundled model in f32, few pages, a socket of its own.
// Pure functions.
#ifndef TROUPE_WORKER_TESTING_TEST_CONFIG_H_
#define TROUPE_WORKER_TESTING_TEST_CONFIG_H_

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "worker/server.h"

namespace troupe::testing {

// `relative` under the source tree, which ctest names in TROUPE_SOURCE_DIR.
inline std::string InSourceTree(const std::string& relative) {
  const char* root = std::getenv("TROUPE_SOURCE_DIR");
  return absl::StrCat(root == nullptr ? "." : root, "/", relative);
}

// Announced to nobody; `socket` tells the workers of one process apart.
inline WorkerServer::Config TestWorkerConfig(const std::string& socket) {
  const std::string file = absl::StrCat("troupe_", socket, "_", getpid(), ".sock");
  WorkerServer::Config config;
  config.rpc.listen =
      absl::StrCat("unix:", (std::filesystem::temp_directory_path() / file).string());
  config.name = "w";
  config.coordinator.clear();
  config.rank.model = InSourceTree("models/abacus");
  config.rank.mode = ComputeMode::kF32;
  config.rank.kv_memory_bytes = 192 << 20;
  config.rank.max_rows = 8;
  config.rank.max_step_tokens = 64;
  config.rank.max_context = 2048;
  return config;
}

}  // namespace troupe::testing

#endif  // TROUPE_WORKER_TESTING_TEST_CONFIG_H_
