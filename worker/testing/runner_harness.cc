#include "worker/testing/runner_harness.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>

#include "base/check.h"
#include "base/status_util.h"
#include "kernels/device.h"
#include "model/checkpoint.h"

namespace troupe {
namespace {

std::unique_ptr<Ops> OpsFor(const RunnerHarness::Options& options) {
  if (options.reference_ops) return MakeReferenceOps();
  std::string device = options.device;
  if (const char* wanted = std::getenv("TROUPE_TEST_DEVICE"); device.empty() && wanted != nullptr) {
    device = wanted;
  }
  if (!device.empty() && !options.isa.has_value()) {
    auto ops = troupe::MakeOps(device, {.threads = options.threads});
    CHECK_OK(ops.status());
    return *std::move(ops);
  }
  auto best = DetectCpuIsa();
  CHECK_OK(best.status());
  return MakeCpuOps({options.threads, options.isa.value_or(*best)});
}

LoadedModel Load(Ops* ops, const RunnerHarness::Options& options) {
  auto checkpoint = Checkpoint::Open(SourcePath("models/abacus"));
  CHECK_OK(checkpoint.status());
  auto model = LoadModel(*checkpoint, ops, {.mode = options.mode, .with_mtp = options.mtp});
  CHECK_OK(model.status());
  return *std::move(model);
}

}  // namespace

std::string SourcePath(const std::string& relative) {
  const char* root = std::getenv("TROUPE_SOURCE_DIR");
  return std::string(root == nullptr ? "." : root) + "/" + relative;
}

RunnerHarness::RunnerHarness(const Options& options)
    : options_(options),
      ops_(OpsFor(options)),
      model_(Load(ops_.get(), options)),
      input_(options.slots, options.max_step_tokens),
      sequences_(options.slots) {
  CHECK_OK(Prepare());
}

RunnerHarness::RunnerHarness(std::unique_ptr<Ops> ops, LoadedModel model, const Options& options)
    : options_(options),
      ops_(std::move(ops)),
      model_(std::move(model)),
      input_(options.slots, options.max_step_tokens),
      sequences_(options.slots) {}

absl::StatusOr<std::unique_ptr<RunnerHarness>> RunnerHarness::Create(std::unique_ptr<Ops> ops,
                                                                     LoadedModel model,
                                                                     const Options& options) {
  std::unique_ptr<RunnerHarness> harness(
      new RunnerHarness(std::move(ops), std::move(model), options));
  TROUPE_RETURN_IF_ERROR(harness->Prepare());
  return harness;
}

absl::Status RunnerHarness::Prepare() {
  const DType dtype = options_.fp8_kv ? DType::kE4M3 : KvDType(model_.mode);
  std::vector<StateGroup> groups =
      ShardStateGroups(model_.shard, {.kv_bytes_per_element = static_cast<int>(BytesOf(dtype)),
                                      .kv_scale_bytes = static_cast<int>(ScaleBytesOf(dtype)),
                                      .with_mtp = model_.mtp.has_value()});
  const int blocks = (options_.max_context_tokens + kBlockTokens - 1) / kBlockTokens;
  KvPages::Options page_options;
  page_options.dtype = dtype;
  page_options.slots = options_.slots;
  page_options.max_context_tokens = options_.max_context_tokens;
  for (const StateGroup& group : groups) {
    const int64_t window = WindowBlocks(group) + 2 + options_.max_step_tokens / kBlockTokens;
    const int64_t each =
        group.kind == StateGroupKind::kWindow ? std::min<int64_t>(blocks, window) : blocks;
    page_options.page_count.push_back(static_cast<uint32_t>(each * options_.slots));
  }
  TROUPE_ASSIGN_OR_RETURN(pages_,
                          KvPages::Create(ops_.get(), std::move(groups), std::move(page_options)));

  std::mt19937 random(options_.page_seed);
  for (size_t g = 0; g < pages_->groups().size(); ++g) {
    std::vector<uint32_t>& list = free_.emplace_back(pages_->page_count(static_cast<int>(g)));
    std::iota(list.begin(), list.end(), 0U);
    for (const uint32_t page : list) Poison(static_cast<int>(g), page);
    std::shuffle(list.begin(), list.end(), random);
    references_.emplace_back(list.size(), 0);
  }
  for (Sequence& sequence : sequences_) sequence.blocks.resize(free_.size());

  ModelRunner::Options runner_options;
  runner_options.max_rows = options_.slots;
  runner_options.max_step_tokens = options_.max_step_tokens;
  runner_options.max_logit_tokens = options_.max_logit_tokens;
  runner_options.early_exits = options_.early_exits;
  runner_options.mtp = options_.mtp;
  runner_options.links = options_.links;
  TROUPE_ASSIGN_OR_RETURN(runner_,
                          ModelRunner::Create(&model_, pages_.get(), ops_.get(), runner_options));
  return absl::OkStatus();
}

StepOutput RunnerHarness::Step(const std::vector<Row>& rows) {
  input_.Clear();
  for (const Row& row : rows) {
    Sequence& sequence = sequences_[row.slot];
    const auto count = static_cast<int64_t>(row.tokens.size());
    GiveBackBehindWindows(row.slot);
    GrantBlocks(row.slot, sequence.length + count);
    CHECK_OK(pages_->CheckRow(row.slot, sequence.length, count));
    input_.AddRow(row.slot, static_cast<int32_t>(sequence.length), row.tokens, row.gate,
                  row.logits);
    sequence.length += count;
  }
  return runner_->Forward(input_, options_.micro_batches);
}

RunnerHarness::Logits RunnerHarness::Feed(uint32_t slot, const std::vector<uint32_t>& tokens,
                                          int chunk, int logits) {
  Logits result;
  for (size_t begin = 0; begin < tokens.size(); begin += chunk) {
    const size_t end = std::min(tokens.size(), begin + chunk);
    Row row;
    row.slot = slot;
    row.tokens.assign(tokens.begin() + begin, tokens.begin() + end);
    row.gate = gate_;
    row.logits = end == tokens.size() ? logits : 0;
    result = Copy(Step({row}).logits);
  }
  return result;
}

std::vector<uint32_t> RunnerHarness::Greedy(uint32_t slot, const std::vector<float>& logits,
                                            int count) {
  std::vector<uint32_t> tokens = {Best(logits)};
  while (static_cast<int>(tokens.size()) < count) {
    Row row;
    row.slot = slot;
    row.tokens = {tokens.back()};
    row.gate = gate_;
    tokens.push_back(Best(Copy(Step({row}).logits).front()));
  }
  return tokens;
}

void RunnerHarness::Fork(uint32_t from, uint32_t to, bool share) {
  Sequence& source = sequences_[from];
  Sequence& copy = sequences_[to];
  CHECK_EQ(copy.length, 0);
  copy = source;
  const auto last = static_cast<size_t>(source.length / kBlockTokens);
  for (size_t g = 0; g < copy.blocks.size(); ++g) {
    const int group = static_cast<int>(g);
    for (size_t b = 0; b < copy.blocks[g].size(); ++b) {
      uint32_t& page = copy.blocks[g][b];
      if (page == kUngrantedPage) continue;
      if (b == last || !share) {
        const uint32_t fresh = TakePage(group);
        CHECK_OK(pages_->CopyPages(group, {page}, {fresh}));
        page = fresh;
      } else {
        ++references_[g][page];
      }
      CHECK_OK(pages_->Grant({to, group, static_cast<uint32_t>(b), page}));
    }
  }
}

void RunnerHarness::Finish(uint32_t slot) {
  Sequence& sequence = sequences_[slot];
  for (size_t g = 0; g < sequence.blocks.size(); ++g) {
    for (const uint32_t page : sequence.blocks[g]) {
      if (page != kUngrantedPage) DropPage(static_cast<int>(g), page);
    }
    sequence.blocks[g].clear();
  }
  sequence.length = 0;
  CHECK_OK(pages_->ReleaseSlot(slot));
}

void RunnerHarness::GrantBlocks(uint32_t slot, int64_t tokens) {
  Sequence& sequence = sequences_[slot];
  const auto blocks = static_cast<size_t>((tokens + kBlockTokens - 1) / kBlockTokens);
  for (size_t g = 0; g < sequence.blocks.size(); ++g) {
    while (sequence.blocks[g].size() < blocks) {
      const uint32_t page = TakePage(static_cast<int>(g));
      const auto block = static_cast<uint32_t>(sequence.blocks[g].size());
      CHECK_OK(pages_->Grant({slot, static_cast<uint32_t>(g), block, page}));
      sequence.blocks[g].push_back(page);
    }
  }
}

void RunnerHarness::GiveBackBehindWindows(uint32_t slot) {
  Sequence& sequence = sequences_[slot];
  for (size_t g = 0; g < sequence.blocks.size(); ++g) {
    const StateGroup& group = pages_->groups()[g];
    if (group.kind != StateGroupKind::kWindow) continue;
    const int64_t first_needed = sequence.length - group.window_tokens + 1;
    for (int64_t b = 0; (b + 1) * kBlockTokens <= first_needed; ++b) {
      const uint32_t page = std::exchange(sequence.blocks[g][b], kUngrantedPage);
      if (page != kUngrantedPage) DropPage(static_cast<int>(g), page);
    }
  }
}

uint32_t RunnerHarness::TakePage(int group) {
  CHECK(!free_[group].empty()) << "no free page in group " << pages_->groups()[group].name;
  const uint32_t page = free_[group].back();
  free_[group].pop_back();
  references_[group][page] = 1;
  return page;
}

void RunnerHarness::DropPage(int group, uint32_t page) {
  if (--references_[group][page] > 0) return;
  Poison(group, page);
  free_[group].push_back(page);
}

void RunnerHarness::Poison(int group, uint32_t page) {
  if (!options_.poison) return;
  const std::string nans(pages_->Page(group, page)->size(), '\xff');  // in f32 and in bf16
  CHECK_OK(pages_->WritePage(group, page, nans));
}

RunnerHarness::Logits RunnerHarness::Copy(const Tensor& tensor) {
  Logits rows;
  for (int64_t r = 0; r < tensor.rows; ++r) {
    rows.emplace_back(tensor.f32(r), tensor.f32(r) + tensor.cols);
  }
  return rows;
}

uint32_t RunnerHarness::Best(const std::vector<float>& logits) {
  return static_cast<uint32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

std::vector<uint32_t> RandomTokens(int count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint32_t> tokens(count);
  for (uint32_t& token : tokens) token = 8 + random() % 504;
  return tokens;
}

}  // namespace troupe
