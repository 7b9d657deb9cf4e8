// Log lines to stderr, one a statement:
//
//   LOG(INFO) << "weights loaded" << Field("bytes", size) << Field("path", path);
//   2026-03-01T12:00:00.123456Z INFO worker/loader.cc:42 weights loaded bytes=1024 path=/m/abacus
//
// Severities: DEBUG, INFO, WARNING, ERROR. What lies under the level (default INFO) is not
// evaluated. Thread-safe: a line is written whole, with one write. A broken invariant is a CHECK,
// not a log.

#ifndef TROUPE_BASE_LOG_H_
#define TROUPE_BASE_LOG_H_

#include <atomic>
#include <functional>
#include <ostream>
#include <sstream>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace troupe {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kOff };

// The lowest severity that is written.
void SetLogLevel(LogLevel level);
// "debug", "info", "warning", "error" or "off"; else InvalidArgument.
absl::StatusOr<LogLevel> ParseLogLevel(std::string_view name);

// Takes each finished line (with its newline) in place of stderr; null brings stderr back. Called
// by one thread at a time; it must not log.
using LogSink = std::function<void(std::string_view line)>;
void SetLogSink(LogSink sink);

// Streams as ` name=value`; a value with blanks, quotes or control characters is quoted and
// escaped.
class Field {
 public:
  template <class T>
  Field(std::string_view name, const T& value) {
    std::ostringstream text;
    text << value;
    Set(name, text.str());
  }
  friend std::ostream& operator<<(std::ostream& out, const Field& field) {
    return out << field.text_;
  }

 private:
  void Set(std::string_view name, std::string_view value);

  std::string text_;
};

namespace internal {

extern std::atomic<LogLevel> log_level;

inline bool LogEnabled(LogLevel level) {
  return level >= log_level.load(std::memory_order_relaxed);
}

// Gathers one line; its destructor writes it.
class LogLine {
 public:
  LogLine(LogLevel level, std::string_view file, int line);
  LogLine(const LogLine&) = delete;
  LogLine& operator=(const LogLine&) = delete;
  ~LogLine();

  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

struct LogVoidify {
  void operator&(std::ostream& /*stream*/) const {}
};

}  // namespace internal
}  // namespace troupe

#define TROUPE_LOG_LEVEL_DEBUG ::troupe::LogLevel::kDebug
#define TROUPE_LOG_LEVEL_INFO ::troupe::LogLevel::kInfo
#define TROUPE_LOG_LEVEL_WARNING ::troupe::LogLevel::kWarning
#define TROUPE_LOG_LEVEL_ERROR ::troupe::LogLevel::kError

// NOLINTBEGIN(bugprone-macro-parentheses): what is streamed binds to the end of the expression.
#define LOG(severity)                                          \
  !::troupe::internal::LogEnabled(TROUPE_LOG_LEVEL_##severity) \
      ? static_cast<void>(0)                                   \
      : ::troupe::internal::LogVoidify() &                     \
            ::troupe::internal::LogLine(TROUPE_LOG_LEVEL_##severity, __FILE__, __LINE__).stream()
// NOLINTEND(bugprone-macro-parentheses)

#endif  // TROUPE_BASE_LOG_H_
