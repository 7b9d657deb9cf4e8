#include "model/quantization.h"

#include <re2/re2.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace troupe {
namespace {

constexpr std::initializer_list<StoredDType> kFloats = {StoredDType::kF32, StoredDType::kBF16,
                                                        StoredDType::kF16};

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool MatchesFromBeginning(const std::string& expression, absl::string_view module) {
  const RE2 regex(expression, RE2::Quiet);
  return regex.ok() && regex.Match(re2::StringPiece(module.data(), module.size()), 0, module.size(),
                                   RE2::ANCHOR_START, nullptr, 0);
}

// Takes tensors of one module; the first error sticks.
class ModuleTensors {
 public:
  ModuleTensors(const SafetensorsCheckpoint& files, std::string module,
                std::vector<absl::string_view>* used)
      : files_(files), module_(std::move(module)), used_(used) {}

  bool Has(absl::string_view suffix) const { return files_.Find(Name(suffix)) != nullptr; }

  // The tensor, which must have one of `shapes` and `dtypes`.
  TensorView Take(absl::string_view suffix, const std::vector<std::vector<int64_t>>& shapes,
                  std::initializer_list<StoredDType> dtypes) {
    const std::string name = Name(suffix);
    const std::string wanted =
        absl::StrJoin(shapes, " or ", [](std::string* out, const std::vector<int64_t>& shape) {
          absl::StrAppend(out, "[", absl::StrJoin(shape, ", "), "]");
        });
    const TensorView* view = files_.Find(name);
    if (view == nullptr) {
      Fail(absl::StrCat(name, ": found nothing, wanted ", wanted));
      return {};
    }
    used_->push_back(view->name);
    const bool fits = std::any_of(shapes.begin(), shapes.end(), [&](const auto& shape) {
      return std::equal(shape.begin(), shape.end(), view->shape.begin(), view->shape.end());
    });
    if (!fits) {
      Fail(absl::StrCat(name, ": shape: found ", view->ShapeString(), ", wanted ", wanted));
    }
    if (std::find(dtypes.begin(), dtypes.end(), view->dtype) == dtypes.end()) {
      const auto spell = [](std::string* out, StoredDType dtype) {
        absl::StrAppend(out, DTypeName(dtype));
      };
      Fail(absl::StrCat(name, ": dtype: found ", DTypeName(view->dtype), ", wanted ",
                        absl::StrJoin(dtypes, " or ", spell)));
    }
    return *view;
  }

  TensorView TakeIfThere(absl::string_view suffix, const std::vector<int64_t>& shape,
                         std::initializer_list<StoredDType> dtypes) {
    return Has(suffix) ? Take(suffix, {shape}, dtypes) : TensorView{};
  }

  void Fail(std::string message) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(message);
  }

  std::string Name(absl::string_view suffix) const { return absl::StrCat(module_, suffix); }
  const absl::Status& status() const { return status_; }

 private:
  const SafetensorsCheckpoint& files_;
  const std::string module_;
  std::vector<absl::string_view>* used_;
  absl::Status status_;
};

// Every group in [0, groups).
void CheckGroups(ModuleTensors& module, const TensorView& group_of, int64_t groups) {
  if (group_of.empty() || !module.status().ok()) return;
  for (int64_t c = 0; c < group_of.elements(); ++c) {
    int32_t group;
    std::memcpy(&group, group_of.bytes.data() + 4 * c, sizeof(group));
    if (group < 0 || group >= groups) {
      return module.Fail(absl::StrCat(group_of.name, ": column ", c, ": found group ", group,
                                      ", wanted 0 to ", groups - 1));
    }
  }
}

// A word holds whole elements only: sizes along which words run are multiples of that.
bool FillsWords(ModuleTensors& module, absl::string_view what, int64_t size, int bits) {
  if (size % (32 / bits) == 0) return true;
  module.Fail(absl::StrCat(module.Name(what), ": found ", size, " elements in words of ", 32 / bits,
                           ", wanted a multiple"));
  return false;
}

// GPTQ and AWQ: inputs first.
MatrixView Transposed(ModuleTensors& module, const WeightScheme& scheme, int64_t rows,
                      int64_t cols) {
  const bool awq = scheme.layout == WeightLayout::kAwq;
  const int64_t per_word = 32 / scheme.bits;
  GroupedStorage storage;
  storage.transposed = true;
  storage.group_size = scheme.group_size == 0 ? cols : scheme.group_size;
  storage.groups = CeilDiv(cols, storage.group_size);
  storage.zero_bias = scheme.zero_bias;
  if (!FillsWords(module, "qzeros", rows, scheme.bits)) return {};
  if (!awq && !FillsWords(module, "qweight", cols, scheme.bits)) return {};
  const std::vector<int64_t> shape = awq ? std::vector<int64_t>{cols, rows / per_word}
                                         : std::vector<int64_t>{cols / per_word, rows};
  storage.codes = {.tensor = module.Take("qweight", {shape}, {StoredDType::kI32}),
                   .bits = scheme.bits,
                   .along_first = !awq,
                   .interleaved = awq};
  storage.zeros = {
      .tensor = module.Take("qzeros", {{storage.groups, rows / per_word}}, {StoredDType::kI32}),
      .bits = scheme.bits,
      .interleaved = awq};
  storage.scales = module.Take("scales", {{storage.groups, rows}}, kFloats);
  if (scheme.reordered) {
    storage.group_of = module.TakeIfThere("g_idx", {cols}, {StoredDType::kI32});
    CheckGroups(module, storage.group_of, storage.groups);
  }
  return {.rows = rows, .cols = cols, .storage = storage};
}

