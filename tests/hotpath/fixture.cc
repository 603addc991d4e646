#include "tests/hotpath/fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <utility>

#include "backends/abi/device.h"
#include "backends/fake/fake_device.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

namespace reticle::tests {
namespace {

// To each engine in turn.
class RoundRobinSink : public server::RequestSink {
 public:
  explicit RoundRobinSink(std::vector<scheduler::Engine*> engines) : engines_(std::move(engines)) {}
  absl::Status Submit(scheduler::Request request) override {
    return engines_[next_.fetch_add(1) % engines_.size()]->Submit(std::move(request));
  }

 private:
  const std::vector<scheduler::Engine*> engines_;
  std::atomic<size_t> next_{0};
};

std::unique_ptr<scheduler::Engine> MakeEngine(const HotPathServer::Options& options,
                                              uint32_t vocabulary) {
  backends::DeviceConfig config;
  config.context_limit = 200'000;
  config.options = {{"vocab", std::to_string(vocabulary)}, {"mode", "slots"}, {"blocks", "400000"}};
  config.options.insert(config.options.end(), options.device_options.begin(),
                        options.device_options.end());
  auto device =
      backends::Device::Open(*backends::Driver::FromApi(backends::fake::FakeDeviceApi()), config);
  RETICLE_CHECK(device.ok());
  auto engine =
      scheduler::Engine::Create(*std::move(device), {}, Clock::Monotonic(), /*probe=*/nullptr);
  RETICLE_CHECK(engine.ok());
  return *std::move(engine);
}

}  // namespace

HotPathServer::HotPathServer(const Options& options)
    : context_({}, Clock::Monotonic(), options.probe) {
  SetLogLevel(LogLevel::kOff);
  server::http::HttpOptions http;
  http.port = 0;
  http.io_threads = options.io_threads;
  http.max_unsent_bytes = options.max_unsent_bytes;
  auto started = server::http::HttpServer::Start(http, context_);
  RETICLE_CHECK(started.ok());
  http_ = *std::move(started);

  const std::shared_ptr<server::ModelEntry> entry = model_.Build();
  entry->limits.max_model_len = 200'000;
  std::vector<scheduler::Engine*> engines;
  for (uint32_t i = 0; i < options.engines; ++i) {
    engines_.push_back(MakeEngine(options, entry->limits.vocab_size));
    engines.push_back(engines_.back().get());
    if (options.engine_thread) {
      threads_.push_back(*scheduler::EngineThread::Start(*engines_.back(), {}));
    } else {
      tasks_.push_back(std::make_unique<server::EngineTask>(*engines_.back()));
      http_->Attach(*tasks_.back());
    }
  }
  entry->sink = std::make_unique<RoundRobinSink>(std::move(engines));
  RETICLE_CHECK(context_.models().Add(entry).ok());
  context_.SetReady();
}

HotPathServer::~HotPathServer() { http_.reset(); }

Client::Client(uint16_t port, int receive_buffer)
    : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  if (receive_buffer > 0) {
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  RETICLE_CHECK(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
}

Client::~Client() { close(fd_); }

void Client::Send(const std::string& text) const {
  size_t sent = 0;
  while (sent < text.size()) {
    const ssize_t count = send(fd_, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    RETICLE_CHECK(count > 0);
    sent += static_cast<size_t>(count);
  }
}

bool Client::Read(std::string& text) {
  if (!ahead_.empty()) {
    text += std::exchange(ahead_, {});
    return true;
  }
  char buffer[16384];
  const ssize_t count = recv(fd_, buffer, sizeof(buffer), 0);
  if (count <= 0) return false;
  text.append(buffer, static_cast<size_t>(count));
  return true;
}

std::string Client::ReadUntil(const std::string& end) {
  std::string text;
  size_t searched = 0;
  for (;;) {
    const size_t at = text.find(end, searched);
    if (at != std::string::npos) {
      ahead_ = text.substr(at + end.size());
      text.resize(at + end.size());
      return text;
    }
    searched = text.size() < end.size() ? 0 : text.size() - end.size();
    if (!Read(text)) return {};
  }
}

void Client::Abort() {
  const linger abort{.l_onoff = 1, .l_linger = 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
  close(std::exchange(fd_, -1));
}

std::string StreamRequest(uint32_t tokens, const std::string& members) {
  const std::string body = R"({"prompt":"hi","temperature":0,"ignore_eos":true,"stream":true,)"
                           R"("max_tokens":)" +
                           std::to_string(tokens) + members + "}";
  return "POST /v1/completions HTTP/1.1\r\nHost: test\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n\r\n" + body;
}

std::string TextOf(const std::string& stream) {
  const std::string key = R"("text":")";
  std::string text;
  for (size_t at = stream.find(key); at != std::string::npos; at = stream.find(key, at)) {
    at += key.size();
    text += stream.substr(at, stream.find('"', at) - at);
  }
  return text;
}

size_t Count(const std::string& text, const std::string& what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

}  // namespace reticle::tests
