// Weights to integers such that products, not weights, stay close: each column's rounding error is
// made up for by the columns that are still to come (GPTQ: Frantar et al., 2022, arXiv 2210.17323).
//
// Thread model: pure function. Ownership: the result owns its memory.
#ifndef TROUPE_MODEL_CALIBRATED_QUANTIZER_H_
#define TROUPE_MODEL_CALIBRATED_QUANTIZER_H_

#include <cstdint>

#include "absl/types/span.h"
#include "model/coded_weights.h"
#include "model/matrix_view.h"
#include "model/weight_quantizer.h"

namespace troupe {

// `products`: sums over tokens of x x^T, [cols, cols], read at and under the diagonal. The same
// form of codes and scales as QuantizeMatrix; `threads` threads share the rows.
CodedWeights QuantizeCalibrated(const MatrixView& matrix, const IntegerFormat& format,
                                absl::Span<const float> products, int threads);

}  // namespace troupe

#endif  // TROUPE_MODEL_CALIBRATED_QUANTIZER_H_
