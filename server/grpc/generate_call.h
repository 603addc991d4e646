// The calls that generate: streaming and unary. Both are a Generation whose chunks become messages.
#ifndef RETICLE_SERVER_GRPC_GENERATE_CALL_H_
#define RETICLE_SERVER_GRPC_GENERATE_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <cstdint>

#include "reticle/v1/inference.pb.h"
#include "server/core/server_context.h"
#include "server/grpc/stream_worker.h"

namespace reticle::server {

// What calls need; outlives them.
struct GrpcCallContext {
  GrpcCallContext(ServerContext& server_context, StreamWorker& stream_worker)
      : server(server_context), worker(stream_worker) {}

  ServerContext& server;
  StreamWorker& worker;
  std::atomic<int64_t> active_calls{0};
};

// Validates and submits on the calling (gRPC) thread; the rest runs on the worker. The reactors
// delete themselves.
grpc::ServerWriteReactor<v1::GenerateStreamResponse>* StartGenerateStream(
    GrpcCallContext& context, grpc::CallbackServerContext& call,
    const v1::GenerateRequest& request);
grpc::ServerUnaryReactor* StartGenerate(GrpcCallContext& context, grpc::CallbackServerContext& call,
                                        const v1::GenerateRequest& request,
                                        v1::GenerateResponse& response);

}  // namespace reticle::server

#endif  // RETICLE_SERVER_GRPC_GENERATE_CALL_H_
