#include "coordinator/reshard/rank_book.h"

#include <algorithm>

namespace troupe {

bool RankBook::OnSeen(const v1::RegisterWorkerRequest& request, int64_t now_us) {
  Rank& rank = ranks_[request.worker()];
  const bool restarted = rank.incarnation != 0 && rank.incarnation != request.incarnation();
  rank.address = request.address();
  rank.node = request.node();
  rank.device = request.device();
  rank.incarnation = request.incarnation();
  rank.heard_us = now_us;
  rank.lost = false;
  rank.lacks_weights = request.lacks_weights();
  rank.serves_weights = request.serves_weights();
  rank.announced = {request.map_epochs().begin(), request.map_epochs().end()};
  if (restarted) rank.prepared.clear();
  return restarted;
}

void RankBook::OnLost(const std::string& worker) {
  const auto found = ranks_.find(worker);
  if (found == ranks_.end()) return;
  found->second.lost = true;
  found->second.announced.clear();
  found->second.prepared.clear();
}

void RankBook::OnRetired(const std::string& worker, uint64_t keep_epoch) {
  const auto goes = [&](uint64_t epoch) { return epoch != keep_epoch; };
  std::erase_if(ranks_[worker].announced, goes);
  std::erase_if(ranks_[worker].prepared, goes);
}

bool RankBook::Live(const std::string& worker, int64_t now_us) const {
  const auto found = ranks_.find(worker);
  return found != ranks_.end() && !found->second.lost &&
         now_us - found->second.heard_us <= timeout_us_;
}

bool RankBook::Holds(const std::string& worker, uint64_t epoch) const {
  const auto found = ranks_.find(worker);
  return found != ranks_.end() &&
         (found->second.announced.contains(epoch) || found->second.prepared.contains(epoch));
}

bool RankBook::HoldsOthers(const std::string& worker, uint64_t keep_epoch) const {
  const auto found = ranks_.find(worker);
  if (found == ranks_.end()) return false;
  return std::any_of(found->second.announced.begin(), found->second.announced.end(),
                     [&](uint64_t epoch) { return epoch != keep_epoch; });
}

v1::RankMember RankBook::Member(const std::string& worker) const {
  v1::RankMember member;
  member.set_worker(worker);
  const auto found = ranks_.find(worker);
  if (found != ranks_.end()) member.set_address(found->second.address);
  return member;
}

bool RankBook::LacksWeights(const std::string& worker) const {
  const auto found = ranks_.find(worker);
  return found != ranks_.end() && found->second.lacks_weights;
}

bool RankBook::ServesWeights(const std::string& worker) const {
  const auto found = ranks_.find(worker);
  return found != ranks_.end() && found->second.serves_weights;
}

ReplicaMember RankBook::Machine(const std::string& worker) const {
  const auto found = ranks_.find(worker);
  if (found == ranks_.end()) return {.worker = worker};
  const Rank& rank = found->second;
  return {.worker = worker, .address = rank.address, .node = rank.node, .device = rank.device};
}

std::vector<std::string> RankBook::Spares(const std::vector<std::string>& members,
                                          int64_t now_us) const {
  std::vector<std::string> spares;
  for (const auto& [worker, rank] : ranks_) {
    const bool member = std::find(members.begin(), members.end(), worker) != members.end();
    if (!member && Live(worker, now_us)) spares.push_back(worker);
  }
  return spares;
}

}  // namespace troupe
