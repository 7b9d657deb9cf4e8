// The subcommands of `troupe`. Each takes the arguments from its own name on and returns the
// program's exit code: 0 done, 1 failed, 2 wrong arguments, 130 interrupted.
#ifndef TROUPE_CLI_COMMANDS_H_
#define TROUPE_CLI_COMMANDS_H_

namespace troupe {

int RunCommand(int argc, char** argv);
int ServeCommand(int argc, char** argv);
int StatusCommand(int argc, char** argv);
int ReshardCommand(int argc, char** argv);
int InspectCommand(int argc, char** argv);
int QuantizeCommand(int argc, char** argv);
int BenchCommand(int argc, char** argv);

inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitInterrupted = 130;

}  // namespace troupe

#endif  // TROUPE_CLI_COMMANDS_H_
