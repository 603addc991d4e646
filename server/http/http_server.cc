#include "server/http/http_server.h"

#include <algorithm>
#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <future>
#include <optional>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/status.h"
#include "server/core/listen_socket.h"
#include "server/core/worker_pool.h"
#include "server/http/api.h"
#include "server/http/client_address.h"
#include "server/http/io_thread.h"
#include "server/http/response_writer.h"

namespace reticle::server::http {
namespace {

using boost::asio::ip::tcp;
using boost::system::error_code;

constexpr std::chrono::milliseconds kAcceptPause{50};
// For handshakes that have begun to end, and the longest that whoever stops the listener waits.
constexpr std::chrono::milliseconds kHandshakes{50};
constexpr std::chrono::seconds kStopPatience{5};
constexpr size_t kQueuedPreparations = 1024;
constexpr size_t kQueuedScrapes = 64;

std::string TooManyConnections() {
  ResponseWriter writer;
  writer.Begin({.keep_alive = false, .request_id = "-"});
  writer.SendError(UnavailableError("the server has too many connections"));
  return writer.buffer();
}

}  // namespace

absl::Status HttpOptions::Validate() const {
  if (io_threads < 1 || io_threads > 256) {
    return InvalidArgumentError("io_threads is %d; it must be between 1 and 256", io_threads);
  }
  if (worker_threads < 1 || worker_threads > 256) {
    return InvalidArgumentError("worker_threads is %d; it must be between 1 and 256",
                                worker_threads);
  }
  if (max_connections < 1) return InvalidArgumentError("max_connections is 0");
  if (max_header_bytes < 1024 || max_header_bytes > (size_t{1} << 20)) {
    return InvalidArgumentError("max_header_bytes is %d; it must be between 1024 and 1048576",
                                max_header_bytes);
  }
  if (max_body_bytes < 1024 || max_body_bytes > (size_t{1} << 30)) {
    return InvalidArgumentError("max_body_bytes is %d; it must be between 1024 and 1073741824",
                                max_body_bytes);
  }
  if (max_unsent_bytes < 1024) {
    return InvalidArgumentError("max_unsent_bytes is %d; it must be at least 1024",
                                max_unsent_bytes);
  }
  if (header_timeout_ms < 1 || body_timeout_ms < 1 || idle_timeout_ms < 1 || write_timeout_ms < 1) {
    return InvalidArgumentError("every HTTP time-out must be at least 1 ms");
  }
  if (tls_cert.empty() != tls_key.empty()) {
    return InvalidArgumentError("TLS needs both a certificate and a key");
  }
  return ProxyTrust::Create(trusted_proxies, forwarded_header).status();
}

struct HttpServer::Impl {
  Impl(const HttpOptions& options, ServerContext& context, Handler* handler)
      : workers(options.worker_threads, kQueuedPreparations, context.clock()),
        scrapes(1, kQueuedScrapes, context.clock()),
        api(context, workers, scrapes) {
    shared.options = options;
    shared.context = &context;
    shared.handler = handler != nullptr ? handler : &api;
    shared.max_connections.store(options.max_connections);
  }

  ~Impl() {
    if (acceptor != nullptr) boost::asio::post(threads[0]->loop(), [this] { CloseListener(); });
    for (const auto& thread : threads) thread->Stop();
    workers.Join();
    scrapes.Join();
  }

  absl::Status Bind();
  absl::Status Listen();
  void CloseListener();
  // On the first thread, as all that follows: accepts what is there, then closes.
  void EmptyListener();
  void Take(tcp::socket socket, IoThread& owner);
  IoThread& NextThread();
  void Accept();
  void OnAccepted(error_code error, tcp::socket socket, IoThread& owner);