// The scales of compressed-tensors, one a row, a group or a matrix.
std::vector<std::vector<int64_t>> ScaleShapes(const WeightScheme& scheme, int64_t rows,
                                              int64_t groups) {
  if (scheme.one_scale) return {{1}, {1, 1}, {}};
  if (groups == 1) return {{rows, 1}, {rows}};
  return {{rows, groups}};
}

// compressed-tensors' integers: outputs first.
MatrixView Straight(ModuleTensors& module, const WeightScheme& scheme, int64_t rows, int64_t cols) {
  const bool packed = scheme.layout == WeightLayout::kPackedInts;
  const int64_t per_word = 32 / scheme.bits;
  GroupedStorage storage;
  storage.group_size = scheme.group_size == 0 ? cols : scheme.group_size;
  storage.groups = CeilDiv(cols, storage.group_size);
  if (scheme.one_scale) {
    module.Fail(absl::StrCat(module.Name(scheme.scale_suffix),
                             ": found one scale for the matrix of integers, wanted one a row"));
    return {};
  }
  storage.codes.bits = storage.zeros.bits = scheme.bits;
  const std::vector<std::vector<int64_t>> scale_shapes = ScaleShapes(scheme, rows, storage.groups);
  if (packed) {
    storage.codes.tensor =
        module.Take("weight_packed", {{rows, CeilDiv(cols, per_word)}}, {StoredDType::kI32});
    if (const TensorView shape = module.TakeIfThere("weight_shape", {2}, {StoredDType::kI64});
        !shape.empty() && module.status().ok()) {
      int64_t sizes[2];
      std::memcpy(sizes, shape.bytes.data(), sizeof(sizes));
      if (sizes[0] != rows || sizes[1] != cols) {
        module.Fail(absl::StrCat(shape.name, ": found ", sizes[0], " x ", sizes[1], ", wanted ",
                                 rows, " x ", cols));
      }
    }
  } else {
    storage.codes.tensor = module.Take("weight", {{rows, cols}}, {StoredDType::kI8});
    storage.codes.flip = storage.zeros.flip = 0x80;
  }
  storage.scales = module.Take(scheme.scale_suffix, scale_shapes, kFloats);
  if (!scheme.symmetric && packed) {
    storage.zeros.along_first = true;
    storage.zeros.tensor = module.Take(
        "weight_zero_point", {{CeilDiv(rows, per_word), storage.groups}}, {StoredDType::kI32});
  } else if (!scheme.symmetric) {
    storage.zeros.tensor = module.Take("weight_zero_point", scale_shapes, {StoredDType::kI8});
  } else if (module.Has("weight_zero_point")) {
    module.Fail(absl::StrCat(module.Name("weight_zero_point"),
                             ": found a tensor, wanted none: the config says symmetric"));
  }
  if (scheme.reordered) {
    storage.group_of = module.Take("weight_g_idx", {{cols}}, {StoredDType::kI32});
    CheckGroups(module, storage.group_of, storage.groups);
  }
  return {.rows = rows, .cols = cols, .storage = storage};
}

MatrixView Fp8(ModuleTensors& module, const WeightScheme& scheme, int64_t rows, int64_t cols) {
  Fp8Storage storage;
  storage.block_rows = scheme.one_scale ? rows : scheme.block_rows;
  storage.block_cols = scheme.block_cols == 0 ? cols : scheme.block_cols;
  storage.codes = module.Take("weight", {{rows, cols}}, {StoredDType::kF8E4M3});
  const int64_t row_blocks = CeilDiv(rows, storage.block_rows);
  const int64_t col_blocks = CeilDiv(cols, storage.block_cols);
  const bool per_row = scheme.block_cols == 0;
  storage.scales =
      module.Take(scheme.scale_suffix,
                  per_row ? ScaleShapes(scheme, row_blocks, 1)
                          : std::vector<std::vector<int64_t>>{{row_blocks, col_blocks}},
                  kFloats);
  return {.rows = rows, .cols = cols, .storage = storage};
}

