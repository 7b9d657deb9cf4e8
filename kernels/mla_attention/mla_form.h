// Which of the two forms of multi-head latent attention a sequence's tokens of a step take: a pure
// function of their counts, so that a sequence gets the same form in any batch and with any number
// of threads.
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

// What a form does for one sequence. A product and a sum are two flops.
struct MlaWork {
  double matrix_flops = 0;  // of products with weights
  double pair_flops = 0;    // of scores and weighted sums, for each pair of query and entry
  double bytes = 0;         // of f32 between its parts: written, then read
};

// `query_tokens` are the last ones of `context` tokens, each of which sees itself and those before.
MlaWork CountMlaWork(MlaForm form, int64_t query_tokens, int64_t context, const MlaDims& dims);

// The form whose work takes less time on a device that does `matrix_speed` flops of products with
// weights in the time of one flop of pairs.
MlaForm ChooseMlaForm(int64_t query_tokens, int64_t context, const MlaDims& dims,
                      double matrix_speed);

}  // namespace troupe

#endif  // TROUPE_KERNELS_MLA_ATTENTION_MLA_FORM_H_
