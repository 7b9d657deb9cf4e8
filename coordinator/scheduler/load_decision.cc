#include "coordinator/scheduler/load_decision.h"

#include <algorithm>

namespace troupe {
namespace {

constexpr double kWeight = 0.1;          // of the newest value in a mean
constexpr double kDeclineFactor = 0.98;  // of the transfer time that a declined load leaves

void Blend(double& mean, double value, bool seen) {
  mean = seen ? mean + kWeight * (value - mean) : value;
}

// Of bytes among many.
double TransferUs(const Rates& rates, uint64_t bytes) {
  const double bytes_per_us =
      rates.transfer_bytes * rates.transfers_in_flight / std::max(rates.transfer_us, 1.0);
  return static_cast<double>(bytes) / std::max(bytes_per_us, 1e-6);
}

}  // namespace

double PredictLoadUs(const Rates& rates, uint64_t bytes) {
  return bytes == 0 ? 0 : rates.transfer_us + TransferUs(rates, bytes);
}

double PredictComputeUs(const Rates& rates, uint32_t tokens) {
  return static_cast<double>(tokens) / std::max(rates.prefill_tokens_per_us, 1e-9);
}

bool BeatsComputing(const Rates& rates, uint32_t tokens, double load_us) {
  return rates.prefill_tokens_per_us <= 0 || load_us < PredictComputeUs(rates, tokens);
}

bool ShouldLoad(const Rates& rates, uint32_t tokens, uint64_t bytes) {
  return BeatsComputing(rates, tokens, PredictLoadUs(rates, bytes));
}

bool ShouldKeep(const Rates& rates, const Rates& prefill, uint32_t tokens, uint64_t bytes) {
  return BeatsComputing(prefill, tokens, TransferUs(rates, bytes));
}

void RateMeter::ObserveLoad(uint64_t bytes, uint64_t duration_us, uint32_t in_flight) {
  Blend(rates_.transfer_us, static_cast<double>(duration_us), load_seen_);
  Blend(rates_.transfer_bytes, static_cast<double>(bytes), load_seen_);
  Blend(rates_.transfers_in_flight, in_flight, load_seen_);
  load_seen_ = true;
}

void RateMeter::ObserveStep(uint32_t prefill_tokens, uint32_t decode_rows, uint64_t forward_us) {
  if (forward_us == 0 || prefill_tokens < 16 || prefill_tokens < 2 * decode_rows) return;
  Blend(rates_.prefill_tokens_per_us,
        static_cast<double>(prefill_tokens + decode_rows) / static_cast<double>(forward_us),
        rates_.prefill_tokens_per_us > 0);
}

void RateMeter::ObserveDecline() { rates_.transfer_us *= kDeclineFactor; }

}  // namespace troupe
