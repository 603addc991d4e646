// A `reticle serve` (or any other server of ours) as a child process, and what it uses.
#ifndef RETICLE_SERVER_BENCH_SERVER_PROCESS_H_
#define RETICLE_SERVER_BENCH_SERVER_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace reticle::server::bench {

// Not thread-safe.
class ServerProcess {
 public:
  // Runs this program with `arguments`, on core `cpu` (-1: any), and waits until it has printed a
  // line that begins with `ready`. UNAVAILABLE with what it printed when it ends before.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Start(
      const std::vector<std::string>& arguments, int cpu, const std::string& ready);
  // Ends it and waits.
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  // The number behind the last colon of the line that begins with `prefix`, such as "HTTP"; 0:
  // none.
  uint16_t Port(const std::string& prefix) const;
  // CPU time of its threads by their name, ns.
  std::map<std::string, int64_t> ThreadCpu() const;
  int64_t Cpu() const;
  // Memory resident, bytes.
  int64_t Resident() const;

 private:
  explicit ServerProcess(pid_t pid) : pid_(pid) {}

  const pid_t pid_;
  int output_ = -1;
  std::vector<std::string> lines_;
};

// CPU time of this process, ns.
int64_t OwnCpu();
// Keeps this thread, and what it starts, on core `cpu`; -1: on any.
void PinTo(int cpu);

}  // namespace reticle::server::bench

#endif  // RETICLE_SERVER_BENCH_SERVER_PROCESS_H_
