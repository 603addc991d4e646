#include "loadtest/grpc_transport.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "reticle/v1/inference.grpc.pb.h"

namespace reticle::loadtest {
namespace {

constexpr int kEventsPerPoll = 256;
constexpr size_t kMaxMessage = 300;

int64_t Now() { return Clock::Monotonic().NowNanos(); }

std::chrono::system_clock::time_point After(int64_t ns) {
  return std::chrono::system_clock::now() + std::chrono::nanoseconds(ns);
}

FinishReason Translate(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_STOP:
      return FinishReason::kStop;
    case v1::FINISH_REASON_LENGTH:
      return FinishReason::kLength;
    default:
      return FinishReason::kNone;
  }
}

void TakeUsage(const v1::Usage& from, TokenUsage& usage) {
  usage.present = true;
  usage.prompt_tokens = from.prompt_tokens();
  usage.completion_tokens = from.completion_tokens();
  usage.cached_tokens = from.cached_tokens();
}

std::shared_ptr<grpc::Channel> NewChannel(const Endpoint& endpoint) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetMaxReceiveMessageSize(-1);
  return grpc::CreateCustomChannel(endpoint.Authority(), grpc::InsecureChannelCredentials(),
                                   arguments);
}

// One call; its address is the tag of its only pending operation.
struct Call {
  enum class Phase : uint8_t { kStarting, kReading, kFinishing, kUnary };
  Phase phase = Phase::kStarting;
  Request* request = nullptr;
  int64_t resume_ns = 0;  // a slow reader's pause; 0: none
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientAsyncReader<v1::GenerateStreamResponse>> reader;
  std::unique_ptr<grpc::ClientAsyncResponseReader<v1::GenerateResponse>> unary;
  v1::GenerateStreamResponse message;
  v1::GenerateResponse reply;
  grpc::Status status;
};

class GrpcTransport : public Transport {
 public:
  GrpcTransport(const GrpcTransportOptions& options, Recorder& recorder, OnDone on_done)
      : options_(options), recorder_(recorder), on_done_(std::move(on_done)) {
    for (int64_t i = 0; i < std::max<int64_t>(options.connections, 1); ++i) {
      stubs_.push_back(v1::InferenceService::NewStub(NewChannel(options.endpoint)));
      ++recorder_.connections;
    }
  }

  ~GrpcTransport() override {
    for (Call* call : calls_) {
      call->request = nullptr;
      call->context.TryCancel();
      if (std::exchange(call->resume_ns, 0) != 0) call->reader->Read(&call->message, call);
    }
    void* tag = nullptr;
    bool ok = false;
    while (!calls_.empty() && queue_.Next(&tag, &ok)) Handle(static_cast<Call*>(tag), ok);
    queue_.Shutdown();
    while (queue_.Next(&tag, &ok)) {
    }
  }

  void Start(Request& request) override {
    ++in_flight_;
    Call* const call = new Call;
    calls_.insert(call);
    call->request = &request;
    call->context.set_deadline(After(options_.timeout_ns));
    if (!options_.api_key.empty()) {
      call->context.AddMetadata("authorization", "Bearer " + options_.api_key);
    }
    const v1::GenerateRequest message = Translate(request);
    request.outcome.sent_ns = Now();
    v1::InferenceService::Stub& stub = *stubs_[next_stub_++ % stubs_.size()];
    if (request.stream) {
      call->reader = stub.PrepareAsyncGenerateStream(&call->context, message, &queue_);
      call->reader->StartCall(call);
    } else {
      call->phase = Call::Phase::kUnary;
      call->unary = stub.PrepareAsyncGenerate(&call->context, message, &queue_);
      call->unary->StartCall();
      call->unary->Finish(&call->reply, &call->status, call);
    }
  }

