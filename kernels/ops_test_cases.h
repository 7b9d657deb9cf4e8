// One runner for each operation: random inputs from a seed, the operation over some steps on a
// device, and what came out, so that any two devices, or two ways to cut the same tokens into
// steps, can be compared. The table itself is in kernels/ops_test_table.h.
#ifndef TROUPE_KERNELS_OPS_TEST_CASES_H_
#define TROUPE_KERNELS_OPS_TEST_CASES_H_

#include <optional>
#include <string>
#include <vector>

#include "kernels/linear/coded_testing.h"
#include "kernels/ops_testing.h"

namespace troupe {

struct Output {
  std::string name;
  std::vector<float> values;
  // Values may differ from the reference's by this much times max(1, |reference|).
  float tolerance = 0;
  // Only compared, bit for bit, between runs of one backend: where rounding decides between equals.
  bool only_between_runs = false;
};
using Outputs = std::vector<Output>;

// What a runner is given.
struct Run {
  const std::vector<Sequence>& sequences;
  const std::vector<Step>& steps;
  TestDevice& device;
  uint64_t seed;
};

struct EmbedCase {
  int vocabulary = 512;
  int hidden = 256;
  DType dtype = DType::kBf16;
  float scale = 1;
  bool last_tokens = false;  // some tokens are named by their slots
};
Outputs RunEmbed(const EmbedCase& c, const Run& run);

struct RmsNormCase {
  int hidden = 256;
  bool in_place = false;
  bool accumulate = false;
};
Outputs RunRmsNorm(const RmsNormCase& c, const Run& run);

struct LinearCase {
  int inputs = 256;
  std::vector<int> parts = {512};
  DType dtype = DType::kBf16;
  Precision precision = Precision::kF32;
  bool accumulate = false;
  bool bias = false;
  std::optional<CodedFormat> codes = std::nullopt;  // instead of values of dtype
  bool norm = false;                                // of x, by the operation where it does that
};
Outputs RunLinear(const LinearCase& c, const Run& run);

struct HeadNormRopeCase {
  int heads = 8;
  int head_dim = 64;
  bool norm = true;
  bool rope = true;
  int first_rotated = 0;
  int rotated_dims = 0;
  bool interleaved = false;
  float amplitude = 1;
};
Outputs RunHeadNormRope(const HeadNormRopeCase& c, const Run& run);

struct KvWriteCase {
  int kv_heads = 2;
  int head_dim = 64;
  DType dtype = DType::kBf16;
};
Outputs RunKvWrite(const KvWriteCase& c, const Run& run);

struct QkvWriteCase {
  int heads = 6;
  int kv_heads = 2;
  int head_dim = 64;
  int value_dim = 0;  // 0: head_dim
  bool norm = true;
  bool rope = true;
  int rotated_dims = 0;
  bool interleaved = false;
  DType dtype = DType::kBf16;
};
Outputs RunQkvWrite(const QkvWriteCase& c, const Run& run);

struct HeadGateCase {
  int heads = 8;
  int branches = 3;
  std::vector<GateRule> rules;  // by sequence, over and over
};
Outputs RunHeadGate(const HeadGateCase& c, const Run& run);

struct PagedAttentionCase {
  int heads = 8;
  int kv_heads = 2;
  int head_dim = 64;
  int value_dim = 0;  // 0: head_dim
  bool sinks = false;
  int window = 0;
  DType dtype = DType::kBf16;
  double closed = 0.3;  // share of heads
  bool accumulate = true;
  float sharpness = 1;  // scale of the queries
};
Outputs RunPagedAttention(const PagedAttentionCase& c, const Run& run);

struct NsaCase {
  int heads = 8;
  int kv_heads = 2;
  int head_dim = 64;
  NsaSizes sizes = {.compress_block = 32,
                    .compress_stride = 16,
                    .selected_blocks = 8,
                    .initial_blocks = 1,
                    .local_blocks = 2};
  DType dtype = DType::kBf16;
  double closed = 0.3;
  bool equal_keys = false;  // every score is a tie
};
Outputs RunNsaCompress(const NsaCase& c, const Run& run);
Outputs RunNsaSelect(const NsaCase& c, const Run& run);
Outputs RunNsaAttention(const NsaCase& c, const Run& run);

struct MlaCase {
  MlaDims dims = {.heads = 4, .nope_dim = 16, .rope_dim = 16, .value_dim = 32, .latent_dim = 48};
  DType dtype = DType::kBf16;  // of the latents
  DType weight_dtype = DType::kBf16;
  Precision precision = Precision::kF32;
  std::vector<MlaForm> forms;  // by sequence, over and over; empty: chosen
  float sharpness = 1;         // scale of the queries
};
Outputs RunMlaAttention(const MlaCase& c, const Run& run);

struct SwigluCase {
  int size = 768;
  Activation activation;
  bool gate_alone = false;
};
Outputs RunSwiglu(const SwigluCase& c, const Run& run);

struct MoeRouteCase {
  int experts = 16;
  int top_k = 2;
  bool normalize = true;
  bool bias = true;
  RouterScoring scoring = RouterScoring::kSigmoid;
  GroupScore group_score = GroupScore::kNone;
  int groups = 1;
  int groups_chosen = 1;
  int inputs = 0;  // of the router; 0: logits are given
  DType router_dtype = DType::kBf16;
  bool norm = false;  // with a router
};
Outputs RunMoeRoute(const MoeRouteCase& c, const Run& run);

struct MoeExpertsCase {
  int hidden = 256;
  int size = 64;
  int experts = 16;
  int top_k = 2;
  bool shared = true;
  DType dtype = DType::kBf16;
  Precision precision = Precision::kF32;
  Activation activation;
  bool bias = false;
  bool accumulate = true;
  std::optional<CodedFormat> codes = std::nullopt;  // instead of values of dtype
  int elsewhere = 0;                                // percent of choices that another rank computes
  bool norm = false;
};
Outputs RunMoeExperts(const MoeExpertsCase& c, const Run& run);

struct SampleCase {
  int vocabulary = 1000;
  float spread = 2;  // of the logits
  bool greedy = false;
  bool top_k = false;
  bool top_p = false;
  bool min_p = false;
  bool ties = false;     // between many logits
  bool damaged = false;  // most rows
};
Outputs RunSample(const SampleCase& c, const Run& run);

Outputs RunPageCopy(const Run& run);

struct SquareSumsCase {
  int hidden = 256;
};
Outputs RunSquareSums(const SquareSumsCase& c, const Run& run);
Outputs RunRmsNormParts(const SquareSumsCase& c, const Run& run);

struct RowAddCase {
  int hidden = 256;
};
Outputs RunRowAdd(const RowAddCase& c, const Run& run);

struct MoeAssignCase {
  int experts = 12;
  int top_k = 3;
  int most_copies = 4;
};
Outputs RunMoeAssign(const MoeAssignCase& c, const Run& run);

// ---- For the runners ----

// Blocks of the longest sequence, and one.
int BlocksFor(const std::vector<Sequence>& sequences);

// Sums of some hundred products in f32, and weights within a few units of the last place.
inline constexpr float kAttentionTolerance = 2e-5F;

// Gathers a per-token result over the steps.
class TokenOutput {
 public:
  TokenOutput(const Run& run, std::string name, int64_t cols, float tolerance)
      : cols_(cols),
        output_{std::move(name), std::vector<float>(TokensOf(run.sequences) * cols), tolerance} {}

  template <class T>
  void Put(const std::vector<int>& tokens, const std::vector<T>& values) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      for (int64_t c = 0; c < cols_; ++c) {
        output_.values[tokens[i] * cols_ + c] = static_cast<float>(values[i * cols_ + c]);
      }
    }
  }
  Output& output() { return output_; }

 private:
  int64_t cols_;
  Output output_;
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_OPS_TEST_CASES_H_
