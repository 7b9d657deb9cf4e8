#include "coordinator/scheduler/fair_share.h"

#include <algorithm>
#include <vector>

#include "base/check.h"

namespace troupe {
namespace {

// Beyond this many, idle tenants are forgotten.
constexpr size_t kMaxTenants = 4096;

std::vector<double> ActiveCounters(const std::map<std::string, Tenant>& tenants) {
  std::vector<double> counters;
  for (const auto& [name, tenant] : tenants) {
    if (tenant.active()) counters.push_back(tenant.counter);
  }
  return counters;
}

}  // namespace

double LiftedCounter(double own, absl::Span<const double> active) {
  if (active.empty()) return own;
  return std::max(own, *std::min_element(active.begin(), active.end()));
}

Tenant& FairShare::Activate(const std::string& name, double weight) {
  if (tenants_.size() >= kMaxTenants && !tenants_.contains(name)) Prune();
  Tenant& tenant = tenants_[name];
  if (!tenant.active()) tenant.counter = LiftedCounter(tenant.counter, ActiveCounters(tenants_));
  tenant.weight = weight;
  return tenant;
}

void FairShare::Push(Tenant& tenant, const Urgency& urgency, LiveSequence* sequence) {
  CHECK(tenant.waiting.emplace(urgency, sequence).second)
      << "sequence " << urgency.id << " waits twice";
  ++waiting_;
}

void FairShare::Remove(Tenant& tenant, const Urgency& urgency) {
  CHECK_EQ(tenant.waiting.erase(urgency), 1u);
  --waiting_;
}

LiveSequence* FairShare::Next() const {
  if (waiting_ == 0) return nullptr;
  const Tenant* next = nullptr;
  const auto before = [](const Tenant& a, const Tenant& b) {
    if (a.counter != b.counter) return a.counter < b.counter;
    return a.waiting.begin()->first < b.waiting.begin()->first;
  };
  for (const auto& [name, tenant] : tenants_) {
    if (tenant.waiting.empty()) continue;
    if (next == nullptr || before(tenant, *next)) next = &tenant;
  }
  return next->waiting.begin()->second;
}

void FairShare::Prune() {
  const std::vector<double> active = ActiveCounters(tenants_);
  if (active.empty()) return;
  const double floor = *std::min_element(active.begin(), active.end());
  std::erase_if(tenants_, [floor](const auto& item) {
    return !item.second.active() && item.second.counter <= floor;
  });
}

}  // namespace troupe
