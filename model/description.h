// The model as data: what a config says about a decoder, and the state a sequence keeps for it.
//
// The runner walks `layers`; nothing downstream asks which architecture it runs. A mapping file in
// model/architectures/ turns one family's config.json into a ModelDescription.
//
// Plain values: copy freely, no thread rules, owns everything it names.
#ifndef TROUPE_MODEL_DESCRIPTION_H_
#define TROUPE_MODEL_DESCRIPTION_H_

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "kernels/activation.h"
#include "kernels/moe_route/moe_route.h"
#include "kernels/tensor.h"

namespace troupe {

enum class AttentionKind { kSliding, kFull, kNsa };

enum class RopeKind {
  kNone,
  kHalfSplit,  // rotates (x[j], x[j + n/2]) of a head's n rotated dimensions, as Hugging Face does
  kInterleaved,  // rotates (x[2j], x[2j + 1]), as DeepSeek does
};

// Which angles a layer's queries and keys are turned by. What a config says about scaling (linear,
// llama3, YaRN) is worked out into the frequencies by model/rope_scaling.h.
struct RopeDescription {
  RopeKind kind = RopeKind::kNone;
  int rotated_dims = 0;                  // of a head, its first ones; even
  std::vector<float> inverse_frequency;  // [rotated_dims / 2], radians a token
  float amplitude = 1.0f;                // multiplies cosines and sines (YaRN's attention factor)

  bool operator==(const RopeDescription&) const = default;
};

// Native sparse attention: compressed, selected and window branches, all lengths in tokens.
struct NsaDescription {
  int compress_block = 32;   // tokens a compressed entry covers
  int compress_stride = 16;  // tokens between the starts of two entries
  int select_block = 64;     // tokens in a selectable block
  int selected_blocks = 8;   // taken for a query, init and local blocks included
  int init_blocks = 1;       // first blocks, always taken
  int local_blocks = 2;      // the query's own block and those before it, always taken

  bool operator==(const NsaDescription&) const = default;
};

// gate = sigmoid(up silu(down x)), one number a query head; heads under the threshold give zero.
struct HeadGateDescription {
  int inner_size = 0;
  float threshold = 0.0f;  // the config's default; a request may choose another

  bool operator==(const HeadGateDescription&) const = default;
};

// Multi-head latent attention (DeepSeek-V2, section 2.1): keys and values are products of a latent
// that all heads share. What is kept of a token is its latent [latent_dim], normed, and the one
// rotated key part [rope_dim]. With it, AttentionDescription::head_dim is nope_dim + rope_dim and
// kv_heads is heads; the rope turns the last rope_dim dimensions of a query head.
struct MlaDescription {
  int query_latent_dim = 0;  // q_lora_rank; 0: queries are projected from the layer's input
  int latent_dim = 0;        // kv_lora_rank
  int nope_dim = 0;          // of a head's query and key, without position
  int rope_dim = 0;          // with position
  float norm_epsilon = 0;    // of the latents' norms; need not be the model's

  bool operator==(const MlaDescription&) const = default;
};

enum class QkNorm {
  kNone,
  kPerHead,    // rms over head_dim of each query and key head, before rope; weight [head_dim]
  kFullWidth,  // rms over all heads at once, before rope; weight [heads * head_dim]
};

struct AttentionDescription {
  AttentionKind kind = AttentionKind::kFull;
  int heads = 0;
  int kv_heads = 0;       // query head h uses KV head h / (heads / kv_heads)
  int head_dim = 0;       // of queries and keys
  int value_dim = 0;      // of values
  float score_scale = 0;  // multiplies query-key products
  int window_tokens = 0;  // kSliding and kNsa: a query sees itself and window_tokens - 1 before it
  RopeDescription rope;
  QkNorm qk_norm = QkNorm::kNone;
  bool qkv_bias = false;     // q_proj, k_proj, v_proj add a bias
  bool output_bias = false;  // o_proj does
  bool sinks = false;        // one more score a head, learned, whose value is zero
  std::optional<HeadGateDescription> head_gate;
  std::optional<NsaDescription> nsa;  // set exactly for kNsa
  std::optional<MlaDescription> mla;  // only for kFull

  int query_size() const { return heads * head_dim; }
  int key_size() const { return kv_heads * head_dim; }
  int value_size() const { return kv_heads * value_dim; }
  int attended_size() const { return heads * value_dim; }

  bool operator==(const AttentionDescription&) const = default;
};

// down activation(gate x, up x)
struct DenseFfn {
  int inner_size = 0;
  Activation activation;
  bool bias = false;  // gate, up and down add one

  bool operator==(const DenseFfn&) const = default;
};

struct RouterDescription {
  RouterScoring scoring = RouterScoring::kSigmoid;
  bool logit_bias = false;         // the router's product adds a bias
  bool correction_bias = false;    // added to the scores for choosing only
  bool normalise_weights = false;  // chosen scores are divided by their sum + 1e-20
  float weight_scale = 1.0f;
  GroupScore group_score = GroupScore::kNone;
  int groups = 1;
  int groups_chosen = 1;

  bool operator==(const RouterDescription&) const = default;
};

struct MoeFfn {
  int experts = 0;
  int experts_per_token = 0;
  int expert_inner_size = 0;
  int shared_inner_size = 0;  // 0: no shared expert; several are one of their summed size
  RouterDescription router;
  Activation activation;
  bool expert_bias = false;  // experts' gate, up and down add one

  bool operator==(const MoeFfn&) const = default;
};

using FfnDescription = std::variant<DenseFfn, MoeFfn>;

// Where a sublayer f of the residual stream x is normed.
enum class NormPlace {
  kBefore,  // x += f(norm(x))
  kAfter,   // x += norm(f(x))
  kBoth,    // x += after(f(before(x)))
};

struct LayerDescription {
  AttentionDescription attention;
  FfnDescription ffn;
  NormPlace norm_place = NormPlace::kBefore;

