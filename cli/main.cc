// troupe: run, serve, status, reshard, inspect, bench.

#include <iostream>
#include <string_view>

#include "cli/commands.h"

namespace troupe {
namespace {

struct Command {
  std::string_view name;
  std::string_view summary;
  int (*run)(int argc, char** argv);
};

constexpr Command kCommands[] = {
    {"run", "Answer a question with a model, or chat with it.", RunCommand},
    {"serve", "Serve a model: coordinator, worker and cache in one process.", ServeCommand},
    {"status", "Show what a running server does.", StatusCommand},
    {"reshard", "Change how a model is spread over ranks, while it serves.", ReshardCommand},
    {"inspect", "Show what a model folder holds and needs.", InspectCommand},
    {"quantize", "Write a copy of a model with integers for weights.", QuantizeCommand},
    {"bench", "Measure a server under load.", BenchCommand},
};

void PrintUsage(std::ostream& out) {
  out << "Usage: troupe COMMAND [OPTIONS]\n\nCommands:\n";
  for (const Command& command : kCommands) {
    out << "  " << command.name << std::string(10 - command.name.size(), ' ') << command.summary
        << "\n";
  }
  out << "\n`troupe COMMAND --help` tells more. Examples:\n"
         "  troupe run --model models/abacus \"What is 4821 * 7306?\"\n"
         "  troupe serve --model models/abacus --listen 127.0.0.1:7100\n"
         "  troupe status --target 127.0.0.1:7100\n";
}

int Main(int argc, char** argv) {
  if (argc < 2) {
    PrintUsage(std::cerr);
    return kExitUsage;
  }
  const std::string_view name = argv[1];
  if (name == "--help" || name == "-h" || name == "help") {
    PrintUsage(std::cout);
    return 0;
  }
  if (name == "--version") {
    std::cout << "troupe " << TROUPE_VERSION << "\n";
    return 0;
  }
  for (const Command& command : kCommands) {
    if (command.name == name) return command.run(argc - 1, argv + 1);
  }
  std::cerr << "troupe: found command '" << name << "', wanted one of these:\n\n";
  PrintUsage(std::cerr);
  return kExitUsage;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) { return troupe::Main(argc, argv); }
