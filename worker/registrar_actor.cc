#include "worker/registrar_actor.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace troupe {

RegistrarActor::RegistrarActor(const Config& config, v1::RegisterWorkerRequest request,
                               RegistrationClient* client, Refresh refresh)
    : config_(config),
      request_(std::move(request)),
      client_(client),
      refresh_(std::move(refresh)),
      retry_ms_(config.first_retry_ms),
      last_error_("not registered yet") {}

void RegistrarActor::OnStart() { self().TellReply(Announce{}).IgnoreError(); }

void RegistrarActor::Handle(RegistrarMessage message) {
  std::visit([this]<class M>(M&& m) { On(std::forward<M>(m)); }, std::move(message));
}

void RegistrarActor::On(Announce /*message*/) {
  if (refresh_ != nullptr) refresh_(request_);
  client_->Register(request_, [ref = self()](absl::StatusOr<v1::RegisterWorkerReply> reply) {
    ref.TellReply(Announced{std::move(reply)}).IgnoreError();  // Gone: the worker is shutting down.
  });
}

void RegistrarActor::On(const Announced& message) {
  if (message.reply.ok()) {
    if (!last_error_.empty()) {
      LOG(INFO) << "registered" << Field("worker", request_.worker())
                << Field("address", request_.address());
    }
    last_error_.clear();
    retry_ms_ = config_.first_retry_ms;
    // Early, so that one lost call does not look like a lost worker.
    const int64_t heartbeat_ms = std::max<int64_t>(message.reply->heartbeat_ms(), 2) / 2;
    TellAfter(absl::Milliseconds(heartbeat_ms), Announce{});
    return;
  }
  std::string error = message.reply.status().ToString();
  if (error != last_error_) {
    LOG(WARNING) << "the coordinator did not take the registration, trying again: " << error;
    last_error_ = std::move(error);
  }
  TellAfter(absl::Milliseconds(retry_ms_), Announce{});
  retry_ms_ = std::min(2 * retry_ms_, config_.max_retry_ms);
}

}  // namespace troupe
