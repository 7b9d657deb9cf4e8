// Calls run(std::integral_constant<CodedKind, ...>) for a kind that is known at run time.
#ifndef TROUPE_KERNELS_LINEAR_CODED_KINDS_H_
#define TROUPE_KERNELS_LINEAR_CODED_KINDS_H_

#include <type_traits>

#include "kernels/linear/coded_layout.h"

namespace troupe {

template <class Run>
void WithCodedKind(CodedKind kind, const Run& run) {
  using enum CodedKind;
  switch (kind) {
    case kInt4:
      return run(std::integral_constant<CodedKind, kInt4>());
    case kInt4Zeros:
      return run(std::integral_constant<CodedKind, kInt4Zeros>());
    case kInt8:
      return run(std::integral_constant<CodedKind, kInt8>());
    case kFp8:
      return run(std::integral_constant<CodedKind, kFp8>());
    case kFp4:
      return run(std::integral_constant<CodedKind, kFp4>());
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_CODED_KINDS_H_
