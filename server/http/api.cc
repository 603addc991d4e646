#include "server/http/api.h"

#include <atomic>
#include <functional>
#include <string>
#include <utility>

#include "base/status.h"
#include "server/core/error.h"
#include "server/http/account_pages.h"
#include "server/http/completion_task.h"
#include "server/http/json_writer.h"
#include "server/http/request_json.h"
#include "server/http/taalas_json.h"
#include "server/web/web_assets.h"

namespace reticle::server::http {
namespace {

constexpr char kJson[] = "application/json";

// A whole reply of one of the small endpoints.
struct Reply {
  int status = 200;
  std::string content_type = kJson;
  std::string body;
  std::string headers;
};

// Replies by a function that may take long, run by the worker pool when the body is large.
class ReplyTask : public Task {
 public:
  using Function = std::function<absl::StatusOr<Reply>()>;

  explicit ReplyTask(const Function& function) : state_(std::make_shared<State>()) {
    state_->reply = function();
    state_->done = true;
  }
  // Computed by the pool, for `asker`.
  ReplyTask(Function function, const scheduler::Asker& asker, WorkerPool& workers, Waker waker)
      : state_(std::make_shared<State>()) {
    absl::Status posted = workers.Post(
        asker, [state = state_, function = std::move(function), waker = std::move(waker)] {
          state->reply = function();
          state->done.store(true, std::memory_order_release);
          waker();
        });
    if (posted.ok()) return;
    state_->reply = std::move(posted);
    state_->done = true;
  }

  Progress Produce(ResponseWriter& writer, size_t) override {
    if (!state_->done.load(std::memory_order_acquire)) return Progress::kWaiting;
    const absl::StatusOr<Reply>& reply = state_->reply;
    if (reply.ok()) {
      writer.Send(reply->status, reply->content_type, reply->body, reply->headers);
    } else {
      writer.SendError(reply.status());
    }
    return Progress::kDone;
  }

 private:
  struct State {
    std::atomic<bool> done{false};
    absl::StatusOr<Reply> reply = absl::UnknownError("not computed");
  };
  const std::shared_ptr<State> state_;
};

class ErrorTask : public Task {
 public:
  ErrorTask(absl::Status error, std::string headers)
      : error_(std::move(error)), headers_(std::move(headers)) {}
  Progress Produce(ResponseWriter& writer, size_t) override {
    writer.SendError(error_, headers_);
    return Progress::kDone;
  }

 private:
  const absl::Status error_;
  const std::string headers_;
};

class WebTask : public Task {
 public:
  explicit WebTask(web::WebReply reply) : reply_(std::move(reply)) {}
  Progress Produce(ResponseWriter& writer, size_t) override {
    writer.Send(reply_.status, reply_.content_type, reply_.body, reply_.headers);
    return Progress::kDone;
  }

 private:
  const web::WebReply reply_;
};

void AppendModel(std::string& out, const ModelEntry& model, const std::string& id) {
  out.append(R"({"id":)");
  AppendJsonString(out, id);
  out.append(R"(,"object":"model","created":)");
  AppendInt(out, model.created_unix_s);
  out.append(R"(,"owned_by":)");
  AppendJsonString(out, model.owned_by);
  out.append(R"(,"root":)");
  AppendJsonString(out, model.parent.empty() ? model.id : model.parent);
  out.append(R"(,"parent":)");
  if (model.parent.empty()) {
    out.append("null");
  } else {
    AppendJsonString(out, model.parent);
  }
  out.append(R"(,"max_model_len":)");
  AppendInt(out, model.limits.max_model_len);
  if (!model.device.empty()) {
    out.append(R"(,"device":)");
    AppendJsonString(out, model.device);
  }
  out.push_back('}');
}

absl::StatusOr<Reply> ListModels(const ServerContext& context) {
  Reply reply;
  reply.body = R"({"object":"list","data":[)";
  bool first = true;
  const auto append = [&](const ModelEntry& model, const std::string& id) {
    if (!first) reply.body.push_back(',');
    first = false;
    AppendModel(reply.body, model, id);
  };
  for (const auto& model : context.models().List()) {
    append(*model, model->id);
    for (const std::string& alias : model->aliases) append(*model, alias);
  }
  reply.body.append("]}");
  return reply;
}

absl::StatusOr<Reply> GetModel(const ServerContext& context, const std::string& id) {
  ASSIGN_OR_RETURN(const std::shared_ptr<const ModelEntry> model, context.models().Find(id));
  Reply reply;
  AppendModel(reply.body, *model, id);
  return reply;
}

// Work that waits for the store, or looks long at its body, on behalf of a caller.
absl::Status TakeTurn(const ServerContext& context, const HttpRequest& request) {
  Gate* const gate = context.options().gate;
  if (gate == nullptr || request.caller == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::unique_ptr<Reservation> turn, gate->Reserve(request.caller, 0));
  turn->Settle({});
  return absl::OkStatus();
}

absl::StatusOr<Reply> Tokenize(const ServerContext& context, const HttpRequest& request) {
  RETURN_IF_ERROR(TakeTurn(context, request));
  ASSIGN_OR_RETURN(const TokenizeBody body, ParseTokenizeBody(request.body));
  ASSIGN_OR_RETURN(const std::shared_ptr<const ModelEntry> model,
                   context.models().Find(body.model));
  ASSIGN_OR_RETURN(const std::vector<TokenId> tokens,
                   EncodePrompt(body.prompt, *model, body.add_special_tokens));
  Reply reply;
  std::string& out = reply.body;
  out.append(R"({"count":)");
  AppendInt(out, static_cast<int64_t>(tokens.size()));
  out.append(R"(,"max_model_len":)");
  AppendInt(out, model->limits.max_model_len);
  out.append(R"(,"tokens":[)");
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0) out.push_back(',');
    AppendInt(out, tokens[i]);
  }
  out.append(R"(],"token_strs":)");
  if (body.return_token_strs) {
    out.push_back('[');
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0) out.push_back(',');
      AppendJsonString(out, model->tokenizer->TokenText(tokens[i]));
    }
    out.push_back(']');
  } else {
    out.append("null");
  }
  out.push_back('}');
  return reply;
}

