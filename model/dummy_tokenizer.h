// A tokenizer for a model that has none: token i is spelled "ti", tokens stand between spaces. For
// benchmarks of shapes, where nobody reads what is generated.
//
// Thread model: a pure function. Errors: none that a vocabulary could cause; those of Tokenizer.
#ifndef TROUPE_MODEL_DUMMY_TOKENIZER_H_
#define TROUPE_MODEL_DUMMY_TOKENIZER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "model/text/text.h"

namespace troupe {

absl::StatusOr<std::shared_ptr<const Tokenizer>> MakeDummyTokenizer(int vocab_size);

}  // namespace troupe

#endif  // TROUPE_MODEL_DUMMY_TOKENIZER_H_
