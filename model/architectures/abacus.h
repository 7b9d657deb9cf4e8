// Abacus, the bundled model (models/abacus/MODEL.md): NSA and sliding layers with head gates,
// experts with a shared one, early exits and an MTP module.
#ifndef TROUPE_MODEL_ARCHITECTURES_ABACUS_H_
#define TROUPE_MODEL_ARCHITECTURES_ABACUS_H_

#include "model/architectures/architecture.h"

namespace troupe {

const Architecture& AbacusArchitecture();

}  // namespace troupe

#endif  // TROUPE_MODEL_ARCHITECTURES_ABACUS_H_
