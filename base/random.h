// A small random generator whose numbers are the same on every machine for the same seed, which
// std::uniform_int_distribution and absl::Uniform do not promise. Not for secrets.
//
// A value type, not thread-safe. SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom
// number generators", OOPSLA 2014.

#ifndef TROUPE_BASE_RANDOM_H_
#define TROUPE_BASE_RANDOM_H_

#include <cstdint>
#include <limits>

namespace troupe {

// Spreads every bit of `x` over the whole word; a bijection.
constexpr uint64_t MixBits(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

class SeededRandom {
 public:
  using result_type = uint64_t;  // NOLINT: the name that std::shuffle and its like ask for.

  explicit SeededRandom(uint64_t seed) : state_(seed) {}

  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() { return std::numeric_limits<uint64_t>::max(); }
  uint64_t operator()() { return MixBits(state_ += 0x9e3779b97f4a7c15); }

  // Uniform in [0, bound), up to a bias of bound / 2^64. bound > 0.
  uint64_t Below(uint64_t bound) {
    __extension__ using Wide = unsigned __int128;
    return static_cast<uint64_t>((static_cast<Wide>((*this)()) * bound) >> 64);
  }

  // Uniform in [0, 1).
  double Fraction() { return static_cast<double>((*this)() >> 11) * 0x1p-53; }

 private:
  uint64_t state_;
};

}  // namespace troupe

#endif  // TROUPE_BASE_RANDOM_H_
