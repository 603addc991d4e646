// A server in this process over the fake device, for tests of the way of a token: engine, rings,
// connections, sockets.
#ifndef RETICLE_TESTS_HOTPATH_FIXTURE_H_
#define RETICLE_TESTS_HOTPATH_FIXTURE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/engine.h"
#include "scheduler/engine_thread.h"
#include "server/core/engine_task.h"
#include "server/core/server_context.h"
#include "server/core/testing.h"
#include "server/http/http_server.h"

namespace reticle::tests {

class HotPathServer {
 public:
  struct Options {
    bool engine_thread = false;  // else an I/O thread steps the engines
    uint32_t io_threads = 1;
    uint32_t engines = 1;  // requests go to them in turn
    size_t max_unsent_bytes = size_t{64} << 10;
    std::vector<std::pair<std::string, std::string>> device_options;
    server::ServerProbe* probe = nullptr;
  };
  explicit HotPathServer(const Options& options);
  ~HotPathServer();

  uint16_t port() const { return http_->port(); }
  server::ServerContext& context() { return context_; }
  scheduler::Engine& engine(size_t index) { return *engines_[index]; }

 private:
  server::ServerContext context_;
  server::TestModel model_;
  std::vector<std::unique_ptr<scheduler::Engine>> engines_;
  std::vector<std::unique_ptr<scheduler::EngineThread>> threads_;
  std::vector<std::unique_ptr<server::EngineTask>> tasks_;
  std::unique_ptr<server::http::HttpServer> http_;
};

// A blocking connection to it.
class Client {
 public:
  explicit Client(uint16_t port, int receive_buffer = 0);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void Send(const std::string& text) const;
  // Appends what comes next; false at the end of the stream.
  bool Read(std::string& text);
  // Reads until `end` was read, which stays in what is returned; empty when the connection ends
  // before.
  std::string ReadUntil(const std::string& end);
  // With a reset, so that the server notices at its next write.
  void Abort();

 private:
  int fd_;
  std::string ahead_;  // read behind what was asked for
};

// A request for `tokens` tokens of a stream; `members` go into the body, each with a comma in
// front.
std::string StreamRequest(uint32_t tokens, const std::string& members = "");
// The texts of the events of a stream, joined.
std::string TextOf(const std::string& stream);
size_t Count(const std::string& text, const std::string& what);

}  // namespace reticle::tests

#endif  // RETICLE_TESTS_HOTPATH_FIXTURE_H_
