// Whose turn it is among tenants: fair shares by virtual token counters (after Sheng et al., 2024,
// "Fairness in Serving Large Language Models").
//
//     counter += (prompt tokens + output_token_cost * generated tokens) / weight
//
// A waiting sequence of the tenant with the smallest counter is admitted next; within a tenant the
// most urgent one (priority.h). A tenant that becomes active is lifted to the smallest counter of
// the active ones, so being idle saves up nothing. An idle tenant's share goes to the others: the
// rule is work conserving. Priorities never cross tenants, so none can raise its share.
//
// The formulas are pure; FairShare keeps the counters and the queues. Not thread-safe. Owns the
// tenants, whose addresses stay the same; sequences belong to the caller.
#ifndef TROUPE_COORDINATOR_SCHEDULER_FAIR_SHARE_H_
#define TROUPE_COORDINATOR_SCHEDULER_FAIR_SHARE_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/types/span.h"
#include "coordinator/scheduler/priority.h"

namespace troupe {

constexpr double ChargeFor(double tokens, double token_cost, double weight) {
  return tokens * token_cost / weight;
}

// The counter of a tenant that becomes active among tenants with these counters.
double LiftedCounter(double own, absl::Span<const double> active);

struct LiveSequence;

struct Tenant {
  double weight = 1;
  double counter = 0;
  uint64_t tokens_served = 0;
  uint32_t running = 0;  // or loading
  std::map<Urgency, LiveSequence*> waiting;

  bool active() const { return running > 0 || !waiting.empty(); }
};

class FairShare {
 public:
  // The tenant of a sequence that is about to wait; lifts its counter if it was idle. The newest
  // weight counts.
  Tenant& Activate(const std::string& name, double weight);

  void Push(Tenant& tenant, const Urgency& urgency, LiveSequence* sequence);
  void Remove(Tenant& tenant, const Urgency& urgency);
  // The sequence whose turn it is; stays queued. Null: none waits.
  LiveSequence* Next() const;

  uint32_t waiting() const { return waiting_; }
  const std::map<std::string, Tenant>& tenants() const { return tenants_; }

 private:
  // Forgets idle tenants that a return would lift anyway, when there are very many.
  void Prune();

  std::map<std::string, Tenant> tenants_;
  uint32_t waiting_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_FAIR_SHARE_H_
