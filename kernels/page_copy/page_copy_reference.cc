#include "kernels/page_copy/page_copy_reference.h"

#include <algorithm>

namespace troupe {

void PageCopyReference(const PageCopyParams& params) {
  for (int i = 0; i < params.count; ++i) {
    std::copy_n(params.pages + params.from[i] * params.page_bytes, params.page_bytes,
                params.pages + params.to[i] * params.page_bytes);
  }
}

}  // namespace troupe
