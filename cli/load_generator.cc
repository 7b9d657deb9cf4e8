#include "cli/load_generator.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <mutex>
#include <thread>

#include "cli/generate_client.h"

namespace troupe {
namespace {

using SteadyClock = std::chrono::steady_clock;

int64_t Since(SteadyClock::time_point begin) {
  return std::chrono::duration_cast<std::chrono::microseconds>(SteadyClock::now() - begin).count();
}

RequestTiming Send(GenerateClient& client, const LoadStream& stream,
                   const v1::GenerateRequest& request, SteadyClock::time_point begin) {
  RequestTiming timing;
  timing.group = stream.group;
  timing.sent_us = Since(begin);
  const absl::Status status =
      client.Generate(request, {.tenant = stream.tenant}, [&](const v1::GenerateEvent& event) {
        if (event.has_started()) timing.prompt_tokens = event.started().prompt_tokens();
        for (int i = 0; i < event.tokens().ids_size(); ++i) timing.token_us.push_back(Since(begin));
        if (event.has_finished()) {
          timing.heads_total = event.finished().usage().heads_total();
          timing.heads_skipped = event.finished().usage().heads_skipped();
        }
      });
  timing.done_us = Since(begin);
  if (!status.ok()) timing.error = std::string(status.message());
  return timing;
}

}  // namespace

std::vector<RequestTiming> RunLoad(const LoadPlan& plan) {
  const SteadyClock::time_point begin = SteadyClock::now();
  std::mutex mutex;
  std::vector<RequestTiming> all;
  std::vector<std::thread> threads;
  for (const LoadStream& stream : plan.streams) {
    threads.emplace_back([&, stream] {
      std::this_thread::sleep_until(begin + std::chrono::microseconds(stream.start_us));
      GenerateClient client(plan.target);
      for (int i = 0; i < stream.requests; ++i) {
        if (plan.duration_us > 0 && Since(begin) >= plan.duration_us) break;
        const size_t prompt = (stream.first_prompt + i) % stream.prompts.size();
        RequestTiming timing = Send(client, stream, stream.prompts[prompt], begin);
        std::lock_guard lock(mutex);
        all.push_back(std::move(timing));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return all;
}

double Percentile(std::vector<double>& values, double p) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const auto at = static_cast<size_t>(std::ceil(p * static_cast<double>(values.size())));
  return values[std::min(values.size() - 1, at == 0 ? 0 : at - 1)];
}

}  // namespace troupe