  int64_t Poll(int64_t until_ns, bool spin) override {
    if (paused_ > 0) {
      constexpr int64_t kPausedTickNs = 5'000'000;
      until_ns = std::min(until_ns, Now() + kPausedTickNs);
    }
    void* tag = nullptr;
    bool ok = false;
    grpc::CompletionQueue::NextStatus next = grpc::CompletionQueue::TIMEOUT;
    if (spin) {
      do {
        next = queue_.AsyncNext(&tag, &ok, std::chrono::system_clock::time_point());
      } while (next == grpc::CompletionQueue::TIMEOUT && Now() < until_ns);
    } else {
      next = queue_.AsyncNext(&tag, &ok, After(std::max<int64_t>(until_ns - Now(), 0)));
    }
    int64_t begun_ns = 0;
    for (int i = 0; next == grpc::CompletionQueue::GOT_EVENT; ++i) {
      if (begun_ns == 0) begun_ns = Now();
      Handle(static_cast<Call*>(tag), ok);
      if (i + 1 == kEventsPerPoll) break;
      next = queue_.AsyncNext(&tag, &ok, std::chrono::system_clock::time_point());
    }
    if (paused_ > 0) Resume();
    return begun_ns;
  }

  void AbandonAll() override {
    for (Call* call : calls_) {
      if (call->request == nullptr) continue;
      Request& request = *std::exchange(call->request, nullptr);
      call->context.TryCancel();
      request.outcome.error = ErrorKind::kUnfinished;
      request.outcome.end_ns = Now();
      --in_flight_;
      abandoned_.push_back(&request);
    }
    for (Request* request : std::exchange(abandoned_, {})) on_done_(*request);
  }

  int64_t in_flight() const override { return in_flight_; }

 private:
  v1::GenerateRequest Translate(const Request& request) const {
    v1::GenerateRequest message;
    message.set_model(options_.model);
    if (request.messages != nullptr) {
      for (const Message& from : *request.messages) {
        v1::ChatMessage* const to = message.mutable_chat()->add_messages();
        to->set_role(from.role);
        to->set_content(from.text);
      }
    } else {
      message.set_prompt(request.prompt);
    }
    message.mutable_sampling()->set_temperature(static_cast<float>(options_.temperature));
    if (request.max_tokens > 0) {
      message.mutable_stop()->set_max_tokens(static_cast<uint32_t>(request.max_tokens));
    }
    message.mutable_stop()->set_ignore_eos(options_.ignore_eos);
    return message;
  }

  static FinishReason Translate(v1::FinishReason reason) { return loadtest::Translate(reason); }

  void Handle(Call* call, bool ok) {
    switch (call->phase) {
      case Call::Phase::kStarting:
        if (ok) {
          call->phase = Call::Phase::kReading;
          call->reader->Read(&call->message, call);
        } else {
          Conclude(call);
        }
        return;
      case Call::Phase::kReading:
        if (!ok) {
          Conclude(call);
          return;
        }
        if (call->request != nullptr) TakeMessage(call);
        if (call->resume_ns == 0) call->reader->Read(&call->message, call);
        return;
      case Call::Phase::kUnary:
        if (call->request != nullptr && call->status.ok()) TakeReply(call);
        End(call);
        return;
      case Call::Phase::kFinishing:
        End(call);
        return;
    }
  }

  void Conclude(Call* call) {
    call->phase = Call::Phase::kFinishing;
    call->reader->Finish(&call->status, call);
  }

  void TakeMessage(Call* call) {
    Request& request = *call->request;
    Outcome& outcome = request.outcome;
    const v1::GenerateStreamResponse& message = call->message;
    outcome.bytes += static_cast<int64_t>(message.ByteSizeLong());
    if (!message.tokens().empty() || !message.text().empty()) {
      outcome.tokens_seen += message.tokens_size();
      recorder_.Events(outcome, Now(), 1);
      if (request.keep_text) outcome.text.append(message.text());
    }
    if (message.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
      outcome.finish = Translate(message.finish_reason());
    }
    if (message.has_usage()) TakeUsage(message.usage(), outcome.usage);
    if (request.disconnect_after_events > 0 && !outcome.disconnected &&
        outcome.events >= request.disconnect_after_events) {
      outcome.disconnected = true;
      call->context.TryCancel();
    }
    if (request.read_bytes_per_s > 0 && !outcome.disconnected) {
      const int64_t size = static_cast<int64_t>(message.ByteSizeLong()) + 5;
      call->resume_ns = Now() + size * 1'000'000'000 / request.read_bytes_per_s;
      ++paused_;
    }
  }

