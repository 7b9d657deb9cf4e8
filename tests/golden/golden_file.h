// One golden file of the bundled model: what models/abacus/train/goldens.py wrote. MODEL.md lists
// the tensors. Errors are CHECKs: the files are part of the source tree.
#ifndef TROUPE_TESTS_GOLDEN_GOLDEN_FILE_H_
#define TROUPE_TESTS_GOLDEN_GOLDEN_FILE_H_

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "model/safetensors.h"
#include "worker/testing/runner_harness.h"

namespace troupe {

class GoldenFile {
 public:
  explicit GoldenFile(const std::string& name) {
    auto file = SafetensorsFile::Open(SourcePath("tests/golden/abacus/" + name + ".safetensors"));
    CHECK_OK(file.status());
    file_ = *std::move(file);
  }

  const TensorView& Find(const std::string& name) const {
    for (const TensorView& view : file_->tensors()) {
      if (view.name == name) return view;
    }
    CHECK(false) << "no tensor " << name << " in " << file_->path();
  }

  template <class T>
  std::vector<T> Values(const std::string& name, StoredDType dtype) const {
    const TensorView& view = Find(name);
    CHECK(view.dtype == dtype) << name;
    std::vector<T> values(view.elements());
    std::memcpy(values.data(), view.bytes.data(), view.bytes.size());
    return values;
  }

  std::vector<float> Floats(const std::string& name) const {
    return Values<float>(name, StoredDType::kF32);
  }
  std::vector<int32_t> Ints(const std::string& name) const {
    return Values<int32_t>(name, StoredDType::kI32);
  }
  std::vector<uint32_t> Tokens(const std::string& name) const {
    const std::vector<int64_t> wide = Values<int64_t>(name, StoredDType::kI64);
    return {wide.begin(), wide.end()};
  }

  // A matrix, row by row.
  RunnerHarness::Logits Rows(const std::string& name) const {
    const std::vector<float> values = Floats(name);
    const int64_t cols = Find(name).shape.back();
    RunnerHarness::Logits rows;
    for (auto row = values.begin(); row != values.end(); row += cols) {
      rows.emplace_back(row, row + cols);
    }
    return rows;
  }

 private:
  std::shared_ptr<const SafetensorsFile> file_;
};

}  // namespace troupe

#endif  // TROUPE_TESTS_GOLDEN_GOLDEN_FILE_H_
