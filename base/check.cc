#include "base/check.h"

#include <unistd.h>

#include <cstdlib>

namespace troupe::internal {

CheckFailure::CheckFailure(const char* file, int line, std::string_view what) {
  stream_ << file << ":" << line << " " << what << " failed ";
}

CheckFailure::~CheckFailure() {
  stream_ << "\n";
  const std::string text = stream_.str();
  // Straight to the descriptor: the state of this process is not to be trusted with more.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
  std::abort();
}

std::unique_ptr<std::string> CheckStatus(const absl::Status& status, std::string_view what) {
  if (ABSL_PREDICT_TRUE(status.ok())) return nullptr;
  return std::make_unique<std::string>(std::string(what) + " (" + status.ToString() + ")");
}

}  // namespace troupe::internal