  ServerShared shared;
  WorkerPool workers;
  WorkerPool scrapes;
  Api api;
  std::unique_ptr<TlsContext> tls;
  std::vector<std::unique_ptr<IoThread>> threads;
  std::optional<ListenSocket> listener;  // until it is the acceptor's
  bool inherited = false;
  std::unique_ptr<tcp::acceptor> acceptor;           // on the first thread
  std::unique_ptr<boost::asio::steady_timer> pause;  // likewise
  size_t next_thread = 0;                            // likewise
  std::atomic<size_t> next_task_thread{0};
  uint16_t port = 0;
};

absl::Status HttpServer::Impl::Bind() {
  const HttpOptions& options = shared.options;
  ASSIGN_OR_RETURN(ListenSocket socket, ListenSocket::Open({.host = options.host,
                                                            .port = options.port,
                                                            .reuse_port = options.reuse_port,
                                                            .inherited_fd = options.inherited_fd}));
  port = socket.port();
  inherited = socket.inherited();
  listener = std::move(socket);
  return absl::OkStatus();
}

absl::Status HttpServer::Impl::Listen() {
  if (!listener.has_value()) return absl::OkStatus();
  RETURN_IF_ERROR(listener->Listen());
  boost::asio::io_context& loop = threads[0]->loop();
  error_code error;
  acceptor = std::make_unique<tcp::acceptor>(loop);
  pause = std::make_unique<boost::asio::steady_timer>(loop);
  acceptor->assign(listener->ipv6() ? tcp::v6() : tcp::v4(), listener->fd(), error);
  // So that emptying the backlog ends when nothing is left.
  if (!error) acceptor->non_blocking(true, error);
  if (error) return UnavailableError("cannot use the socket: %s", error.message());
  listener->Release();
  listener.reset();
  boost::asio::post(loop, [this] { Accept(); });
  return absl::OkStatus();
}

void HttpServer::Impl::CloseListener() {
  error_code ignored;
  acceptor->close(ignored);
  pause->cancel();
}

void HttpServer::Impl::EmptyListener() {
  error_code error;
  acceptor->cancel(error);
  // What waits in a socket that the service manager holds too is for the next process.
  while (!inherited && acceptor->is_open()) {
    IoThread& owner = NextThread();
    tcp::socket socket(owner.loop());
    acceptor->accept(socket, error);
    if (error) break;
    Take(std::move(socket), owner);
  }
  CloseListener();
}

IoThread& HttpServer::Impl::NextThread() {
  IoThread& thread = *threads[next_thread];
  next_thread = (next_thread + 1) % threads.size();
  return thread;
}

void HttpServer::Impl::Accept() {
  IoThread& owner = NextThread();
  acceptor->async_accept(owner.loop(), [this, &owner](error_code error, tcp::socket socket) {
    OnAccepted(error, std::move(socket), owner);
  });
}

void HttpServer::Impl::Take(tcp::socket socket, IoThread& owner) {
  if (shared.open.load() < shared.max_connections.load()) return owner.Adopt(std::move(socket));
  error_code ignored;
  socket.non_blocking(true, ignored);
  socket.write_some(boost::asio::buffer(TooManyConnections()), ignored);
  socket.shutdown(tcp::socket::shutdown_send, ignored);
}

void HttpServer::Impl::OnAccepted(error_code error, tcp::socket socket, IoThread& owner) {
  if (error == boost::asio::error::operation_aborted || !acceptor->is_open()) {
    // One may have come in the moment in which waiting for it was given up.
    if (!error) Take(std::move(socket), owner);
    return;
  }
  if (error) {
    // Out of descriptors, mostly: they come back when connections close. Until then nobody spins.
    LogWarning("cannot accept an HTTP connection: %s", error.message());
    pause->expires_after(kAcceptPause);
    pause->async_wait([this](error_code cancelled) {
      if (!cancelled) Accept();
    });
    return;
  }
  Take(std::move(socket), owner);
  Accept();
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpOptions& options,
                                                              ServerContext& context) {
  return Start(options, context, nullptr);
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpOptions& options,
                                                              ServerContext& context,
                                                              Handler* handler) {
  RETURN_IF_ERROR(options.Validate());
  std::unique_ptr<HttpServer> server(new HttpServer);
  server->impl_ = std::make_unique<Impl>(options, context, handler);
  Impl& impl = *server->impl_;
  ASSIGN_OR_RETURN(impl.shared.proxies,
                   ProxyTrust::Create(options.trusted_proxies, options.forwarded_header));
  if (!options.tls_cert.empty()) {
    ASSIGN_OR_RETURN(impl.tls, TlsContext::Create(options.tls_cert, options.tls_key));
  }
  for (uint32_t i = 0; i < options.io_threads; ++i) {
    impl.threads.push_back(std::make_unique<IoThread>(impl.shared, impl.tls.get()));
  }
  absl::Status status = impl.Bind();
  // Where others accept from the address, or the service manager keeps it, clients need not see
  // this process load.
  if (status.ok() && !options.reuse_port && !impl.inherited) status = impl.Listen();
  if (!status.ok()) {
    impl.acceptor.reset();
    return status;
  }
  for (const auto& thread : impl.threads) thread->Start();
  return server;
}

HttpServer::HttpServer() = default;
HttpServer::~HttpServer() = default;

uint16_t HttpServer::port() const { return impl_->port; }

std::string HttpServer::address() const {
  const std::string& host = impl_->shared.options.host;
  const bool v6 = host.find(':') != std::string::npos;
  return absl::StrFormat("%s://%s%s%s:%d", impl_->tls != nullptr ? "https" : "http", v6 ? "[" : "",
                         host, v6 ? "]" : "", impl_->port);
}

void HttpServer::OnReady() {
  if (const absl::Status status = impl_->Listen(); !status.ok()) {
    LogError("HTTP: %s", status.message());
  }
}

void HttpServer::AnnounceDrain() { impl_->shared.draining.store(true); }

void HttpServer::StopListening() {
  Impl& impl = *impl_;
  if (impl.acceptor == nullptr) return;
  if (!impl.inherited) StopArrivals(impl.acceptor->native_handle());
  const auto done = std::make_shared<std::promise<void>>();
  boost::asio::post(impl.threads[0]->loop(), [&impl, done] {
    impl.pause->expires_after(kHandshakes);
    impl.pause->async_wait([&impl, done](error_code) {
      impl.EmptyListener();
      // Behind the handlers of connections that were accepted just before.
      boost::asio::post(impl.threads[0]->loop(), [done] { done->set_value(); });
    });
  });
  done->get_future().wait_for(kStopPatience);
}

absl::Status HttpServer::ReloadTls() {
  if (impl_->tls == nullptr) return absl::OkStatus();
  return impl_->tls->Reload(impl_->shared.options.tls_cert, impl_->shared.options.tls_key);
}

void HttpServer::SetMaxConnections(uint32_t limit) { impl_->shared.max_connections.store(limit); }

void HttpServer::BeginDrain() {
  AnnounceDrain();
  impl_->shared.closing.store(true);
  for (const auto& thread : impl_->threads) thread->BeginDrain();
}

int64_t HttpServer::busy() const { return impl_->shared.busy.load(); }
int64_t HttpServer::open_connections() const {
  // One that is on its way to its thread is silent and not yet open; in this order it is seen.
  const int64_t silent = impl_->shared.silent.load();
  return std::max(silent, impl_->shared.open.load());
}

int64_t HttpServer::silent_connections() const { return impl_->shared.silent.load(); }

void HttpServer::Attach(LoopTask& task) {
  const size_t index = impl_->next_task_thread.fetch_add(1);
  impl_->threads[index % impl_->threads.size()]->Attach(task);
}

void HttpServer::Detach(LoopTask& task) {
  for (const auto& thread : impl_->threads) thread->Detach(task);
}

}  // namespace reticle::server::http
