#include "coordinator/reshard/transaction.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_util.h"

namespace troupe {

const char* NameOf(ReshardPhase phase) {
  switch (phase) {
    case ReshardPhase::kBeginning:
      return "beginning";
    case ReshardPhase::kPreparing:
      return "preparing";
    case ReshardPhase::kDeciding:
      return "deciding";
    case ReshardPhase::kSwitching:
      return "switching";
    case ReshardPhase::kRetiring:
      return "retiring";
    case ReshardPhase::kEnded:
      return "ended";
  }
  return "unknown";
}

ReshardTransaction::ReshardTransaction(const Config& config, std::vector<ReshardMember> members)
    : config_(config),
      members_(std::move(members)),
      prepared_(members_.size(), false),
      retired_(members_.size(), false) {
  CHECK_GT(config_.new_epoch, config_.old_epoch);
}

uint32_t ReshardTransaction::to_prepare() const {
  return static_cast<uint32_t>(
      std::count_if(members_.begin(), members_.end(), [](const auto& m) { return m.in_new; }));
}

bool ReshardTransaction::CanRollBack() const {
  return phase_ == ReshardPhase::kBeginning || phase_ == ReshardPhase::kPreparing;
}

ReshardActions ReshardTransaction::Start(int64_t deadline_us) {
  deadline_us_ = deadline_us;
  return {WriteBegin{}};
}

ReshardActions ReshardTransaction::Begun(const absl::Status& status) {
  if (phase_ != ReshardPhase::kBeginning) return {};
  if (!status.ok()) return RollBack(status);
  phase_ = ReshardPhase::kPreparing;
  asked_ = true;
  ReshardActions actions;
  for (size_t m = 0; m < members_.size(); ++m) {
    if (members_[m].in_new) actions.emplace_back(AskPrepare{m});
  }
  return actions;
}

ReshardActions ReshardTransaction::Prepared(size_t member,
                                            const absl::StatusOr<std::string>& digest) {
  if (phase_ != ReshardPhase::kPreparing || prepared_[member]) return {};
  const ReshardMember& m = members_[member];
  if (!digest.ok()) {
    return RollBack(Annotate(digest.status(), absl::StrCat("rank ", m.worker)));
  }
  if (*digest != m.digest) {
    return RollBack(absl::DataLossError(absl::StrCat(
        "rank ", m.worker, " holds something else than planned: found digest ",
        absl::BytesToHexString(*digest), ", wanted ", absl::BytesToHexString(m.digest))));
  }
  prepared_[member] = true;
  if (++prepared_count_ < to_prepare()) return {};
  phase_ = ReshardPhase::kDeciding;
  return {WriteDecision{}};
}

ReshardActions ReshardTransaction::Decided(const absl::Status& status) {
  CHECK(phase_ == ReshardPhase::kDeciding);
  if (!status.ok()) return RollBack(Annotate(status, "the decision could not be written"));
  decided_ = true;
  phase_ = ReshardPhase::kSwitching;
  return {SwitchServing{}};
}

ReshardActions ReshardTransaction::Switched(const absl::Status& status, int64_t now_us) {
  if (phase_ != ReshardPhase::kSwitching) return {};
  ReshardActions actions;
  for (size_t m = 0; m < members_.size(); ++m) {
    actions.emplace_back(AskRetire{m, members_[m].in_new ? config_.new_epoch : 0});
  }
  if (!status.ok()) {
    // Who must serve has to be worked out anew, and that does not wait for memory to be freed.
    phase_ = ReshardPhase::kEnded;
    actions.emplace_back(EndReshard{true, status});
    return actions;
  }
  phase_ = ReshardPhase::kRetiring;
  retire_deadline_us_ = now_us + config_.retire_timeout_us;
  for (const ReshardAction& action : EndIfRetired()) actions.push_back(action);
  return actions;
}

ReshardActions ReshardTransaction::Retired(size_t member) {
  if (phase_ != ReshardPhase::kRetiring) return {};
  retired_[member] = true;
  return EndIfRetired();
}

ReshardActions ReshardTransaction::Lost(size_t member, const absl::Status& status) {
  if (CanRollBack()) {
    return RollBack(Annotate(status, absl::StrCat("rank ", members_[member].worker)));
  }
  retired_[member] = true;
  if (phase_ == ReshardPhase::kRetiring) return EndIfRetired();
  return {};
}

ReshardActions ReshardTransaction::Tick(int64_t now_us) {
  if (CanRollBack() && now_us >= deadline_us_) {
    std::string late;
    for (size_t m = 0; m < members_.size(); ++m) {
      if (members_[m].in_new && !prepared_[m]) absl::StrAppend(&late, " ", members_[m].worker);
    }
    return RollBack(absl::DeadlineExceededError(
        absl::StrCat(prepared_count_, " of ", to_prepare(),
                     " ranks were prepared by the deadline; these were not:", late)));
  }
  if (phase_ == ReshardPhase::kRetiring && now_us >= retire_deadline_us_) {
    phase_ = ReshardPhase::kEnded;
    return {EndReshard{true, absl::OkStatus()}};
  }
  return {};
}

ReshardActions ReshardTransaction::Cancel(const absl::Status& status) {
  return CanRollBack() ? RollBack(status) : ReshardActions();
}

ReshardActions ReshardTransaction::RollBack(absl::Status status) {
  phase_ = ReshardPhase::kEnded;
  ReshardActions actions;
  for (size_t m = 0; m < members_.size() && asked_; ++m) {
    if (!members_[m].in_new) continue;
    actions.emplace_back(AskRetire{m, members_[m].in_old ? config_.old_epoch : 0});
  }
  actions.emplace_back(EndReshard{false, std::move(status)});
  return actions;
}

ReshardActions ReshardTransaction::EndIfRetired() {
  if (!std::all_of(retired_.begin(), retired_.end(), [](bool r) { return r; })) return {};
  phase_ = ReshardPhase::kEnded;
  return {EndReshard{true, absl::OkStatus()}};
}

}  // namespace troupe
