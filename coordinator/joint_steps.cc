#include "coordinator/joint_steps.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_util.h"

namespace troupe {
namespace {

// Adds `more` to `sums` element by element. False: another number of elements.
bool AddTo(google::protobuf::RepeatedField<uint32_t>& sums,
           const google::protobuf::RepeatedField<uint32_t>& more) {
  if (sums.empty()) sums.Resize(more.size(), 0);
  if (more.empty()) return true;
  if (sums.size() != more.size()) return false;
  for (int i = 0; i < more.size(); ++i) sums.Set(i, sums.Get(i) + more.Get(i));
  return true;
}

// Later is worse.
int Badness(v1::TransferDone::Outcome outcome) {
  switch (outcome) {
    case v1::TransferDone::OUTCOME_DONE:
      return 0;
    case v1::TransferDone::OUTCOME_MISS:
      return 1;
    default:
      return 2;
  }
}

absl::Status Disagree(int a, int b, uint64_t step, absl::string_view what) {
  return absl::FailedPreconditionError(
      absl::StrCat("ranks ", a, " and ", b, " disagree about step ", step, ": ", what));
}

}  // namespace

JointSteps::JointSteps(const v1::Layout& layout, uint64_t epoch)
    : layout_(layout),
      epoch_(epoch),
      members_(homes()),
      answered_(ranks()),
      transfers_(homes()),
      ended_(homes()) {
  for (int rank = 0; rank < ranks(); ++rank) members_[HomeOf(rank)].push_back(rank);
}

int JointSteps::HomeOf(int rank) const {
  return rank / static_cast<int>(layout_.tp()) % static_cast<int>(layout_.dp());
}

std::vector<v1::StepPlan> JointSteps::Join(Plans plans, int64_t now_us) {
  Step step{.step = ++last_step_, .sent_us = now_us};
  step.results.resize(ranks());
  step.missing = ranks();
  std::vector<v1::StepPlan> joined;
  std::vector<uint32_t> tokens;
  for (std::optional<v1::StepPlan>& plan : plans) {
    step.home_steps.push_back(plan.has_value() ? std::optional(plan->step()) : std::nullopt);
    v1::StepPlan& out = joined.emplace_back();
    if (plan.has_value()) out = *std::move(plan);
    out.set_epoch(epoch_);
    out.set_step(step.step);
    uint32_t& sum = tokens.emplace_back();
    for (const uint32_t count : out.row_count()) sum += count;
  }
  if (homes() > 1) {
    for (v1::StepPlan& plan : joined) plan.mutable_home_tokens()->Add(tokens.begin(), tokens.end());
  }
  steps_.push_back(std::move(step));
  return joined;
}

absl::StatusOr<std::optional<JointSteps::Results>> JointSteps::Add(int rank,
                                                                   v1::StepResult result) {
  const auto found = std::find_if(steps_.begin(), steps_.end(), [rank](const Step& step) {
    return !step.results[rank].has_value();
  });
  const auto bad = [&](auto... what) {
    return absl::FailedPreconditionError(
        absl::StrCat("rank ", rank, ": result of step ", result.step(), " ", what...));
  };
  if (found == steps_.end()) return bad("answers no plan");
  if (result.epoch() != epoch_) return bad("is of epoch ", result.epoch(), ", not ", epoch_);
  if (result.step() != found->step) return bad("came where step ", found->step, " was awaited");
  found->results[rank] = std::move(result);
  ++answered_[rank];
  // Ranks answer in order, so only the oldest step can be complete now.
  if (--found->missing > 0) return std::nullopt;
  Step step = std::move(steps_.front());
  steps_.pop_front();
  Results results(homes());
  for (int home = 0; home < homes(); ++home) {
    TROUPE_ASSIGN_OR_RETURN(v1::StepResult combined, Combine(step, home));
    // What ended beside an idle step is told with the home's next one.
    if (!step.home_steps[home].has_value()) continue;
    combined.set_step(*step.home_steps[home]);
    for (v1::TransferDone& done : ended_[home]) *combined.add_transfers() = std::move(done);
    ended_[home].clear();
    results[home] = std::move(combined);
  }
  return results;
}

absl::StatusOr<v1::StepResult> JointSteps::Combine(Step& step, int home) {
  const std::vector<int>& members = members_[home];
  const auto tp = static_cast<size_t>(layout_.tp());
  const size_t sampler = members.size() - tp;
  EndTransfers(step, home);
  // With many sequences its columns are long: they are taken, not copied.
  v1::StepResult combined = std::move(*step.results[members[sampler]]);
  combined.clear_transfers();
  std::set<uint32_t> failed(combined.failed_slot().begin(), combined.failed_slot().end());
  for (size_t i = 0; i < members.size(); ++i) {
    if (i == sampler) continue;
    const v1::StepResult& part = *step.results[members[i]];
    const auto disagree = [&](absl::string_view what) {
      return Disagree(members[sampler], members[i], step.step, what);
    };
    // Ranks of one tensor-parallel group count the same.
    const bool counts = i % tp == 0;
    if (counts && !AddTo(*combined.mutable_row_heads_skipped(), part.row_heads_skipped())) {
      return disagree("another number of rows");
    }
    if (counts && !AddTo(*combined.mutable_expert_tokens(), part.expert_tokens())) {
      return disagree("another number of experts");
    }
    // Those that sample beside the one that counts must sample the same.
    const bool samples = !part.sampled_token().empty();
    if (samples && !std::equal(part.sampled_token().begin(), part.sampled_token().end(),
                               combined.sampled_token().begin(), combined.sampled_token().end())) {
      return disagree("other tokens");
    }
    failed.insert(part.failed_slot().begin(), part.failed_slot().end());
    combined.set_queue_us(std::max(combined.queue_us(), part.queue_us()));
    combined.set_forward_us(std::max(combined.forward_us(), part.forward_us()));
    combined.set_sample_us(std::max(combined.sample_us(), part.sample_us()));
  }
  combined.mutable_failed_slot()->Assign(failed.begin(), failed.end());
  return combined;
}

void JointSteps::EndTransfers(const Step& step, int home) {
  for (const int rank : members_[home]) {
    for (const v1::TransferDone& done : step.results[rank]->transfers()) {
      Transfer& transfer = transfers_[home][done.id()];
      v1::TransferDone& worst = transfer.worst;
      if (transfer.ended == 0 || Badness(done.outcome()) > Badness(worst.outcome())) {
        worst.set_outcome(done.outcome());
      }
      worst.set_id(done.id());
      worst.set_bytes(worst.bytes() + done.bytes());
      worst.set_duration_us(std::max(worst.duration_us(), done.duration_us()));
      if (++transfer.ended < static_cast<int>(members_[home].size())) continue;
      ended_[home].push_back(worst);
      transfers_[home].erase(done.id());
    }
  }
}

std::optional<int64_t> JointSteps::OldestSentUs() const {
  if (steps_.empty()) return std::nullopt;
  return steps_.front().sent_us;
}

std::vector<int> JointSteps::Missing() const {
  std::vector<int> missing;
  if (steps_.empty()) return missing;
  for (int rank = 0; rank < ranks(); ++rank) {
    if (!steps_.front().results[rank].has_value()) missing.push_back(rank);
  }
  return missing;
}

}  // namespace troupe
