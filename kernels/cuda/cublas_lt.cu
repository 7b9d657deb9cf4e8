#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <optional>
#include <tuple>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/cublas_lt.cuh"

namespace troupe {
namespace {

constexpr char kLibrary[] = "libcublasLt.so.13";

struct Functions {
  decltype(&cublasLtCreate) Create = nullptr;
  decltype(&cublasLtDestroy) Destroy = nullptr;
  decltype(&cublasLtMatmul) Matmul = nullptr;
  decltype(&cublasLtMatmulDescCreate) DescCreate = nullptr;
  decltype(&cublasLtMatmulDescDestroy) DescDestroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) DescSet = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) LayoutCreate = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) LayoutDestroy = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) PreferenceCreate = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) PreferenceDestroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) PreferenceSet = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) Heuristic = nullptr;
  decltype(&cublasLtMatmulAlgoConfigGetAttribute) AlgorithmGet = nullptr;

  // The name of a function that the library lacks; null where all are there.
  const char* Find(void* library) {
    const char* missing = nullptr;
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
      if (function == nullptr) missing = name;
    };
    find(Create, "cublasLtCreate");
    find(Destroy, "cublasLtDestroy");
    find(Matmul, "cublasLtMatmul");
    find(DescCreate, "cublasLtMatmulDescCreate");
    find(DescDestroy, "cublasLtMatmulDescDestroy");
    find(DescSet, "cublasLtMatmulDescSetAttribute");
    find(LayoutCreate, "cublasLtMatrixLayoutCreate");
    find(LayoutDestroy, "cublasLtMatrixLayoutDestroy");
    find(PreferenceCreate, "cublasLtMatmulPreferenceCreate");
    find(PreferenceDestroy, "cublasLtMatmulPreferenceDestroy");
    find(PreferenceSet, "cublasLtMatmulPreferenceSetAttribute");
    find(Heuristic, "cublasLtMatmulAlgoGetHeuristic");
    find(AlgorithmGet, "cublasLtMatmulAlgoConfigGetAttribute");
    return missing;
  }
};

class LoadedCublasLt final : public CublasLt {
 public:
  LoadedCublasLt(const Functions& lt, cublasLtHandle_t handle) : lt_(lt), handle_(handle) {
    const cublasOperation_t transposed = CUBLAS_OP_T;
    lt_.DescCreate(&desc_, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    lt_.DescSet(desc_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed));
  }
  ~LoadedCublasLt() override {
    lt_.DescDestroy(desc_);
    lt_.Destroy(handle_);
  }

