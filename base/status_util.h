// Helpers that keep absl::Status code short. No state, thread-safe.

#ifndef TROUPE_BASE_STATUS_UTIL_H_
#define TROUPE_BASE_STATUS_UTIL_H_

#include <string_view>
#include <utility>

#include "absl/base/optimization.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace troupe {

// The same code and payloads with the message "context: message"; OK stays OK.
absl::Status Annotate(const absl::Status& status, std::string_view context);

}  // namespace troupe

// Leaves the function with `expr`'s status unless it is OK.
#define TROUPE_RETURN_IF_ERROR(expr)                                   \
  do {                                                                 \
    absl::Status troupe_status = (expr);                               \
    if (ABSL_PREDICT_FALSE(!troupe_status.ok())) return troupe_status; \
  } while (false)

// TROUPE_ASSIGN_OR_RETURN(Config config, ReadConfig(path));
// TROUPE_ASSIGN_OR_RETURN(config_, ReadConfig(path));
// Two statements: not the body of an `if` without braces. A type with a comma needs `auto` or
// `using`.
#define TROUPE_ASSIGN_OR_RETURN(lhs, expr) \
  TROUPE_ASSIGN_OR_RETURN_(TROUPE_CONCAT_(troupe_result_, __LINE__), lhs, expr)

// NOLINTBEGIN(bugprone-macro-parentheses): a declaration cannot stand in parentheses.
#define TROUPE_ASSIGN_OR_RETURN_(result, lhs, expr)                        \
  auto result = (expr);                                                    \
  if (ABSL_PREDICT_FALSE(!result.ok())) return std::move(result).status(); \
  lhs = *std::move(result)
// NOLINTEND(bugprone-macro-parentheses)
#define TROUPE_CONCAT_(a, b) TROUPE_CONCAT_AGAIN_(a, b)
#define TROUPE_CONCAT_AGAIN_(a, b) a##b

#endif  // TROUPE_BASE_STATUS_UTIL_H_
