// Configs of the golden models, for tests.
//
// Thread model: pure functions.
#ifndef TROUPE_MODEL_TESTING_GOLDEN_CONFIG_H_
#define TROUPE_MODEL_TESTING_GOLDEN_CONFIG_H_

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "model/json_reader.h"

namespace troupe {

// tests/golden/models/FAMILY/FILE; an empty object, and a failure of the test, without it.
inline nlohmann::json GoldenConfig(const std::string& family,
                                   const std::string& file = "config.json") {
  const char* root = std::getenv("TROUPE_SOURCE_DIR");
  const auto config = ReadJsonFile(std::string(root != nullptr ? root : ".") +
                                   "/tests/golden/models/" + family + "/" + file);
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? *config : nlohmann::json::object();
}

}  // namespace troupe

#endif  // TROUPE_MODEL_TESTING_GOLDEN_CONFIG_H_
