#ifndef TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_CPU_H_
#define TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_CPU_H_

#include "kernels/cpu_context.h"
#include "kernels/nsa_compress/nsa_compress.h"

namespace troupe {

void NsaCompressCpu(const NsaCompressParams& params, const CpuContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_CPU_H_