absl::StatusOr<Reply> Detokenize(const ServerContext& context, const HttpRequest& request) {
  RETURN_IF_ERROR(TakeTurn(context, request));
  ASSIGN_OR_RETURN(DetokenizeBody body, ParseDetokenizeBody(request.body));
  ASSIGN_OR_RETURN(const std::shared_ptr<const ModelEntry> model,
                   context.models().Find(body.model));
  for (size_t i = 0; i < body.tokens.size(); ++i) {
    if (body.tokens[i] >= model->limits.vocab_size) {
      return WithParam(
          InvalidArgumentError("tokens[%d] is %d; this model's vocabulary has %d tokens", i,
                               body.tokens[i], model->limits.vocab_size),
          "tokens");
    }
  }
  Reply reply;
  reply.body = R"({"prompt":)";
  AppendJsonString(reply.body, model->tokenizer->Decode(body.tokens, /*skip_special=*/false));
  reply.body.push_back('}');
  return reply;
}

Reply ToReply(AccountReply made) {
  Reply reply;
  reply.status = made.status;
  reply.content_type = std::move(made.content_type);
  reply.body = std::move(made.body);
  reply.headers = std::move(made.headers);
  return reply;
}

absl::StatusOr<Reply> UsageOf(const ServerContext& context, const HttpRequest& request) {
  Reply reply;
  ASSIGN_OR_RETURN(reply.body, context.options().gate->UsageJson(*request.caller));
  reply.headers = "Cache-Control: no-store\r\n";
  return reply;
}

absl::StatusOr<Reply> TaalasHealth(const ServerContext& context) {
  Reply reply;
  reply.body = R"({"status":"healthy","queue_size":)";
  AppendInt(reply.body, context.options().queue_size ? context.options().queue_size() : 0);
  const auto& current_adapter = context.options().current_adapter;
  const std::string adapter = current_adapter ? current_adapter() : "";
  reply.body.append(R"(,"current_adapter":)");
  AppendJsonString(reply.body, adapter.empty() ? "none" : adapter);
  reply.body.push_back('}');
  return reply;
}

absl::StatusOr<Reply> Live() {
  Reply reply;
  reply.body = R"({"status":"live"})";
  return reply;
}

absl::StatusOr<Reply> Ready(const ServerContext& context) {
  const Lifecycle lifecycle = context.lifecycle();
  const bool serving = context.Serving();
  Reply reply;
  reply.status = serving ? 200 : 503;
  reply.body = R"({"status":)";
  AppendJsonString(reply.body, lifecycle == Lifecycle::kReady && !serving
                                   ? "no device works"
                                   : ServerContext::LifecycleName(lifecycle));
  reply.body.append(R"(,"active_requests":)");
  AppendInt(reply.body, context.active_generations());
  if (const Gate* const gate = context.options().gate) {
    reply.body.append(R"(,"degraded":[)");
    bool first = true;
    for (const std::string_view part : gate->Degraded()) {
      if (!first) reply.body.push_back(',');
      first = false;
      AppendJsonString(reply.body, part);
    }
    reply.body.push_back(']');
  }
  reply.body.push_back('}');
  return reply;
}

