// Checks what a client asked for and fills in what it left open.
//
// Pure functions; any thread.
#ifndef TROUPE_COORDINATOR_REQUEST_OPTIONS_H_
#define TROUPE_COORDINATOR_REQUEST_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "troupe/v1/inference.pb.h"
#include "troupe/v1/worker.pb.h"

namespace troupe {

// What the model's folder says about generation.
struct ModelDefaults {
  std::string name;
  uint32_t vocab_size = 0;
  std::vector<uint32_t> end_token_ids;
  v1::Sampling sampling;    // temperature 0 where the folder asks for greedy
  uint32_t max_tokens = 0;  // 0: what fits the context
};

struct ResolvedOptions {
  v1::Sampling sampling;  // every field set
  v1::GateSetting gate;
  uint32_t max_tokens = 0;
  uint32_t max_steps = 0;  // 0: no limit
  std::vector<uint32_t> stop_token_ids;
  std::vector<std::string> stop;
  bool use_cache = true;
  bool trace = false;
  int32_t priority = 0;
};

// INVALID_ARGUMENT names the field, what was found and what was wanted. Needs no worker.
absl::Status CheckRequest(const v1::GenerateRequest& request, const ModelDefaults& model);

// `drawn_seed` is used where the client gave none. INVALID_ARGUMENT when prompt and max_tokens do
// not fit the worker's context. The request has passed CheckRequest.
absl::StatusOr<ResolvedOptions> ResolveOptions(const v1::GenerateOptions& options,
                                               const ModelDefaults& model,
                                               const v1::WorkerInfo& worker, uint32_t prompt_tokens,
                                               uint64_t drawn_seed);

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_REQUEST_OPTIONS_H_