  bool operator==(const LayerDescription&) const = default;
};

// Predicts token t+2 from the last layer's output at t and the embedding of token t+1.
struct MtpDescription {
  LayerDescription layer;

  bool operator==(const MtpDescription&) const = default;
};

struct ModelDescription {
  std::string architecture;  // the mapping file's name, for people
  int vocab_size = 0;
  int hidden_size = 0;
  float rms_epsilon = 0.0f;
  float norm_weight_offset = 0.0f;  // added to the weight of every norm (Gemma: 1)
  float embedding_scale = 1.0f;     // multiplies embeddings (Gemma: sqrt(hidden_size))
  bool tied_embeddings = false;
  int max_context_tokens = 0;
  std::vector<uint32_t> end_tokens;  // generation stops at any of these
  std::optional<uint32_t> bos_token;
  std::optional<uint32_t> pad_token;
  std::vector<LayerDescription> layers;
  std::vector<int> early_exit_layers;  // a head after each of these layers, ascending
  std::optional<MtpDescription> mtp;

  // Layers a state stream can name: the decoder's, then the MTP layer as the last one.
  int mtp_layer_index() const { return static_cast<int>(layers.size()); }

  bool operator==(const ModelDescription&) const = default;
};

// Checks what every architecture promises the runner (sizes positive, heads divisible by kv_heads,
// NSA lengths that fit kBlockTokens, early exits in range, ...). InvalidArgument names the field.
absl::Status ValidateDescription(const ModelDescription& description);

// --- What a sequence keeps --------------------------------------------------------------------

enum class StateGroupKind {
  kFull,        // pages for all tokens
  kWindow,      // pages of which those wholly behind the window are given back
  kCompressed,  // pages for all tokens, one entry for every stride
};

// Which of a layer's K/V pairs a stream holds.
enum class KvBranch {
  kSelf,           // the only pair of a sliding or full layer
  kNsaSelected,    // slc_k, slc_v
  kNsaWindow,      // win_k, win_v
  kNsaRaw,         // cmp_k, cmp_v before compression
  kNsaCompressed,  // ck, cv
  kMlaLatent,      // the latent, then the rotated key part; no values of their own
};

// One layer's K/V pair inside the pages of a group.
struct StateStream {
  int layer = 0;  // ModelDescription::mtp_layer_index() for the MTP layer
  KvBranch branch = KvBranch::kSelf;
  int kv_heads = 0;
  int key_dim = 0;
  int value_dim = 0;
  int64_t key_offset_bytes = 0;    // of this stream's K in a page
  int64_t value_offset_bytes = 0;  // of this stream's V in a page
};

// A group of streams that are paged together: one block table a sequence for each group.
//
// THE LAYOUT of a page, for each stream in order, without padding between streams:
//     K [kv_heads][entries_per_block][key_dim]
//     V [kv_heads][entries_per_block][value_dim]
// each followed by its scales [kv_heads][entries_per_block] where rows have one (kernels/tensor.h),
// so that one KV head's rows are contiguous. Token t's entry of a full or window group is row
// t % 64 of the page of block t / 64. Keys are stored as attention uses them: after QK-norm and
// rope, except kNsaRaw, which is stored as projected.
//
// Compressed groups: entry i covers tokens [stride*i, stride*i + compress_block) and is row
// r % entries_per_block of block r / entries_per_block with r = CompressedRow(nsa, i). That puts it
// in the block of its last token, so a page never changes after its 64 tokens are done: full pages
// of every group are immutable, and a prefix is shared at a block boundary without snapshots.
struct StateGroup {
  std::string name;  // "full", "window.256", "compressed.16"
  StateGroupKind kind = StateGroupKind::kFull;
  int window_tokens = 0;  // kWindow: the last tokens a query needs, itself included
  int stride_tokens = 1;  // tokens for each entry; 1 but for kCompressed
  int entries_per_block = kBlockTokens;
  std::vector<StateStream> streams;
  int64_t page_bytes = 0;
};

// The row of compressed entry `entry` counted from token 0: the row in which its last token lies.
// Rows below CompressedRow(nsa, 0) are never written.
inline int64_t CompressedRow(const NsaDescription& nsa, int64_t entry) {
  return (entry * nsa.compress_stride + nsa.compress_block - 1) / nsa.compress_stride;
}

// Compressed entries complete once `tokens` tokens are known: those a query at tokens - 1 may see.
inline int64_t CompressedEntries(const NsaDescription& nsa, int64_t tokens) {
  return tokens < nsa.compress_block ? 0 : (tokens - nsa.compress_block) / nsa.compress_stride + 1;
}

struct StateGroupOptions {
  int kv_bytes_per_element = 2;
  int kv_scale_bytes = 0;  // beside each row, behind the rows of all heads
  bool with_mtp = false;   // the MTP layer keeps state too
  // Only these layers, [first_layer, end_layer), keep state here, as on a rank that has no others;
  // the groups are those of the whole model all the same, perhaps without streams.
  int first_layer = 0;
  int end_layer = std::numeric_limits<int>::max();
};

// The groups a sequence keeps, in this order: full, windows from the widest, compressed by stride.
// Groups that no layer of the model has are left out. A page index of one group says nothing about
// another's.
std::vector<StateGroup> StateGroups(const ModelDescription& description,
                                    const StateGroupOptions& options);

// Bytes that a sequence of `tokens` tokens holds in all groups, in whole pages.
int64_t StateBytes(const std::vector<StateGroup>& groups, int64_t tokens);

}  // namespace troupe

#endif  // TROUPE_MODEL_DESCRIPTION_H_
