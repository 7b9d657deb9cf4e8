// What follows a product that gives queries, keys and values: queries are normed and rotated in
// place (kernels/head_norm_rope), keys too on their way into the pages of their sequences, values
// go there as they are (kernels/kv_write).
#ifndef TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_H_
#define TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_H_

#include "kernels/head_norm_rope/head_norm_rope.h"
#include "kernels/kv_write/kv_write.h"

namespace troupe {

struct QkvWriteParams {
  HeadNormRopeParams q;
  HeadNormRopeParams k;  // k.x afterwards: as it was, or what was written
  KvWriteParams kv;      // kv.k is k.x
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_H_
