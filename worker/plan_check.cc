#include "worker/plan_check.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status_util.h"
#include "cache_client/cache_limits.h"

namespace troupe {
namespace {

absl::Status Bad(absl::string_view field, uint64_t found, absl::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": found ", found, ", wanted ", wanted));
}

absl::Status CheckAtMost(absl::string_view field, int64_t found, uint64_t limit) {
  if (static_cast<uint64_t>(found) <= limit) return absl::OkStatus();
  return Bad(absl::StrCat(field, " entries"), found, absl::StrCat("at most ", limit));
}

// A column beside the one that says how many entries there are.
absl::Status CheckColumn(absl::string_view field, int found, absl::string_view first, int wanted) {
  if (found == wanted) return absl::OkStatus();
  return Bad(absl::StrCat(field, " entries"), found,
             absl::StrCat(wanted, ", as many as ", first, " has"));
}

absl::Status CheckPage(absl::string_view field, uint32_t group, uint32_t page,
                       const PlanLimits& limits) {
  if (group >= limits.page_count.size()) {
    return Bad(absl::StrCat(field, " group"), group,
               absl::StrCat("less than ", limits.page_count.size()));
  }
  if (page < limits.page_count[group]) return absl::OkStatus();
  return Bad(absl::StrCat(field, " page"), page,
             absl::StrCat("less than ", limits.page_count[group], ", what group ", group, " has"));
}

absl::Status CheckTransfer(absl::string_view field, const v1::BlockTransfer& transfer,
                           const PlanLimits& limits) {
  TROUPE_RETURN_IF_ERROR(CheckPage(field, transfer.group(), transfer.page(), limits));
  if (transfer.block_key().size() != kCacheBlockKeyBytes) {
    return Bad(absl::StrCat(field, " block_key bytes"), transfer.block_key().size(),
               absl::StrCat(kCacheBlockKeyBytes));
  }
  if (transfer.tenant_namespace().size() > kCacheMaxNamespaceBytes) {
    return Bad(absl::StrCat(field, " tenant_namespace bytes"), transfer.tenant_namespace().size(),
               absl::StrCat("at most ", kCacheMaxNamespaceBytes));
  }
  return absl::OkStatus();
}

absl::Status CheckRows(const v1::StepPlan& plan, const PlanLimits& limits) {
  const int rows = plan.row_slot_size();
  TROUPE_RETURN_IF_ERROR(CheckColumn("row_start", plan.row_start_size(), "row_slot", rows));
  TROUPE_RETURN_IF_ERROR(CheckColumn("row_count", plan.row_count_size(), "row_slot", rows));
  TROUPE_RETURN_IF_ERROR(CheckAtMost("row_slot", rows, limits.max_rows));
  uint64_t tokens = 0;
  for (const uint32_t count : plan.row_count()) {
    if (count == 0) return Bad("row_count", count, "at least 1");
    tokens += count;
  }
  if (tokens <= limits.max_step_tokens) return absl::OkStatus();
  return Bad("row_count's sum", tokens, absl::StrCat("at most ", limits.max_step_tokens));
}

absl::Status CheckGrants(const v1::StepPlan& plan, const PlanLimits& limits) {
  const int grants = plan.grant_slot_size();
  TROUPE_RETURN_IF_ERROR(CheckColumn("grant_group", plan.grant_group_size(), "grant_slot", grants));
  TROUPE_RETURN_IF_ERROR(CheckColumn("grant_block", plan.grant_block_size(), "grant_slot", grants));
  TROUPE_RETURN_IF_ERROR(CheckColumn("grant_page", plan.grant_page_size(), "grant_slot", grants));
  for (int i = 0; i < grants; ++i) {
    TROUPE_RETURN_IF_ERROR(CheckPage("grant", plan.grant_group(i), plan.grant_page(i), limits));
  }
  return absl::OkStatus();
}

absl::Status CheckCopies(const v1::StepPlan& plan, const PlanLimits& limits) {
  const int copies = plan.copy_group_size();
  TROUPE_RETURN_IF_ERROR(
      CheckColumn("copy_from_page", plan.copy_from_page_size(), "copy_group", copies));
  TROUPE_RETURN_IF_ERROR(
      CheckColumn("copy_to_page", plan.copy_to_page_size(), "copy_group", copies));
  // A fork copies the one block that both will write to.
  TROUPE_RETURN_IF_ERROR(
      CheckAtMost("copy_group", copies, uint64_t{limits.max_rows} * limits.page_count.size()));
  for (int i = 0; i < copies; ++i) {
    TROUPE_RETURN_IF_ERROR(
        CheckPage("copy_from", plan.copy_group(i), plan.copy_from_page(i), limits));
    TROUPE_RETURN_IF_ERROR(CheckPage("copy_to", plan.copy_group(i), plan.copy_to_page(i), limits));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckPlan(const v1::StepPlan& plan, const PlanLimits& limits) {
  TROUPE_RETURN_IF_ERROR(
      CheckAtMost("finished_slots", plan.finished_slots_size(), limits.max_rows));
  TROUPE_RETURN_IF_ERROR(CheckAtMost("new_sequences", plan.new_sequences_size(), limits.max_rows));
  TROUPE_RETURN_IF_ERROR(CheckGrants(plan, limits));
  TROUPE_RETURN_IF_ERROR(CheckCopies(plan, limits));
  for (const v1::BlockTransfer& load : plan.loads()) {
    TROUPE_RETURN_IF_ERROR(CheckTransfer("loads", load, limits));
  }
  for (const v1::BlockTransfer& store : plan.stores()) {
    TROUPE_RETURN_IF_ERROR(CheckTransfer("stores", store, limits));
  }
  return CheckRows(plan, limits);
}

}  // namespace troupe
