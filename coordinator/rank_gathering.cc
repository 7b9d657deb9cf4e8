#include "coordinator/rank_gathering.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace troupe {

RankGathering::RankGathering(ReplicaSpec spec, const Limits& limits, int64_t now_us)
    : spec_(std::move(spec)), limits_(limits), ranks_(spec_.members.size()) {
  for (Rank& rank : ranks_) rank.heard_us = now_us;
}

std::string RankGathering::Name(int rank) const {
  const ReplicaMember& member = spec_.members[rank];
  if (ranks_.size() == 1) return absl::StrCat("worker ", member.worker);
  return absl::StrCat("rank ", rank, " (worker ", member.worker, " at ", member.address, ")");
}

void RankGathering::OnLoading(int rank, v1::Loading loading, int64_t now_us) {
  ranks_[rank].heard_us = now_us;
  if (ranks_[rank].state == v1::RankStatus::STATE_READY) return;
  ranks_[rank].state = v1::RankStatus::STATE_LOADING;
  ranks_[rank].loading = std::move(loading);
}

absl::StatusOr<std::optional<v1::Meeting>> RankGathering::OnContribution(int rank,
                                                                         std::string contribution,
                                                                         int64_t now_us) {
  Rank& from = ranks_[rank];
  from.heard_us = now_us;
  if (from.contribution.has_value() || from.state == v1::RankStatus::STATE_READY) {
    return absl::FailedPreconditionError(
        absl::StrCat(Name(rank), " handed in twice for one meeting"));
  }
  from.state = v1::RankStatus::STATE_MEETING;
  from.contribution = std::move(contribution);
  const bool all = std::all_of(ranks_.begin(), ranks_.end(),
                               [](const Rank& r) { return r.contribution.has_value(); });
  if (!all) return std::nullopt;
  v1::Meeting meeting;
  for (Rank& each : ranks_) {
    meeting.add_contributions(*std::exchange(each.contribution, std::nullopt));
    each.heard_us = now_us;
  }
  met_us_ = now_us;
  return meeting;
}

absl::Status RankGathering::OnInfo(int rank, v1::WorkerInfo info, int64_t now_us) {
  Rank& from = ranks_[rank];
  from.heard_us = now_us;
  if (from.state == v1::RankStatus::STATE_READY) {
    return absl::FailedPreconditionError(
        absl::StrCat(Name(rank), " announced itself twice in one session"));
  }
  absl::Status alike = CheckAlike(rank, info);
  if (!alike.ok()) return alike;
  from.state = v1::RankStatus::STATE_READY;
  from.info = std::move(info);
  ++ready_;
  return absl::OkStatus();
}

absl::Status RankGathering::CheckAlike(int rank, const v1::WorkerInfo& info) const {
  for (int other = 0; other < static_cast<int>(ranks_.size()); ++other) {
    if (ranks_[other].state != v1::RankStatus::STATE_READY) continue;
    const v1::WorkerInfo& known = ranks_[other].info;
    const auto differ = [&](absl::string_view what) {
      return absl::FailedPreconditionError(
          absl::StrCat(Name(rank), " and ", Name(other), " differ in ", what,
                       "; start all ranks with the same folder and options"));
    };
    if (known.identity() != info.identity()) return differ("the model's identity or dtype");
    if (known.block_tokens() != info.block_tokens()) return differ("tokens of a block");
    if (known.groups_size() != info.groups_size()) return differ("groups of KV");
    for (int g = 0; g < info.groups_size(); ++g) {
      if (known.groups(g).name() != info.groups(g).name() ||
          known.groups(g).window_tokens() != info.groups(g).window_tokens()) {
        return differ(absl::StrCat("KV group ", info.groups(g).name()));
      }
    }
  }
  return absl::OkStatus();
}

v1::WorkerInfo RankGathering::HomeInfo(int home) const {
  const v1::Layout layout = spec_.layout();
  std::optional<v1::WorkerInfo> all;
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    if (static_cast<int>(rank / layout.tp() % layout.dp()) != home) continue;
    const v1::WorkerInfo& info = ranks_[rank].info;
    if (!all.has_value()) {
      all = info;
      all->set_worker(spec_.name);
      continue;
    }
    all->set_max_rows(std::min(all->max_rows(), info.max_rows()));
    all->set_max_step_tokens(std::min(all->max_step_tokens(), info.max_step_tokens()));
    all->set_max_context(std::min(all->max_context(), info.max_context()));
    // Of each stage, all heads: JointSteps adds up in the same way.
    if (rank % layout.tp() == 0) {
      all->set_heads_per_token(all->heads_per_token() + info.heads_per_token());
    }
    if (info.cache_address().empty()) all->clear_cache_address();
    // State that a rank of the home lacks is of no use.
    if (info.kept_epoch() != all->kept_epoch() || info.kept_home() != all->kept_home()) {
      all->clear_kept_epoch();
    }
    for (int g = 0; g < info.groups_size(); ++g) {
      v1::KvGroup& group = *all->mutable_groups(g);
      group.set_page_count(std::min(group.page_count(), info.groups(g).page_count()));
      group.set_host_page_count(
          std::min(group.host_page_count(), info.groups(g).host_page_count()));
      group.set_page_bytes(group.page_bytes() + info.groups(g).page_bytes());
    }
  }
  return *std::move(all);
}

absl::Status RankGathering::Overdue(int64_t now_us) const {
  std::vector<std::string> late;
  for (int rank = 0; rank < static_cast<int>(ranks_.size()); ++rank) {
    const Rank& each = ranks_[rank];
    // Who has handed in waits for the others.
    if (each.state == v1::RankStatus::STATE_READY || each.contribution.has_value()) continue;
    const bool meets = each.state == v1::RankStatus::STATE_MEETING;
    const int64_t since_us = meets ? met_us_.value_or(each.heard_us) : each.heard_us;
    const int64_t limit_us = meets ? limits_.meeting_us : limits_.silent_us;
    if (now_us - since_us < limit_us) continue;
    late.push_back(absl::StrCat(
        Name(rank), ": ",
        meets ? "is not connected to the others"
        : each.state == v1::RankStatus::STATE_LOADING
            ? absl::StrCat("no progress in loading ", each.loading.what(), " after ",
                           each.loading.bytes_done(), " of ", each.loading.bytes_total(), " bytes")
            : "does not answer",
        " for ", (now_us - since_us) / 1'000'000, " s"));
  }
  if (late.empty()) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrJoin(late, "; "));
}

void RankGathering::Describe(int64_t now_us, v1::WorkerStatus& status) const {
  if (!spec_.map.has_value()) return;
  *status.mutable_map() = *spec_.map;
  for (int rank = 0; rank < static_cast<int>(ranks_.size()); ++rank) {
    const ReplicaMember& member = spec_.members[rank];
    v1::RankStatus& out = *status.add_ranks();
    out.set_rank(rank);
    out.set_worker(member.worker);
    out.set_address(member.address);
    out.set_node(member.node);
    out.set_device(member.device);
    out.set_state(ranks_[rank].state);
    if (ranks_[rank].state == v1::RankStatus::STATE_LOADING) {
      *out.mutable_loading() = ranks_[rank].loading;
    }
    out.set_silent_us(now_us - ranks_[rank].heard_us);
  }
}

}  // namespace troupe
