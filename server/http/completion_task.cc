#include "server/http/completion_task.h"

#include <atomic>
#include <charconv>
#include <optional>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "server/core/error.h"
#include "server/core/generation.h"
#include "server/core/request_summary.h"
#include "server/http/completion_format.h"
#include "server/http/request_json.h"
#include "server/http/taalas_json.h"

namespace reticle::server::http {
namespace {

// At once, so that little is formatted beyond what may wait for a slow client. Merged ones are
// small.
constexpr size_t kTokensPerPull = 64;
constexpr size_t kMergedPerPull = 256;

struct Prepared {
  CompletionBody body;
  std::optional<ValidRequest> request;
};

absl::StatusOr<CompletionBody> Parse(Dialect dialect, std::string_view json) {
  switch (dialect) {
    case Dialect::kChat:
      return ParseChatBody(json);
    case Dialect::kCompletion:
      return ParseCompletionBody(json);
    case Dialect::kTaalas:
      break;
  }
  return ParseTaalasBody(json);
}

// A body that is wrong takes a turn of its caller's too: looking at it has cost as much.
absl::StatusOr<CompletionBody> ParseForCaller(Dialect dialect, const HttpRequest& http,
                                              const ServerContext& context) {
  absl::StatusOr<CompletionBody> body = Parse(dialect, http.body);
  Gate* const gate = context.options().gate;
  if (body.ok() || gate == nullptr || http.caller == nullptr) return body;
  ASSIGN_OR_RETURN(const std::unique_ptr<Reservation> turn, gate->Reserve(http.caller, 0));
  turn->Settle({});
  return body;
}

void SendError(Dialect dialect, ResponseWriter& writer, const absl::Status& status) {
  if (dialect == Dialect::kTaalas) return SendTaalasError(writer, status);
  writer.SendError(status);
}

// Fills `prepared.body`; the model that it asks for.
absl::StatusOr<std::shared_ptr<const ModelEntry>> Read(Dialect dialect, const HttpRequest& http,
                                                       ServerContext& context, Prepared& prepared) {
  RETURN_IF_ERROR(context.CheckAdmission());
  ASSIGN_OR_RETURN(prepared.body, ParseForCaller(dialect, http, context));
  GenerateParams& params = prepared.body.params;
  ASSIGN_OR_RETURN(std::shared_ptr<const ModelEntry> model,
                   FindTaalasModel(context.models(), params.model));
  if (!http.timeout_ms.empty()) {
    int64_t timeout = 0;
    const char* const end = http.timeout_ms.data() + http.timeout_ms.size();
    const auto parsed = std::from_chars(http.timeout_ms.data(), end, timeout);
    if (parsed.ec != std::errc() || parsed.ptr != end) {
      return WithParam(
          InvalidArgumentError("x-request-timeout-ms is \"%s\"; it must be a number of ms",
                               http.timeout_ms.substr(0, 64)),
          "x-request-timeout-ms");
    }
    params.timeout_ms = timeout;
  }
  return model;
}

absl::StatusOr<Prepared> Prepare(Dialect dialect, HttpRequest& http, ServerContext& context) {
  Prepared prepared;
  absl::StatusOr<std::shared_ptr<const ModelEntry>> model = Read(dialect, http, context, prepared);
  if (!model.ok()) {
    context.NoteRefusal(http.caller.get(), model.status());
    return model.status();
  }
  GenerateParams& params = prepared.body.params;
  params.arrival_ns = http.arrival_ns;
  params.request_id = http.request_id;
  ASSIGN_OR_RETURN(ValidRequest request,
                   Admit(std::move(params), *std::move(model), http.caller, context));
  prepared.request.emplace(std::move(request));
  return prepared;
}

// Shared with the worker that prepares the request, which may outlive the task.
struct Preparation {
  explicit Preparation(HttpRequest request) : http(std::move(request)) {}
  HttpRequest http;
  std::atomic<bool> abandoned{false};
  std::atomic<bool> done{false};
  absl::StatusOr<Prepared> result = absl::UnknownError("not prepared");
};

class CompletionTask : public Task, private ChunkSink {
 public:
  CompletionTask(Dialect dialect, HttpRequest request, ServerContext& context, WorkerPool& workers,
                 Waker waker)
      : dialect_(dialect),
        context_(context),
        waker_(std::move(waker)),
        preparation_(std::make_shared<Preparation>(std::move(request))) {
    const Gate* const gate = context.options().gate;
    const bool waits = gate != nullptr && gate->reserve_blocks();
    if (!waits && preparation_->http.body.size() <= kInlineBodyBytes) {
      preparation_->result = Prepare(dialect_, preparation_->http, context_);
      preparation_->done.store(true, std::memory_order_release);
      return;
    }
    const std::shared_ptr<const Caller>& caller = preparation_->http.caller;
    const auto prepare = [dialect, state = preparation_, &context, wake = waker_] {
      if (!state->abandoned.load(std::memory_order_acquire)) {
        state->result = Prepare(dialect, state->http, context);
      }
      state->done.store(true, std::memory_order_release);
      wake();
    };
    if (absl::Status status = workers.Post(AskerOf(preparation_->http), prepare); !status.ok()) {
      context.NoteRefusal(caller.get(), status);
      preparation_->result = std::move(status);
      preparation_->done.store(true, std::memory_order_release);
    }
  }

