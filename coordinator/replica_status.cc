#include "coordinator/replica_status.h"

#include <algorithm>

namespace troupe {

void AddHome(const v1::WorkerStatus& home, v1::WorkerStatus& sum) {
  sum.set_running(sum.running() + home.running());
  sum.set_waiting(sum.waiting() + home.waiting());
  sum.set_steps(sum.steps() + home.steps());
  sum.set_tokens_generated(sum.tokens_generated() + home.tokens_generated());
  sum.set_prompt_tokens_computed(sum.prompt_tokens_computed() + home.prompt_tokens_computed());
  sum.set_tokens_kept(sum.tokens_kept() + home.tokens_kept());
  sum.set_prompt_tokens_reused(sum.prompt_tokens_reused() + home.prompt_tokens_reused());
  sum.set_blocks_loaded(sum.blocks_loaded() + home.blocks_loaded());
  sum.set_blocks_stored(sum.blocks_stored() + home.blocks_stored());
  sum.set_blocks_spilled(sum.blocks_spilled() + home.blocks_spilled());
  sum.set_blocks_filled(sum.blocks_filled() + home.blocks_filled());
  sum.set_bytes_spilled(sum.bytes_spilled() + home.bytes_spilled());
  sum.set_bytes_filled(sum.bytes_filled() + home.bytes_filled());
  sum.set_fill_us_total(sum.fill_us_total() + home.fill_us_total());
  sum.set_preemptions(sum.preemptions() + home.preemptions());
  for (int g = 0; g < home.groups_size(); ++g) {
    const v1::GroupStatus& from = home.groups(g);
    v1::GroupStatus& to = g < sum.groups_size() ? *sum.mutable_groups(g) : *sum.add_groups();
    to.set_name(from.name());
    to.set_pages_total(to.pages_total() + from.pages_total());
    to.set_pages_used(to.pages_used() + from.pages_used());
    to.set_pages_cached(to.pages_cached() + from.pages_cached());
    to.set_host_pages_total(to.host_pages_total() + from.host_pages_total());
    to.set_host_pages_cached(to.host_pages_cached() + from.host_pages_cached());
  }
}

void AddTenants(const std::vector<v1::TenantStatus>& home, std::vector<v1::TenantStatus>& sum) {
  for (const v1::TenantStatus& from : home) {
    const auto found = std::find_if(sum.begin(), sum.end(), [&](const v1::TenantStatus& tenant) {
      return tenant.tenant() == from.tenant();
    });
    if (found == sum.end()) {
      sum.push_back(from);
      continue;
    }
    found->set_running(found->running() + from.running());
    found->set_waiting(found->waiting() + from.waiting());
    found->set_tokens_served(found->tokens_served() + from.tokens_served());
  }
}

}  // namespace troupe
