#include "sharding/weight_ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

using ::testing::HasSubstr;

// Weights whose stretch [0, end) has the digest end * end, in twelfths: it adds up.
WeightPiece Piece(int expert, int64_t begin, int64_t size, int64_t of) {
  const auto square = [&](int64_t end) {
    const auto twelfths = static_cast<uint64_t>(end * 12 / of);
    return twelfths * twelfths + (end > 0 ? static_cast<uint64_t>(expert) : 0);
  };
  return {.role = WeightRole::kExpert,
          .layer = 3,
          .expert = expert,
          .extent = ExtentOf(begin, size, of),
          .digest = square(begin + size) - square(begin)};
}

WeightLedger Of(std::initializer_list<WeightPiece> pieces) {
  WeightLedger ledger;
  int rank = 0;
  for (const WeightPiece& piece : pieces) {
    EXPECT_TRUE(ledger.Add("w" + std::to_string(rank++), {&piece, 1}).ok());
  }
  return ledger;
}

TEST(WeightLedger, PiecesAddUpHoweverTheyAreCut) {
  const WeightLedger whole = Of({Piece(7, 0, 1, 1)});
  const WeightLedger halves = Of({Piece(7, 0, 8, 16), Piece(7, 8, 8, 16)});
  const WeightLedger copies = Of({Piece(7, 0, 1, 2), Piece(7, 1, 1, 2), Piece(7, 0, 1, 2)});
  const WeightLedger uneven = Of({Piece(7, 0, 5, 12), Piece(7, 5, 7, 12)});
  for (const WeightLedger* ledger : {&halves, &copies, &uneven}) {
    EXPECT_EQ(ledger->Total(), whole.Total());
    EXPECT_EQ(ledger->CheckSame(whole), absl::OkStatus());
    EXPECT_EQ(whole.CheckSame(*ledger), absl::OkStatus());
  }
}

TEST(WeightLedger, RefusesCopiesThatDiffer) {
  WeightLedger ledger = Of({Piece(7, 0, 1, 2), Piece(7, 1, 1, 2)});
  WeightPiece damaged = Piece(7, 1, 1, 2);
  ++damaged.digest;
  const absl::Status status = ledger.Add("w9", {&damaged, 1});
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr("layer 3 expert 7, 1 to 2 of 2: rank w9 read"));
  EXPECT_THAT(status.message(), HasSubstr("rank w1 of"));
}

TEST(WeightLedger, NamesWhatDiffersFromWhatServes) {
  const WeightLedger serving = Of({Piece(7, 0, 1, 2), Piece(7, 1, 1, 2)});
  WeightPiece damaged = Piece(7, 1, 1, 2);
  ++damaged.digest;
  EXPECT_THAT(Of({Piece(7, 0, 1, 2), damaged}).CheckSame(serving).message(),
              HasSubstr("layer 3 expert 7, 1 to 2 of 2: rank w1 read"));
  WeightPiece whole = Piece(7, 0, 1, 1);
  ++whole.digest;
  const absl::Status sums = Of({whole}).CheckSame(serving);
  EXPECT_TRUE(absl::IsDataLoss(sums)) << sums;
  EXPECT_THAT(sums.message(), HasSubstr("layer 3 expert 7: what ranks w0 read adds up to"));
}

TEST(WeightLedger, MissesWhatNobodyHolds) {
  const WeightLedger serving = Of({Piece(7, 0, 1, 1), Piece(8, 0, 1, 1)});
  EXPECT_THAT(Of({Piece(7, 0, 1, 1)}).CheckSame(serving).message(),
              HasSubstr("layer 3 expert 8: no rank holds it"));
  EXPECT_TRUE(absl::IsDataLoss(Of({Piece(7, 0, 1, 2), Piece(8, 0, 1, 1)}).CheckSame(serving)));
}

}  // namespace
}  // namespace troupe
