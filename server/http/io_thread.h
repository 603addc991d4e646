// One thread with its event loop and its connections. Internal to server/http: includes Asio.
#ifndef RETICLE_SERVER_HTTP_IO_THREAD_H_
#define RETICLE_SERVER_HTTP_IO_THREAD_H_

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "server/http/connection.h"

namespace reticle::server::http {

class IoThread : public ConnectionHost {
 public:
  // `shared` and `tls` (may be null) must outlive it.
  IoThread(ServerShared& shared, TlsContext* tls);
  // Requires Stop.
  ~IoThread() override = default;

  void Start();
  // Closes the connections, ends the loop and joins.
  void Stop();
  // From any thread: takes over a socket that was accepted for this loop.
  void Adopt(boost::asio::ip::tcp::socket socket);
  void BeginDrain();
  boost::asio::io_context& loop() { return loop_; }

  void Forget(Connection& connection) override;
  void QueueWake(std::weak_ptr<Connection> connection) override;

 private:
  void Tick();
  void DeliverWakes();
  std::vector<std::shared_ptr<Connection>> Connections() const;

  ServerShared& shared_;
  TlsContext* const tls_;
  boost::asio::io_context loop_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  boost::asio::steady_timer timer_;
  std::unordered_map<Connection*, std::shared_ptr<Connection>> connections_;  // the loop's own
  std::vector<std::weak_ptr<Connection>> delivered_;                          // the loop's own
  Mutex mutex_;
  // Wakes since the last delivery: one visit to the loop serves all of them.
  std::vector<std::weak_ptr<Connection>> wakes_ RETICLE_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_IO_THREAD_H_
