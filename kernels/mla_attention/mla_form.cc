#include "kernels/mla_attention/mla_form.h"

namespace troupe {
namespace {

// Work that takes as long as a byte between the parts of a form.
constexpr double kFlopsPerByte = 4;

double Time(const MlaWork& work) { return work.flops + kFlopsPerByte * work.bytes; }

}  // namespace

MlaWork CountMlaWork(MlaForm form, int64_t query_tokens, int64_t context, const MlaDims& dims) {
  const auto queries = static_cast<double>(query_tokens);
  const auto tokens = static_cast<double>(context);
  const double pairs = queries * (tokens - queries) + queries * (queries + 1) / 2;
  const double nope = dims.nope_dim;
  const double rope = dims.rope_dim;
  const double value = dims.value_dim;
  const double latent = dims.latent_dim;
  // Of one head. Weights and the cache are read in either form.
  double products = 0;
  double elements = 0;
  if (form == MlaForm::kAbsorbed) {
    products = queries * latent * (nope + value) + pairs * (latent + rope + latent);
    elements = queries * (latent + rope + latent);
  } else {
    products = tokens * latent * (nope + value) + pairs * (nope + rope + value);
    elements = tokens * (nope + rope + value);
  }
  return {.flops = 2 * products * dims.heads, .bytes = 2 * 4 * elements * dims.heads};
}

MlaForm ChooseMlaForm(int64_t query_tokens, int64_t context, const MlaDims& dims) {
  const MlaWork absorbed = CountMlaWork(MlaForm::kAbsorbed, query_tokens, context, dims);
  const MlaWork expanded = CountMlaWork(MlaForm::kExpanded, query_tokens, context, dims);
  return Time(absorbed) <= Time(expanded) ? MlaForm::kAbsorbed : MlaForm::kExpanded;
}

}  // namespace troupe
