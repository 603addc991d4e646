#include "server/grpc/generate_call.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "server/core/generation.h"
#include "server/core/request_summary.h"
#include "server/core/valid_request.h"
#include "server/grpc/reply_metadata.h"
#include "server/grpc/translate.h"

namespace reticle::server {
namespace {

// Tokens taken from the engine for one message at most.
constexpr size_t kTokensPerPull = 256;

enum Event : uint32_t {
  kReady = 1,    // the generation has something
  kWritten = 2,  // a message went out
  kWriteFailed = 4,
  kCancelled = 8,  // by the client, or its deadline passed
  kDone = 16,      // gRPC has let go of the reactor
};

// The time that the client's deadline leaves, ms; nullopt without a deadline.
std::optional<int64_t> TimeLeftMs(const grpc::CallbackServerContext& call) {
  const auto deadline = call.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return std::nullopt;
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                        deadline - std::chrono::system_clock::now())
                        .count();
  return std::max<int64_t>(1, left);
}

// Fills `params`; the model that the request asks for.
absl::StatusOr<std::shared_ptr<const ModelEntry>> Read(const v1::GenerateRequest& request,
                                                       ServerContext& server,
                                                       GenerateParams& params) {
  RETURN_IF_ERROR(server.CheckAdmission());
  ASSIGN_OR_RETURN(std::shared_ptr<const ModelEntry> model, server.models().Find(request.model()));
  ASSIGN_OR_RETURN(params, ToParams(request));
  return model;
}

// What is known of a call before its request is looked at.
struct Arrival {
  int64_t ns = 0;
  std::string request_id;
  std::shared_ptr<const Caller> caller;
};

absl::StatusOr<ValidRequest> MakeRequest(ServerContext& server,
                                         const grpc::CallbackServerContext& call,
                                         const v1::GenerateRequest& request, bool stream,
                                         const Arrival& arrival) {
  GenerateParams params;
  absl::StatusOr<std::shared_ptr<const ModelEntry>> model = Read(request, server, params);
  if (!model.ok()) {
    server.NoteRefusal(arrival.caller.get(), model.status());
    return model.status();
  }
  params.arrival_ns = arrival.ns;
  params.request_id = arrival.request_id;
  params.stream = stream;
  if (const std::optional<int64_t> left = TimeLeftMs(call)) {
    params.timeout_ms = std::min(*left, server.options().limits.max_timeout_ms);
  }
  return Admit(std::move(params), *std::move(model), arrival.caller, server);
}

// The common part: a generation, driven on the worker by events, with a client that may go away.
class GenerateCall : public WorkerTask, public ChunkSink {
 protected:
  GenerateCall(GrpcCallContext& context, const char* method, grpc::CallbackServerContext& call,
               const v1::GenerateRequest& request)
      : WorkerTask(context.worker),
        call_(call),
        active_calls_(context.active_calls),
        server_(context.server),
        method_(method) {
    arrival_.ns = server_.clock().NowNanos();
    arrival_.request_id = TakeRequestId(
        request.request_id().empty() ? MetadataOf(call, "x-request-id") : request.request_id());
    trace_ = BeginTraceOf(server_, call, arrival_.request_id);
    active_calls_.fetch_add(1, std::memory_order_acq_rel);
  }
  ~GenerateCall() override { active_calls_.fetch_sub(1, std::memory_order_acq_rel); }

  // On the gRPC thread, before any event can come.
  absl::Status Start(const v1::GenerateRequest& request, bool stream) {
    ASSIGN_OR_RETURN(arrival_.caller, CallerOf(server_, call_));
    const absl::Status status = Submit(request, stream);
    AddLimits(server_, arrival_.caller.get(), call_);
    if (status.ok()) call_.AddInitialMetadata("service-tier", service_tier_);
    return status;
  }

  // The status to finish with; recorded.
  grpc::Status Conclude(const absl::Status& status) {
    grpc::Status end = EndOfCall(status, call_);
    const int64_t now_ns = server_.clock().NowNanos();
    server_.probe().OnGrpcRequest(method_, end.error_code(), now_ns - arrival_.ns);
    RequestListener* const listener = server_.options().listener;
    if (listener == nullptr) return end;
    RequestSummary summary;
    summary.front = "grpc";
    summary.method = summary.route = method_;
    summary.request_id = arrival_.request_id;
    summary.trace = trace_;
    summary.caller = arrival_.caller;
    summary.status = end.error_code();
    summary.failed = end.error_code() == grpc::StatusCode::INTERNAL ||
                     end.error_code() == grpc::StatusCode::UNKNOWN ||
                     end.error_code() == grpc::StatusCode::DATA_LOSS;
    summary.arrival_ns = arrival_.ns;
    summary.end_ns = now_ns;
    summary.generation = true;
    summary.error = status;
    if (generation_ != nullptr) generation_->Describe(listener->wants_prompts(), summary);
    listener->OnRequestOver(summary);
    return end;
  }

