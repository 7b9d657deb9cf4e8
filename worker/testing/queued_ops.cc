#include "worker/testing/queued_ops.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "worker/testing/queued_copies.h"

namespace troupe {

QueuedOps::QueuedOps(std::unique_ptr<Ops> inner) : inner_(std::move(inner)) {}

absl::StatusOr<Buffer> QueuedOps::Allocate(int64_t bytes) {
  Synchronize();
  return inner_->Allocate(bytes);
}

void QueuedOps::Upload(void* to, const void* from, int64_t bytes) {
  const auto* begin = static_cast<const std::byte*>(from);
  Push([this, to, copy = Bytes(begin, begin + std::max<int64_t>(bytes, 0))] {
    inner_->Upload(to, copy.data(), static_cast<int64_t>(copy.size()));
  });
}

void QueuedOps::Clear(void* to, int64_t bytes) {
  Push([this, to, bytes] { inner_->Clear(to, bytes); });
}

void QueuedOps::BeginStep() {
  turns_[turn_].end = queue_.pushed();
  turn_ ^= 1;
  Turn& turn = turns_[turn_];
  queue_.WaitFor(turn.end);
  // The memory stays for a while, so that whoever still reads it sees this.
  const auto old = static_cast<ptrdiff_t>(turn.pieces.size()) - kKeptPieces;
  if (old > 0) turn.pieces.erase(turn.pieces.begin(), turn.pieces.begin() + old);
  for (Bytes& piece : turn.pieces) std::fill(piece.begin(), piece.end(), std::byte{0xee});
}

const void* QueuedOps::Stage(const void* from, int64_t bytes) {
  const auto* begin = static_cast<const std::byte*>(from);
  return turns_[turn_].pieces.emplace_back(begin, begin + std::max<int64_t>(bytes, 0)).data();
}

void* QueuedOps::Fetch(void* from, int64_t bytes) {
  Bytes& piece = turns_[turn_].pieces.emplace_back(static_cast<size_t>(std::max<int64_t>(bytes, 0)),
                                                   std::byte{0xee});
  Push([from, bytes, to = piece.data()] {
    if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
  });
  return piece.data();
}

std::unique_ptr<PackedMatrix> QueuedOps::Pack(absl::Span<const Tensor> parts, Precision precision) {
  Synchronize();
  return inner_->Pack(parts, precision);
}

std::unique_ptr<PackedMatrix> QueuedOps::PackCoded(absl::Span<const CodedMatrix> parts,
                                                   Precision precision) {
  Synchronize();
  return inner_->PackCoded(parts, precision);
}

std::unique_ptr<SideCopies> QueuedOps::MakeSideCopies() {
  return std::make_unique<QueuedCopies>(
      [this](absl::AnyInvocable<void()> work) { Push(std::move(work)); });
}

bool QueuedOps::WhenDone(absl::AnyInvocable<void()> done) {
  Push(std::move(done));
  return true;
}

}  // namespace troupe
