#include "worker/step_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "base/check.h"
#include "base/status_util.h"
#include "worker/testing/queued_ops.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kMaxRows = 4;

std::unique_ptr<Rank> OpenRank(bool queued = false) {
  const char* root = std::getenv("TROUPE_SOURCE_DIR");
  Rank::Config config;
  config.model = absl::StrCat(root == nullptr ? "." : root, "/models/abacus");
  config.threads = 1;
  config.kv_memory_bytes = 48 << 20;
  config.max_rows = kMaxRows;
  config.max_step_tokens = 32;
  config.max_context = 256;
  if (queued) {
    config.wrap_ops = [](std::unique_ptr<Ops> ops) {
      return std::make_unique<QueuedOps>(std::move(ops));
    };
  }
  auto rank = Rank::Open(config, /*part=*/std::nullopt, nullptr);
  CHECK_OK(rank.status());
  return *std::move(rank);
}

class StepEngineTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { rank_ = OpenRank().release(); }
  static void TearDownTestSuite() { delete rank_; }

  // Two sequences of which each has one block, with the page of its slot's number.
  static v1::StepPlan FirstPlan() {
    v1::StepPlan plan;
    for (uint32_t slot = 0; slot < 2; ++slot) {
      v1::NewSequence& sequence = *plan.add_new_sequences();
      sequence.set_slot(slot);
      for (const uint32_t token : {11U, 12U, 13U}) sequence.add_tokens(token + slot);
      sequence.set_prompt_tokens(2);
      sequence.mutable_sampling()->set_temperature(0.7F);
      sequence.mutable_sampling()->set_seed(5);
      sequence.mutable_sampling()->set_presence_penalty(0.1F);
      for (size_t group = 0; group < rank_->pages->groups().size(); ++group) {
        plan.add_grant_slot(slot);
        plan.add_grant_group(static_cast<uint32_t>(group));
        plan.add_grant_block(0);
        plan.add_grant_page(slot);
      }
      AddRow(plan, slot, 0, 3);
    }
    plan.add_copy_group(0);
    plan.add_copy_from_page(5);
    plan.add_copy_to_page(6);
    return plan;
  }
  static void AddRow(v1::StepPlan& plan, uint32_t slot, uint32_t start, uint32_t count) {
    plan.add_row_slot(slot);
    plan.add_row_start(start);
    plan.add_row_count(count);
  }
  static absl::StatusOr<v1::StepResult> RunOn(StepEngine& engine, const v1::StepPlan& plan) {
    v1::StepResult result;
    TROUPE_RETURN_IF_ERROR(engine.Prepare(plan));
    TROUPE_ASSIGN_OR_RETURN(const StepEngine::Launched launched, engine.Launch(plan));
    TROUPE_RETURN_IF_ERROR(engine.Finish(launched, result));
    return result;
  }
  absl::StatusOr<v1::StepResult> Run(const v1::StepPlan& plan) { return RunOn(engine_, plan); }

  static Rank* rank_;
  StepEngine engine_{rank_, &RealClock::Get()};
};

Rank* StepEngineTest::rank_ = nullptr;

TEST_F(StepEngineTest, ARowWithDamagedStateFailsAlone) {
  ASSERT_TRUE(Run(FirstPlan()).ok());
  for (size_t group = 0; group < rank_->pages->groups().size(); ++group) {
    const absl::Span<std::byte> page = *rank_->pages->Page(static_cast<uint32_t>(group), 1);
    std::memset(page.data(), 0xff, page.size());  // NaNs
  }
  v1::StepPlan plan;
  AddRow(plan, 0, 3, 1);
  AddRow(plan, 1, 3, 1);
  const auto damaged = Run(plan);
  ASSERT_TRUE(damaged.ok()) << damaged.status();
  EXPECT_THAT(damaged->failed_slot(), ElementsAre(1));
  EXPECT_THAT(damaged->sampled_slot(), ElementsAre(0, 1));

  for (size_t group = 0; group < rank_->pages->groups().size(); ++group) {
    const absl::Span<std::byte> page = *rank_->pages->Page(static_cast<uint32_t>(group), 1);
    std::fill(page.begin(), page.end(), std::byte{0});
  }
  engine_.Reset();
  ASSERT_TRUE(Run(FirstPlan()).ok());
  const auto whole = Run(plan);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(whole->failed_slot_size(), 0);
  EXPECT_EQ(whole->sampled_token(0), damaged->sampled_token(0));
}

