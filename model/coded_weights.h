// A stored matrix as codes, for kernels that compute with codes.
//
// Thread model: pure functions; values may be read by any thread.
// Ownership: CodedWeights owns what its view points at, wherever it is moved.
#ifndef TROUPE_MODEL_CODED_WEIGHTS_H_
#define TROUPE_MODEL_CODED_WEIGHTS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "kernels/linear/coded_matrix.h"
#include "model/matrix_view.h"

namespace troupe {

struct CodedWeights {
  CodeFormat format = CodeFormat::kInt8;
  ScaleFormat scale_format = ScaleFormat::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t group = 0;
  std::vector<std::byte> codes;
  std::vector<float> scales;
  std::vector<uint8_t> zeros;  // empty: the middle of the codes

  CodedMatrix view() const;
};

// The codes of `matrix` with the same meaning, bit for bit. Nothing where it is stored as BF16 or
// F32, where its columns belong to groups in no order (GPTQ with desc_act), or where the sizes of
// groups do not suit kernels: those are for MatrixView::ReadRows.
std::optional<CodedWeights> ReadCoded(const MatrixView& matrix);

// Unimplemented, with the arithmetic, for columns of a coded matrix that cut its groups so that
// kernels cannot take the codes: decoding them would take several times their memory.
absl::Status CheckGroupsWhole(const MatrixView& part);

}  // namespace troupe

#endif  // TROUPE_MODEL_CODED_WEIGHTS_H_
