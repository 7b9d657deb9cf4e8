#include "worker/nccl_communicator.h"

#include <nccl.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_util.h"
#include "worker/nccl_family.h"

namespace troupe {
namespace {

// Up to here a sum is one round; see mesh_communicator.cc.
constexpr int64_t kOneRoundBytes = 256 << 10;
// Elements of a row, in which sums are formed.
constexpr int64_t kRow = 128;

// Device memory kept from call to call. Memory that it has outgrown stays too: a section of
// operations that the device keeps (kernels/replays.h) may name it.
class GrownMemory {
 public:
  explicit GrownMemory(Ops* ops) : ops_(ops) {}

  int64_t bytes() const { return bytes_; }
  std::byte* data() { return buffers_.back().get(); }

  absl::Status Reserve(int64_t bytes) {
    if (bytes <= bytes_) return absl::OkStatus();
    const int64_t wanted = std::max(bytes, 2 * bytes_);
    TROUPE_ASSIGN_OR_RETURN(Buffer made, ops_->Allocate(wanted));
    buffers_.push_back(std::move(made));
    bytes_ = wanted;
    return absl::OkStatus();
  }

 private:
  Ops* const ops_;
  std::vector<Buffer> buffers_;
  int64_t bytes_ = 0;  // of the last one
};

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(std::shared_ptr<NcclFamily> family, ncclComm_t comm, int rank, int size,
                   Ops* ops)
      : family_(std::move(family)),
        comm_(comm),
        rank_(rank),
        size_(size),
        ops_(ops),
        scratch_(ops),
        row_numbers_(ops) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void AllReduceSum(float* values, int64_t count) override;
  void AllGather(const void* mine, int64_t bytes_each, void* all) override;
  void AllToAll(absl::Span<const CommBytes> to, absl::Span<const CommBytes> from) override;
  void Send(int to_rank, const void* data, int64_t bytes) override;
  void Receive(int from_rank, void* data, int64_t bytes) override;
  void Barrier() override;
  absl::StatusOr<std::unique_ptr<Communicator>> Split(int colour) override;
  void Replayed() override { family_->progress.Mark(); }
  void Abort(const absl::Status& reason) override { family_->latch.Trip(reason); }
  absl::Status status() const override { return family_->latch.status(); }

 private:
  // False: there is no memory, and the latch has tripped.
  bool Reserve(GrownMemory& memory, int64_t bytes);
  // parts [size, count] -> its first row becomes the sum of all, in order.
  bool SumRows(float* parts, int64_t count);
  // What a member sums of `count` elements: whole rows of kRow, but for the last.
  int64_t ShareBegin(int64_t count, int rank) const {
    const int64_t rows = (count + kRow - 1) / kRow;
    return std::min(count, rows * rank / size_ * kRow);
  }
  void Copy(void* to, const void* from, int64_t bytes) {
    if (bytes == 0 || to == from) return;
    cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice,
                    family_->stream);
  }

  const std::shared_ptr<NcclFamily> family_;
  const ncclComm_t comm_;
  const int rank_;
  const int size_;
  Ops* const ops_;
  GrownMemory scratch_;
  GrownMemory row_numbers_;  // 0, 1, 2...
};

bool NcclCommunicator::Reserve(GrownMemory& memory, int64_t bytes) {
  const absl::Status reserved = memory.Reserve(bytes);
  if (!reserved.ok()) family_->latch.Trip(Annotate(reserved, "memory for a sum over ranks"));
  return reserved.ok();
}

bool NcclCommunicator::SumRows(float* parts, int64_t count) {
  const int64_t rows = count / kRow;
  const int64_t bytes = std::max<int64_t>(rows, 1) * static_cast<int64_t>(sizeof(int32_t));
  if (bytes > row_numbers_.bytes()) {
    if (!Reserve(row_numbers_, bytes)) return false;
    std::vector<int32_t> numbers(row_numbers_.bytes() / sizeof(int32_t));
    std::iota(numbers.begin(), numbers.end(), 0);
    ops_->Upload(row_numbers_.data(), numbers.data(),
                 static_cast<int64_t>(numbers.size() * sizeof(int32_t)));
  }
  const auto* row = reinterpret_cast<const int32_t*>(row_numbers_.data());
  const auto add = [&](float* out, float* x, int64_t n, int64_t width) {
    if (n > 0 && width > 0) {
      ops_->RowAdd({Tensor{x, DType::kF32, n, width, width}, row,
                    Tensor{out, DType::kF32, n, width, width}});
    }
  };
  for (int r = 1; r < size_; ++r) {
    float* part = parts + r * count;
    add(parts, part, rows, kRow);
    add(parts + rows * kRow, part + rows * kRow, 1, count - rows * kRow);
  }
  return true;
}

void NcclCommunicator::AllReduceSum(float* values, int64_t count) {
  if (size_ == 1 || count == 0 || family_->latch.tripped()) return;
  const auto bytes = [](int64_t n) { return n * static_cast<int64_t>(sizeof(float)); };
  if (bytes(count) <= kOneRoundBytes) {
    if (!Reserve(scratch_, size_ * bytes(count))) return;
    auto* parts = reinterpret_cast<float*>(scratch_.data());
    AllGather(values, bytes(count), parts);
    if (SumRows(parts, count)) Copy(values, parts, bytes(count));
    return;
  }
  const int64_t begin = ShareBegin(count, rank_);
  const int64_t mine = ShareBegin(count, rank_ + 1) - begin;
  if (!Reserve(scratch_, size_ * bytes(mine))) return;
  auto* parts = reinterpret_cast<float*>(scratch_.data());
  std::vector<CommBytes> to(size_);
  std::vector<CommBytes> from(size_);
  for (int r = 0; r < size_; ++r) {
    const int64_t share = ShareBegin(count, r);
    to[r] = {values + share, bytes(ShareBegin(count, r + 1) - share)};
    from[r] = {parts + r * mine, bytes(mine)};
  }
  AllToAll(to, from);
  if (!SumRows(parts, mine)) return;
  for (int r = 0; r < size_; ++r) {
    std::swap(to[r], from[r]);
    from[r] = {values + ShareBegin(count, r),
               bytes(ShareBegin(count, r + 1) - ShareBegin(count, r))};
    to[r] = {parts, bytes(mine)};
  }
  AllToAll(to, from);
}

