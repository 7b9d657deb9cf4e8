// Writes a step's keys and values into the pages of their sequences.
#ifndef TROUPE_KERNELS_KV_WRITE_KV_WRITE_H_
#define TROUPE_KERNELS_KV_WRITE_KV_WRITE_H_

#include "kernels/tensor.h"

namespace troupe {

struct KvWriteParams {
  BatchView batch;
  Tensor k;  // [T, G * D] f32
  Tensor v;  // [T, G * D] f32
  KvStream k_stream;
  KvStream v_stream;
  BlockTables tables;
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_KV_WRITE_KV_WRITE_H_
