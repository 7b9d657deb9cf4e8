// Checks of our own invariants. A failed check is a bug in Troupe, never bad input: it prints
// where, the expression, the values and the streamed context to stderr, then aborts.
//
//   CHECK(page < pages.size()) << "sequence " << id;
//   CHECK_EQ(plan.epoch, map.epoch);
//   CHECK_OK(status);
//
// DCHECK and friends are the same, except that they cost nothing where NDEBUG is defined; they are
// for loops whose speed matters. Thread-safe. Arguments are evaluated exactly once (DCHECK: at most
// once).

#ifndef TROUPE_BASE_CHECK_H_
#define TROUPE_BASE_CHECK_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <ostream>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>

#include "absl/base/optimization.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace troupe::internal {

// Gathers the message of one failed check; its destructor prints it and aborts.
class CheckFailure {
 public:
  CheckFailure(const char* file, int line, std::string_view what);
  CheckFailure(const CheckFailure&) = delete;
  CheckFailure& operator=(const CheckFailure&) = delete;
  [[noreturn]] ~CheckFailure();

  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

// Gives both branches of the conditional in CHECK the type void; `&` binds weaker than `<<`.
struct Voidify {
  void operator&(std::ostream& /*stream*/) const {}
};

template <class T>
void PrintValue(std::ostream& out, const T& value) {
  if constexpr (std::is_same_v<T, std::nullptr_t>) {
    out << "nullptr";
  } else if constexpr (std::is_same_v<T, bool>) {
    out << (value ? "true" : "false");
  } else if constexpr (requires { out << value; }) {
    out << value;
  } else if constexpr (std::is_enum_v<T>) {
    out << +static_cast<std::underlying_type_t<T>>(value);
  } else {
    out << "<" << sizeof(T) << "-byte value>";
  }
}

// Null where `op(left, right)` holds, else the text to print.
template <class Op, class L, class R>
std::unique_ptr<std::string> CheckCompare(const L& left, const R& right, std::string_view what) {
  if (ABSL_PREDICT_TRUE(Op()(left, right))) return nullptr;
  std::ostringstream text;
  text << what << " (";
  PrintValue(text, left);
  text << " vs ";
  PrintValue(text, right);
  text << ")";
  return std::make_unique<std::string>(text.str());
}

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <class T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}
std::unique_ptr<std::string> CheckStatus(const absl::Status& status, std::string_view what);

}  // namespace troupe::internal

#define TROUPE_CHECK(name, enabled, condition) \
  ABSL_PREDICT_TRUE(!(enabled) || (condition)) \
  ? static_cast<void>(0)                       \
  : ::troupe::internal::Voidify() &            \
          ::troupe::internal::CheckFailure(__FILE__, __LINE__, name).stream()

#define TROUPE_CHECK_COMPARE(name, functor, left, right)                                         \
  while (std::unique_ptr<std::string> troupe_failed = ::troupe::internal::CheckCompare<functor>( \
             (left), (right), name "(" #left ", " #right ")"))                                   \
  ::troupe::internal::CheckFailure(__FILE__, __LINE__, *troupe_failed).stream()

#define CHECK(condition) TROUPE_CHECK("CHECK(" #condition ")", true, condition)
#define CHECK_EQ(left, right) TROUPE_CHECK_COMPARE("CHECK_EQ", std::equal_to<>, left, right)
#define CHECK_NE(left, right) TROUPE_CHECK_COMPARE("CHECK_NE", std::not_equal_to<>, left, right)
#define CHECK_LT(left, right) TROUPE_CHECK_COMPARE("CHECK_LT", std::less<>, left, right)
#define CHECK_LE(left, right) TROUPE_CHECK_COMPARE("CHECK_LE", std::less_equal<>, left, right)
#define CHECK_GT(left, right) TROUPE_CHECK_COMPARE("CHECK_GT", std::greater<>, left, right)
#define CHECK_GE(left, right) TROUPE_CHECK_COMPARE("CHECK_GE", std::greater_equal<>, left, right)

// `value` is an absl::Status or absl::StatusOr.
#define CHECK_OK(value)                                                                \
  while (std::unique_ptr<std::string> troupe_failed = ::troupe::internal::CheckStatus( \
             ::troupe::internal::StatusOf(value), "CHECK_OK(" #value ")"))             \
  ::troupe::internal::CheckFailure(__FILE__, __LINE__, *troupe_failed).stream()

#ifdef NDEBUG
#define TROUPE_DCHECK_ENABLED false
#else
#define TROUPE_DCHECK_ENABLED true
#endif

// Where they are off the arguments are still compiled, so that they cannot rot.
#define TROUPE_ONLY_DCHECK \
  for (bool troupe_once = TROUPE_DCHECK_ENABLED; troupe_once; troupe_once = false)
#define DCHECK(condition) TROUPE_CHECK("DCHECK(" #condition ")", TROUPE_DCHECK_ENABLED, condition)
#define DCHECK_EQ(left, right) TROUPE_ONLY_DCHECK CHECK_EQ(left, right)
#define DCHECK_NE(left, right) TROUPE_ONLY_DCHECK CHECK_NE(left, right)
#define DCHECK_LT(left, right) TROUPE_ONLY_DCHECK CHECK_LT(left, right)
#define DCHECK_LE(left, right) TROUPE_ONLY_DCHECK CHECK_LE(left, right)
#define DCHECK_GT(left, right) TROUPE_ONLY_DCHECK CHECK_GT(left, right)
#define DCHECK_GE(left, right) TROUPE_ONLY_DCHECK CHECK_GE(left, right)

#endif  // TROUPE_BASE_CHECK_H_
