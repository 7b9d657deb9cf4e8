// Config fields that families share, in the spellings of transformers 4 and 5.
//
// Thread model: pure functions of the config. Errors stay in the JsonFields (see there).
#ifndef TROUPE_MODEL_ARCHITECTURES_CONFIG_FIELDS_H_
#define TROUPE_MODEL_ARCHITECTURES_CONFIG_FIELDS_H_

#include "absl/strings/string_view.h"
#include "model/description.h"
#include "model/json_reader.h"

namespace troupe {

// Larger sizes are taken for mistakes; products of three of them still fit in 64 bits.
inline constexpr int64_t kMaxSize = 1 << 20;
inline constexpr int64_t kMaxLayers = 1024;

// A required size from 1 to `max`.
int SizeField(JsonFields& config, absl::string_view key, int64_t max = kMaxSize);

// Vocabulary, hidden size, epsilon, context, special tokens, tying; checks that the activation is
// SiLU.
ModelDescription ReadCommonFields(JsonFields& config);

// num_attention_heads, num_key_value_heads (default: as many) and head_dim (default: hidden /
// heads), which is value_dim too; scores are scaled by head_dim^-0.5.
void ReadHeads(JsonFields& config, int hidden_size, AttentionDescription& attention);

// rope_theta, or rope_parameters.rope_theta; unscaled rope only.
RopeDescription ReadRope(JsonFields& config, int head_dim);

}  // namespace troupe

#endif  // TROUPE_MODEL_ARCHITECTURES_CONFIG_FIELDS_H_
