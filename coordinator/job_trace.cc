#include "coordinator/job_trace.h"

#include <utility>

namespace troupe {
namespace {

constexpr uint32_t kRoot = 1;

}  // namespace

JobTrace::Mark JobTrace::Here(int64_t now_us) const {
  return {now_us, usage_.heads_total(), usage_.heads_skipped()};
}

void JobTrace::OnStarted(const std::string& worker) {
  worker_ = worker;
  if (++epoch_ > 1) usage_.set_worker_changes(usage_.worker_changes() + 1);
}

void JobTrace::OnProgress(const SequenceEvent& event, uint32_t heads_per_token, int64_t now_us) {
  usage_.set_heads_total(usage_.heads_total() + uint64_t{event.tokens_computed} * heads_per_token);
  usage_.set_heads_skipped(usage_.heads_skipped() + event.heads_skipped);
  if (!has_token_ && event.figures) figures_ = *event.figures;
  if (!event.has_token) return;
  usage_.set_output_tokens(event.index + 1);
  if (std::exchange(has_token_, true)) return;
  first_token_ = Here(now_us);
  last_step_ = first_token_;
  usage_.set_queue_us(figures_.admitted_us);
  usage_.set_ttft_us(now_us);
}

v1::Step JobTrace::OnStep(const StepCutter::Step& step, int64_t now_us) {
  v1::TraceSpan span = Span("step", kRoot, last_step_, now_us);
  span.set_first_token(step.first_token);
  span.set_token_count(step.token_count);
  span.set_text(step.text);
  v1::Step out;
  out.set_index(step.index);
  out.set_text(step.text);
  out.set_first_token(step.first_token);
  out.set_token_count(step.token_count);
  out.set_duration_us(now_us - last_step_.at_us);
  last_step_ = Here(now_us);
  steps_.push_back(std::move(span));
  return out;
}

v1::TraceSpan JobTrace::Span(std::string name, uint32_t parent, const Mark& start,
                             int64_t end_us) const {
  v1::TraceSpan span;
  span.set_parent(parent);
  span.set_name(std::move(name));
  span.set_start_us(start.at_us);
  span.set_end_us(end_us);
  span.set_heads_total(usage_.heads_total() - start.heads_total);
  span.set_heads_skipped(usage_.heads_skipped() - start.heads_skipped);
  span.set_worker(worker_);
  return span;
}

v1::Finished JobTrace::Finish(bool with_spans, int64_t now_us) {
  usage_.set_cached_tokens(figures_.cached_tokens);
  usage_.set_kv_blocks_reused_local(figures_.blocks_reused_local);
  usage_.set_kv_blocks_reused_cache(figures_.blocks_reused_cache);
  usage_.set_total_us(now_us);
  v1::Finished out;
  if (with_spans) {
    v1::Trace& trace = *out.mutable_trace();
    *trace.add_spans() = Span("request", 0, Mark{}, now_us);
    trace.mutable_spans(0)->set_token_count(usage_.output_tokens());
    *trace.add_spans() = Span("queue", kRoot, Mark{}, figures_.admitted_us);
    v1::TraceSpan prefill = Span("prefill", kRoot, Mark{figures_.admitted_us}, first_token_.at_us);
    prefill.set_token_count(usage_.prompt_tokens());
    prefill.set_heads_total(first_token_.heads_total);
    prefill.set_heads_skipped(first_token_.heads_skipped);
    *trace.add_spans() = std::move(prefill);
    for (v1::TraceSpan& step : steps_) *trace.add_spans() = std::move(step);
    if (now_us > last_step_.at_us && has_token_) {
      *trace.add_spans() = Span("answer", kRoot, last_step_, now_us);
    }
    for (int i = 0; i < trace.spans_size(); ++i) trace.mutable_spans(i)->set_id(i + 1);
    trace.mutable_spans(1)->set_heads_total(0);
    trace.mutable_spans(1)->set_heads_skipped(0);
  }
  *out.mutable_usage() = usage_;
  return out;
}

}  // namespace troupe
