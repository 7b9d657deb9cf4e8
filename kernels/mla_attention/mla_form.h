// Which of the two forms of multi-head latent attention a sequence's tokens of a step take: a pure
// function of their counts, so that a sequence gets the same form in any batch, on any machine and
// with any number of threads.
#ifndef TROUPE_KERNELS_MLA_ATTENTION_MLA_FORM_H_
#define TROUPE_KERNELS_MLA_ATTENTION_MLA_FORM_H_

#include <cstdint>

namespace troupe {

enum class MlaForm : uint8_t {
  kAbsorbed,  // queries are brought to the latent's space, and attended latents back from it
  kExpanded,  // the context's latents are expanded to the keys and values of every head
};

struct MlaDims {
  int heads = 0;
  int nope_dim = 0;    // N: of a head's query and key, without position
  int rope_dim = 0;    // R: with position
  int value_dim = 0;   // V
  int latent_dim = 0;  // L
};

// What a form does for one sequence.
struct MlaWork {
  double flops = 0;  // a product and a sum are two
  double bytes = 0;  // of f32 between its parts: what is written, then read once for each use
};

// `query_tokens` are the last ones of `context` tokens, each of which sees itself and those before.
MlaWork CountMlaWork(MlaForm form, int64_t query_tokens, int64_t context, const MlaDims& dims);

// The form whose work takes less time.
MlaForm ChooseMlaForm(int64_t query_tokens, int64_t context, const MlaDims& dims);

}  // namespace troupe

#endif  // TROUPE_KERNELS_MLA_ATTENTION_MLA_FORM_H_