absl::StatusOr<Reply> Metrics(const ServerContext& context) {
  Reply reply;
  reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
  if (context.options().render_metrics) reply.body = context.options().render_metrics();
  return reply;
}

constexpr std::string_view kModelPrefix = "/v1/models/";

enum class Endpoint {
  kChat,
  kCompletions,
  kModels,
  kModel,
  kTokenize,
  kDetokenize,
  kLive,
  kReady,
  kMetrics,
  kWeb,
  kTaalasGenerate,
  kTaalasModels,
  kTaalasHealth,
  // With accounts only.
  kUsage,
  kApplyPage,
  kApplyForm,
  kApply,
  kClaim,
};

enum class Access : uint8_t {
  kOpen,
  kKey,          // with accounts: to holders of a key
  kAccounts,     // open, but only there with accounts
  kAccountsKey,  // likewise, to holders of a key
};

struct RouteEntry {
  std::string_view path;
  Endpoint endpoint;
  bool post;
  Access access = Access::kOpen;
};

bool NeedsKey(const RouteEntry& route) {
  return route.access == Access::kKey || route.access == Access::kAccountsKey;
}

constexpr RouteEntry kRoutes[] = {
    {"/v1/chat/completions", Endpoint::kChat, true, Access::kKey},
    {"/v1/completions", Endpoint::kCompletions, true, Access::kKey},
    {"/v1/models", Endpoint::kModels, false, Access::kKey},
    {"/v1/models/{id}", Endpoint::kModel, false, Access::kKey},
    {"/tokenize", Endpoint::kTokenize, true, Access::kKey},
    {"/detokenize", Endpoint::kDetokenize, true, Access::kKey},
    {"/generate", Endpoint::kTaalasGenerate, true, Access::kKey},
    {"/models", Endpoint::kTaalasModels, false, Access::kKey},
    {"/health", Endpoint::kTaalasHealth, false},
    {"/v1/usage", Endpoint::kUsage, false, Access::kAccountsKey},
    {"/apply", Endpoint::kApplyPage, false, Access::kAccounts},
    {"/apply", Endpoint::kApplyForm, true, Access::kAccounts},
    {"/v1/apply", Endpoint::kApply, true, Access::kAccounts},
    {"/v1/apply/claim", Endpoint::kClaim, true, Access::kAccounts},
    {"/health/live", Endpoint::kLive, false},
    {"/health/ready", Endpoint::kReady, false},
    {"/metrics", Endpoint::kMetrics, false},
};

// The pages of the binary, each at a path of its own; one label for all of them in metrics.
constexpr RouteEntry kWebRoute = {"/{page}", Endpoint::kWeb, false};

// Of several routes with this path, the one for `method`.
const RouteEntry* FindRoute(std::string_view path, std::string_view method = "") {
  const RouteEntry* found = nullptr;
  const bool one_model = path.size() > kModelPrefix.size() && path.starts_with(kModelPrefix);
  for (const RouteEntry& route : kRoutes) {
    if (route.path != path && !(one_model && route.endpoint == Endpoint::kModel)) continue;
    if (found == nullptr || route.post == (method == "POST")) found = &route;
  }
  if (found != nullptr) return found;
  return web::FindWebAsset(path) != nullptr ? &kWebRoute : nullptr;
}

}  // namespace

std::string_view Api::Route(std::string_view path) const {
  const RouteEntry* route = FindRoute(path);
  return route != nullptr ? route->path : "unmatched";
}

std::optional<Refusal> Api::AuthorizeHead(std::string_view method, std::string_view path,
                                          std::string_view authorization,
                                          std::shared_ptr<const Caller>& caller) {
  Gate* const gate = context_.options().gate;
  if (gate == nullptr || method == "OPTIONS") return std::nullopt;
  const RouteEntry* const route = FindRoute(path, method);
  const bool open = route == nullptr || !NeedsKey(*route);
  if (open && authorization.empty()) return std::nullopt;
  absl::StatusOr<std::shared_ptr<const Caller>> found = gate->Authenticate(authorization);
  if (found.ok()) {
    caller = *std::move(found);
    return std::nullopt;
  }
  if (open) return std::nullopt;
  Refusal refusal;
  const bool taalas =
      route->endpoint == Endpoint::kTaalasGenerate || route->endpoint == Endpoint::kTaalasModels;
  if (taalas) {
    refusal.body = TaalasUnauthorized(!authorization.empty());
  } else {
    AppendErrorJson(refusal.body, found.status());
  }
  return refusal;
}

