#include "sharding/reshard_plan.h"

#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "sharding/reshard_kv.h"

namespace troupe {
namespace {

std::string GiB(int64_t bytes) {
  return absl::StrFormat("%.3f GiB", static_cast<double>(bytes) / (int64_t{1} << 30));
}

std::vector<WeightPart> PartsOfRank(const ModelDescription& model, const ShardMap* map, int rank,
                                    bool with_mtp) {
  if (map == nullptr || rank == kNoRank) return {};
  return PartsOf(ShardOf(model, *map, rank), with_mtp);
}

// Bytes of parts, each size worked out once for all layers and experts that are alike.
class Sizes {
 public:
  Sizes(const ModelDescription& model, const WeightBits& bits) : model_(model), bits_(bits) {}

  int64_t Of(const WeightPart& part) {
    WeightPart alike = part;
    if (alike.expert >= 0) alike.expert = 0;
    const auto [it, fresh] = known_.try_emplace(alike, 0);
    if (fresh) it->second = BytesOf(NumbersOf(model_, part), bits_);
    return it->second;
  }

  int64_t Of(const std::vector<WeightPart>& parts) {
    int64_t sum = 0;
    for (const WeightPart& part : parts) sum += Of(part);
    return sum;
  }

 private:
  const ModelDescription& model_;
  const WeightBits bits_;
  std::map<WeightPart, int64_t> known_;
};

class Planner {
 public:
  Planner(const ModelDescription& model, const ShardMap* from, const ShardMap& to,
          const RankMatch& match, const Sizing& sizing, const ReshardRates& rates)
      : model_(model),
        from_(from),
        to_(to),
        match_(match),
        sizing_(sizing),
        rates_(rates),
        sizes_(model, sizing.bits) {}

  absl::StatusOr<ReshardPlan> Run() {
    const int old_world = from_ == nullptr ? 0 : from_->layout.world();
    sent_.assign(old_world, 0);
    for (int r = 0; r < old_world; ++r) {
      held_.push_back(PartsOfRank(model_, from_, r, sizing_.with_mtp));
      if (!match_.Serves(r)) continue;
      serving_.push_back(r);
      for (const WeightPart& part : held_.back()) holders_[part].push_back(r);
    }
    for (int r = 0; r < to_.layout.world(); ++r) {
      AddRank(match_.old_of_new[r], r);
      const RankMove& move = plan_.ranks.back();
      if (move.disk_bytes > 0 && Lacks(r)) return NobodyHas(move);
    }
    for (int r = 0; r < old_world; ++r) {
      const auto& taken = match_.old_of_new;
      if (match_.old_alive[r] && std::find(taken.begin(), taken.end(), r) == taken.end()) {
        AddRank(r, kNoRank);
      }
    }
    for (RankMove& move : plan_.ranks) {
      if (move.old_rank != kNoRank) move.sent_bytes = sent_[move.old_rank];
      move.seconds = static_cast<double>(std::max(move.peer_bytes, move.sent_bytes)) /
                         rates_.peer_bytes_per_s +
                     static_cast<double>(move.disk_bytes) / rates_.disk_bytes_per_s;
      plan_.seconds = std::max(plan_.seconds, move.seconds);
      if (sizing_.memory_bytes > 0 && move.peak_bytes > sizing_.memory_bytes) return TooLarge(move);
    }
    return std::move(plan_);
  }

 private:
  void AddRank(int old_rank, int new_rank) {
    RankMove& move = plan_.ranks.emplace_back();
    move.old_rank = old_rank;
    move.new_rank = new_rank;
    static const std::vector<WeightPart> kNothing;
    const std::vector<WeightPart>& before = old_rank == kNoRank ? kNothing : held_[old_rank];
    const std::vector<WeightPart> after =
        new_rank == kNoRank ? kNothing : PartsOfRank(model_, &to_, new_rank, sizing_.with_mtp);
    std::set_intersection(before.begin(), before.end(), after.begin(), after.end(),
                          std::back_inserter(move.keeps));
    std::set_difference(before.begin(), before.end(), after.begin(), after.end(),
                        std::back_inserter(move.drops));
    std::vector<WeightPart> lacks;
    std::set_difference(after.begin(), after.end(), before.begin(), before.end(),
                        std::back_inserter(lacks));
    for (const WeightPart& part : lacks) AddLoad(part, move);
    move.keep_bytes = sizes_.Of(move.keeps);
    move.drop_bytes = sizes_.Of(move.drops);
    move.peak_bytes =
        move.keep_bytes + move.drop_bytes + move.load_bytes() + Running(old_rank, new_rank);
  }

  bool Lacks(int new_rank) const { return !match_.new_lacks.empty() && match_.new_lacks[new_rank]; }

