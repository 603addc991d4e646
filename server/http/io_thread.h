// One thread with its event loop and its connections. Internal to server/http: includes Asio.
#ifndef RETICLE_SERVER_HTTP_IO_THREAD_H_
#define RETICLE_SERVER_HTTP_IO_THREAD_H_

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <unordered_map>
#include <vector>

#include "server/core/loop_task.h"
#include "server/http/connection.h"
#include "server/http/operation_memory.h"
#include "server/http/wake_queue.h"

namespace reticle::server::http {

// The loop: sockets that are ready, connections that were woken, one round of every task; again for
// as long as there was something, then for the time that AdaptiveSpin gives, then it sleeps.
class IoThread : public ConnectionHost, private WakeQueue {
 public:
  // `shared` and `tls` (may be null) must outlive it.
  IoThread(ServerShared& shared, TlsContext* tls);
  // Requires Stop.
  ~IoThread() override;

  void Start();
  // Closes the connections, lets go of the tasks, ends the loop and joins.
  void Stop();
  // From any thread: takes over a socket that was accepted for this loop.
  void Adopt(boost::asio::ip::tcp::socket socket);
  void BeginDrain();
  // As those of LoopHost. Return at once when the thread has stopped.
  void Attach(LoopTask& task);
  void Detach(LoopTask& task);
  boost::asio::io_context& loop() { return loop_; }

  void Forget(Connection& connection) override;
  void Place(Connection& connection, bool idle) override;
  WakeQueue& wakes() override { return *this; }

 private:
  struct TaskEntry {
    TaskEntry(LoopTask& of, boost::asio::io_context& loop) : task(&of), event(loop) {}

    LoopTask* const task;
    OperationMemory memory;
    boost::asio::posix::stream_descriptor event;  // a duplicate of the task's, if it has one
    bool watched = false;
  };

  void Run();
  bool RunTasks();
  void Sleep();
  void Watch(const std::shared_ptr<TaskEntry>& entry);
  void WatchWake();
  void Tick();
  void DropTasks();
  // Runs `function` on the thread and waits for it; false when the thread has stopped.
  bool RunOnLoop(const std::function<void()>& function);
  void Rouse() override;
  std::vector<std::shared_ptr<Connection>> Connections() const;

  ServerShared& shared_;
  TlsContext* const tls_;
  OperationMemory wake_memory_;
  boost::asio::io_context loop_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  boost::asio::steady_timer timer_;
  std::atomic<bool> stopped_{false};   // the loop is to end
  std::atomic<bool> finished_{false};  // it has
  // Written to by whoever rouses the thread.
  boost::asio::posix::stream_descriptor wake_;

  // ---- the thread's own
  std::unordered_map<Connection*, std::shared_ptr<Connection>> connections_;
  // The same connections: those that wait for a request, by the time since when, and the others.
  ConnectionList idle_;
  ConnectionList active_;
  std::vector<std::shared_ptr<Connection>> ticked_;  // kept for its memory
  std::vector<std::shared_ptr<TaskEntry>> tasks_;
  bool wake_watched_ = false;

  std::thread thread_;
};

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_IO_THREAD_H_