TEST_F(StepEngineTest, ACopiedPageContinuesAlike) {
  v1::StepPlan plan = FirstPlan();
  *plan.mutable_new_sequences(1) = plan.new_sequences(0);
  plan.mutable_new_sequences(1)->set_slot(1);
  plan.mutable_row_slot()->Truncate(1);
  plan.mutable_row_start()->Truncate(1);
  plan.mutable_row_count()->Truncate(1);
  plan.set_row_count(0, 2);
  ASSERT_TRUE(Run(plan).ok());
  plan.Clear();
  for (size_t group = 0; group < rank_->pages->groups().size(); ++group) {
    plan.add_copy_group(static_cast<uint32_t>(group));
    plan.add_copy_from_page(0);
    plan.add_copy_to_page(1);
  }
  AddRow(plan, 0, 2, 1);
  AddRow(plan, 1, 2, 1);
  const auto result = Run(plan);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->sampled_token_size(), 2);
  EXPECT_EQ(result->sampled_token(0), result->sampled_token(1));
}

// The plans of two sequences without penalties: a prompt's first tokens, the rest, then a token
// each, with a third sequence in the first one's slot from `kSwap` on.
std::vector<v1::StepPlan> DecodePlans(const v1::StepPlan& first) {
  constexpr uint32_t kSwap = 9;
  v1::StepPlan plan = first;
  plan.clear_copy_group();
  plan.clear_copy_from_page();
  plan.clear_copy_to_page();
  for (v1::NewSequence& sequence : *plan.mutable_new_sequences()) {
    sequence.mutable_sampling()->clear_presence_penalty();
  }
  plan.set_row_count(0, 2);
  std::vector<v1::StepPlan> plans = {plan};
  const auto add_row = [](v1::StepPlan& to, uint32_t slot, uint32_t start, uint32_t count) {
    to.add_row_slot(slot);
    to.add_row_start(start);
    to.add_row_count(count);
  };
  for (uint32_t step = 1; step < 20; ++step) {
    v1::StepPlan& next = plans.emplace_back();
    if (step == kSwap) {
      next.add_finished_slots(0);
      *next.add_new_sequences() = plan.new_sequences(0);
      next.mutable_new_sequences(0)->set_tokens(1, 20);
      for (int i = 0; i < plan.grant_slot_size(); ++i) {
        if (plan.grant_slot(i) != 0) continue;
        next.add_grant_slot(0);
        next.add_grant_group(plan.grant_group(i));
        next.add_grant_block(0);
        next.add_grant_page(plan.grant_page(i));
      }
      add_row(next, 0, 0, 3);
    } else {
      add_row(next, 0, step < kSwap ? step + 1 : step - kSwap + 2, 1);
    }
    add_row(next, 1, step + 2, 1);
  }
  return plans;
}

std::string TokensOf(const v1::StepResult& result) {
  std::string text;
  for (int i = 0; i < result.sampled_slot_size(); ++i) {
    absl::StrAppend(&text, result.sampled_slot(i), ":", result.sampled_token(i), " ");
  }
  return text;
}

// On a device that runs behind: each step is launched before the one before it is finished, and
// finds what that one drew.
TEST_F(StepEngineTest, AStepLaunchedAheadGivesTheSame) {
  const std::vector<v1::StepPlan> plans = DecodePlans(FirstPlan());
  std::vector<std::string> want;
  for (const v1::StepPlan& plan : plans) {
    const auto result = Run(plan);
    ASSERT_TRUE(result.ok()) << result.status();
    want.push_back(TokensOf(*result));
  }
  const std::unique_ptr<Rank> rank = OpenRank(/*queued=*/true);
  StepEngine engine(rank.get(), &RealClock::Get());
  std::vector<StepEngine::Launched> launched;
  std::vector<std::string> got;
  const auto finish = [&] {
    v1::StepResult result;
    EXPECT_TRUE(engine.Finish(launched[got.size()], result).ok());
    got.push_back(TokensOf(result));
  };
  for (const v1::StepPlan& plan : plans) {
    ASSERT_TRUE(engine.Prepare(plan).ok());
    auto step = engine.Launch(plan);
    ASSERT_TRUE(step.ok()) << step.status();
    EXPECT_FALSE(step->on_host());
    launched.push_back(*std::move(step));
    if (launched.size() < 2) continue;
    // The step before has ended, and this one may or may not have.
    absl::Notification ended;
    rank->ops->WhenDone([&] { ended.Notify(); });
    ended.WaitForNotification();
    finish();
  }
  finish();
  EXPECT_EQ(got, want);
}

