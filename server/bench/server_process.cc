#include "server/bench/server_process.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>

#include "base/status.h"

namespace reticle::server::bench {
namespace {

std::string FirstWord(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string word;
  file >> word;
  return word;
}

// In the child, between fork and exec.
[[noreturn]] void Become(const std::vector<char*>& arguments, int output, int cpu) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  PinTo(cpu);
  dup2(output, STDOUT_FILENO);
  execv("/proc/self/exe", arguments.data());
  _exit(127);
}

}  // namespace

void PinTo(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (cpu < 0 || i == cpu) CPU_SET(static_cast<size_t>(i), &set);
  }
  sched_setaffinity(0, sizeof(set), &set);
}

int64_t OwnCpu() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Start(
    const std::vector<std::string>& arguments, int cpu, const std::string& ready) {
  std::vector<std::string> copies = arguments;
  copies.insert(copies.begin(), "reticle");
  std::vector<char*> pointers;
  for (std::string& argument : copies) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  int pipe_fds[2];
  if (pipe2(pipe_fds, O_CLOEXEC) != 0) return InternalError("pipe: %s", std::strerror(errno));
  const pid_t pid = fork();
  if (pid < 0) return InternalError("fork: %s", std::strerror(errno));
  if (pid == 0) Become(pointers, pipe_fds[1], cpu);
  close(pipe_fds[1]);
  std::unique_ptr<ServerProcess> made(new ServerProcess(pid));
  made->output_ = pipe_fds[0];
  std::string line;
  std::string all;
  char byte = 0;
  ssize_t got = 0;
  while ((got = read(pipe_fds[0], &byte, 1)) > 0 || (got < 0 && errno == EINTR)) {
    if (got < 0) continue;
    if (byte != '\n') {
      line.push_back(byte);
      continue;
    }
    made->lines_.push_back(line);
    if (line.starts_with(ready)) return made;
    all += line + "\n";
    line.clear();
  }
  return UnavailableError("the server ended before it was ready; it printed:\n%s%s", all, line);
}

ServerProcess::~ServerProcess() {
  kill(pid_, SIGTERM);
  // Nobody reads on: a server that wants to say more must not wait for that.
  close(output_);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

uint16_t ServerProcess::Port(const std::string& prefix) const {
  for (const std::string& line : lines_) {
    if (!line.starts_with(prefix)) continue;
    const size_t colon = line.rfind(':');
    uint16_t port = 0;
    std::from_chars(line.data() + colon + 1, line.data() + line.size(), port);
    return port;
  }
  return 0;
}

std::map<std::string, int64_t> ServerProcess::ThreadCpu() const {
  std::map<std::string, int64_t> times;
  std::error_code error;
  const std::string folder = "/proc/" + std::to_string(pid_) + "/task";
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string spent = FirstWord(entry.path() / "schedstat");
    int64_t ns = 0;
    std::from_chars(spent.data(), spent.data() + spent.size(), ns);
    times[FirstWord(entry.path() / "comm")] += ns;
  }
  return times;
}

int64_t ServerProcess::Cpu() const {
  int64_t sum = 0;
  for (const auto& [name, ns] : ThreadCpu()) sum += ns;
  return sum;
}

int64_t ServerProcess::Resident() const {
  std::ifstream file("/proc/" + std::to_string(pid_) + "/statm");
  int64_t total = 0;
  int64_t resident = 0;
  file >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

}  // namespace reticle::server::bench
