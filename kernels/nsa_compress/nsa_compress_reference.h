// The oracle of kernels/nsa_compress/nsa_compress.h: the formula as it is written there, slow and
// simple.
#ifndef TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_REFERENCE_H_
#define TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_REFERENCE_H_

#include "kernels/nsa_compress/nsa_compress.h"

namespace troupe {

void NsaCompressReference(const NsaCompressParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_REFERENCE_H_
