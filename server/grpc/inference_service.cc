#include "server/grpc/inference_service.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "server/core/valid_request.h"
#include "server/grpc/reply_metadata.h"
#include "server/grpc/translate.h"

namespace reticle::server {
namespace {

absl::Status Tokenize(const ServerContext& server, const v1::TokenizeRequest& request,
                      v1::TokenizeResponse& response) {
  ASSIGN_OR_RETURN(std::shared_ptr<const ModelEntry> model, server.models().Find(request.model()));
  std::vector<TokenId> tokens;
  switch (request.input_case()) {
    case v1::TokenizeRequest::kText: {
      tokenizer::EncodeOptions options;
      options.add_special = !request.omit_special_tokens();
      options.parse_special = request.parse_special_tokens();
      tokens = model->tokenizer->Encode(request.text(), options);
      break;
    }
    case v1::TokenizeRequest::kChat: {
      ASSIGN_OR_RETURN(ChatPrompt chat, ToChatPrompt(request.chat()));
      ASSIGN_OR_RETURN(tokens, EncodePrompt(PromptInput(std::move(chat)), *model, std::nullopt));
      break;
    }
    case v1::TokenizeRequest::INPUT_NOT_SET:
      return InvalidArgumentError("input is not set; it must be one of text and chat");
  }
  response.mutable_tokens()->Add(tokens.begin(), tokens.end());
  response.set_max_model_len(model->limits.max_model_len);
  return absl::OkStatus();
}

absl::Status Detokenize(const ServerContext& server, const v1::DetokenizeRequest& request,
                        v1::DetokenizeResponse& response) {
  ASSIGN_OR_RETURN(std::shared_ptr<const ModelEntry> model, server.models().Find(request.model()));
  tokenizer::StreamingDetokenizer detokenizer(*model->tokenizer, /*skip_special=*/false,
                                              /*at_text_start=*/true);
  std::string& text = *response.mutable_text();
  for (int i = 0; i < request.tokens_size(); ++i) {
    if (request.tokens(i) >= model->limits.vocab_size) {
      return InvalidArgumentError("tokens[%d] is %d; it must be below the vocabulary size %d", i,
                                  request.tokens(i), model->limits.vocab_size);
    }
    detokenizer.Append(request.tokens(i), text);
  }
  detokenizer.Finish(text);
  return absl::OkStatus();
}

absl::Status ListModels(const ServerContext& server, const v1::ListModelsRequest&,
                        v1::ListModelsResponse& response) {
  for (const std::shared_ptr<const ModelEntry>& model : server.models().List()) {
    v1::Model& out = *response.add_models();
    out.set_id(model->id);
    out.set_max_model_len(model->limits.max_model_len);
    out.set_vocab_size(model->limits.vocab_size);
    out.set_created(model->created_unix_s);
    out.set_fingerprint(model->fingerprint);
  }
  return absl::OkStatus();
}

// Runs a method that answers at once and records it.
template <typename Request, typename Response>
grpc::ServerUnaryReactor* Answer(ServerContext& server, grpc::CallbackServerContext& call,
                                 const char* name,
                                 absl::Status (*method)(const ServerContext&, const Request&,
                                                        Response&),
                                 const Request& request, Response& response) {
  const int64_t start_ns = server.clock().NowNanos();
  BeginTraceOf(server, call, TakeRequestId(MetadataOf(call, "x-request-id")));
  // Tokenising costs a turn of the caller's quota, as over HTTP.
  std::shared_ptr<const Caller> caller;
  const auto answer = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(caller, CallerOf(server, call));
    std::unique_ptr<Reservation> turn;
    if (caller != nullptr) {
      ASSIGN_OR_RETURN(turn, server.options().gate->Reserve(caller, 0));
      turn->Settle({});
    }
    return method(server, request, response);
  };
  const absl::Status answered = answer();
  AddLimits(server, caller.get(), call);
  const grpc::Status status = EndOfCall(answered, call);
  server.probe().OnGrpcRequest(name, status.error_code(), server.clock().NowNanos() - start_ns);
  grpc::ServerUnaryReactor* reactor = call.DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

}  // namespace

grpc::ServerWriteReactor<v1::GenerateStreamResponse>* InferenceService::GenerateStream(
    grpc::CallbackServerContext* call, const v1::GenerateRequest* request) {
  return StartGenerateStream(context_, *call, *request);
}

grpc::ServerUnaryReactor* InferenceService::Generate(grpc::CallbackServerContext* call,
                                                     const v1::GenerateRequest* request,
                                                     v1::GenerateResponse* response) {
  return StartGenerate(context_, *call, *request, *response);
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* call,
                                                     const v1::TokenizeRequest* request,
                                                     v1::TokenizeResponse* response) {
  return Answer(context_.server, *call, "Tokenize", &server::Tokenize, *request, *response);
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(grpc::CallbackServerContext* call,
                                                       const v1::DetokenizeRequest* request,
                                                       v1::DetokenizeResponse* response) {
  return Answer(context_.server, *call, "Detokenize", &server::Detokenize, *request, *response);
}

grpc::ServerUnaryReactor* InferenceService::ListModels(grpc::CallbackServerContext* call,
                                                       const v1::ListModelsRequest* request,
                                                       v1::ListModelsResponse* response) {
  return Answer(context_.server, *call, "ListModels", &server::ListModels, *request, *response);
}

}  // namespace reticle::server
