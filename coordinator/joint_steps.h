// Steps that all ranks of a replica take together.
//
// Each data-parallel home has a scheduler of its own, which numbers its own plans. Here the homes'
// next plans become one step of the replica: a home without work gets a plan without rows, so that
// its ranks join, and every plan says how many tokens each home computes. Results come back from
// every rank; when the last one has answered the oldest step, each home that had a plan gets one
// result, as if one worker had computed it:
//
//     tokens, log-probabilities     of the rank that samples: the last stage's first
//     skipped heads                 the sum over stages, of each stage's first rank
//     tokens of experts             likewise
//     slots without usable logits   any rank's
//     transfers                     ended when all ranks have ended them, as badly as the worst
//     times                         of the slowest rank
//
// Thread model: none, one owner. Ownership: plain values. Invariants: results leave in the order of
// steps.
#ifndef TROUPE_COORDINATOR_JOINT_STEPS_H_
#define TROUPE_COORDINATOR_JOINT_STEPS_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "troupe/v1/worker.pb.h"

namespace troupe {

class JointSteps {
 public:
  // By home; empty where the home had no plan.
  using Plans = std::vector<std::optional<v1::StepPlan>>;
  using Results = std::vector<std::optional<v1::StepResult>>;

  JointSteps(const v1::Layout& layout, uint64_t epoch);

  int ranks() const { return layout_.tp() * layout_.dp() * layout_.pp(); }
  int homes() const { return static_cast<int>(layout_.dp()); }
  // Whose plans the rank gets.
  int HomeOf(int rank) const;

  // What to send each home's ranks. Plans of all homes may be empty: ranks answer them too.
  std::vector<v1::StepPlan> Join(Plans plans, int64_t now_us);

  // The rank's result of its oldest plan without one. Results of the oldest step once it was the
  // last. FAILED_PRECONDITION: it answers no plan, or ranks do not agree, by name of the rank.
  absl::StatusOr<std::optional<Results>> Add(int rank, v1::StepResult result);

  uint32_t in_flight() const { return static_cast<uint32_t>(steps_.size()); }
  uint64_t steps() const { return last_step_; }
  // When the oldest step without a full answer was sent.
  std::optional<int64_t> OldestSentUs() const;
  // Ranks that have not answered that step.
  std::vector<int> Missing() const;
  // Steps that the rank has answered.
  uint64_t answered(int rank) const { return answered_[rank]; }

 private:
  struct Step {
    uint64_t step = 0;
    int64_t sent_us = 0;
    std::vector<std::optional<uint64_t>> home_steps;     // numbers of the homes' own plans
    std::vector<std::optional<v1::StepResult>> results;  // by rank
    int missing = 0;
  };
  struct Transfer {
    int ended = 0;
    v1::TransferDone worst;
  };

  absl::StatusOr<v1::StepResult> Combine(Step& step, int home);
  void EndTransfers(const Step& step, int home);
  const v1::Layout layout_;
  const uint64_t epoch_;
  std::vector<std::vector<int>> members_;  // by home: its ranks, stage by stage
  uint64_t last_step_ = 0;
  std::deque<Step> steps_;
  std::vector<uint64_t> answered_;                       // by rank
  std::vector<std::map<uint64_t, Transfer>> transfers_;  // by home, then id
  std::vector<std::vector<v1::TransferDone>> ended_;     // by home, not told yet
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_JOINT_STEPS_H_
