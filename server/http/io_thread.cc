#include "server/http/io_thread.h"

#include <pthread.h>

#include <boost/asio/post.hpp>
#include <chrono>
#include <utility>

namespace reticle::server::http {
namespace {

constexpr std::chrono::milliseconds kTick{100};

}  // namespace

IoThread::IoThread(ServerShared& shared, TlsContext* tls)
    : shared_(shared), tls_(tls), work_(boost::asio::make_work_guard(loop_)), timer_(loop_) {}

void IoThread::Start() {
  Tick();
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "http");
    loop_.run();
  });
}

void IoThread::Stop() {
  boost::asio::post(loop_, [this] {
    timer_.cancel();
    for (const auto& connection : Connections()) connection->Close();
    work_.reset();
    // What the closed sockets still owe runs first.
    boost::asio::post(loop_, [this] { loop_.stop(); });
  });
  if (thread_.joinable()) thread_.join();
}

void IoThread::Adopt(boost::asio::ip::tcp::socket socket) {
  auto owned = std::make_shared<boost::asio::ip::tcp::socket>(std::move(socket));
  boost::asio::post(loop_, [this, owned] {
    boost::system::error_code ignored;
    owned->set_option(boost::asio::ip::tcp::no_delay(true), ignored);
    const auto peer = owned->remote_endpoint(ignored);
    auto connection = std::make_shared<Connection>(MakeTransport(std::move(*owned), tls_), shared_,
                                                   *this, peer.address().to_string());
    connections_.emplace(connection.get(), connection);
    connection->Start();
  });
}

void IoThread::BeginDrain() {
  boost::asio::post(loop_, [this] {
    for (const auto& connection : Connections()) connection->OnDrain();
  });
}

void IoThread::Forget(Connection& connection) { connections_.erase(&connection); }

void IoThread::QueueWake(std::weak_ptr<Connection> connection) {
  bool first;
  {
    MutexLock lock(mutex_);
    first = wakes_.empty();
    wakes_.push_back(std::move(connection));
  }
  if (first) boost::asio::post(loop_, [this] { DeliverWakes(); });
}

void IoThread::DeliverWakes() {
  {
    MutexLock lock(mutex_);
    delivered_.swap(wakes_);
  }
  for (const auto& weak : delivered_) {
    if (const std::shared_ptr<Connection> connection = weak.lock()) connection->OnWake();
  }
  delivered_.clear();
}

std::vector<std::shared_ptr<Connection>> IoThread::Connections() const {
  std::vector<std::shared_ptr<Connection>> all;
  all.reserve(connections_.size());
  for (const auto& [raw, connection] : connections_) all.push_back(connection);
  return all;
}

void IoThread::Tick() {
  timer_.expires_after(kTick);
  timer_.async_wait([this](boost::system::error_code error) {
    if (error) return;
    const int64_t now_ns = shared_.context->clock().NowNanos();
    for (const auto& connection : Connections()) connection->Tick(now_ns);
    Tick();
  });
}

}  // namespace reticle::server::http