// Changes one number of a random column, or its length.
void MutateColumn(v1::StepPlan& plan, std::mt19937& random) {
  static constexpr uint32_t kNumbers[] = {
      0, 1, 2, 3, 4, 31, 32, 63, 64, 255, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
  using Column = google::protobuf::RepeatedField<uint32_t>;
  v1::NewSequence& sequence = *plan.mutable_new_sequences(random() % 2);
  Column* const columns[] = {
      plan.mutable_finished_slots(), plan.mutable_grant_slot(),   plan.mutable_grant_group(),
      plan.mutable_grant_block(),    plan.mutable_grant_page(),   plan.mutable_copy_group(),
      plan.mutable_copy_from_page(), plan.mutable_copy_to_page(), plan.mutable_row_slot(),
      plan.mutable_row_start(),      plan.mutable_row_count(),    sequence.mutable_tokens()};
  Column& column = *columns[random() % std::size(columns)];
  const uint32_t number = kNumbers[random() % std::size(kNumbers)];
  switch (random() % 4) {
    case 0:
      column.Add(number);
      break;
    case 1:
      if (!column.empty()) column.RemoveLast();
      break;
    case 2:
      sequence.set_slot(number);
      break;
    default:
      if (!column.empty()) column.Set(static_cast<int>(random() % column.size()), number);
  }
}

TEST_F(StepEngineTest, NoPlanCrashesIt) {
  std::mt19937 random(17);
  const std::string bytes = FirstPlan().SerializeAsString();
  int accepted = 0;
  int refused = 0;
  for (int round = 0; round < 1500; ++round) {
    engine_.Reset();
    v1::StepPlan plan = FirstPlan();
    if (round % 2 == 0) {
      for (uint32_t n = 0; n <= random() % 3; ++n) MutateColumn(plan, random);
    } else {
      std::string spoilt = bytes;
      for (uint32_t n = 0; n <= random() % 3; ++n) {
        spoilt[random() % spoilt.size()] = static_cast<char>(random());
      }
      if (!plan.ParseFromString(spoilt)) continue;
    }
    const absl::Status status = Run(plan).status();
    (status.ok() ? accepted : refused) += 1;
    if (!status.ok()) {
      EXPECT_TRUE(absl::IsInvalidArgument(status) || absl::IsFailedPrecondition(status)) << status;
    }
  }
  EXPECT_GT(accepted, 50);
  EXPECT_GT(refused, 50);
  engine_.Reset();
  EXPECT_TRUE(Run(FirstPlan()).ok());
}

TEST_F(StepEngineTest, DescribesTheRank) {
  const v1::WorkerInfo info = rank_->Describe();
  EXPECT_EQ(info.model(), "abacus");
  EXPECT_EQ(info.identity(), rank_->identity);
  EXPECT_EQ(info.max_rows(), kMaxRows);
}

TEST(RankTest, IdentityTellsModelAndDtypeApart) {
  ModelIdentity a;
  ModelIdentity b;
  b.sha256[31] = 1;
  const std::string plain = ServingIdentity(a, ComputeMode::kF32, {}, DType::kF32);
  EXPECT_EQ(plain.size(), 32U);
  EXPECT_EQ(ServingIdentity(a, ComputeMode::kF32, {}, DType::kF32), plain);
  EXPECT_NE(ServingIdentity(b, ComputeMode::kF32, {}, DType::kF32), plain);
  EXPECT_NE(ServingIdentity(a, ComputeMode::kBf16, {}, DType::kBf16), plain);
  EXPECT_NE(ServingIdentity(a, ComputeMode::kF32, IntegerFormat{.bits = 8}, DType::kF32), plain);
  EXPECT_NE(ServingIdentity(a, ComputeMode::kF32, {}, DType::kE4M3), plain);
}

TEST_F(StepEngineTest, RefusesFp8WhereTheDeviceCannotReadIt) {
  const RankShard& shard = rank_->model->shard;
  EXPECT_TRUE(CheckFp8Kv([](const KvUse&) { return true; }, shard, "cpu").ok());
  const absl::Status status = CheckFp8Kv(
      [](const KvUse& use) { return use.reader == KvReader::kPagedAttention; }, shard, "cuda:1");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  for (const char* part : {"kv_cache_dtype", "sparse", "layer 4", "cuda:1", "auto"}) {
    EXPECT_NE(status.message().find(part), std::string::npos) << status;
  }
  EXPECT_EQ(ResolveKvDType("auto", ComputeMode::kBf16).value(), DType::kBf16);
  EXPECT_EQ(ResolveKvDType("fp8", ComputeMode::kBf16).value(), DType::kE4M3);
  EXPECT_EQ(ResolveKvDType("fp4", ComputeMode::kBf16).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(RankTest, GateThresholdComesFromConfigThenEnvironmentThenModel) {
  EXPECT_EQ(*ResolveGateThreshold(std::nullopt, nullptr, 0.3F), 0.3F);
  EXPECT_EQ(*ResolveGateThreshold(std::nullopt, "", 0.3F), 0.3F);
  EXPECT_EQ(*ResolveGateThreshold(std::nullopt, "0.5", 0.3F), 0.5F);
  EXPECT_EQ(*ResolveGateThreshold(0.0F, "0.5", 0.3F), 0.0F);
  for (const char* bad : {"half", "-0.1", "1.5", "nan", "0.5x"}) {
    const auto resolved = ResolveGateThreshold(std::nullopt, bad, 0.3F);
    EXPECT_EQ(resolved.status().code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(resolved.status().message(),
                HasSubstr(absl::StrCat("DYNAMIC_ATTENTION_THRESHOLD: found \"", bad, "\"")));
  }
}

}  // namespace
}  // namespace troupe