  void TakeReply(Call* call) {
    Request& request = *call->request;
    Outcome& outcome = request.outcome;
    outcome.bytes += static_cast<int64_t>(call->reply.ByteSizeLong());
    if (call->reply.has_usage()) TakeUsage(call->reply.usage(), outcome.usage);
    if (call->reply.choices().empty()) return;
    const v1::Choice& choice = call->reply.choices(0);
    outcome.finish = Translate(choice.finish_reason());
    outcome.tokens_seen = choice.tokens_size();
    recorder_.Events(outcome, Now(), 1);
    if (request.keep_text) outcome.text = choice.text();
  }

  // The call is over: completes the outcome and frees the call.
  void End(Call* call) {
    const std::unique_ptr<Call> owned(call);
    calls_.erase(call);
    Request* const request = call->request;
    if (request == nullptr) return;
    Outcome& outcome = request->outcome;
    outcome.end_ns = Now();
    const grpc::StatusCode code = call->status.error_code();
    if (code != grpc::StatusCode::OK && !outcome.disconnected) {
      const std::string& message = call->status.error_message();
      outcome.error = ErrorKind::kGrpcStatus;
      outcome.code = static_cast<int>(code);
      outcome.message = message.substr(0, kMaxMessage);
      if (code == grpc::StatusCode::DEADLINE_EXCEEDED) outcome.error = ErrorKind::kTimeout;
      if (code == grpc::StatusCode::UNAVAILABLE && message.starts_with("failed to connect")) {
        outcome.error = ErrorKind::kConnect;
      } else if (code == grpc::StatusCode::UNAVAILABLE && outcome.events > 0) {
        outcome.error = ErrorKind::kClosed;
      }
    }
    --in_flight_;
    on_done_(*request);
  }

  void Resume() {
    const int64_t now_ns = Now();
    for (Call* call : calls_) {
      if (call->resume_ns == 0 || now_ns < call->resume_ns) continue;
      call->resume_ns = 0;
      --paused_;
      call->reader->Read(&call->message, call);
    }
  }

  const GrpcTransportOptions options_;
  Recorder& recorder_;
  const OnDone on_done_;
  grpc::CompletionQueue queue_;
  std::vector<std::unique_ptr<v1::InferenceService::Stub>> stubs_;
  size_t next_stub_ = 0;
  int64_t in_flight_ = 0;
  int64_t paused_ = 0;
  std::unordered_set<Call*> calls_;  // owned; freed when their last operation has come back
  std::vector<Request*> abandoned_;
};

}  // namespace

std::unique_ptr<Transport> MakeGrpcTransport(const GrpcTransportOptions& options,
                                             Recorder& recorder, Transport::OnDone on_done) {
  return std::make_unique<GrpcTransport>(options, recorder, std::move(on_done));
}

absl::StatusOr<std::string> FirstGrpcModel(const Endpoint& endpoint, int64_t timeout_ns) {
  const auto stub = v1::InferenceService::NewStub(NewChannel(endpoint));
  grpc::ClientContext context;
  context.set_deadline(After(timeout_ns));
  v1::ListModelsResponse response;
  const grpc::Status status = stub->ListModels(&context, v1::ListModelsRequest(), &response);
  if (!status.ok()) {
    return UnavailableError("cannot list the models of %s: %s", endpoint.Authority(),
                            status.error_message());
  }
  if (response.models().empty()) {
    return UnavailableError("%s serves no model", endpoint.Authority());
  }
  return response.models(0).id();
}

}  // namespace reticle::loadtest
