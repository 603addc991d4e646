// The service's methods: each a thin translation to the server core.
#ifndef RETICLE_SERVER_GRPC_INFERENCE_SERVICE_H_
#define RETICLE_SERVER_GRPC_INFERENCE_SERVICE_H_

#include "reticle/v1/inference.grpc.pb.h"
#include "server/grpc/generate_call.h"

namespace reticle::server {

// Thread-safe. `context` must outlive it.
class InferenceService final : public v1::InferenceService::CallbackService {
 public:
  explicit InferenceService(GrpcCallContext& context) : context_(context) {}

  grpc::ServerWriteReactor<v1::GenerateStreamResponse>* GenerateStream(
      grpc::CallbackServerContext* call, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Generate(grpc::CallbackServerContext* call,
                                     const v1::GenerateRequest* request,
                                     v1::GenerateResponse* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* call,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* call,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* call,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;

 private:
  GrpcCallContext& context_;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_GRPC_INFERENCE_SERVICE_H_
