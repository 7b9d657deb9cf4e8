#include "sharding/weight_ledger.h"

#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace troupe {
namespace {

std::string Hex(uint64_t digest) { return absl::StrFormat("%016x", digest); }

}  // namespace

WeightExtent ExtentOf(int64_t begin, int64_t size, int64_t whole) {
  const int64_t common = std::gcd(std::gcd(begin, size), whole);
  return {begin / common, size / common, whole / common};
}

std::string WeightLedger::NameOf(const Key& key) {
  const WeightExtent& e = key.extent;
  const std::string part = troupe::NameOf(key.part);
  return e.of == 1 ? part
                   : absl::StrCat(part, ", ", e.begin, " to ", e.begin + e.size, " of ", e.of);
}

absl::Status WeightLedger::Add(const std::string& worker, absl::Span<const WeightPiece> pieces) {
  for (const WeightPiece& piece : pieces) {
    const Key key{{.role = piece.role, .layer = piece.layer, .expert = piece.expert}, piece.extent};
    const auto [it, fresh] = pieces_.try_emplace(key, Entry{piece.digest, worker});
    if (fresh || it->second.digest == piece.digest) continue;
    return absl::DataLossError(
        absl::StrCat(NameOf(key), ": rank ", worker, " read weights of digest ", Hex(piece.digest),
                     ", rank ", it->second.worker, " of ", Hex(it->second.digest),
                     "; one of their checkpoints is damaged"));
  }
  return absl::OkStatus();
}

std::map<WeightPart, WeightLedger::Sum> WeightLedger::Sums() const {
  std::map<WeightPart, Sum> sums;
  for (const auto& [key, entry] : pieces_) {
    Sum& sum = sums[key.part];
    sum.digest += entry.digest;
    sum.pieces[key.extent] = &entry;
  }
  return sums;
}

absl::Status WeightLedger::CheckSame(const WeightLedger& serving) const {
  const std::map<WeightPart, Sum> ours = Sums();
  for (const auto& [part, theirs] : serving.Sums()) {
    const auto found = ours.find(part);
    if (found == ours.end()) {
      return absl::DataLossError(absl::StrCat(troupe::NameOf(part), ": no rank holds it, and ",
                                              theirs.Workers(), " serve it"));
    }
    if (found->second.digest != theirs.digest) return Differ(part, found->second, theirs);
  }
  return absl::OkStatus();
}

absl::Status WeightLedger::Differ(const WeightPart& part, const Sum& ours, const Sum& theirs) {
  // Pieces say more where both are cut alike.
  for (const auto& [extent, entry] : ours.pieces) {
    const auto other = theirs.pieces.find(extent);
    if (other == theirs.pieces.end()) break;
    if (other->second->digest == entry->digest) continue;
    return absl::DataLossError(absl::StrCat(
        NameOf({part, extent}), ": rank ", entry->worker, " read weights of digest ",
        Hex(entry->digest), ", wanted ", Hex(other->second->digest), ", with which rank ",
        other->second->worker, " serves; one of their checkpoints is damaged"));
  }
  return absl::DataLossError(absl::StrCat(troupe::NameOf(part), ": what ranks ", ours.Workers(),
                                          " read adds up to digest ", Hex(ours.digest), ", wanted ",
                                          Hex(theirs.digest), ", with which ", theirs.Workers(),
                                          " serve; one of their checkpoints is damaged"));
}

std::string WeightLedger::Sum::Workers() const {
  std::set<std::string> names;
  for (const auto& [extent, entry] : pieces) names.insert(entry->worker);
  return absl::StrJoin(names, ", ");
}

uint64_t WeightLedger::Total() const {
  uint64_t total = 0;
  for (const auto& [key, entry] : pieces_) total += entry.digest;
  return total;
}

}  // namespace troupe