  // From the holder that has been asked for least; one that has the checkpoint can cut anything.
  void AddLoad(const WeightPart& part, RankMove& move) {
    PartLoad& load = move.loads.emplace_back();
    load.part = part;
    load.bytes = sizes_.Of(part);
    const auto found = holders_.find(part);
    const bool held = found != holders_.end();
    if (!held && (!Lacks(move.new_rank) || serving_.empty())) {
      move.disk_bytes += load.bytes;
      return;
    }
    const std::vector<int>& from = held ? found->second : serving_;
    load.from_old_rank = *std::min_element(from.begin(), from.end(),
                                           [&](int a, int b) { return sent_[a] < sent_[b]; });
    sent_[load.from_old_rank] += load.bytes;
    move.peer_bytes += load.bytes;
  }

  // Pages stay where both ranks keep the same state; otherwise there are those of both.
  int64_t Running(int old_rank, int new_rank) {
    RankBytes before;
    RankBytes after;
    if (old_rank != kNoRank) before = BytesOfRank(model_, *from_, old_rank, sizing_);
    if (new_rank != kNoRank) after = BytesOfRank(model_, to_, new_rank, sizing_);
    const bool stays = old_rank != kNoRank && new_rank != kNoRank &&
                       KeepSameState(model_, *from_, old_rank, to_, new_rank);
    return std::max(before.activations, after.activations) +
           (stays ? after.kv_longest : before.kv_longest + after.kv_longest);
  }

  absl::Status NobodyHas(const RankMove& move) const {
    return absl::FailedPreconditionError(
        absl::StrCat("rank ", move.new_rank, " of ", NameOf(to_.layout),
                     " has a machine without weights: found ", serving_.size(),
                     " ranks that it can read ", GiB(move.disk_bytes),
                     " from, wanted one; put the checkpoint there, or start a rank that has it"));
  }

  absl::Status TooLarge(const RankMove& move) const {
    const int64_t weights = move.keep_bytes + move.drop_bytes + move.load_bytes();
    return absl::ResourceExhaustedError(absl::StrCat(
        "from ", from_ == nullptr ? "nothing" : NameOf(from_->layout), " to ", NameOf(to_.layout),
        ": rank ", move.new_rank == kNoRank ? move.old_rank : move.new_rank, " would hold ",
        GiB(move.keep_bytes), " of both maps + ", GiB(move.drop_bytes), " of the old one + ",
        GiB(move.load_bytes()), " of the new one + ", GiB(move.peak_bytes - weights),
        " for activations and each map's pages of one sequence of the longest context = ",
        GiB(move.peak_bytes), " while both are there, and has ", GiB(sizing_.memory_bytes)));
  }

  const ModelDescription& model_;
  const ShardMap* const from_;
  const ShardMap& to_;
  const RankMatch& match_;
  const Sizing& sizing_;
  const ReshardRates& rates_;
  Sizes sizes_;
  std::vector<std::vector<WeightPart>> held_;       // by old rank
  std::map<WeightPart, std::vector<int>> holders_;  // old ranks that can be read from
  std::vector<int> serving_;                        // old ranks that can be read from
  std::vector<int64_t> sent_;                       // by old rank
  ReshardPlan plan_;
};

}  // namespace

RankMatch MatchRanks(absl::Span<const std::string> old_names,
                     absl::Span<const std::string> new_names, const std::vector<bool>& old_alive) {
  RankMatch match;
  match.old_alive = old_alive;
  for (const std::string& name : new_names) {
    const auto found = std::find(old_names.begin(), old_names.end(), name);
    const auto index = static_cast<int>(found - old_names.begin());
    const bool there = found != old_names.end() && old_alive[index];
    match.old_of_new.push_back(there ? index : kNoRank);
  }
  return match;
}

absl::StatusOr<ReshardPlan> PlanReshard(const ModelDescription& model, const ShardMap* from,
                                        const ShardMap& to, const RankMatch& match,
                                        const Sizing& sizing, const ReshardRates& rates) {
  CHECK_EQ(match.old_of_new.size(), static_cast<size_t>(to.layout.world()));
  if (from != nullptr) {
    CHECK_EQ(match.old_alive.size(), static_cast<size_t>(from->layout.world()));
    ShardMap same = *from;
    same.epoch = to.epoch;
    bool stays = same == to;
    for (int r = 0; r < to.layout.world(); ++r) stays = stays && match.old_of_new[r] == r;
    if (stays) {
      return absl::InvalidArgumentError(
          absl::StrCat("nothing would change: the replica has the layout ", NameOf(to.layout),
                       " on these ranks already"));
    }
  }
  return Planner(model, from, to, match, sizing, rates).Run();
}

std::string PartsDigest(const ModelDescription& model, absl::Span<const WeightPart> parts) {
  SHA256_CTX context;
  SHA256_Init(&context);
  for (const WeightPart& part : parts) {
    const PartNumbers numbers = NumbersOf(model, part);
    const std::string line =
        absl::StrCat(NameOf(part), " ", numbers.matrices, " ", numbers.others, "\n");
    SHA256_Update(&context, line.data(), line.size());
  }
  std::array<uint8_t, SHA256_DIGEST_LENGTH> digest = {};
  SHA256_Final(digest.data(), &context);
  return {digest.begin(), digest.end()};
}

}  // namespace troupe