  // Frees the generation and then this, unless an event is still queued.
  bool ReleaseOnDone() {
    generation_.reset();
    if (queued()) return false;
    delete this;
    return true;
  }

  grpc::CallbackServerContext& call_;  // gRPC's, until it is done
  std::atomic<int64_t>& active_calls_;
  ServerContext& server_;
  const char* const method_;
  Arrival arrival_;
  TraceContext trace_;
  bool tokens_only_ = false;
  bool done_ = false;
  const tokenizer::Tokenizer* tokenizer_ = nullptr;  // the model's; lives with the generation
  std::string model_id_;
  std::string service_tier_;
  std::unique_ptr<Generation> generation_;

 private:
  absl::Status Submit(const v1::GenerateRequest& request, bool stream) {
    ASSIGN_OR_RETURN(ValidRequest valid, MakeRequest(server_, call_, request, stream, arrival_));
    tokens_only_ = request.output().tokens_only();
    tokenizer_ = valid.model().tokenizer.get();
    model_id_ = valid.model().id;
    service_tier_ = valid.service_tier();
    ASSIGN_OR_RETURN(generation_, Generation::Start(std::move(valid), server_, "grpc",
                                                    [this] { Post(kReady); }));
    return absl::OkStatus();
  }
};

// Messages in the order in which they go out. Those that went are filled again, so that a stream
// that runs allocates none.
class MessageQueue {
 public:
  bool empty() const { return count_ == 0; }
  size_t size() const { return count_; }
  v1::GenerateStreamResponse& front() { return *messages_.front(); }
  v1::GenerateStreamResponse& back() { return *messages_[count_ - 1]; }
  v1::GenerateStreamResponse& Add() {
    if (count_ == messages_.size()) {
      messages_.push_back(std::make_unique<v1::GenerateStreamResponse>());
    }
    return *messages_[count_++];
  }
  void PopFront() {
    messages_.front()->Clear();
    std::rotate(messages_.begin(), messages_.begin() + 1, messages_.end());
    --count_;
  }

 private:
  std::vector<std::unique_ptr<v1::GenerateStreamResponse>>
      messages_;  // the first count_ are queued
  size_t count_ = 0;
};

class StreamCall final : public GenerateCall,
                         public grpc::ServerWriteReactor<v1::GenerateStreamResponse> {
 public:
  StreamCall(GrpcCallContext& context, grpc::CallbackServerContext& call,
             const v1::GenerateRequest& request)
      : GenerateCall(context, "GenerateStream", call, request) {
    if (const absl::Status status = Start(request, /*stream=*/true); !status.ok()) {
      End(status);
    } else {
      Post(kReady);
    }
  }

  void OnWriteDone(bool ok) override { Post(ok ? kWritten : kWriteFailed); }
  void OnCancel() override { Post(kCancelled); }
  void OnDone() override { Post(kDone); }

  void OnChunk(const Chunk& chunk) override {
    if (chunk.text.empty() && chunk.tokens.empty() && !chunk.finish.has_value()) return;
    v1::GenerateStreamResponse& message = MessageFor(chunk.choice);
    if (!tokens_only_) message.mutable_text()->append(chunk.text);
    for (const TokenOut& token : chunk.tokens) {
      if (chunk.is_prompt) break;
      message.add_tokens(token.token);
      if (token.logprobs != nullptr) FillLogprobs(token, *tokenizer_, *message.add_logprobs());
    }
    if (chunk.finish.has_value()) message.set_finish_reason(ToFinishReason(*chunk.finish));
  }
  void OnPromptLogprobs(uint32_t prompt, std::span<const TokenOut> tokens) override {
    v1::GenerateStreamResponse& message = MessageFor(0);
    for (const TokenOut& token : tokens) {
      FillLogprobs(token, *tokenizer_, *message.add_prompt_logprobs());
    }
  }

 private:
  void Run(uint32_t events) override {
    if (events & kDone) done_ = true;
    if (done_) {
      ReleaseOnDone();
      return;
    }
    if (events & (kWritten | kWriteFailed)) {
      writing_ = false;
      outgoing_.PopFront();
    }
    if (ended_) return;
    if (events & (kCancelled | kWriteFailed)) {
      generation_->Cancel();
      End(CancelledError("the client went away"));
      return;
    }
    if (!writing_) Advance();
  }

  // Writes the next message, taking what the generation has when none is left.
  void Advance() {
    while (outgoing_.empty()) {
      const Generation::Progress progress = generation_->Pull(*this, kTokensPerPull);
      if (progress == Generation::Progress::kDone) {
        generated_ = true;
        break;
      }
      if (progress == Generation::Progress::kIdle && outgoing_.empty() && generation_->Arm()) {
        return;
      }
    }
    if (generated_ && !closing_) {
      closing_ = true;
      if (generation_->status().ok()) {
        v1::GenerateStreamResponse& last = NewMessage(0);
        FillUsage(generation_->usage(), *last.mutable_usage());
        last.set_service_tier(service_tier_);
      }
    }
    if (outgoing_.empty()) {
      End(generation_->status());
      return;
    }
    writing_ = true;
    if (closing_ && outgoing_.size() == 1 && generation_->status().ok()) {
      ended_ = true;
      generation_->OnHandedOver(server_.clock().NowNanos());
      StartWriteAndFinish(&outgoing_.front(), grpc::WriteOptions(), Conclude(absl::OkStatus()));
      return;
    }
    StartWrite(&outgoing_.front());
    // The last message of what was pulled; gRPC writes at once when it can.
    if (outgoing_.size() == 1) generation_->OnHandedOver(server_.clock().NowNanos());
  }

  v1::GenerateStreamResponse& NewMessage(uint32_t choice) {
    v1::GenerateStreamResponse& message = outgoing_.Add();
    message.set_request_id(arrival_.request_id);
    message.set_index(choice);
    return message;
  }
  // The message being filled, or a new one when that belongs to another choice.
  v1::GenerateStreamResponse& MessageFor(uint32_t choice) {
    if (outgoing_.empty() || outgoing_.back().index() != choice) return NewMessage(choice);
    return outgoing_.back();
  }

  void End(const absl::Status& status) {
    ended_ = true;
    Finish(Conclude(status));
  }

  // Messages to write; the first is with gRPC while `writing_`. Filled only when empty, so that a
  // slow client holds back the engine instead of filling memory.
  MessageQueue outgoing_;
  bool writing_ = false;
  bool generated_ = false;  // the generation is done
  bool closing_ = false;    // the usage message is queued
  bool ended_ = false;      // Finish was called
};

class UnaryCall final : public GenerateCall, public grpc::ServerUnaryReactor {
 public:
  UnaryCall(GrpcCallContext& context, grpc::CallbackServerContext& call,
            const v1::GenerateRequest& request, v1::GenerateResponse& response)
      : GenerateCall(context, "Generate", call, request), response_(response) {
    if (const absl::Status status = Start(request, /*stream=*/false); !status.ok()) {
      End(status);
      return;
    }
    for (uint32_t i = 0; i < generation_->request().choices(); ++i) {
      response_.add_choices()->set_index(i);
    }
    Post(kReady);
  }

