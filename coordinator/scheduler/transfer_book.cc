#include "coordinator/scheduler/transfer_book.h"

#include <utility>

#include "base/check.h"

namespace troupe {
namespace {

Transfer TakeFront(std::deque<Transfer>& queue) {
  Transfer front = std::move(queue.front());
  queue.pop_front();
  return front;
}

}  // namespace

std::optional<Transfer> TransferBook::AddStore(Transfer store, uint32_t max_waiting) {
  stores_.push_back(std::move(store));
  if (stores_.size() <= max_waiting) return std::nullopt;
  return TakeFront(stores_);
}

std::vector<Transfer> TransferBook::DropLoads(uint64_t batch) {
  std::vector<Transfer> dropped;
  std::erase_if(loads_, [&](const Transfer& load) {
    if (load.load_batch == batch) dropped.push_back(load);
    return load.load_batch == batch;
  });
  return dropped;
}

std::optional<Transfer> TransferBook::TakeWaiting() {
  if (!loads_.empty()) return TakeFront(loads_);
  if (!stores_.empty()) return TakeFront(stores_);
  return std::nullopt;
}

uint64_t TransferBook::Start(Transfer transfer) {
  under_way_.emplace(++last_id_, std::move(transfer));
  return last_id_;
}

Transfer TransferBook::End(uint64_t id) {
  const auto it = under_way_.find(id);
  CHECK(it != under_way_.end()) << "transfer " << id;
  Transfer transfer = std::move(it->second);
  under_way_.erase(it);
  return transfer;
}

}  // namespace troupe
