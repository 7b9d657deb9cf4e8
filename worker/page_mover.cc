#include "worker/page_mover.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/status_util.h"

namespace troupe {
namespace {

absl::Status CheckColumn(const char* field, int found, const char* first, int wanted) {
  if (found == wanted) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " entries: found ", found, ", wanted ",
                                                 wanted, ", as many as ", first, " has"));
}

absl::StatusOr<SideCopy> CopyOf(const char* what, uint32_t group, uint32_t page, uint32_t host_page,
                                KvPages& pages, const HostPages* host_pages) {
  const auto device = pages.Page(group, page);
  if (!device.ok()) return Annotate(device.status(), what);
  const uint32_t count = host_pages == nullptr ? 0 : host_pages->page_count(group);
  if (host_page >= count) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": found host page ", host_page,
                                                   " of group ", group, ", which has ", count));
  }
  return SideCopy{.device = device->data(),
                  .host = host_pages->Page(group, host_page),
                  .bytes = static_cast<int64_t>(device->size())};
}

}  // namespace

absl::StatusOr<PageMoves> PlanMoves(const v1::StepPlan& plan, KvPages& pages,
                                    const HostPages* host_pages) {
  const int spills = plan.spill_group_size();
  const int fills = plan.fill_id_size();
  TROUPE_RETURN_IF_ERROR(CheckColumn("spill_page", plan.spill_page_size(), "spill_group", spills));
  TROUPE_RETURN_IF_ERROR(
      CheckColumn("spill_host_page", plan.spill_host_page_size(), "spill_group", spills));
  TROUPE_RETURN_IF_ERROR(CheckColumn("fill_group", plan.fill_group_size(), "fill_id", fills));
  TROUPE_RETURN_IF_ERROR(
      CheckColumn("fill_host_page", plan.fill_host_page_size(), "fill_id", fills));
  TROUPE_RETURN_IF_ERROR(CheckColumn("fill_page", plan.fill_page_size(), "fill_id", fills));
  PageMoves moves;
  absl::flat_hash_set<std::byte*> filled;
  for (int i = 0; i < fills; ++i) {
    TROUPE_ASSIGN_OR_RETURN(const SideCopy copy,
                            CopyOf("fill", plan.fill_group(i), plan.fill_page(i),
                                   plan.fill_host_page(i), pages, host_pages));
    filled.insert(copy.device);
    moves.in_bytes += copy.bytes;
    moves.in.push_back(copy);
  }
  for (int i = 0; i < spills; ++i) {
    TROUPE_ASSIGN_OR_RETURN(const SideCopy copy,
                            CopyOf("spill", plan.spill_group(i), plan.spill_page(i),
                                   plan.spill_host_page(i), pages, host_pages));
    (filled.contains(copy.device) ? moves.out_of_fill : moves.out_at_once).push_back(copy);
  }
  return moves;
}

PageMover::PageMover(KvPages* pages, const HostPages* host_pages, SideCopies* copies,
                     const Clock* clock)
    : pages_(pages), host_pages_(host_pages), copies_(copies), clock_(clock) {}

void PageMover::Reset(uint64_t epoch) {
  if (copies_ != nullptr) copies_->Synchronize();
  epoch_ = epoch;
  under_way_.clear();
  ended_.clear();
}

absl::Status PageMover::Start(const v1::StepPlan& plan, const ActorRef<ExecutorMessage>& owner) {
  if (plan.spill_group().empty() && plan.fill_id().empty()) return absl::OkStatus();
  TROUPE_ASSIGN_OR_RETURN(const PageMoves moves, PlanMoves(plan, *pages_, host_pages_));
  for (int i = 0; i < plan.fill_id_size(); ++i) {
    const uint64_t id = plan.fill_id(i);
    if (std::any_of(under_way_.begin(), under_way_.end(),
                    [id](const Fill& fill) { return fill.id == id; })) {
      return absl::FailedPreconditionError(
          absl::StrCat("fill_id: found ", id, ", which is under way, wanted a new one"));
    }
    under_way_.push_back({.id = id,
                          .bytes = moves.in[i].bytes,
                          .start_ns = clock_->MonotonicNs(),
                          .step = plan.step()});
  }
  copies_->Out(moves.out_at_once, SideCopies::Reuse::kAtOnce);
  copies_->Out(moves.out_of_fill, SideCopies::Reuse::kAfterIn);
  if (moves.in.empty()) return absl::OkStatus();
  copies_->In(moves.in);
  const FillsEnded end{epoch_, plan.step()};
  // Refused where the actor has stopped, which needs no answer.
  if (!copies_->WhenDone([owner, end] { (void)owner.TellReply(end); })) End(end);
  return absl::OkStatus();
}

void PageMover::End(const FillsEnded& message) {
  if (message.epoch != epoch_) return;
  const int64_t now_ns = clock_->MonotonicNs();
  while (!under_way_.empty() && under_way_.front().step <= message.step) {
    const Fill fill = under_way_.front();
    under_way_.pop_front();
    v1::TransferDone& done = ended_.emplace_back();
    done.set_id(fill.id);
    done.set_outcome(v1::TransferDone::OUTCOME_DONE);
    done.set_bytes(static_cast<uint64_t>(fill.bytes));
    done.set_duration_us(static_cast<uint64_t>((now_ns - fill.start_ns) / 1000));
  }
}

void PageMover::Report(v1::StepResult& result) {
  for (v1::TransferDone& done : ended_) *result.add_transfers() = std::move(done);
  ended_.clear();
}

}  // namespace troupe