void NcclCommunicator::AllGather(const void* mine, int64_t bytes_each, void* all) {
  if (bytes_each == 0) return;
  family_->Run(comm_, [&] {
    return family_->nccl.AllGather(mine, all, static_cast<size_t>(bytes_each), ncclInt8, comm_,
                                   family_->stream);
  });
}

void NcclCommunicator::AllToAll(absl::Span<const CommBytes> to, absl::Span<const CommBytes> from) {
  CHECK_EQ(static_cast<int>(to.size()), size_);
  CHECK_EQ(static_cast<int>(from.size()), size_);
  Copy(from[rank_].data, to[rank_].data, to[rank_].bytes);
  const Nccl& nccl = family_->nccl;
  family_->Run(comm_, [&] {
    nccl.GroupStart();
    for (int r = 0; r < size_; ++r) {
      if (r == rank_) continue;
      if (to[r].bytes > 0) {
        nccl.Send(to[r].data, to[r].bytes, ncclInt8, r, comm_, family_->stream);
      }
      if (from[r].bytes > 0) {
        nccl.Recv(from[r].data, from[r].bytes, ncclInt8, r, comm_, family_->stream);
      }
    }
    // It answers for all of them.
    return nccl.GroupEnd();
  });
}

void NcclCommunicator::Send(int to_rank, const void* data, int64_t bytes) {
  if (bytes == 0) return;
  family_->Run(comm_, [&] {
    return family_->nccl.Send(data, bytes, ncclInt8, to_rank, comm_, family_->stream);
  });
}

void NcclCommunicator::Receive(int from_rank, void* data, int64_t bytes) {
  if (bytes == 0) return;
  family_->Run(comm_, [&] {
    return family_->nccl.Recv(data, bytes, ncclInt8, from_rank, comm_, family_->stream);
  });
}

void NcclCommunicator::Barrier() {
  if (!Reserve(scratch_, size_ + 1)) return;
  AllGather(scratch_.data() + size_, 1, scratch_.data());
  ops_->Synchronize();
}

absl::StatusOr<std::unique_ptr<Communicator>> NcclCommunicator::Split(int colour) {
  // Everybody's colour says who is where.
  const auto bytes = static_cast<int64_t>(sizeof(int32_t));
  if (!Reserve(scratch_, size_ * bytes)) return status();
  const int32_t mine = colour;
  auto* colours = reinterpret_cast<int32_t*>(scratch_.data());
  ops_->Upload(colours + rank_, &mine, bytes);
  AllGather(colours + rank_, bytes, colours);
  std::vector<int32_t> all(size_);
  cudaMemcpyAsync(all.data(), colours, all.size() * sizeof(int32_t), cudaMemcpyDeviceToHost,
                  family_->stream);
  ops_->Synchronize();
  TROUPE_RETURN_IF_ERROR(status());
  int rank = 0;
  int size = 0;
  for (int r = 0; r < size_; ++r) {
    if (all[r] != colour) continue;
    if (r < rank_) ++rank;
    ++size;
  }
  ncclComm_t comm = family_->Split(comm_, colour, rank_);
  TROUPE_RETURN_IF_ERROR(status());
  return std::make_unique<NcclCommunicator>(family_, comm, rank, size, ops_);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> MakeNcclCommunicator(const NcclOptions& options,
                                                                   Meeting& meeting, Ops* ops) {
  TROUPE_ASSIGN_OR_RETURN(const Nccl nccl, Nccl::Load());
  auto* stream = static_cast<cudaStream_t>(ops->Queue());
  if (stream == nullptr) {
    return absl::FailedPreconditionError("NCCL: found an Ops of the CPU, wanted one of a GPU");
  }
  // NCCL takes the thread's.
  int device = 0;
  if (cudaStreamGetDevice(stream, &device) != cudaSuccess || cudaSetDevice(device) != cudaSuccess) {
    return absl::UnavailableError("NCCL: the queue's GPU does not answer");
  }
  ncclUniqueId id = {};
  if (options.rank == 0) {
    const ncclResult_t made = nccl.GetUniqueId(&id);
    if (made != ncclSuccess) {
      return absl::UnavailableError(absl::StrCat("NCCL: ", nccl.GetErrorString(made)));
    }
  }
  TROUPE_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                          meeting.Exchange(std::string(id.internal, sizeof(id.internal))));
  if (all.front().size() != sizeof(id.internal)) {
    return absl::FailedPreconditionError(
        absl::StrCat("rank 0: found an id of ", all.front().size(), " bytes, wanted ",
                     sizeof(id.internal), "; run one version of the worker everywhere"));
  }
  std::memcpy(id.internal, all.front().data(), sizeof(id.internal));
  auto family = std::make_shared<NcclFamily>(nccl, stream, options);
  ncclComm_t comm = family->Join(id);
  TROUPE_RETURN_IF_ERROR(family->latch.status());
  return std::make_unique<NcclCommunicator>(std::move(family), comm, options.rank, options.size,
                                            ops);
}

}  // namespace troupe