  void OnCancel() override { Post(kCancelled); }
  void OnDone() override { Post(kDone); }

  void OnChunk(const Chunk& chunk) override {
    v1::Choice& choice = *response_.mutable_choices(static_cast<int>(chunk.choice));
    if (!tokens_only_) choice.mutable_text()->append(chunk.text);
    for (const TokenOut& token : chunk.tokens) {
      if (chunk.is_prompt) break;
      choice.add_tokens(token.token);
      if (token.logprobs != nullptr) FillLogprobs(token, *tokenizer_, *choice.add_logprobs());
    }
    if (chunk.finish.has_value()) choice.set_finish_reason(ToFinishReason(*chunk.finish));
  }
  void OnPromptLogprobs(uint32_t prompt, std::span<const TokenOut> tokens) override {
    for (const TokenOut& token : tokens) {
      FillLogprobs(token, *tokenizer_, *response_.add_prompt_logprobs());
    }
  }

 private:
  void Run(uint32_t events) override {
    if (events & kDone) done_ = true;
    if (done_) {
      ReleaseOnDone();
      return;
    }
    if (ended_) return;
    if (events & kCancelled) {
      generation_->Cancel();
      End(CancelledError("the client went away"));
      return;
    }
    for (;;) {
      switch (generation_->Pull(*this, kTokensPerPull)) {
        case Generation::Progress::kDone:
          response_.set_request_id(arrival_.request_id);
          response_.set_model(model_id_);
          response_.set_service_tier(service_tier_);
          FillUsage(generation_->usage(), *response_.mutable_usage());
          End(generation_->status());
          return;
        case Generation::Progress::kMore:
          break;
        case Generation::Progress::kIdle:
          if (generation_->Arm()) return;
          break;
      }
    }
  }

  void End(const absl::Status& status) {
    ended_ = true;
    Finish(Conclude(status));
  }

  v1::GenerateResponse& response_;
  bool ended_ = false;
};

}  // namespace

grpc::ServerWriteReactor<v1::GenerateStreamResponse>* StartGenerateStream(
    GrpcCallContext& context, grpc::CallbackServerContext& call,
    const v1::GenerateRequest& request) {
  return new StreamCall(context, call, request);
}

grpc::ServerUnaryReactor* StartGenerate(GrpcCallContext& context, grpc::CallbackServerContext& call,
                                        const v1::GenerateRequest& request,
                                        v1::GenerateResponse& response) {
  return new UnaryCall(context, call, request, response);
}

}  // namespace reticle::server
