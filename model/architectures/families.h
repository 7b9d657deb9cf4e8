// The families that are known, each defined in the file of its name beside this one.
#ifndef TROUPE_MODEL_ARCHITECTURES_FAMILIES_H_
#define TROUPE_MODEL_ARCHITECTURES_FAMILIES_H_

#include "model/architectures/architecture.h"

namespace troupe {

const Architecture& AbacusArchitecture();
const Architecture& DeepSeekV2Architecture();
const Architecture& DeepSeekV3Architecture();
const Architecture& Gemma3TextArchitecture();
const Architecture& Glm4MoeArchitecture();
const Architecture& GptOssArchitecture();
const Architecture& LlamaArchitecture();
const Architecture& MiniMaxM2Architecture();
const Architecture& MixtralArchitecture();
const Architecture& Olmo3Architecture();
const Architecture& Qwen2Architecture();
const Architecture& Qwen3Architecture();
const Architecture& Qwen3MoeArchitecture();
const Architecture& SmolLm3Architecture();

}  // namespace troupe

#endif  // TROUPE_MODEL_ARCHITECTURES_FAMILIES_H_
