// The table's cases of paged keys, values and latents.
#include <string>
#include <vector>

#include "kernels/ops_test_table.h"

namespace troupe {
namespace {

std::vector<Case> AttentionCases() {
  return {
      Make("kv_write/bf16", kMixed, RunKvWrite, KvWriteCase{}),
      Make("kv_write/f32 odd", kMixed, RunKvWrite,
           KvWriteCase{.kv_heads = 3, .head_dim = 37, .dtype = DType::kF32}),
      Make("qkv_write/bf16", kMixed, RunQkvWrite, QkvWriteCase{}),
      Make("qkv_write/many tokens", {{5, 1030}, {0, 9}}, RunQkvWrite,
           QkvWriteCase{.head_dim = 128}),
      Make("qkv_write/decode", kDecode, RunQkvWrite,
           QkvWriteCase{.heads = 32, .kv_heads = 4, .head_dim = 128}),
      Make("qkv_write/f32 some dims", kMixed, RunQkvWrite,
           QkvWriteCase{.heads = 3,
                        .kv_heads = 3,
                        .head_dim = 38,
                        .value_dim = 21,
                        .norm = false,
                        .rotated_dims = 10,
                        .interleaved = true,
                        .dtype = DType::kF32}),
      Make("qkv_write/no rope", kDecode, RunQkvWrite, QkvWriteCase{.rope = false}),
      Make("paged_attention/bf16", kMixed, RunPagedAttention, PagedAttentionCase{}),
      Make("paged_attention/f32", kMixed, RunPagedAttention,
           PagedAttentionCase{.dtype = DType::kF32, .accumulate = false}),
      Make("paged_attention/decode", kDecode, RunPagedAttention, PagedAttentionCase{.closed = 0}),
      Make("paged_attention/long", kLong, RunPagedAttention,
           PagedAttentionCase{.heads = 4, .kv_heads = 1, .closed = 0.1}),
      Make("paged_attention/sharp", kMixed, RunPagedAttention,
           PagedAttentionCase{.dtype = DType::kF32, .sharpness = 8}),
      Make("paged_attention/all closed", kMixed, RunPagedAttention,
           PagedAttentionCase{.closed = 1, .accumulate = false}),
      Make("paged_attention/mha odd", kMixed, RunPagedAttention,
           PagedAttentionCase{.heads = 3, .kv_heads = 3, .head_dim = 80}),
      Make("paged_attention/head of 8", kMixed, RunPagedAttention,
           PagedAttentionCase{.heads = 4, .head_dim = 8, .dtype = DType::kF32}),
      Make("paged_attention/head of 40", kLong, RunPagedAttention,
           PagedAttentionCase{.heads = 6, .kv_heads = 3, .head_dim = 40}),
      Make("paged_attention/odd head", kMixed, RunPagedAttention,
           PagedAttentionCase{.head_dim = 37, .window = 100, .accumulate = false}),
      Make("paged_attention/smaller values", kLong, RunPagedAttention,
           PagedAttentionCase{.head_dim = 48, .value_dim = 20}),
      Make("paged_attention/larger values", kMixed, RunPagedAttention,
           PagedAttentionCase{.head_dim = 24, .value_dim = 64, .dtype = DType::kF32}),
      Make("paged_attention/sinks", kLong, RunPagedAttention, PagedAttentionCase{.sinks = true}),
      Make("paged_attention/sinks in a window", kMixed, RunPagedAttention,
           PagedAttentionCase{.sinks = true, .window = 5, .dtype = DType::kF32}),
      Make("paged_attention/group of 7", kDecode, RunPagedAttention,
           PagedAttentionCase{.heads = 7, .kv_heads = 1, .head_dim = 16}),
      Make("paged_attention/window", kMixed, RunPagedAttention, PagedAttentionCase{.window = 256}),
      Make("paged_attention/window f32", kLong, RunPagedAttention,
           PagedAttentionCase{.window = 256, .dtype = DType::kF32}),
      Make("paged_attention/window of a page", kMixed, RunPagedAttention,
           PagedAttentionCase{.window = 64}),
      Make("paged_attention/odd window", kMixed, RunPagedAttention,
           PagedAttentionCase{.window = 37}),
      Make("paged_attention/window of one", kDecode, RunPagedAttention,
           PagedAttentionCase{.window = 1}),
  };
}

std::vector<Case> NsaCases() {
  const NsaCase small = {.sizes = {.compress_block = 32,
                                   .compress_stride = 16,
                                   .selected_blocks = 4,
                                   .initial_blocks = 1,
                                   .local_blocks = 2}};
  NsaCase f32 = small;
  f32.dtype = DType::kF32;
  NsaCase other = {.heads = 6,
                   .kv_heads = 3,
                   .head_dim = 48,
                   .sizes = {.compress_block = 16,
                             .compress_stride = 4,
                             .selected_blocks = 5,
                             .initial_blocks = 2,
                             .local_blocks = 1}};
  NsaCase ties = small;
  ties.equal_keys = true;
  NsaCase open = {.closed = 0};
  NsaCase large = small;
  large.head_dim = 128;
  large.kv_heads = 1;
  return {
      Make("nsa_compress/bf16", kMixed, RunNsaCompress, small),
      Make("nsa_compress/f32", kPrompt, RunNsaCompress, f32),
      Make("nsa_compress/large heads", {{0, 1100}, {500, 1}, {47, 1}, {30, 1}, {63, 2}},
           RunNsaCompress, large),
      Make("nsa_compress/other sizes", kDecode, RunNsaCompress, other),
      Make("nsa_select/bf16", kMixed, RunNsaSelect, small),
      Make("nsa_select/f32", kDecode, RunNsaSelect, f32),
      Make("nsa_select/long", {{18000, 2}, {16500, 1}, {40, 1}}, RunNsaSelect, open),
      Make("nsa_select/other sizes", kMixed, RunNsaSelect, other),
      Make("nsa_select/ties", kMixed, RunNsaSelect, ties),
      Make("nsa_attention/bf16", kMixed, RunNsaAttention, small),
      Make("nsa_attention/f32", kLong, RunNsaAttention, f32),
      Make("nsa_attention/prompt", kPrompt, RunNsaAttention, open),
      Make("nsa_attention/other sizes", kMixed, RunNsaAttention, other),
  };
}

std::vector<Case> MlaCases() {
  const std::vector<MlaForm> absorbed = {MlaForm::kAbsorbed};
  const std::vector<MlaForm> expanded = {MlaForm::kExpanded};
  const std::vector<MlaForm> both = {MlaForm::kExpanded, MlaForm::kAbsorbed, MlaForm::kAbsorbed};
  const MlaDims odd = {.heads = 5, .nope_dim = 11, .rope_dim = 6, .value_dim = 9, .latent_dim = 21};
  const MlaDims wide = {
      .heads = 2, .nope_dim = 64, .rope_dim = 32, .value_dim = 48, .latent_dim = 128};
  const MlaDims deepseek = {
      .heads = 2, .nope_dim = 128, .rope_dim = 64, .value_dim = 128, .latent_dim = 512};
  const MlaCase f32 = {.dtype = DType::kF32, .weight_dtype = DType::kF32};
  const auto with = [](MlaCase c, const std::vector<MlaForm>& forms) {
    c.forms = forms;
    return c;
  };
  std::vector<Case> cases = {
      Make("mla_attention/absorbed", kMixed, RunMlaAttention, MlaCase{.forms = absorbed}),
      Make("mla_attention/expanded", kMixed, RunMlaAttention, MlaCase{.forms = expanded}),
      Make("mla_attention/both", kMixed, RunMlaAttention, MlaCase{.forms = both}),
      Make("mla_attention/f32 absorbed", kMixed, RunMlaAttention, with(f32, absorbed)),
      Make("mla_attention/f32 expanded", kMixed, RunMlaAttention, with(f32, expanded)),
      Make("mla_attention/bf16 products absorbed", kDecode, RunMlaAttention,
           MlaCase{.precision = Precision::kBf16, .forms = absorbed}),
      Make("mla_attention/bf16 products expanded", kMixed, RunMlaAttention,
           MlaCase{.precision = Precision::kBf16, .forms = expanded}),
      Make("mla_attention/odd", kMixed, RunMlaAttention, MlaCase{.dims = odd, .forms = both}),
      Make("mla_attention/long", kLong, RunMlaAttention, MlaCase{.dims = wide, .forms = both}),
      Make("mla_attention/sizes of DeepSeek", {{0, 40}, {1060, 3}, {90, 1}}, RunMlaAttention,
           MlaCase{.dims = deepseek, .precision = Precision::kBf16, .forms = both}),
      Make("mla_attention/long of DeepSeek", {{4159, 2}, {70, 1}}, RunMlaAttention,
           MlaCase{.dims = deepseek, .precision = Precision::kBf16, .forms = absorbed}),
      Make("mla_attention/sharp", kDecode, RunMlaAttention,
           MlaCase{.dims = wide, .dtype = DType::kF32, .forms = both, .sharpness = 8}),
      Make("mla_attention/chosen", kMixed, RunMlaAttention, MlaCase{}),
      Make("mla_attention/chosen f32", kLong, RunMlaAttention, with(f32, {})),
  };
  for (Case& c : cases) c.cuts_round = c.name.find("chosen") != std::string::npos;
  return cases;
}

}  // namespace

std::vector<Case> PagedCases() { return Joined({AttentionCases(), NsaCases(), MlaCases()}); }

}  // namespace troupe
