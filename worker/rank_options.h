// The options of a rank that every program which makes one takes under the same names.
//
// Thread model: as ProgramConfig. Ownership: none; the configuration must outlive the program's.
#ifndef TROUPE_WORKER_RANK_OPTIONS_H_
#define TROUPE_WORKER_RANK_OPTIONS_H_

#include "absl/strings/string_view.h"
#include "config/program_config.h"
#include "worker/rank.h"

namespace troupe {

// Declares device, quantize, kv_cache_dtype and threads. `note` ends each help text, such as
// " With --model.".
void AddComputeOptions(absl::string_view note, Rank::Config* rank, ProgramConfig* program);

// Declares kv_memory_bytes, host_kv_memory_bytes and max_step_tokens.
void AddSizeOptions(absl::string_view note, Rank::Config* rank, ProgramConfig* program);

// Declares max_rows, where it does not follow from another option.
void AddMaxRows(Rank::Config* rank, ProgramConfig* program);

}  // namespace troupe

#endif  // TROUPE_WORKER_RANK_OPTIONS_H_
