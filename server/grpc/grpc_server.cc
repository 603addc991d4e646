#include "server/grpc/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <chrono>
#include <fstream>
#include <sstream>
#include <utility>

#include "base/status.h"
#include "server/grpc/inference_service.h"
#include "server/grpc/stream_worker.h"

namespace reticle::server {
namespace {

constexpr char kServiceName[] = "reticle.v1.InferenceService";

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return NotFoundError("cannot open %s", path);
  std::ostringstream content;
  content << file.rdbuf();
  return std::move(content).str();
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeCredentials(
    const GrpcServerOptions& options) {
  if (options.tls_certificate_path.empty() != options.tls_key_path.empty()) {
    return InvalidArgumentError("TLS needs both a certificate and a key; only one is given");
  }
  if (options.tls_certificate_path.empty()) return grpc::InsecureServerCredentials();
  ASSIGN_OR_RETURN(std::string certificate, ReadFile(options.tls_certificate_path));
  ASSIGN_OR_RETURN(std::string key, ReadFile(options.tls_key_path));
  grpc::SslServerCredentialsOptions ssl;
  ssl.pem_key_cert_pairs.push_back({std::move(key), std::move(certificate)});
  return grpc::SslServerCredentials(ssl);
}

}  // namespace

struct GrpcServer::Impl {
  Impl(ServerContext& context, LoopHost* loop_host)
      : loops(loop_host), call_context(context, worker), service(call_context) {
    if (loops != nullptr) {
      loops->Attach(worker);
    } else {
      worker.StartThread();
    }
  }
  ~Impl() {
    server.reset();
    if (loops != nullptr) loops->Detach(worker);
  }

  LoopHost* const loops;
  StreamWorker worker;
  GrpcCallContext call_context;
  InferenceService service;
  std::string host;
  int port = 0;
  std::unique_ptr<grpc::Server> server;  // last: its calls use the rest
};

GrpcServer::GrpcServer() = default;

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerOptions& options,
                                                              ServerContext& context) {
  ASSIGN_OR_RETURN(std::shared_ptr<grpc::ServerCredentials> credentials, MakeCredentials(options));
  auto started = std::unique_ptr<GrpcServer>(new GrpcServer);
  started->impl_ = std::make_unique<Impl>(context, options.loops);
  Impl& impl = *started->impl_;

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  // Without this a second server on the same port would quietly share its connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  builder.AddListeningPort(options.address, credentials, &impl.port);
  builder.RegisterService(&impl.service);
  impl.server = builder.BuildAndStart();
  if (impl.server == nullptr || impl.port == 0) {
    return UnavailableError("grpc: cannot listen on %s", options.address);
  }
  impl.host = options.address.substr(0, options.address.rfind(':'));
  started->SetServing(false);
  return started;
}

GrpcServer::~GrpcServer() {
  if (impl_ == nullptr || impl_->server == nullptr) return;
  impl_->server->Shutdown(std::chrono::system_clock::now());
  impl_->server->Wait();
}

std::string GrpcServer::address() const { return impl_->host + ":" + std::to_string(impl_->port); }

void GrpcServer::SetServing(bool serving) {
  grpc::HealthCheckServiceInterface* health = impl_->server->GetHealthCheckService();
  health->SetServingStatus(serving);  // the server as a whole
  health->SetServingStatus(kServiceName, serving);
}

void GrpcServer::OnReady() { SetServing(true); }

void GrpcServer::BeginDrain() { SetServing(false); }

int64_t GrpcServer::busy() const {
  return impl_->call_context.active_calls.load(std::memory_order_acquire);
}

}  // namespace reticle::server
