// What a fuzz target defines, for libFuzzer or for driver.cc.
//
// A target feeds bytes to something that reads other people's files and CHECKs what must hold for
// any of them: no crash, errors of the documented kind, results that agree with each other.
//
// Thread model: one thread. Ownership: inputs are borrowed for the call.
#ifndef TROUPE_TESTS_FUZZ_FUZZ_TARGET_H_
#define TROUPE_TESTS_FUZZ_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

// libFuzzer's entry point; answers 0.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace troupe {

// Inputs to mutate, besides a corpus: files of the source tree that are valid.
std::vector<std::string> FuzzSeeds();

// Words that mean something to the target, to insert.
std::vector<std::string> FuzzWords();

// `relative` under the source tree, which ctest names in TROUPE_SOURCE_DIR.
inline std::string InSourceTree(const std::string& relative) {
  const char* root = std::getenv("TROUPE_SOURCE_DIR");
  return std::string(root == nullptr ? "." : root) + "/" + relative;
}

inline absl::string_view AsText(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace troupe

#endif  // TROUPE_TESTS_FUZZ_FUZZ_TARGET_H_
