// What ranks say of the weights that they read, and the proof that all of them together have the
// model: every copy is the same, and the pieces add up to what served before, however either is
// cut.
//
// A digest of weights is linear: that of a matrix is the sum, modulo 2^64, of those of any pieces
// into which it is cut (worker/weight_digests.h makes them). So the pieces of tp2 can be held
// against those of tp1 without anybody reading the checkpoint again. It finds damage, not malice:
// a single number that differs always shows, several hide with a chance of 2^-64 or so.
//
// Thread model: none, one owner; the rest are plain values and pure functions. Errors: DataLoss,
// naming the weights and the ranks.
#ifndef TROUPE_SHARDING_WEIGHT_LEDGER_H_
#define TROUPE_SHARDING_WEIGHT_LEDGER_H_

#include <compare>
#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "sharding/weight_parts.h"

namespace troupe {

// [begin, begin + size) of `of`: rows, columns or elements, without their common factor, so that
// what is cut alike has the same.
struct WeightExtent {
  int64_t begin = 0;
  int64_t size = 1;
  int64_t of = 1;

  auto operator<=>(const WeightExtent&) const = default;
};
WeightExtent ExtentOf(int64_t begin, int64_t size, int64_t whole);

// All weights of one part of the model (WeightPart, but for its slice) that a rank holds to the
// same extent: of attention's, those that are split by heads, by KV heads, and those that are
// whole.
struct WeightPiece {
  WeightRole role = WeightRole::kEmbedding;
  int layer = -1;
  int expert = -1;
  WeightExtent extent;
  uint64_t digest = 0;
};

class WeightLedger {
 public:
  // What a rank holds. DataLoss where it differs from a copy that another rank reported.
  absl::Status Add(const std::string& worker, absl::Span<const WeightPiece> pieces);

  // OK where both are the same weights: of every part all pieces add up to the same.
  absl::Status CheckSame(const WeightLedger& serving) const;

  // Of all weights, the same in every layout.
  uint64_t Total() const;

 private:
  struct Key {
    WeightPart part;  // of any slice
    WeightExtent extent;

    auto operator<=>(const Key&) const = default;
  };
  struct Entry {
    uint64_t digest = 0;
    std::string worker;  // who reported it first
  };
  struct Sum {
    uint64_t digest = 0;
    std::map<WeightExtent, const Entry*> pieces;

    std::string Workers() const;
  };

  static std::string NameOf(const Key& key);
  static absl::Status Differ(const WeightPart& part, const Sum& ours, const Sum& theirs);
  std::map<WeightPart, Sum> Sums() const;

  std::map<Key, Entry> pieces_;
};

}  // namespace troupe

#endif  // TROUPE_SHARDING_WEIGHT_LEDGER_H_
