#include "server/core/server_context.h"

#include <utility>

#include "base/status.h"
#include "server/core/request_summary.h"

namespace reticle::server {
namespace {

ServerProbe& SilentProbe() {
  static ServerProbe* const probe = new ServerProbe;
  return *probe;
}

}  // namespace

std::string_view OutcomeName(Outcome outcome) {
  switch (outcome) {
    case Outcome::kStop:
      return "stop";
    case Outcome::kLength:
      return "length";
    case Outcome::kAbort:
      return "abort";
    case Outcome::kDeadline:
      return "deadline";
    case Outcome::kError:
      return "error";
  }
  return "error";
}

ServerContext::ServerContext(Options options, Clock& clock, ServerProbe* probe)
    : options_(std::move(options)),
      clock_(clock),
      probe_(probe != nullptr ? *probe : SilentProbe()) {}

void ServerContext::SetReady(std::function<bool()> works) {
  works_ = std::move(works);
  ready_.store(true);
  Lifecycle expected = Lifecycle::kLoading;
  lifecycle_.compare_exchange_strong(expected, Lifecycle::kReady);
}

void ServerContext::NoteRefusal(const Caller* caller, const absl::Status& status) const {
  probe_.OnRequestRefused(caller != nullptr ? std::string_view(caller->tier) : "none",
                          status.code());
}

void ServerContext::AnnounceDrain() { lifecycle_.store(Lifecycle::kDraining); }

void ServerContext::BeginDrain() {
  AnnounceDrain();
  admitting_.store(false);
}

TraceContext ServerContext::Trace(std::string_view traceparent) const {
  if (options_.listener != nullptr) return options_.listener->Trace(traceparent);
  return BeginTrace(traceparent, 0);
}

absl::Status ServerContext::CheckAdmission() const {
  switch (lifecycle_.load()) {
    case Lifecycle::kReady:
      return absl::OkStatus();
    case Lifecycle::kLoading:
      return UnavailableError("the model is still loading");
    case Lifecycle::kDraining:
      break;
  }
  if (ready_.load() && admitting_.load()) return absl::OkStatus();
  return UnavailableError("the server is shutting down and takes no new requests");
}

const char* ServerContext::LifecycleName(Lifecycle lifecycle) {
  switch (lifecycle) {
    case Lifecycle::kLoading:
      return "loading";
    case Lifecycle::kReady:
      return "ready";
    case Lifecycle::kDraining:
      return "draining";
  }
  return "draining";
}

}  // namespace reticle::server
