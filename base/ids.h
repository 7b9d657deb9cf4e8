// Strong types for ids: a number that cannot be mixed up with another kind of number.
//
//   using JobId = StrongId<struct JobIdTag>;
//   using RankIndex = StrongId<struct RankIndexTag, uint32_t>;
//
// A value type: copying is free, no thread model. An id is only compared, hashed and printed; there
// is no arithmetic. Both std::hash and absl::Hash accept it.

#ifndef TROUPE_BASE_IDS_H_
#define TROUPE_BASE_IDS_H_

#include <atomic>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <utility>

namespace troupe {

template <class Tag, class Rep = uint64_t>
class StrongId {
 public:
  using ValueType = Rep;

  constexpr StrongId() = default;
  constexpr explicit StrongId(Rep value) : value_(value) {}

  constexpr Rep value() const { return value_; }
  std::string ToString() const { return std::to_string(value_); }

  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 takes the 0 in a defaulted <=> for one.
  friend constexpr auto operator<=>(StrongId, StrongId) = default;
  friend std::ostream& operator<<(std::ostream& out, StrongId id) { return out << +id.value_; }

  template <class H>
  friend H AbslHashValue(H state, StrongId id) {
    return H::combine(std::move(state), id.value_);
  }
  template <class Sink>
  friend void AbslStringify(Sink& sink, StrongId id) {
    sink.Append(id.ToString());
  }

 private:
  Rep value_ = 0;
};

// Hands out 1, 2, 3, ... of one id type; 0 stays free to mean "none". Thread-safe.
template <class Id>
class IdSequence {
 public:
  Id Next() { return Id(last_.fetch_add(1, std::memory_order_relaxed) + 1); }

 private:
  std::atomic<typename Id::ValueType> last_ = 0;
};

}  // namespace troupe

template <class Tag, class Rep>
struct std::hash<troupe::StrongId<Tag, Rep>> {
  size_t operator()(troupe::StrongId<Tag, Rep> id) const { return std::hash<Rep>()(id.value()); }
};

#endif  // TROUPE_BASE_IDS_H_
