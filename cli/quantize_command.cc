// `troupe quantize`: writes a model's weights as integers.
#include <algorithm>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_util.h"
#include "base/terminal.h"
#include "cli/commands.h"
#include "cli/embedded_cluster.h"
#include "cli/generate_client.h"
#include "config/program_config.h"
#include "kernels/host_limits.h"
#include "model/calibrated_quantizer.h"
#include "model/checkpoint_writer.h"
#include "model/json_reader.h"
#include "model/weight_quantizer.h"
#include "worker/calibration.h"

namespace troupe {
namespace {

struct Settings {
  std::vector<std::string> folders;  // MODEL OUT
  std::string format = "int4-g64";
  std::string calibrate;
  int prompts = 64;
  uint32_t max_tokens = 256;
  int threads = 0;
  std::string log_level = "warning";
};

void Declare(Settings* s, ProgramConfig* program) {
  program->AddPositional("MODEL OUT", &s->folders, "The model's folder, and a new one to write.");
  program->Add(
      "format", &s->format,
      {.help = "What weights become.", .choices = {"int8", "int4-g32", "int4-g64", "int4-g128"}});
  program->Add("calibrate", &s->calibrate,
               {.help = "Prompts to run first, one JSON object a line with messages or prompt: "
                        "weights are then rounded so that what these need stays close; empty: to "
                        "the nearest."});
  program->Add("prompts", &s->prompts,
               {.help = "Prompts taken, evenly from all.", .min = 1, .max = 1 << 20});
  program->Add("max_tokens", &s->max_tokens,
               {.help = "Most tokens of an answer, which is observed as well.", .min = 1u});
  program->Add("threads", &s->threads,
               {.help = "Threads that compute; 0: the cores this process may use.", .min = 0});
  program->Add(
      "log_level", &s->log_level,
      {.help = "Least severity to log.", .choices = {"debug", "info", "warning", "error", "off"}});
  program->AddExample("troupe quantize models/abacus abacus-int4 --calibrate prompts.jsonl");
}

absl::StatusOr<v1::GenerateRequest> RequestOf(const std::string& where, const std::string& line,
                                              const Settings& settings) {
  TROUPE_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(where, line));
  v1::GenerateRequest request;
  const auto add = [&request](const nlohmann::json& message) {
    v1::ChatMessage& to = *request.mutable_chat()->add_messages();
    to.set_role(message.value("role", "user"));
    to.set_content(message.value("content", ""));
  };
  if (json.is_object() && json.contains("messages") && json["messages"].is_array()) {
    for (const nlohmann::json& message : json["messages"]) {
      if (!message.is_object()) return FieldError(where, "messages", Shown(message), "objects");
      add(message);
    }
  } else if (json.is_object() && json.contains("prompt") && json["prompt"].is_string()) {
    add({{"content", json["prompt"]}});
  } else {
    return FieldError(where, "prompt", "neither messages nor prompt", "one of them");
  }
  request.mutable_options()->set_max_tokens(settings.max_tokens);
  return request;
}

absl::StatusOr<std::vector<v1::GenerateRequest>> ReadPrompts(const Settings& settings) {
  std::ifstream file(settings.calibrate);
  if (!file) {
    return absl::NotFoundError(
        absl::StrCat(settings.calibrate, ": found nothing readable, wanted a file of prompts"));
  }
  std::vector<v1::GenerateRequest> all;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.empty()) continue;
    TROUPE_ASSIGN_OR_RETURN(
        v1::GenerateRequest request,
        RequestOf(absl::StrCat(settings.calibrate, ":", number), line, settings));
    all.push_back(std::move(request));
  }
  if (all.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(settings.calibrate, ": found no prompts, wanted at least one"));
  }
  const size_t count = std::min<size_t>(all.size(), static_cast<size_t>(settings.prompts));
  std::vector<v1::GenerateRequest> chosen;
  for (size_t i = 0; i < count; ++i) chosen.push_back(all[i * all.size() / count]);
  return chosen;
}

