// Runs a model folder as the server would and compares it with the golden tensors beside it.
//
// The folder's form: config.json and config.legacy.json, the same model in the words of
// transformers 5 and 4; model.safetensors or its shards; golden.safetensors with
//   input_ids    [P, T] I64     prompts
//   logits_first [P, F, V] F32  at the first F positions of each
//   logits       [P, L, V] F32  at the last L positions
//   greedy       [P, G] I64     continuations
//   margin       [P, G] F32     the best logit less the second, where each token was chosen
// tests/golden/make_models writes such folders.
//
// Thread model: any thread; the Ops compute on threads of their own. Ownership: plain values.
#ifndef TROUPE_TESTS_GOLDEN_MODEL_CHECK_H_
#define TROUPE_TESTS_GOLDEN_MODEL_CHECK_H_

#include <cstdint>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/ops.h"
#include "sharding/shard_map.h"

namespace troupe {

// Largest difference of a logit between two computations in f32.
inline constexpr float kModelLogitTolerance = 1e-3F;

inline constexpr absl::string_view kModelConfigs[] = {"config.json", "config.legacy.json"};

// A device as kernels/device.h names it, or "reference": the naive oracle on the CPU.
absl::StatusOr<std::unique_ptr<Ops>> MakeDeviceOps(absl::string_view device, int threads = 0);

// How prompts come to the model, all of them beside each other in the same steps.
enum class PromptFeed {
  kWhole,     // one step
  kRagged,    // chunks of random lengths, another one for each prompt
  kByTokens,  // one token a step
};
inline constexpr PromptFeed kPromptFeeds[] = {PromptFeed::kWhole, PromptFeed::kRagged,
                                              PromptFeed::kByTokens};
const char* PromptFeedName(PromptFeed feed);

struct ModelComparison {
  absl::string_view config;  // of kModelConfigs
  PromptFeed feed = PromptFeed::kWhole;
  float error = 0;            // largest difference of a logit; NaN where one is not a number
  int64_t greedy_equal = 0;   // tokens before the first that differs, over all prompts
  int64_t greedy_tokens = 0;  // in all
  float margin_at_miss = 0;   // golden's, where the first prompt that differs does
  bool ok() const { return error <= kModelLogitTolerance && greedy_equal == greedy_tokens; }
};

struct CompareOptions {
  std::string device = "cpu";
  Layout layout;      // of a replica of ranks in this process
  bool gloo = false;  // ranks talk over TCP, not over memory
  std::vector<PromptFeed> feeds{std::begin(kPromptFeeds), std::end(kPromptFeeds)};
};

// The feeds with one of the folder's configs, in f32. Errors are those of the folder's files, of a
// model that the runner cannot run or the layout cannot cut, and of a device that is not there.
absl::StatusOr<std::vector<ModelComparison>> CompareModel(const std::string& folder,
                                                          absl::string_view config,
                                                          const CompareOptions& options);

// Every layout of 1, 2, 4 ... max_ranks ranks, each factor a power of two, that the folder's model
// can be cut into.
absl::StatusOr<std::vector<Layout>> LayoutsOf(const std::string& folder, int max_ranks);

}  // namespace troupe

#endif  // TROUPE_TESTS_GOLDEN_MODEL_CHECK_H_
