#include "base/log.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace troupe {
namespace {

constexpr std::array<std::string_view, 5> kLevelNames = {"DEBUG", "INFO", "WARNING", "ERROR",
                                                         "OFF"};

// Never destroyed: destructors of other statics may still log.
struct SinkHolder {
  std::mutex mutex;
  LogSink sink;
};
SinkHolder& Holder() {
  static auto* const holder = new SinkHolder;
  return *holder;
}

// "worker/loader.cc" of "/any/where/worker/loader.cc": enough to find it, short enough to read.
std::string_view ShortPath(std::string_view path) {
  const size_t name = path.rfind('/');
  if (name == std::string_view::npos || name == 0) return path;
  const size_t folder = path.rfind('/', name - 1);
  return folder == std::string_view::npos ? path : path.substr(folder + 1);
}

void WriteAll(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
    if (written <= 0) return;  // Nowhere is left to complain to.
    text.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace

namespace internal {

std::atomic<LogLevel> log_level = LogLevel::kInfo;

LogLine::LogLine(LogLevel level, std::string_view file, int line) {
  stream_ << absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", absl::Now(), absl::UTCTimeZone()) << " "
          << kLevelNames[static_cast<size_t>(level)] << " " << ShortPath(file) << ":" << line
          << " ";
}

LogLine::~LogLine() {
  stream_ << "\n";
  const std::string line = stream_.str();
  SinkHolder& holder = Holder();
  const std::lock_guard lock(holder.mutex);
  if (holder.sink) {
    holder.sink(line);
  } else {
    WriteAll(line);
  }
}

}  // namespace internal

void SetLogLevel(LogLevel level) { internal::log_level.store(level, std::memory_order_relaxed); }

absl::StatusOr<LogLevel> ParseLogLevel(std::string_view name) {
  std::string upper(name);
  std::transform(upper.begin(), upper.end(), upper.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  const auto* const found = std::find(kLevelNames.begin(), kLevelNames.end(), upper);
  if (found == kLevelNames.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("log level \"", std::string(name),
                     "\" is unknown; use debug, info, warning, error or off"));
  }
  return static_cast<LogLevel>(found - kLevelNames.begin());
}

void SetLogSink(LogSink sink) {
  SinkHolder& holder = Holder();
  const std::lock_guard lock(holder.mutex);
  holder.sink = std::move(sink);
}

void Field::Set(std::string_view name, std::string_view value) {
  const bool plain = !value.empty() && std::all_of(value.begin(), value.end(), [](unsigned char c) {
    return c > ' ' && c != '"' && c != 0x7f;
  });
  std::string shown(value);
  if (!plain) shown = "\"" + absl::Utf8SafeCEscape(shown) + "\"";
  text_ = " " + std::string(name) + "=" + shown;
}

}  // namespace troupe