// The tensor that shows that a module is stored in the layout.
absl::string_view MainSuffix(WeightLayout layout) {
  switch (layout) {
    case WeightLayout::kGptq:
    case WeightLayout::kAwq:
      return "qweight";
    case WeightLayout::kPackedInts:
      return "weight_packed";
    case WeightLayout::kFp8:
    case WeightLayout::kPlainInts:
    case WeightLayout::kMxfp4Experts:
      return "weight";
  }
  return "weight";
}

MatrixView Plain(ModuleTensors& module, int64_t rows, int64_t cols) {
  const TensorView tensor = module.Take("weight", {{rows, cols}}, kFloats);
  return module.status().ok() ? MatrixView::Of(tensor) : MatrixView{};
}

}  // namespace

bool NameMatches(absl::string_view pattern, absl::string_view module) {
  if (absl::ConsumePrefix(&pattern, "re:")) {
    return MatchesFromBeginning(std::string(pattern), module);
  }
  if (absl::StrContains(pattern, '*')) {
    const std::string expression = absl::StrReplaceAll(
        RE2::QuoteMeta(re2::StringPiece(pattern.data(), pattern.size())), {{"\\*", ".*"}});
    return MatchesFromBeginning(absl::StrCat(expression, "(\\.|$)"), module);
  }
  // Whole parts of the name, wherever they stand.
  return absl::StrContains(absl::StrCat(".", module, "."), absl::StrCat(".", pattern, "."));
}

const WeightScheme* Quantization::SchemeOf(absl::string_view module) const {
  const auto matches = [module](const std::string& pattern) {
    return NameMatches(pattern, module);
  };
  if (std::any_of(ignored_.begin(), ignored_.end(), matches)) return nullptr;
  // A rule that names the module goes before one for all of them.
  const WeightScheme* general = nullptr;
  for (const Rule& rule : rules_) {
    if (std::any_of(rule.targets.begin(), rule.targets.end(), matches)) return &rule.scheme;
    if (rule.targets.empty() && general == nullptr) general = &rule.scheme;
  }
  return general;
}

absl::StatusOr<MatrixView> Quantization::Resolve(const SafetensorsCheckpoint& files,
                                                 absl::string_view weight_name, int64_t rows,
                                                 int64_t cols,
                                                 std::vector<absl::string_view>* used) const {
  const absl::string_view prefix = absl::StripSuffix(weight_name, "weight");
  ModuleTensors module(files, std::string(prefix), used);
  const WeightScheme* scheme = SchemeOf(absl::StripSuffix(prefix, "."));
  // A module may be plain without being listed: routers, and heads of most families.
  const TensorView* stored = files.Find(module.Name("weight"));
  const bool floats = stored != nullptr &&
                      std::find(kFloats.begin(), kFloats.end(), stored->dtype) != kFloats.end();
  if (floats && scheme != nullptr && MainSuffix(scheme->layout) != "weight" &&
      module.Has(MainSuffix(scheme->layout))) {
    module.Fail(absl::StrCat(weight_name, ": found beside ",
                             module.Name(MainSuffix(scheme->layout)), ", wanted one of them"));
  }
  MatrixView matrix;
  if (scheme == nullptr || floats || scheme->layout == WeightLayout::kMxfp4Experts) {
    matrix = Plain(module, rows, cols);
  } else if (scheme->layout == WeightLayout::kFp8) {
    matrix = Fp8(module, *scheme, rows, cols);
  } else if (scheme->layout == WeightLayout::kGptq || scheme->layout == WeightLayout::kAwq) {
    matrix = Transposed(module, *scheme, rows, cols);
  } else {
    matrix = Straight(module, *scheme, rows, cols);
  }
  if (!module.status().ok()) return module.status();
  if (!std::holds_alternative<PlainStorage>(matrix.storage)) matrix.products = scheme->products;
  return matrix;
}

absl::StatusOr<MatrixView> ResolveMxfp4(const SafetensorsCheckpoint& files, absl::string_view name,
                                        const FusedRows& which, int64_t rows, int64_t cols,
                                        std::vector<absl::string_view>* used) {
  const int64_t expert_rows = rows * which.step;
  ModuleTensors module(files, std::string(name), used);
  constexpr int64_t kGroup = Mxfp4Storage::kGroup;
  if (cols % kGroup != 0) {
    return absl::InvalidArgumentError(absl::StrCat(name, "_blocks: found rows of ", cols,
                                                   " elements, wanted a multiple of ", kGroup));
  }
  Mxfp4Storage storage;
  storage.blocks = module.Take("_blocks", {{which.experts, expert_rows, cols / kGroup, kGroup / 2}},
                               {StoredDType::kU8});
  storage.scales = module.Take("_scales", {{which.experts, expert_rows, cols / kGroup}},
                               {StoredDType::kU8, StoredDType::kF8E8M0});
  storage.first_row = which.expert * expert_rows + which.first;
  storage.row_step = which.step;
  if (!module.status().ok()) return module.status();
  return MatrixView{.rows = rows, .cols = cols, .storage = storage};
}

}  // namespace troupe
