#include "server/admin/admin_router.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <atomic>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "server/core/error.h"
#include "server/http/response_writer.h"

namespace reticle::server {
namespace {

constexpr size_t kQueuedOrders = 64;

std::string Digest(std::string_view text) {
  std::string digest(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(),
         reinterpret_cast<unsigned char*>(digest.data()));
  return digest;
}

std::vector<std::string_view> Segments(std::string_view path) {
  std::vector<std::string_view> segments;
  while (!path.empty()) {
    path.remove_prefix(1);  // the slash
    const size_t end = std::min(path.find('/'), path.size());
    segments.push_back(path.substr(0, end));
    path.remove_prefix(end);
  }
  return segments;
}

// Whether `path` is one of `pattern`; `parameters` (may be null) gets what the braces stand for.
bool Matches(std::string_view pattern, std::string_view path,
             std::vector<std::string>* parameters) {
  if (path.empty() || path.front() != '/') return false;
  const std::vector<std::string_view> wanted = Segments(pattern);
  const std::vector<std::string_view> given = Segments(path);
  if (wanted.size() != given.size()) return false;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const bool any = wanted[i].starts_with('{');
    if (any ? given[i].empty() : wanted[i] != given[i]) return false;
    if (any && parameters != nullptr) parameters->emplace_back(given[i]);
  }
  return true;
}

class AdminTask : public http::Task {
 public:
  struct State {
    absl::StatusOr<AdminReply> reply = absl::UnknownError("not done");
    std::atomic<bool> done{false};
  };
  explicit AdminTask(std::shared_ptr<State> state) : state_(std::move(state)) {}

  Progress Produce(http::ResponseWriter& writer, size_t /*budget*/) override {
    if (!state_->done.load(std::memory_order_acquire)) return Progress::kWaiting;
    if (state_->reply.ok()) {
      writer.Send(state_->reply->status, state_->reply->content_type, state_->reply->body);
    } else if (state_->reply.status().code() == absl::StatusCode::kUnauthenticated) {
      writer.SendError(state_->reply.status(), "WWW-Authenticate: Bearer\r\n");
    } else {
      writer.SendError(state_->reply.status());
    }
    return Progress::kDone;
  }

 private:
  const std::shared_ptr<State> state_;
};

}  // namespace

AdminRouter::AdminRouter(std::string_view token)
    : token_digest_(token.empty() ? std::string() : Digest(token)),
      workers_(1, kQueuedOrders, Clock::Monotonic()) {}

AdminRouter::~AdminRouter() { workers_.Join(); }

void AdminRouter::SetToken(std::string_view token) {
  std::string digest = token.empty() ? std::string() : Digest(token);
  MutexLock lock(token_mutex_);
  token_digest_ = std::move(digest);
}

void AdminRouter::Add(std::string method, std::string pattern, AdminFunction function) {
  routes_.push_back({std::move(method), std::move(pattern), std::move(function), false});
}

void AdminRouter::AddSlow(std::string method, std::string pattern, AdminFunction function) {
  routes_.push_back({std::move(method), std::move(pattern), std::move(function), true});
}

std::string_view AdminRouter::Route(std::string_view path) const {
  for (const RouteEntry& route : routes_) {
    if (Matches(route.pattern, path, nullptr)) return route.pattern;
  }
  return "unmatched";
}

absl::Status AdminRouter::Authorize(const http::HttpRequest& request) const {
  std::string expected;
  {
    MutexLock lock(token_mutex_);
    expected = token_digest_;
  }
  if (expected.empty()) {
    if (request.origin.empty()) return absl::OkStatus();
    return PermissionDeniedError("Web pages may not use the admin API without a token");
  }
  constexpr std::string_view kBearer = "Bearer ";
  std::string_view given = request.authorization;
  if (!given.starts_with(kBearer)) {
    return UnauthenticatedError("The admin API asks for \"Authorization: Bearer TOKEN\"");
  }
  given.remove_prefix(kBearer.size());
  const std::string digest = Digest(given);
  if (CRYPTO_memcmp(digest.data(), expected.data(), digest.size()) == 0) {
    return absl::OkStatus();
  }
  return UnauthenticatedError("The admin token is wrong");
}

std::unique_ptr<http::Task> AdminRouter::Start(http::HttpRequest request, http::Waker waker) {
  auto state = std::make_shared<AdminTask::State>();
  const auto answer = [&state](absl::StatusOr<AdminReply> reply) {
    state->reply = std::move(reply);
    state->done.store(true, std::memory_order_release);
    return std::make_unique<AdminTask>(state);
  };
  if (absl::Status status = Authorize(request); !status.ok()) return answer(std::move(status));
  AdminRequest asked;
  const RouteEntry* found = nullptr;
  bool path_known = false;
  for (const RouteEntry& route : routes_) {
    std::vector<std::string> parameters;
    if (!Matches(route.pattern, request.path, &parameters)) continue;
    path_known = true;
    if (route.method != request.method) continue;
    found = &route;
    asked.parameters = std::move(parameters);
    break;
  }
  if (found == nullptr) {
    const std::string path = request.path.substr(0, 200);
    if (!path_known) return answer(NotFoundError("Unknown path %s", path));
    return answer(WithHttpStatus(
        InvalidArgumentError("Method %s is not allowed for %s", request.method.substr(0, 32), path),
        405));
  }
  const scheduler::Asker asker = http::AskerOf(request);
  asked.body = std::move(request.body);
  asked.request_id = std::move(request.request_id);
  if (!found->slow) return answer(found->function(asked));
  const absl::Status posted = workers_.Post(
      asker,
      [state, function = found->function, asked = std::move(asked), waker = std::move(waker)] {
        state->reply = function(asked);
        state->done.store(true, std::memory_order_release);
        waker();
      });
  if (!posted.ok()) return answer(posted);
  return std::make_unique<AdminTask>(std::move(state));
}

}  // namespace reticle::server
