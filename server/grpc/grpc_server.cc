#include "server/grpc/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <chrono>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "server/grpc/grpc_acceptor.h"
#include "server/grpc/inference_service.h"
#include "server/grpc/stream_worker.h"
#include "server/grpc/tls_credentials.h"

namespace reticle::server {
namespace {

constexpr std::chrono::milliseconds kFarewell{500};
constexpr char kServiceName[] = "reticle.v1.InferenceService";

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
    acceptor.reset();
    server.reset();
    if (loops != nullptr) loops->Detach(worker);
  }

  LoopHost* const loops;
  StreamWorker worker;
  GrpcCallContext call_context;
  InferenceService service;
  std::string host;
  int port = 0;
  std::shared_ptr<TlsCredentials> tls;   // null: none
  std::unique_ptr<grpc::Server> server;  // its calls use the rest
  std::unique_ptr<GrpcAcceptor> acceptor;
};

GrpcServer::GrpcServer() = default;

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerOptions& options,
                                                              ServerContext& context) {
  if (options.tls_certificate_path.empty() != options.tls_key_path.empty()) {
    return InvalidArgumentError("TLS needs both a certificate and a key; only one is given");
  }
  auto started = std::unique_ptr<GrpcServer>(new GrpcServer);
  started->impl_ = std::make_unique<Impl>(context, options.loops);
  Impl& impl = *started->impl_;

  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  if (!options.tls_certificate_path.empty()) {
    ASSIGN_OR_RETURN(impl.tls,
                     TlsCredentials::Create(options.tls_certificate_path, options.tls_key_path));
    credentials = impl.tls;
  }
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  ASSIGN_OR_RETURN(ListenSocket socket, ListenSocket::Open(options.listen));
  impl.host = options.listen.host;
  impl.port = socket.port();
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  // The socket is ours, so that it can be inherited and handed over.
  auto connections = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, credentials);
  builder.RegisterService(&impl.service);
  impl.server = builder.BuildAndStart();
  if (impl.server == nullptr) return UnavailableError("grpc: the server does not start");
  impl.acceptor = std::make_unique<GrpcAcceptor>(std::move(socket), std::move(connections));
  started->OnServing(false);
  const bool shared = options.listen.reuse_port || options.listen.inherited_fd >= 0;
  if (!shared) RETURN_IF_ERROR(impl.acceptor->Start());
  return started;
}

GrpcServer::~GrpcServer() {
  if (impl_ == nullptr || impl_->server == nullptr) return;
  impl_->acceptor.reset();
  // Clients are told to go elsewhere; calls that came in this moment end.
  impl_->server->Shutdown(std::chrono::system_clock::now() + kFarewell);
  impl_->server->Wait();
}

std::string GrpcServer::address() const {
  const bool v6 = impl_->host.find(':') != std::string::npos;
  return (v6 ? "[" + impl_->host + "]" : impl_->host) + ":" + std::to_string(impl_->port);
}

void GrpcServer::OnServing(bool serving) {
  grpc::HealthCheckServiceInterface* health = impl_->server->GetHealthCheckService();
  health->SetServingStatus(serving);  // the server as a whole
  health->SetServingStatus(kServiceName, serving);
}

void GrpcServer::OnReady() {
  if (const absl::Status status = impl_->acceptor->Start(); !status.ok()) {
    LogError("gRPC: %s", status.message());
  }
  OnServing(true);
}

void GrpcServer::BeginDrain() { OnServing(false); }

void GrpcServer::StopListening() { impl_->acceptor->Stop(); }

absl::Status GrpcServer::ReloadTls() {
  return impl_->tls != nullptr ? impl_->tls->Reload() : absl::OkStatus();
}

int64_t GrpcServer::busy() const {
  return impl_->call_context.active_calls.load(std::memory_order_acquire);
}

}  // namespace reticle::server
