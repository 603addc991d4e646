// One client thread: sends what the scenario says, when it says so, and records what comes back.
#ifndef RETICLE_LOADTEST_DRIVER_H_
#define RETICLE_LOADTEST_DRIVER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <queue>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "loadtest/arrivals.h"
#include "loadtest/recorder.h"
#include "loadtest/scenario.h"
#include "loadtest/transport.h"
#include "loadtest/workload.h"

namespace reticle::loadtest {

// What all drivers of a run share. Thread-safe.
struct RunControl {
  std::atomic<bool> stop{false};          // give up at once: Ctrl-C
  std::atomic<int64_t> requests_left{0};  // to be sent, when the run is bounded by their number
  std::atomic<uint64_t> next_conversation{0};  // closed loop: numbers of conversations
};

// Not thread-safe: one thread creates it and calls Run(). Latencies count from the intended send:
// the arrival in an open loop; in a closed one the end of the reply before plus the time to think.
class Driver {
 public:
  struct Options {
    const Scenario* scenario = nullptr;
    const Workload* workload = nullptr;
    const BodyWriter* body = nullptr;  // null: gRPC
    RunControl* control = nullptr;
    int64_t thread = 0;  // of scenario->threads
    int64_t start_ns = 0;
  };
  using MakeTransport =
      std::function<absl::StatusOr<std::unique_ptr<Transport>>(Recorder&, Transport::OnDone)>;

  // Everything that the options point to, and `recorder`, must outlive the driver.
  static absl::StatusOr<std::unique_ptr<Driver>> Create(const Options& options, Recorder& recorder,
                                                        const MakeTransport& make_transport);

  ~Driver();

  // Returns when everything that was sent is over, the drain's time has passed or the run was
  // stopped.
  void Run();

  // What the thread spent inside the window; after Run().
  struct Usage {
    double wall_s = 0;
    double cpu_s = 0;
    double wait_s = 0;  // ready to run, but another thread had the CPU
    double runs = 0;    // times that it was given a CPU
    double busy_s = 0;  // handling events, as opposed to waiting or polling for them
  };
  const Usage& usage() const { return usage_; }
  // When Run() ended.
  int64_t end_ns() const { return end_ns_; }

 private:
  struct Session;
  struct Timer {
    int64_t at_ns;
    Session* session;
    bool operator>(const Timer& other) const { return at_ns > other.at_ns; }
  };

  Driver(const Options& options, Recorder& recorder);

  void StartUsers();
  // Open loop: begins the conversations whose time has come.
  void StartArrivals(int64_t now_ns);
  void PrepareArrival();
  // Sends the session's next turn.
  void Send(Session& session, int64_t intended_ns);
  void OnDone(Request& request);
  // What follows a finished request: the next turn, another try, the user's next conversation.
  void Continue(Session& session);
  // Sends the session's next request at `at_ns`; ends it when that is behind the run's end.
  void Schedule(Session& session, int64_t at_ns);
  void EndSession(Session& session);
  bool TakeRequest();
  // Adds (or, with sign -1, takes off) what the thread has spent up to now.
  void AddUsage(double sign, int64_t now_ns);
  bool MaySend(int64_t intended_ns) const;

  const Options options_;
  const Scenario& scenario_;
  Recorder& recorder_;
  const int64_t send_until_ns_;
  std::unique_ptr<Transport> transport_;
  std::optional<Arrivals> arrivals_;  // empty: closed loop, or none is left
  uint64_t arrival_index_ = 0;
  std::unique_ptr<Session> prepared_;  // open loop: the next conversation, ready to be sent
  int64_t prepared_at_ns_ = 0;
  std::unordered_map<Session*, std::unique_ptr<Session>> sessions_;
  std::priority_queue<Timer, std::vector<Timer>, std::greater<>> timers_;
  std::vector<Session*> finished_;  // requests that ended since the loop last looked
  bool exhausted_ = false;          // as many requests as were asked for have been sent
  Usage usage_;
  int64_t end_ns_ = 0;
};

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_DRIVER_H_