  ~CompletionTask() override {
    if (preparation_ != nullptr) preparation_->abandoned.store(true, std::memory_order_release);
  }

  void OnHandedOver(int64_t now_ns) override {
    if (generation_ != nullptr) generation_->OnHandedOver(now_ns);
  }
  bool abandon_on_disconnect() const override { return true; }
  void Describe(bool prompt, RequestSummary& summary) const override {
    summary.generation = true;
    summary.error = refusal_;
    if (generation_ != nullptr) generation_->Describe(prompt, summary);
  }

  Progress Produce(ResponseWriter& writer, size_t budget) override {
    if (preparation_ != nullptr) {
      if (!preparation_->done.load(std::memory_order_acquire)) return Progress::kWaiting;
      if (absl::Status status = Begin(); !status.ok()) {
        SendError(dialect_, writer, status);
        refusal_ = std::move(status);
        return Progress::kDone;
      }
    }
    writer_ = &writer;
    const Progress progress = Pull(budget);
    writer_ = nullptr;
    return progress;
  }

 private:
  absl::Status Begin() {
    const std::shared_ptr<Preparation> preparation = std::move(preparation_);
    RETURN_IF_ERROR(preparation->result.status());
    Prepared prepared = *std::move(preparation->result);
    ASSIGN_OR_RETURN(generation_,
                     Generation::Start(*std::move(prepared.request), context_, "http", waker_));
    CompletionFormat::Options options;
    const bool chat = dialect_ != Dialect::kCompletion;
    options.chat = chat;
    options.include_usage = prepared.body.include_usage;
    options.continuous_usage = prepared.body.continuous_usage_stats;
    options.id = (chat ? "chatcmpl-" : "cmpl-") + preparation->http.request_id;
    options.created_unix_s = UnixSeconds();
    format_ = std::make_unique<CompletionFormat>(std::move(options), generation_->request());
    return absl::OkStatus();
  }

  Progress Pull(size_t budget) {
    for (;;) {
      in_chunk_ = false;
      const size_t most = generation_->request().merge_events() ? kMergedPerPull : kTokensPerPull;
      const Generation::Progress progress = generation_->Pull(*this, most);
      if (in_chunk_) writer_->EndChunk();
      switch (progress) {
        case Generation::Progress::kDone:
          Finish();
          return Progress::kDone;
        case Generation::Progress::kMore:
          break;
        case Generation::Progress::kIdle:
          if (generation_->Arm()) return Progress::kWaiting;
          break;
      }
      if (writer_->buffer().size() >= budget) return Progress::kMore;
    }
  }

  void Finish() {
    const absl::Status& status = generation_->status();
    if (!writer_->started()) {
      if (!status.ok()) return SendError(dialect_, *writer_, status);
      if (!generation_->request().stream()) {
        std::string body;
        format_->AppendBody(body, generation_->usage());
        return writer_->Send(200, "application/json", body);
      }
      writer_->BeginStream("text/event-stream; charset=utf-8");
    }
    std::string& out = writer_->BeginChunk();
    if (status.ok()) {
      format_->AppendStreamEnd(out, generation_->usage());
    } else {
      out.append("data: ");
      AppendErrorJson(out, status);
      out.append("\n\n");
    }
    writer_->EndChunk();
    writer_->EndStream();
  }

  void OnChunk(const Chunk& chunk) override {
    if (!generation_->request().stream()) return format_->Collect(chunk);
    if (!writer_->started()) writer_->BeginStream("text/event-stream; charset=utf-8");
    if (!in_chunk_) writer_->BeginChunk();
    in_chunk_ = true;
    format_->AppendChunk(writer_->buffer(), chunk, generation_->usage());
  }

  void OnPromptLogprobs(uint32_t prompt, std::span<const TokenOut> tokens) override {
    if (!generation_->request().stream()) format_->CollectPromptLogprobs(prompt, tokens);
  }

  const Dialect dialect_;
  ServerContext& context_;
  const Waker waker_;
  std::shared_ptr<Preparation> preparation_;  // until the generation has begun
  std::unique_ptr<CompletionFormat> format_;
  std::unique_ptr<Generation> generation_;
  absl::Status refusal_;              // why it never began
  ResponseWriter* writer_ = nullptr;  // during Produce
  bool in_chunk_ = false;
};

}  // namespace

std::unique_ptr<Task> StartCompletion(Dialect dialect, HttpRequest request, ServerContext& context,
                                      WorkerPool& workers, Waker waker) {
  return std::make_unique<CompletionTask>(dialect, std::move(request), context, workers,
                                          std::move(waker));
}

}  // namespace reticle::server::http