  bool Run(const DenseProduct& product, cudaStream_t stream, CudaErrors& errors) override {
    // Where rows of the result are not aligned the library has kernels that share out a sum among
    // warps, which none of what it says of an algorithm tells.
    if (product.outputs % 16 != 0 || product.inputs % 8 != 0 || product.out_stride % 4 != 0 ||
        reinterpret_cast<uintptr_t>(product.out) % 16 != 0) {
      return false;
    }
    // To the library, which counts by columns, the result is [outputs, rows].
    const Layout w(lt_, CUDA_R_16BF, product.inputs, product.outputs, product.inputs);
    const Layout x(lt_, CUDA_R_16BF, product.inputs, product.rows, product.x_stride);
    const Layout out(lt_, CUDA_R_32F, product.outputs, product.rows, product.out_stride);
    const std::optional<cublasLtMatmulAlgo_t>& algorithm = Choose(product, w, x, out);
    if (!algorithm.has_value()) return false;
    const float one = 1;
    const float keep = product.accumulate ? 1 : 0;
    const cublasStatus_t status =
        lt_.Matmul(handle_, desc_, &one, product.w, w.get(), product.x, x.get(), &keep, product.out,
                   out.get(), product.out, out.get(), &*algorithm, nullptr, 0, stream);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED) return false;
    if (status != CUBLAS_STATUS_SUCCESS) {
      errors.Note(absl::InternalError(absl::StrCat("cuBLASLt: a product of ", product.rows, " x ",
                                                   product.inputs, " by ", product.outputs,
                                                   ": status ", static_cast<int>(status))));
    }
    return true;
  }

 private:
  class Layout {
   public:
    Layout(const Functions& lt, cudaDataType type, int64_t rows, int64_t cols, int64_t stride)
        : lt_(lt) {
      lt_.LayoutCreate(&layout_, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols),
                       stride);
    }
    Layout(const Layout&) = delete;
    Layout& operator=(const Layout&) = delete;
    ~Layout() { lt_.LayoutDestroy(layout_); }
    cublasLtMatrixLayout_t get() const { return layout_; }

   private:
    const Functions& lt_;
    cublasLtMatrixLayout_t layout_ = nullptr;
  };

  // [outputs, inputs, rows rounded up to a power of two, stride of the result]
  using Shape = std::tuple<int64_t, int64_t, uint64_t, int64_t>;

  bool SumsInOneGo(const cublasLtMatmulAlgo_t& algorithm) const {
    int32_t splits = 1;
    size_t written = 0;
    lt_.AlgorithmGet(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits, sizeof(splits),
                     &written);
    uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
    lt_.AlgorithmGet(&algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &reduction,
                     sizeof(reduction), &written);
    return splits <= 1 && reduction == CUBLASLT_REDUCTION_SCHEME_NONE;
  }

  const std::optional<cublasLtMatmulAlgo_t>& Choose(const DenseProduct& product, const Layout& w,
                                                    const Layout& x, const Layout& out) {
    const uint32_t alignment = 16;
    const Shape shape(product.outputs, product.inputs,
                      std::bit_ceil(static_cast<uint64_t>(product.rows)), product.out_stride);
    const auto known = algorithms_.find(shape);
    if (known != algorithms_.end()) return known->second;
    cublasLtMatmulPreference_t preference = nullptr;
    lt_.PreferenceCreate(&preference);
    // No workspace: sums that are split need some.
    const uint64_t workspace_bytes = 0;
    lt_.PreferenceSet(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                      sizeof(workspace_bytes));
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      lt_.PreferenceSet(preference, attribute, &alignment, sizeof(alignment));
    }
    std::array<cublasLtMatmulHeuristicResult_t, 16> results = {};
    int found = 0;
    lt_.Heuristic(handle_, desc_, w.get(), x.get(), out.get(), out.get(), preference,
                  static_cast<int>(results.size()), results.data(), &found);
    lt_.PreferenceDestroy(preference);
    std::optional<cublasLtMatmulAlgo_t>& chosen = algorithms_[shape];
    for (int i = 0; i < found && !chosen.has_value(); ++i) {
      if (results[i].state == CUBLAS_STATUS_SUCCESS && SumsInOneGo(results[i].algo)) {
        chosen = results[i].algo;
      }
    }
    return chosen;
  }

  Functions lt_;
  cublasLtHandle_t handle_;
  cublasLtMatmulDesc_t desc_ = nullptr;
  std::map<Shape, std::optional<cublasLtMatmulAlgo_t>> algorithms_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CublasLt>> CublasLt::Load() {
  // Never closed: the library keeps threads and device state of its own.
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return absl::NotFoundError(absl::StrCat(kLibrary, ": ", dlerror()));
  Functions functions;
  if (const char* missing = functions.Find(library)) {
    return absl::NotFoundError(absl::StrCat(kLibrary, " has no ", missing));
  }
  cublasLtHandle_t handle = nullptr;
  const cublasStatus_t status = functions.Create(&handle);
  if (status != CUBLAS_STATUS_SUCCESS) {
    return absl::InternalError(
        absl::StrCat("cuBLASLt does not start: status ", static_cast<int>(status)));
  }
  return std::make_unique<LoadedCublasLt>(functions, handle);
}

}  // namespace troupe
