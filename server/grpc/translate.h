// Between the messages of reticle.v1 and the server core's types; nothing is decided here.
#ifndef RETICLE_SERVER_GRPC_TRANSLATE_H_
#define RETICLE_SERVER_GRPC_TRANSLATE_H_

#include <grpcpp/server_context.h>

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "reticle/v1/inference.pb.h"
#include "server/core/gate.h"
#include "server/core/generate_params.h"
#include "server/core/generation.h"
#include "server/core/server_context.h"
#include "server/core/trace_context.h"
#include "tokenizer/tokenizer.h"

namespace reticle::server {

// INVALID_ARGUMENT when no input is set or tools_json is no JSON.
absl::StatusOr<GenerateParams> ToParams(const v1::GenerateRequest& request);
absl::StatusOr<ChatPrompt> ToChatPrompt(const v1::ChatInput& chat);

void FillLogprobs(const TokenOut& token, const tokenizer::Tokenizer& tokenizer,
                  v1::PositionLogprobs& out);
void FillUsage(const Usage& usage, v1::Usage& out);
v1::FinishReason ToFinishReason(Outcome outcome);
// The caller behind a call's "authorization" metadata; null without accounts.
absl::StatusOr<std::shared_ptr<const Caller>> CallerOf(ServerContext& server,
                                                       const grpc::CallbackServerContext& call);
// The first value of a call's metadata; empty: none. Valid as long as the call.
std::string_view MetadataOf(const grpc::CallbackServerContext& call, const char* name);
// The trace of a call, which is told to the client as initial metadata, with the request's id
// unless that is empty. Before anything is sent.
TraceContext BeginTraceOf(ServerContext& server, grpc::CallbackServerContext& call,
                          const std::string& request_id);

}  // namespace reticle::server

#endif  // RETICLE_SERVER_GRPC_TRANSLATE_H_
