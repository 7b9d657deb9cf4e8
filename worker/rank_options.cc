#include "worker/rank_options.h"

#include "absl/strings/str_cat.h"
#include "model/weight_quantizer.h"

namespace troupe {

void AddComputeOptions(absl::string_view note, Rank::Config* rank, ProgramConfig* program) {
  const auto help = [note](absl::string_view text) { return absl::StrCat(text, note); };
  program->Add("device", &rank->device, {.help = help("What computes: cpu, cuda or cuda:N.")});
  program->Add("quantize", &rank->quantize,
               {.help = help("Plain weights become integers while they load, or FP8; with a8, and "
                             "with FP8, activations do too."),
                .choices = IntegerFormatNames()});
  program->Add(
      "kv_cache_dtype", &rank->kv_cache_dtype,
      {.help = help("Of keys and values, in all ranks of a replica: auto, as dtype, or fp8, "
                    "half as many bytes as bf16."),
       .choices = {"auto", "fp8"}});
  program->Add("threads", &rank->threads,
               {.help = help("Threads that compute; 0: the cores that this process may use."),
                .min = 0,
                .max = 1024});
}

void AddSizeOptions(absl::string_view note, Rank::Config* rank, ProgramConfig* program) {
  const auto help = [note](absl::string_view text) { return absl::StrCat(text, note); };
  program->Add("kv_memory_bytes", &rank->kv_memory_bytes,
               {.help = help("Memory for keys and values."), .unit = "bytes", .min = 1});
  program->Add("host_kv_memory_bytes", &rank->host_kv_memory_bytes,
               {.help = help("Host memory, pinned for a GPU, for keys and values that make room on "
                             "the device; 0: none."),
                .unit = "bytes",
                .min = 0});
  program->Add(
      "max_step_tokens", &rank->max_step_tokens,
      {.help = help("Most tokens in one step."), .unit = "tokens", .min = 1, .max = 1 << 20});
}

void AddMaxRows(Rank::Config* rank, ProgramConfig* program) {
  program->Add("max_rows", &rank->max_rows,
               {.help = "Most sequences that live at once.", .min = 1, .max = 4096});
}

}  // namespace troupe
