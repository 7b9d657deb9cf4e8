// How a checkpoint stores its matrices: config.json's quantization_config, and the tensors that
// make up one matrix.
//
// Formats: FineGrainedFP8 (quant_method fp8), GPTQ (int4 and int8, both checkpoint formats), AWQ
// (GEMM), compressed-tensors (pack-quantized, int-quantized, float-quantized, naive-quantized) and
// MXFP4 in gpt-oss' form. A compressed-tensors config that asks for activations as integers of 8
// bits, scaled on the fly, gets them (MatrixView::products). FP8 activations, scaled on the fly,
// keep their full precision, which is never less exact; name() says so. Whatever else is asked of
// activations is an error.
//
// Thread model: immutable once parsed; any thread may read.
// Ownership: a MatrixView borrows from the checkpoint that was given.
// Errors: InvalidArgument, naming file and field, or tensor, with found and wanted.
#ifndef TROUPE_MODEL_QUANTIZATION_H_
#define TROUPE_MODEL_QUANTIZATION_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/json_reader.h"
#include "model/matrix_view.h"
#include "model/safetensors.h"

namespace troupe {

enum class WeightLayout : uint8_t {
  kFp8,          // weight, weight_scale_inv or weight_scale
  kGptq,         // qweight, qzeros, scales, g_idx
  kAwq,          // qweight, qzeros, scales
  kPackedInts,   // weight_packed, weight_scale, weight_zero_point, weight_g_idx, weight_shape
  kPlainInts,    // weight, weight_scale, weight_zero_point
  kMxfp4Experts  // *_blocks, *_scales
};

struct WeightScheme {
  WeightLayout layout = WeightLayout::kPackedInts;
  int bits = 4;
  bool symmetric = true;
  int64_t group_size = 0;  // columns; 0: the whole row
  bool one_scale = false;  // for the whole matrix
  int64_t block_rows = 1;  // kFp8
  int64_t block_cols = 0;  // kFp8; 0: the whole row
  bool reordered = false;  // columns belong to groups as g_idx says
  uint32_t zero_bias = 0;  // see GroupedStorage
  std::string scale_suffix = "weight_scale";
  std::optional<Precision> products = std::nullopt;  // see MatrixView
};

// Names of modules, as configs give them: a module or one that it lies in; "re:" and a regular
// expression that matches from the beginning; a `*` that stands for any characters.
bool NameMatches(absl::string_view pattern, absl::string_view module);

class Quantization {
 public:
  // Plain weights everywhere.
  Quantization() = default;

  // Reads quantization_config, or compression_config, of a config.json; errors stay in `config`.
  static Quantization Read(JsonFields& config);

  bool empty() const { return rules_.empty(); }
  // For people: "gptq int4 group 128"; "none" without quantisation.
  const std::string& name() const { return name_; }

  // How `module` is stored if it is quantised at all; null when the config leaves it plain.
  const WeightScheme* SchemeOf(absl::string_view module) const;

  // The matrix [rows, cols] of the module whose weight is called `weight_name` ("...q_proj.weight")
  // in a checkpoint without quantisation. Names of the tensors that it is made of, as `files` owns
  // them, are appended to `used`, on errors too.
  absl::StatusOr<MatrixView> Resolve(const SafetensorsCheckpoint& files,
                                     absl::string_view weight_name, int64_t rows, int64_t cols,
                                     std::vector<absl::string_view>* used) const;

 private:
  struct Rule {
    std::vector<std::string> targets;  // empty: every module
    WeightScheme scheme;
  };

  void ReadFp8(JsonFields& fields);
  void ReadGptq(JsonFields& fields);
  void ReadAwq(JsonFields& fields);
  void ReadMxfp4(JsonFields& fields);
  void ReadCompressedTensors(JsonFields& fields);
  void ReadCompressedGroup(const std::string& format, JsonFields& group);
  void ReadIgnored(JsonFields& fields, absl::string_view key);

  std::string name_ = "none";
  std::vector<Rule> rules_;
  std::vector<std::string> ignored_;
};

// Which rows of a tensor that holds the matrices of all experts, seen as one with its inputs last:
// row r of the matrix is row first + r * step of expert `expert`.
struct FusedRows {
  int64_t experts = 0;
  int64_t expert = 0;
  int64_t first = 0;
  int64_t step = 1;
};

// A matrix [rows, cols] of the MXFP4 tensors `name`_blocks [experts, R, cols / 32, 16] and
// `name`_scales [experts, R, cols / 32], with R = which.step * rows.
absl::StatusOr<MatrixView> ResolveMxfp4(const SafetensorsCheckpoint& files, absl::string_view name,
                                        const FusedRows& which, int64_t rows, int64_t cols,
                                        std::vector<absl::string_view>* used);

}  // namespace troupe

#endif  // TROUPE_MODEL_QUANTIZATION_H_
