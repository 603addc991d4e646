// A client that costs little: one thread, plain sockets, no look into the events that it counts. So
// that what is measured is the server.
#ifndef RETICLE_SERVER_BENCH_HTTP_CLIENT_H_
#define RETICLE_SERVER_BENCH_HTTP_CLIENT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace reticle::server::bench {

int64_t NowNanos();

// A connection to 127.0.0.1. Move-only; closes itself.
class Socket {
 public:
  static absl::StatusOr<Socket> Connect(uint16_t port);
  Socket(Socket&& other) noexcept;
  Socket& operator=(Socket&& other) noexcept;
  ~Socket();

  int fd() const { return fd_; }
  absl::Status Send(std::string_view bytes) const;

 private:
  explicit Socket(int fd) : fd_(fd) {}
  int fd_ = -1;
};

std::string HttpRequestText(std::string_view method, std::string_view path, std::string_view body);

// One exchange on a connection of its own; the body of a reply with status 200.
absl::StatusOr<std::string> Fetch(uint16_t port, std::string_view method, std::string_view path,
                                  std::string_view body);

// One stream as its client saw it.
struct StreamSeen {
  uint64_t events = 0;  // without [DONE]
  uint64_t reads = 0;
  uint64_t bytes = 0;
  int64_t sent_ns = 0;
  int64_t first_ns = 0;  // the first event
  int64_t last_ns = 0;   // the last bytes
};

// How the client waits. One that sleeps is itself late by its awakening, for which the server's
// send pays; one that spins takes a core.
enum class Waiting : uint8_t { kSleep, kSpin };

// Sends `body` to `path` on `count` connections at once and reads each to its [DONE].
absl::StatusOr<std::vector<StreamSeen>> ReadStreams(uint16_t port, size_t count,
                                                    std::string_view path, std::string_view body,
                                                    Waiting waiting = Waiting::kSleep);

struct ExchangeRate {
  uint64_t replies = 0;
  int64_t spent_ns = 0;
  uint64_t failures = 0;  // replies with another status than 200
};
// The same request again and again, each as soon as the last is answered, on `connections` kept
// alive, for `warm_ns` that do not count and `run_ns` that do. `begin` is called between the two.
absl::StatusOr<ExchangeRate> Exchange(uint16_t port, size_t connections, std::string_view request,
                                      int64_t warm_ns, int64_t run_ns, void (*begin)(void*),
                                      void* argument);

// Time from sending `request` to the first bytes of its reply, `rounds` times on one connection
// with `pause_ns` before each. The reply is read to its end.
absl::StatusOr<std::vector<int64_t>> FirstByteTimes(uint16_t port, std::string_view request,
                                                    int rounds, int64_t pause_ns);

}  // namespace reticle::server::bench

#endif  // RETICLE_SERVER_BENCH_HTTP_CLIENT_H_