// Runs the model, on the prompts if there are any.
absl::Status Observe(const Settings& settings, Calibration* calibration) {
  std::vector<v1::GenerateRequest> requests;
  if (!settings.calibrate.empty()) {
    TROUPE_ASSIGN_OR_RETURN(requests, ReadPrompts(settings));
  }
  EmbeddedCluster::Config config;
  config.model = settings.folders[0];
  config.dtype = "f32";
  config.use_cache = false;
  config.rank.threads = settings.threads;
  config.rank.calibration = calibration;
  TROUPE_ASSIGN_OR_RETURN(const std::unique_ptr<EmbeddedCluster> cluster,
                          EmbeddedCluster::Start(config, ProgressBar()));
  GenerateClient client(cluster->target());
  for (size_t i = 0; i < requests.size(); ++i) {
    std::cerr << "\rprompt " << i + 1 << " of " << requests.size() << std::flush;
    TROUPE_RETURN_IF_ERROR(client.Generate(requests[i], {}, [](const v1::GenerateEvent&) {}));
  }
  if (!requests.empty()) std::cerr << "\n";
  return absl::OkStatus();
}

absl::Status Quantize(const Settings& settings) {
  TROUPE_ASSIGN_OR_RETURN(const std::optional<IntegerFormat> format,
                          ParseIntegerFormat(settings.format));
  TROUPE_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(settings.folders[0]));
  Calibration calibration;
  TROUPE_RETURN_IF_ERROR(Observe(settings, &calibration));
  const int threads = settings.threads > 0 ? settings.threads : AvailableCores();
  std::map<std::string, CodedWeights> quantized;
  int64_t plain_bytes = 0;
  int64_t bytes = 0;
  int calibrated = 0;
  for (const auto& [name, moments] : calibration.matrices()) {
    const TensorView* tensor = checkpoint.files().Find(name);
    // Only matrices that are a tensor of their own have a place in the format.
    if (tensor == nullptr || tensor->shape.size() != 2 || BitsPerElement(tensor->dtype) < 16) {
      continue;
    }
    const MatrixView matrix = MatrixView::Of(*tensor);
    const bool observed = moments->tokens > 0;
    calibrated += observed ? 1 : 0;
    const CodedWeights& coded =
        quantized
            .emplace(name, observed
                               ? QuantizeCalibrated(matrix, *format, moments->products, threads)
                               : QuantizeMatrix(matrix, *format, threads))
            .first->second;
    plain_bytes += matrix.stored_bytes();
    bytes += static_cast<int64_t>(coded.codes.size() + 2 * coded.scales.size());
    std::cerr << "\rmatrix " << quantized.size() << " of " << calibration.matrices().size()
              << std::flush;
  }
  std::cerr << "\n";
  TROUPE_RETURN_IF_ERROR(
      WriteQuantizedCheckpoint(checkpoint, *format, quantized, settings.folders[1]));
  std::cout << quantized.size() << " matrices to " << settings.format << ", " << calibrated
            << " of them calibrated: " << plain_bytes << " bytes became " << bytes << "\n";
  return absl::OkStatus();
}

}  // namespace

int QuantizeCommand(int argc, char** argv) {
  Settings settings;
  ProgramConfig program("troupe quantize", "Writes a copy of a model with integers for weights.");
  Declare(&settings, &program);
  if (std::optional<int> exit_code = program.ParseMain(argc, argv)) return *exit_code;
  SetLogLevel(ParseLogLevel(settings.log_level).value());
  if (settings.folders.size() != 2) {
    std::cerr << "troupe quantize: found " << settings.folders.size()
              << " folders, wanted 2: MODEL and OUT\n";
    return kExitUsage;
  }
  if (const absl::Status status = Quantize(settings); !status.ok()) {
    std::cerr << "troupe quantize: " << status.message() << "\n";
    return kExitFailed;
  }
  return 0;
}

}  // namespace troupe
