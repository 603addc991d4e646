#include "server/http/io_thread.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <chrono>
#include <future>
#include <utility>

#include "base/log.h"
#include "scheduler/adaptive_spin.h"

namespace reticle::server::http {
namespace {

namespace asio = boost::asio;
using scheduler::AdaptiveSpin;

constexpr std::chrono::milliseconds kTick{100};
constexpr std::chrono::milliseconds kAskAgain{10};
// More than the time between two tokens of a device for which this matters.
constexpr int64_t kSpinNs = 200'000;

void Clear(int fd) {
  uint64_t count;
  while (read(fd, &count, sizeof(count)) < 0 && errno == EINTR) {
  }
}

}  // namespace

IoThread::IoThread(ServerShared& shared, TlsContext* tls)
    : shared_(shared),
      tls_(tls),
      work_(asio::make_work_guard(loop_)),
      timer_(loop_),
      wake_(loop_, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

IoThread::~IoThread() = default;

void IoThread::Start() {
  Tick();
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "http");
    Run();
  });
}

void IoThread::Stop() {
  if (!thread_.joinable()) return;
  asio::post(loop_, [this] {
    timer_.cancel();
    for (const auto& connection : Connections()) connection->Close();
    DropTasks();
    wake_.cancel();
    work_.reset();
    // What the closed sockets still owe runs first.
    asio::post(loop_, [this] { stopped_.store(true, std::memory_order_release); });
  });
  thread_.join();
}

void IoThread::Run() {
  const Clock& clock = shared_.context->clock();
  AdaptiveSpin spin(AdaptiveSpin::OnThisMachine(kSpinNs), clock.NowNanos());
  while (!stopped_.load(std::memory_order_acquire)) {
    bool any = loop_.poll() > 0;
    any |= RunTasks();
    any |= Drain([](Connection& connection) {
      const auto alive = connection.shared_from_this();
      connection.OnWake();
    });
    const int64_t now_ns = clock.NowNanos();
    if (any) {
      spin.OnWork(now_ns);
    } else if (spin.Spins(now_ns)) {
      scheduler::SpinPause();
    } else {
      spin.OnSleep();
      Sleep();
    }
  }
  // Whoever asked while the loop was ending.
  loop_.poll();
  finished_.store(true, std::memory_order_release);
}

bool IoThread::RunTasks() {
  bool any = false;
  for (const auto& entry : tasks_) any |= entry->task->RunOnce();
  return any;
}

void IoThread::Sleep() {
  if (!FallAsleep()) return;
  int64_t timer_ns = INT64_MAX;
  for (const auto& entry : tasks_) {
    if (!entry->task->PrepareSleep()) return Awake();
    timer_ns = std::min(timer_ns, entry->task->next_timer_ns());
  }
  WatchWake();
  for (const auto& entry : tasks_) Watch(entry);
  if (timer_ns == INT64_MAX) {
    loop_.run_one();
  } else {
    const int64_t left_ns = timer_ns - shared_.context->clock().NowNanos();
    if (left_ns > 0) loop_.run_one_for(std::chrono::nanoseconds(left_ns));
  }
  Awake();
}

void IoThread::Watch(const std::shared_ptr<TaskEntry>& entry) {
  if (entry->watched || !entry->event.is_open()) return;
  entry->watched = true;
  entry->event.async_wait(asio::posix::stream_descriptor::wait_read,
                          KeptIn(entry->memory, [entry](boost::system::error_code error) {
                            entry->watched = false;
                            if (!error) Clear(entry->event.native_handle());
                          }));
}

void IoThread::WatchWake() {
  if (wake_watched_) return;
  wake_watched_ = true;
  wake_.async_wait(asio::posix::stream_descriptor::wait_read,
                   KeptIn(wake_memory_, [this](boost::system::error_code error) {
                     wake_watched_ = false;
                     if (!error) Clear(wake_.native_handle());
                   }));
}

void IoThread::Rouse() {
  const uint64_t one = 1;
  while (write(wake_.native_handle(), &one, sizeof(one)) < 0 && errno == EINTR) {
  }
}

void IoThread::Attach(LoopTask& task) {
  RunOnLoop([&] {
    auto entry = std::make_shared<TaskEntry>(task, loop_);
    if (task.event_fd() >= 0) {
      const int fd = fcntl(task.event_fd(), F_DUPFD_CLOEXEC, 0);
      boost::system::error_code error;
      if (fd >= 0) entry->event.assign(fd, error);
      if (fd < 0 || error) LogWarning("cannot watch a device's event descriptor");
      if (fd >= 0 && error) close(fd);
    }
    task.SetWake([this] { Rouse(); });
    tasks_.push_back(std::move(entry));
  });
}

void IoThread::Detach(LoopTask& task) {
  RunOnLoop([&] {
    const auto found = std::find_if(tasks_.begin(), tasks_.end(),
                                    [&](const auto& entry) { return entry->task == &task; });
    if (found == tasks_.end()) return;
    task.SetWake(nullptr);
    boost::system::error_code ignored;
    (*found)->event.close(ignored);
    tasks_.erase(found);
  });
}

void IoThread::DropTasks() {
  for (const auto& entry : tasks_) {
    entry->task->SetWake(nullptr);
    boost::system::error_code ignored;
    entry->event.close(ignored);
  }
  tasks_.clear();
}

bool IoThread::RunOnLoop(const std::function<void()>& function) {
  if (finished_.load(std::memory_order_acquire)) return false;
  std::promise<void> done;
  asio::post(loop_, [&] {
    function();
    done.set_value();
  });
  const std::future<void> result = done.get_future();
  for (;;) {
    // Read first: what was posted before the loop's last look has run then, anything else never
    // will.
    const bool finished = finished_.load(std::memory_order_acquire);
    if (result.wait_for(kAskAgain) == std::future_status::ready) return true;
    if (finished) return false;
  }
}

void IoThread::Adopt(asio::ip::tcp::socket socket) {
  auto owned = std::make_shared<asio::ip::tcp::socket>(std::move(socket));
  shared_.silent.fetch_add(1);
  asio::post(loop_, [this, owned] {
    boost::system::error_code ignored;
    owned->set_option(asio::ip::tcp::no_delay(true), ignored);
    const auto peer = owned->remote_endpoint(ignored);
    auto connection = std::make_shared<Connection>(MakeTransport(std::move(*owned), tls_), shared_,
                                                   *this, peer.address().to_string());
    connections_.emplace(connection.get(), connection);
    active_.Add(*connection);
    connection->Start();
  });
}

void IoThread::BeginDrain() {
  asio::post(loop_, [this] {
    for (const auto& connection : Connections()) connection->OnDrain();
  });
}

void IoThread::Forget(Connection& connection) {
  ConnectionList::Remove(connection);
  connections_.erase(&connection);
}

void IoThread::Place(Connection& connection, bool idle) {
  ConnectionList::Remove(connection);
  (idle ? idle_ : active_).Add(connection);
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
    for (Connection* it = active_.first(); it != nullptr; it = ConnectionList::After(*it)) {
      ticked_.push_back(it->shared_from_this());
    }
    for (const auto& connection : ticked_) connection->Tick(now_ns);
    ticked_.clear();
    // The one that has waited longest is first, and Tick closes it or leaves it there.
    while (Connection* const longest = idle_.first()) {
      longest->shared_from_this()->Tick(now_ns);
      if (idle_.first() == longest) break;
    }
    Tick();
  });
}

}  // namespace reticle::server::http
