// Runs a fuzz target without libFuzzer: its seeds and a corpus as they are, then seeded mutations
// of them. The same seed gives the same inputs.
//
//   fuzz_NAME [--runs N] [--seed S] [--max-seconds T] [--write-seeds FOLDER] [FILE|FOLDER...]
//
// An input that ends the program, or takes longer than 20 s, is left in crash-NAME-SEED-RUN of the
// working folder, to be run again as a FILE.

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tests/fuzz/fuzz_target.h"

// Sanitizers end the program in a way of their own; without them there is no such function.
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace troupe {
namespace {

namespace fs = std::filesystem;

constexpr unsigned kSlowestSeconds = 20;
constexpr int kMostEdits = 6;
constexpr size_t kLongestInput = size_t{1} << 20;

struct Settings {
  uint64_t runs = 1000;
  uint64_t seed = 1;
  double max_seconds = 1e9;
  std::string write_seeds;
  std::vector<std::string> corpus;
};

// ---- The input that is being run, for the handlers

const std::string* g_input = nullptr;
char g_crash_path[4096];

void SaveInput() {
  if (g_input == nullptr) return;
  const int file = open(g_crash_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (file >= 0 && write(file, g_input->data(), g_input->size()) >= 0) {
    constexpr char kText[] = "\nthe input is in ";
    if (write(STDERR_FILENO, kText, sizeof(kText) - 1) < 0 ||
        write(STDERR_FILENO, g_crash_path, std::strlen(g_crash_path)) < 0 ||
        write(STDERR_FILENO, "\n", 1) < 0) {
      return;
    }
  }
  g_input = nullptr;
}

void OnSignal(int signal) {
  SaveInput();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void InstallHandlers() {
  for (const int signal : {SIGABRT, SIGALRM, SIGBUS, SIGFPE, SIGILL, SIGSEGV}) {
    std::signal(signal, OnSignal);
  }
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(SaveInput);
}

void RunOne(const std::string& input, const std::string& crash_name) {
  std::snprintf(g_crash_path, sizeof(g_crash_path), "%s", crash_name.c_str());
  g_input = &input;
  alarm(kSlowestSeconds);
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
  alarm(0);
  g_input = nullptr;
}

// ---- Mutations

class Mutator {
 public:
  Mutator(const std::vector<std::string>& inputs, uint64_t seed)
      : inputs_(inputs), words_(FuzzWords()), random_(seed) {}

  std::string Next() {
    std::string text = inputs_[Below(inputs_.size())];
    const size_t edits = 1 + Below(kMostEdits);
    for (size_t i = 0; i < edits; ++i) Edit(text);
    if (text.size() > kLongestInput) text.resize(kLongestInput);
    return text;
  }

 private:
  size_t Below(size_t bound) { return bound == 0 ? 0 : random_() % bound; }

  void Edit(std::string& text) {
    const size_t at = Below(text.size() + 1);
    const size_t count = 1 + Below(Below(8) == 0 ? 256 : 8);
    switch (Below(9)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << Below(8)));
        return;
      case 1:
        if (at < text.size()) text[at] = static_cast<char>(random_());
        return;
      case 2:
        text.erase(at, count);
        return;
      case 3:
        text.insert(at, count, static_cast<char>(random_()));
        return;
      case 4:
        text.insert(at, text.substr(Below(text.size() + 1), count));
        return;
      case 5:
        if (!words_.empty()) text.insert(at, words_[Below(words_.size())]);
        return;
      case 6:
        ChangeNumber(text, at);
        return;
      case 7: {
        const std::string& other = inputs_[Below(inputs_.size())];
        text = text.substr(0, at) + other.substr(Below(other.size() + 1));
        return;
      }
      default:
        if (Below(16) == 0) text.resize(at);
    }
  }

  // Puts another number where digits stand, at or behind `from`.
  void ChangeNumber(std::string& text, size_t from) {
    static const std::string kNumbers[] = {
        "0",   "-1",  "1",     "2",          "65536",
        "1e9", "0.5", "1e400", "4294967295", "9223372036854775807",
        "NaN", "-0",  "null",  "2147483648", "18446744073709551615"};
    const size_t begin = text.find_first_of("0123456789", from);
    if (begin == std::string::npos) return;
    const size_t end = text.find_first_not_of("0123456789.", begin);
    text.replace(begin, (end == std::string::npos ? text.size() : end) - begin,
                 kNumbers[Below(std::size(kNumbers))]);
  }

  const std::vector<std::string>& inputs_;
  const std::vector<std::string> words_;
  std::mt19937_64 random_;
};

// ---- The program

std::string ReadAll(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> ReadCorpus(const std::vector<std::string>& paths) {
  std::vector<std::string> inputs;
  for (const std::string& path : paths) {
    if (!fs::is_directory(path)) {
      inputs.push_back(ReadAll(path));
      continue;
    }
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(path)) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files) inputs.push_back(ReadAll(file));
  }
  return inputs;
}

bool ParseFlags(int argc, char** argv, Settings* settings) {
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag.rfind("--", 0) != 0) {
      settings->corpus.push_back(flag);
      continue;
    }
    const std::string value = ++i < argc ? argv[i] : "";
    const bool known = (flag == "--runs" && absl::SimpleAtoi(value, &settings->runs)) ||
                       (flag == "--seed" && absl::SimpleAtoi(value, &settings->seed)) ||
                       (flag == "--max-seconds" && absl::SimpleAtod(value, &settings->max_seconds));
    if (flag == "--write-seeds" && !value.empty()) {
      settings->write_seeds = value;
    } else if (!known) {
      std::cerr << argv[0] << ": found " << flag << " " << value
                << ", wanted --runs N, --seed S, --max-seconds T, --write-seeds FOLDER or files\n";
      return false;
    }
  }
  return true;
}

int Main(int argc, char** argv) {
  Settings settings;
  if (!ParseFlags(argc, argv, &settings)) return 2;
  const std::string name = fs::path(argv[0]).filename().string();
  std::vector<std::string> inputs = FuzzSeeds();
  if (!settings.write_seeds.empty()) {
    fs::create_directories(settings.write_seeds);
    for (size_t i = 0; i < inputs.size(); ++i) {
      std::ofstream(absl::StrCat(settings.write_seeds, "/seed-", i), std::ios::binary) << inputs[i];
    }
    return 0;
  }
  const size_t seeds = inputs.size();
  for (std::string& input : ReadCorpus(settings.corpus)) inputs.push_back(std::move(input));
  if (seeds == 0) {
    std::cerr << name << ": found no seeds: is TROUPE_SOURCE_DIR the source tree?\n";
    return 2;
  }
  InstallHandlers();
  for (size_t i = 0; i < inputs.size(); ++i) {
    RunOne(inputs[i], absl::StrCat("crash-", name, "-input-", i));
  }
  const absl::Time deadline = absl::Now() + absl::Seconds(settings.max_seconds);
  Mutator mutator(inputs, settings.seed);
  uint64_t run = 0;
  for (; run < settings.runs && absl::Now() < deadline; ++run) {
    RunOne(mutator.Next(), absl::StrCat("crash-", name, "-", settings.seed, "-", run));
  }
  std::cout << name << ": " << inputs.size() << " inputs, " << run << " mutations with seed "
            << settings.seed << "\n";
  return 0;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) { return troupe::Main(argc, argv); }