std::unique_ptr<Task> Api::Start(HttpRequest request, Waker waker) {
  const bool accounts = context_.options().gate != nullptr;
  const RouteEntry* route = FindRoute(request.path, request.method);
  if (route != nullptr && !accounts &&
      (route->access == Access::kAccounts || route->access == Access::kAccountsKey)) {
    route = nullptr;
  }
  if (route != nullptr && route->endpoint == Endpoint::kMetrics &&
      !context_.options().public_metrics) {
    route = nullptr;
  }
  if (route == nullptr) {
    return std::make_unique<ErrorTask>(
        WithCode(NotFoundError("Unknown path %s", request.path.substr(0, 200)), "unknown_url"), "");
  }
  const bool allowed =
      route->post ? request.method == "POST" : request.method == "GET" || request.method == "HEAD";
  if (!allowed) {
    return std::make_unique<ErrorTask>(
        WithHttpStatus(WithCode(InvalidArgumentError("Method %s is not allowed for %s",
                                                     request.method.substr(0, 32), route->path),
                                "method_not_allowed"),
                       405),
        route->post ? "Allow: POST\r\n" : "Allow: GET, HEAD\r\n");
  }
  const auto reply = [](const ReplyTask::Function& function) {
    return std::make_unique<ReplyTask>(function);
  };
  // By the pool. std::function needs a copyable closure; the body is not copied.
  const auto offload = [&](auto function) {
    const auto shared = std::make_shared<const HttpRequest>(std::move(request));
    return std::make_unique<ReplyTask>([shared, function] { return function(*shared); },
                                       AskerOf(*shared), workers_, std::move(waker));
  };
  const auto complete = [&](Dialect dialect) {
    return StartCompletion(dialect, std::move(request), context_, workers_, std::move(waker));
  };
  Gate* const gate = context_.options().gate;
  switch (route->endpoint) {
    case Endpoint::kChat:
      return complete(Dialect::kChat);
    case Endpoint::kCompletions:
      return complete(Dialect::kCompletion);
    case Endpoint::kTaalasGenerate:
      return complete(Dialect::kTaalas);
    case Endpoint::kTaalasHealth:
      return reply([&] { return TaalasHealth(context_); });
    case Endpoint::kUsage:
      return offload(
          [&context = context_](const HttpRequest& asked) { return UsageOf(context, asked); });
    case Endpoint::kApplyPage:
      return reply([]() -> absl::StatusOr<Reply> { return ToReply(ApplyPage()); });
    case Endpoint::kApplyForm:
      return offload([gate](const HttpRequest& asked) -> absl::StatusOr<Reply> {
        return ToReply(SubmitApplyPage(asked, *gate));
      });
    case Endpoint::kApply:
    case Endpoint::kClaim: {
      const auto function = route->endpoint == Endpoint::kApply ? &ApplyJson : &ClaimJson;
      return offload([gate, function](const HttpRequest& asked) -> absl::StatusOr<Reply> {
        ASSIGN_OR_RETURN(AccountReply made, function(asked, *gate));
        return ToReply(std::move(made));
      });
    }
    case Endpoint::kModels:
    case Endpoint::kTaalasModels:
      return reply([&] { return ListModels(context_); });
    case Endpoint::kModel:
      return reply([&] { return GetModel(context_, request.path.substr(kModelPrefix.size())); });
    case Endpoint::kTokenize:
    case Endpoint::kDetokenize: {
      const bool is_long =
          request.body.size() > kInlineBodyBytes || (gate != nullptr && gate->reserve_blocks());
      const auto function = route->endpoint == Endpoint::kTokenize ? &Tokenize : &Detokenize;
      if (!is_long) return reply([&] { return function(context_, request); });
      return offload([&context = context_, function](const HttpRequest& asked) {
        return function(context, asked);
      });
    }
    case Endpoint::kLive:
      return reply([] { return Live(); });
    case Endpoint::kReady:
      return reply([&] { return Ready(context_); });
    case Endpoint::kMetrics:
      return std::make_unique<ReplyTask>([&context = context_] { return Metrics(context); },
                                         AskerOf(request), scrapes_, std::move(waker));
    case Endpoint::kWeb:
      return std::make_unique<WebTask>(web::AnswerWebRequest(
          *web::FindWebAsset(request.path), request.if_none_match, request.accept_encoding));
  }
  return std::make_unique<ErrorTask>(InternalError("no handler for %s", route->path), "");
}

}  // namespace reticle::server::http
