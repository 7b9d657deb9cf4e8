#include "kernels/mla_attention/mla_form.h"

namespace troupe {
namespace {

// Flops of pairs that take as long as a byte between the parts of a form.
constexpr double kFlopsPerByte = 4;

double Time(const MlaWork& work, double matrix_speed) {
  return work.matrix_flops / matrix_speed + work.pair_flops + kFlopsPerByte * work.bytes;
}

}  // namespace

MlaWork CountMlaWork(MlaForm form, int64_t query_tokens, int64_t context, const MlaDims& dims) {
  const auto queries = static_cast<double>(query_tokens);
  const auto tokens = static_cast<double>(context);
  const double pairs = queries * (tokens - queries) + queries * (queries + 1) / 2;
  const bool absorbed = form == MlaForm::kAbsorbed;
  const double key = absorbed ? dims.latent_dim + dims.rope_dim : dims.nope_dim + dims.rope_dim;
  const double value = absorbed ? dims.latent_dim : dims.value_dim;
  // What is brought to the other space. Weights and the cache are read in either form.
  const double moved = absorbed ? queries : tokens;
  const double weights = static_cast<double>(dims.latent_dim) * (dims.nope_dim + dims.value_dim);
  return {.matrix_flops = 2 * moved * weights * dims.heads,
          .pair_flops = 2 * pairs * (key + value) * dims.heads,
          .bytes = 2 * 4 * moved * (key + value) * dims.heads};
}

MlaForm ChooseMlaForm(int64_t query_tokens, int64_t context, const MlaDims& dims,
                      double matrix_speed) {
  const auto time = [&](MlaForm form) {
    return Time(CountMlaWork(form, query_tokens, context, dims), matrix_speed);
  };
  return time(MlaForm::kAbsorbed) <= time(MlaForm::kExpanded) ? MlaForm::kAbsorbed
                                                              : MlaForm::kExpanded;
}

}  // namespace troupe
