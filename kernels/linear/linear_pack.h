// A weight matrix in the layout of kernels/linear/linear_kernel.h, for one instruction set.
#ifndef TROUPE_KERNELS_LINEAR_LINEAR_PACK_H_
#define TROUPE_KERNELS_LINEAR_LINEAR_PACK_H_

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cpu_isa.h"
#include "kernels/linear/linear.h"
#include "kernels/linear/linear_kernel.h"
#include "kernels/thread_pool/thread_pool.h"

namespace troupe {

class CpuMatrix : public PackedMatrix {
 public:
  // The rows of `parts`, one after another. Parts of both dtypes make a matrix of f32.
  static std::unique_ptr<CpuMatrix> Pack(absl::Span<const Tensor> parts, Precision precision,
                                         CpuIsa isa, ThreadPool& pool);

  // The same with codes, which must pack together.
  static std::unique_ptr<CpuMatrix> PackCoded(absl::Span<const CodedMatrix> parts,
                                              Precision precision, CpuIsa isa, ThreadPool& pool);

  const PanelView& view() const { return view_; }
  CpuIsa isa() const { return isa_; }

 private:
  CpuMatrix(const PanelView& view, std::shared_ptr<std::byte> memory, int64_t bytes, CpuIsa isa)
      : PackedMatrix(view.outputs, view.inputs, view.precision, bytes),
        view_(view),
        memory_(std::move(memory)),
        isa_(isa) {}

  PanelView view_;
  std::shared_ptr<std::byte> memory_;
  CpuIsa isa_;
};

// The view of a matrix that Pack made for `isa`; checks that it is one.
const PanelView& PanelsOf(const PackedMatrix* matrix, CpuIsa isa);

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_LINEAR_PACK_H_
