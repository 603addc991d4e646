#include "server/bench/grpc_client.h"

#include <grpcpp/grpcpp.h>

#include <memory>

#include "base/status.h"
#include "reticle/v1/inference.grpc.pb.h"
#include "server/bench/http_client.h"

namespace reticle::server::bench {

absl::StatusOr<GrpcStreamSeen> ReadGrpcStream(uint16_t port, const std::string& prompt,
                                              uint32_t max_tokens) {
  const auto channel =
      grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials());
  const auto stub = v1::InferenceService::NewStub(channel);
  v1::GenerateRequest request;
  request.set_prompt(prompt);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stop()->set_max_tokens(max_tokens);
  request.mutable_stop()->set_ignore_eos(true);
  grpc::ClientContext context;
  const auto reader = stub->GenerateStream(&context, request);
  GrpcStreamSeen seen;
  v1::GenerateStreamResponse message;
  while (reader->Read(&message)) {
    if (message.tokens_size() == 0) continue;
    seen.last_ns = NowNanos();
    if (seen.tokens == 0) seen.first_ns = seen.last_ns;
    seen.tokens += static_cast<uint64_t>(message.tokens_size());
    ++seen.messages;
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) return UnavailableError("gRPC: %s", status.error_message());
  return seen;
}

}  // namespace reticle::server::bench
