#include "kernels/mla_attention/mla_attention_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/linear/linear_reference.h"
#include "kernels/reference_attention.h"

namespace troupe {
namespace {

using Vector = std::vector<double>;

// W x, where x is rounded to f32 first: what lies between products is kept in f32.
Vector Times(const PackedMatrix* w, Vector x) {
  const std::vector<float> rounded(x.begin(), x.end());
  return AsReference(w).Times(rounded.data());
}

double Dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// The sum of the first `count` values, weighted by the softmax of the scores of their keys.
Vector Attend(const Vector& query, double scale, const std::vector<Vector>& keys,
              const std::vector<Vector>& values, int64_t count) {
  Vector weights;
  for (int64_t s = 0; s < count; ++s) weights.push_back(scale * Dot(query, keys[s]));
  const double largest = *std::max_element(weights.begin(), weights.end());
  double sum = 0;
  for (double& weight : weights) sum += weight = std::exp(weight - largest);
  Vector out(values[0].size(), 0.0);
  for (int64_t s = 0; s < count; ++s) {
    for (size_t c = 0; c < out.size(); ++c) out[c] += weights[s] / sum * values[s][c];
  }
  return out;
}

// Keys and values that a head of a row attends to.
struct HeadContext {
  std::vector<Vector> keys;
  std::vector<Vector> values;
};

HeadContext MakeContext(const MlaAttentionParams& params, MlaForm form, int row, int head) {
  const MlaHeadWeights& weights = params.weights[head];
  const int64_t count =
      params.batch.start[row] + params.batch.first[row + 1] - params.batch.first[row];
  HeadContext context;
  for (int64_t s = 0; s < count; ++s) {
    const Vector entry = LoadEntry(params.latent, params.tables, params.batch.slot[row], s, 0);
    const Vector latent(entry.begin(), entry.begin() + params.dims.latent_dim);
    if (form == MlaForm::kAbsorbed) {
      context.keys.push_back(entry);
      context.values.push_back(latent);
    } else {
      Vector key = Times(weights.key_up, latent);
      key.insert(key.end(), entry.begin() + params.dims.latent_dim, entry.end());
      context.keys.push_back(key);
      context.values.push_back(Times(weights.value_up, latent));
    }
  }
  return context;
}

Vector HeadOutput(const MlaAttentionParams& params, MlaForm form, const HeadContext& context,
                  int64_t token, int head) {
  const MlaHeadWeights& weights = params.weights[head];
  const int64_t size = params.dims.nope_dim + params.dims.rope_dim;
  const float* from = params.q.f32(token) + head * size;
  const Vector query(from, from + size);
  const int64_t visible = params.batch.position[token] + 1;
  if (form == MlaForm::kExpanded) {
    return Attend(query, params.scale, context.keys, context.values, visible);
  }
  Vector absorbed = Times(weights.key_down, {query.begin(), query.begin() + params.dims.nope_dim});
  absorbed.insert(absorbed.end(), query.begin() + params.dims.nope_dim, query.end());
  return Times(weights.value_up,
               Attend(absorbed, params.scale, context.keys, context.values, visible));
}

}  // namespace

void MlaAttentionReference(const MlaAttentionParams& params) {
  for (int row = 0; row < params.batch.rows; ++row) {
    const MlaForm form = params.form != nullptr ? params.form[row] : MlaForm::kExpanded;
    for (int head = 0; head < params.dims.heads; ++head) {
      const HeadContext context = MakeContext(params, form, row, head);
      for (int token = params.batch.first[row]; token < params.batch.first[row + 1]; ++token) {
        const Vector out = HeadOutput(params, form, context, token, head);
        std::copy(out.begin(), out.end(),
                  params.out.f32(token) + int64_t{head} * params.dims.value_dim);
      }
    }
  }
}

}  // namespace troupe
