#include <utility>
#include <vector>

#include "base/check.h"
#include "kernels/cuda/context.cuh"
#include "kernels/cuda/tensor_map.cuh"
#include "kernels/linear/linear_choice.h"
#include "kernels/moe_experts/expert_list.cuh"
#include "kernels/moe_experts/moe_experts_choice.h"

namespace troupe {
namespace {

void CheckExpert(const ExpertWeights& expert, const ExpertWeights& like) {
  const CudaMatrix& gate_up = AsCuda(expert.gate_up);
  const CudaMatrix& down = AsCuda(expert.down);
  CHECK_EQ(gate_up.inputs(), like.gate_up->inputs()) << "experts of different sizes";
  CHECK_EQ(gate_up.outputs(), 2 * down.inputs());
  CHECK_EQ(down.outputs(), gate_up.inputs());
  CHECK_EQ(down.inputs(), like.down->inputs()) << "experts of different sizes";
  CHECK(gate_up.dtype() == AsCuda(like.gate_up).dtype() && down.dtype() == gate_up.dtype() &&
        gate_up.precision() == like.gate_up->precision() && down.precision() == gate_up.precision())
      << "experts of different dtypes";
}

template <class T>
std::shared_ptr<std::byte> OnDevice(const std::vector<T>& values, CudaArena& arena,
                                    cudaStream_t stream, CudaErrors& errors) {
  const size_t bytes = values.size() * sizeof(T);
  auto memory = arena.Allocate(static_cast<int64_t>(bytes));
  if (!memory.ok()) {
    errors.Note(memory.status());
    return nullptr;
  }
  CudaOk(cudaMemcpyAsync(memory->get(), values.data(), bytes, cudaMemcpyHostToDevice, stream),
         "copy of a list of experts", errors);
  // The driver may read pageable memory after it has returned.
  CudaOk(cudaStreamSynchronize(stream), "copy of a list of experts", errors);
  return *std::move(memory);
}

// A thread's two rows are an output's gate and up; for `down`, two neighbours.
PairedRows GateUpRows(int64_t size) {
  return {.groups = size / 8, .group_step = 8, .half_step = size, .row_step = 1};
}
PairedRows DownRows(int64_t hidden) {
  return {.groups = hidden / 16, .group_step = 16, .half_step = 1, .row_step = 2};
}
PairedRows InOrder(int64_t rows) {
  return {.groups = rows / 16, .group_step = 16, .half_step = 8, .row_step = 1};
}

}  // namespace

CudaExpertList::CudaExpertList(absl::Span<const ExpertWeights> experts)
    : ExpertList(experts),
      hidden_(experts[0].down->outputs()),
      inner_size_(experts[0].down->inputs()),
      dtype_(AsCuda(experts[0].down).dtype()),
      precision_(experts[0].down->precision()) {}

std::unique_ptr<CudaExpertList> CudaExpertList::Make(absl::Span<const ExpertWeights> experts,
                                                     CudaArena& arena, cudaStream_t stream,
                                                     CudaErrors& errors) {
  CHECK(!experts.empty());
  for (const ExpertWeights& expert : experts) CheckExpert(expert, experts[0]);
  std::unique_ptr<CudaExpertList> list(new CudaExpertList(experts));
  if (!errors.ok()) return list;
  std::vector<const void*> pointers;
  for (const ExpertWeights& expert : experts) pointers.push_back(AsCuda(expert.gate_up).data());
  for (const ExpertWeights& expert : experts) pointers.push_back(AsCuda(expert.down).data());
  for (const ExpertWeights& expert : experts) pointers.push_back(expert.gate_up_bias);
  for (const ExpertWeights& expert : experts) pointers.push_back(expert.down_bias);
  list->pointers_ = OnDevice(pointers, arena, stream, errors);
  list->MakeMaps(arena, stream, errors);
  return list;
}

void CudaExpertList::MakeMaps(CudaArena& arena, cudaStream_t stream, CudaErrors& errors) {
  if (!TakesGroupedProduct(hidden_, inner_size_, dtype_, precision_)) return;
  std::vector<CUtensorMap> maps;
  const auto add = [&](auto map, bool gate_up, const PairedRows& rows) {
    for (int e = 0; e < size(); ++e) {
      const CudaMatrix& matrix = AsCuda(gate_up ? (*this)[e].gate_up : (*this)[e].down);
      maps.push_back(map(matrix.data(), matrix.inputs(), rows, errors));
    }
    ++map_lists_;
  };
  add(MapPairedRows, true, GateUpRows(inner_size_));
  add(MapPairedRows, false, DownRows(hidden_));
  if (TakesStream(hidden_, inner_size_)) {
    add(MapStream, true, GateUpRows(inner_size_));
    add(MapStream, false, InOrder(hidden_));
  }
  maps_ = OnDevice(maps, arena, stream, errors);
}

const CudaExpertList& AsCuda(const ExpertList* experts) {
  const auto* cuda = dynamic_cast<const CudaExpertList*>(experts);
  CHECK(cuda != nullptr) << "the experts were listed by another Ops";
  return *cuda;
}

}  // namespace troupe
