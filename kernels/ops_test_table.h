// The table of cases of every operation, and how a test runs one of them. Each group of cases has a
// file of its own, kernels/ops_test_table_<group>.cc; the tests are in kernels/ops_test.cc and
// beside it.
//
// Thread model: for one test thread. Ownership: cases own what they are made of; backends and the
// seed live as long as the program.
#ifndef TROUPE_KERNELS_OPS_TEST_TABLE_H_
#define TROUPE_KERNELS_OPS_TEST_TABLE_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/ops_test_cases.h"
#include "kernels/ops_testing.h"

namespace troupe {

struct Case {
  std::string name;
  std::vector<Sequence> sequences;
  std::function<Outputs(const Run&)> run;
  bool cuts_round = false;  // the cut of a sequence into steps may change the rounding
  bool integers = false;    // for devices that have integer products
};

template <class Config>
Case Make(std::string name, std::vector<Sequence> sequences,
          Outputs (*runner)(const Config&, const Run&), Config config) {
  return {std::move(name), std::move(sequences),
          [runner, config](const Run& run) { return runner(config, run); }};
}

// One token; a prompt; a decode step of several sequences; and all at once, with prompts that begin
// in the middle of a page, at its edges, and one that fills pages exactly.
inline const std::vector<Sequence> kOneToken = {{0, 1}};
inline const std::vector<Sequence> kPrompt = {{0, 70}};
inline const std::vector<Sequence> kDecode = {{0, 1}, {63, 1}, {64, 1}, {301, 1}, {1030, 1}};
inline const std::vector<Sequence> kMixed = {{0, 33},  {37, 1},  {62, 5},  {128, 1},
                                             {64, 64}, {255, 3}, {256, 2}, {319, 1},
                                             {700, 9}, {0, 1},   {511, 2}};
// Over several splits of the context, beside short ones.
inline const std::vector<Sequence> kLong = {{3000, 3}, {5, 1}, {2047, 2}, {1023, 1}, {1500, 17}};

std::vector<Case> DenseCases();
std::vector<Case> PagedCases();

// The groups one after another.
std::vector<Case> Joined(const std::vector<std::vector<Case>>& groups);

// Every backend of this machine but the reference, made once.
const std::vector<Backend>& Candidates();

Outputs RunOn(const Backend& backend, const Case& c, const std::vector<Step>& steps);

// Fails the test where `got` is further from `want` than the larger tolerance of the two.
void ExpectNear(const Output& got, const Output& want);

}  // namespace troupe

#endif  // TROUPE_KERNELS_OPS_TEST_TABLE_H_
