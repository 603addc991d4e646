#include "loadtest/preflight.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "loadtest/grpc_transport.h"
#include "loadtest/http_reader.h"
#include "loadtest/http_transport.h"
#include "loadtest/json_scanner.h"
#include "loadtest/text.h"

namespace reticle::loadtest {
namespace {

constexpr int64_t kCalibrationWords[] = {32, 160};

int64_t Now() { return Clock::Monotonic().NowNanos(); }

// One GET over a connection of its own, by a deadline.
class Fetch {
 public:
  Fetch(const Target& target, int64_t deadline_ns) : target_(target), deadline_ns_(deadline_ns) {}
  ~Fetch() {
    tls_.reset();
    if (fd_ >= 0) close(fd_);
  }
  Fetch(const Fetch&) = delete;
  Fetch& operator=(const Fetch&) = delete;

  absl::Status Get(const std::string& path, const std::string& api_key) {
    const auto* address = reinterpret_cast<const sockaddr*>(&target_.address.storage);
    fd_ = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd_ < 0 || (connect(fd_, address, target_.address.length) != 0 && errno != EINPROGRESS)) {
      return UnavailableError("connect: %s", std::strerror(errno));
    }
    RETURN_IF_ERROR(Wait(POLLOUT));
    if (target_.tls != nullptr) {
      tls_ = TlsSession::Create(*target_.tls, fd_, target_.endpoint.host);
      if (tls_ == nullptr) return InternalError("no memory for a TLS session");
      RETURN_IF_ERROR(Step([&] { return tls_->Handshake(); }));
    }
    std::string request = "GET " + path + " HTTP/1.1\r\nHost: " + target_.endpoint.Authority() +
                          "\r\nConnection: close\r\nAccept: application/json\r\n";
    if (!api_key.empty()) request += "Authorization: Bearer " + api_key + "\r\n";
    request += "\r\n";
    while (!request.empty()) {
      size_t done = 0;
      RETURN_IF_ERROR(Step([&] { return Send(request, done); }));
      request.erase(0, done);
    }
    std::vector<char> buffer(64 * 1024);
    while (reader_.state() != HttpReader::State::kDone) {
      size_t done = 0;
      bool closed = false;
      RETURN_IF_ERROR(Step([&] {
        const IoResult result = Receive(buffer, done);
        closed = result == IoResult::kClosed;
        return closed ? IoResult::kDone : result;
      }));
      if (closed) {
        reader_.FeedEnd();
        break;
      }
      reader_.Feed(
          {buffer.data(), done}, [](const HttpHead&) {},
          [this](std::string_view piece) {
            body_.append(piece);
            return true;
          });
      if (reader_.state() == HttpReader::State::kFailed) {
        return FailedPreconditionError("no HTTP server: %s", reader_.error());
      }
    }
    if (reader_.state() != HttpReader::State::kDone) {
      return FailedPreconditionError("no HTTP server: it closed without a whole reply");
    }
    return absl::OkStatus();
  }

  int status() const { return reader_.head().status; }
  const std::string& body() const { return body_; }

 private:
  absl::Status Wait(short events) {  // NOLINT: poll's type
    pollfd waiter{.fd = fd_, .events = events, .revents = 0};
    const int64_t left_ms = (deadline_ns_ - Now()) / 1'000'000;
    if (left_ms <= 0 || poll(&waiter, 1, static_cast<int>(left_ms)) <= 0) {
      return UnavailableError("no answer in time");
    }
    return absl::OkStatus();
  }

  // Repeats `attempt` until it is done, waiting in between.
  template <typename Attempt>
  absl::Status Step(Attempt attempt) {
    while (true) {
      switch (attempt()) {
        case IoResult::kDone:
          return absl::OkStatus();
        case IoResult::kWantRead:
          RETURN_IF_ERROR(Wait(POLLIN));
          break;
        case IoResult::kWantWrite:
          RETURN_IF_ERROR(Wait(POLLOUT));
          break;
        case IoResult::kClosed:
          return UnavailableError("the server closed the connection");
        case IoResult::kFailed:
          return UnavailableError("TLS: %s", tls_->error());
      }
    }
  }

  IoResult Send(const std::string& data, size_t& done) {
    if (tls_ != nullptr) return tls_->Write(data.data(), data.size(), done);
    const ssize_t n = send(fd_, data.data(), data.size(), MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN ? IoResult::kWantWrite : IoResult::kClosed;
    done = static_cast<size_t>(n);
    return IoResult::kDone;
  }

  IoResult Receive(std::vector<char>& buffer, size_t& done) {
    if (tls_ != nullptr) return tls_->Read(buffer.data(), buffer.size(), done);
    const ssize_t n = recv(fd_, buffer.data(), buffer.size(), 0);
    if (n < 0 && errno == EAGAIN) return IoResult::kWantRead;
    if (n <= 0) return IoResult::kClosed;
    done = static_cast<size_t>(n);
    return IoResult::kDone;
  }

  const Target& target_;
  const int64_t deadline_ns_;
  int fd_ = -1;
  std::unique_ptr<TlsSession> tls_;
  HttpReader reader_;
  std::string body_;
};

// The first id in {"data":[{"id":..}]}; empty when there is none.
std::string FirstModelId(std::string_view body) {
  std::string first;
  JsonScanner json(body);
  std::string_view key;
  for (json.EnterObject(); json.NextKey(key);) {
    if (key != "data" || json.Peek() != '[') {
      json.Skip();
      continue;
    }
    for (json.EnterArray(); json.NextElement();) {
      std::string_view field;
      for (json.EnterObject(); json.NextKey(field);) {
        std::string_view id;
        if (field == "id" && first.empty() && json.Peek() == '"' && json.String(id)) {
          AppendJsonUnescaped(first, id);
        } else if (field != "id" || !first.empty()) {
          json.Skip();
        }
      }
    }
  }
  return first;
}

absl::StatusOr<std::string> FirstHttpModel(const Scenario& scenario, const Target& target) {
  Fetch fetch(target, Now() + scenario.connect_timeout_ns);
  const std::string path = target.endpoint.base_path + "/models";
  RETURN_IF_ERROR(fetch.Get(path, scenario.api_key));
  if (fetch.status() == 503) return UnavailableError("the server is not ready (503)");
  const std::string model = fetch.status() == 200 ? FirstModelId(fetch.body()) : "";
  if (model.empty()) {
    return FailedPreconditionError("GET %s answers %d and names no model; name one with --model",
                                   path, fetch.status());
  }
  return model;
}

}  // namespace

absl::StatusOr<Target> FindTarget(const Scenario& scenario) {
  Target target;
  ASSIGN_OR_RETURN(target.endpoint, ParseEndpoint(scenario.url));
  target.model = scenario.model;
  ASSIGN_OR_RETURN(target.address, Reach(target.endpoint, scenario.connect_timeout_ns));
  if (target.endpoint.protocol == Protocol::kHttps) {
    ASSIGN_OR_RETURN(target.tls, TlsContext::Create(scenario.ca_file, scenario.insecure));
  }
  if (!target.model.empty()) return target;
  if (target.endpoint.protocol == Protocol::kGrpc) {
    ASSIGN_OR_RETURN(target.model, FirstGrpcModel(target.endpoint, scenario.connect_timeout_ns));
  } else {
    ASSIGN_OR_RETURN(target.model, FirstHttpModel(scenario, target));
  }
  return target;
}

Driver::MakeTransport TransportMaker(const Scenario& scenario, const Target& target) {
  return [&scenario, &target](
             Recorder& recorder,
             Transport::OnDone on_done) -> absl::StatusOr<std::unique_ptr<Transport>> {
    const int64_t connections = scenario.max_connections / scenario.threads;
    if (target.endpoint.protocol == Protocol::kGrpc) {
      return MakeGrpcTransport({.endpoint = target.endpoint,
                                .model = target.model,
                                .api_key = scenario.api_key,
                                .temperature = scenario.temperature,
                                .ignore_eos = scenario.ignore_eos,
                                .connections = std::max<int64_t>(connections, 1),
                                .timeout_ns = scenario.timeout_ns},
                               recorder, std::move(on_done));
    }
    HttpTransportOptions options;
    options.endpoint = target.endpoint;
    options.address = target.address;
    options.tls = target.tls.get();
    options.path = target.endpoint.base_path +
                   (scenario.api == Api::kChat ? "/chat/completions" : "/completions");
    options.api_key = scenario.api_key;
    options.max_connections = connections;
    options.timeout_ns = scenario.timeout_ns;
    options.connect_timeout_ns = scenario.connect_timeout_ns;
    auto transport = HttpTransport::Create(std::move(options), recorder, std::move(on_done));
    if (!transport.ok()) return transport.status();
    return std::unique_ptr<Transport>(*std::move(transport));
  };
}

WordScale CalibrateWords(const Scenario& scenario, const Target& target, std::string& note) {
  const auto fail = [&](const std::string& why) {
    note = absl::StrFormat("prompts were not calibrated (%s): a word counts as a token", why);
    return WordScale();
  };
  Recorder recorder(Recorder::Options{});
  const auto transport = TransportMaker(scenario, target)(recorder, [](Request&) {});
  if (!transport.ok()) return fail(std::string(transport.status().message()));
  const BodyWriter writer(scenario, target.model);
  double tokens[2] = {0, 0};
  for (int i = 0; i < 2; ++i) {
    const std::vector<Message> messages = {
        {"user", SyntheticText(static_cast<uint64_t>(scenario.seed) + 1000, kCalibrationWords[i])}};
    Request request;
    request.stream = scenario.stream;
    request.max_tokens = 1;
    request.body = writer.Body(messages, 1);
    if (scenario.api == Api::kChat) {
      request.messages = &messages;
    } else {
      request.prompt = JoinedPrompt(messages);
    }
    request.intended_ns = request.outcome.started_ns = Now();
    (*transport)->Start(request);
    const int64_t deadline_ns = Now() + scenario.timeout_ns;
    while ((*transport)->in_flight() > 0 && Now() < deadline_ns) {
      (*transport)->Poll(Now() + 20'000'000, false);
    }
    (*transport)->AbandonAll();
    if (request.outcome.error != ErrorKind::kNone) {
      return fail(ErrorName(request.outcome) + " " + request.outcome.message);
    }
    if (!request.outcome.usage.present) return fail("the server gives no usage");
    tokens[i] = static_cast<double>(request.outcome.usage.prompt_tokens);
  }
  WordScale scale;
  scale.per_word =
      (tokens[1] - tokens[0]) / static_cast<double>(kCalibrationWords[1] - kCalibrationWords[0]);
  scale.fixed = tokens[0] - scale.per_word * static_cast<double>(kCalibrationWords[0]);
  if (!(scale.per_word > 0.05 && scale.per_word < 20)) return fail("usage does not grow with them");
  note = absl::StrFormat("calibrated: %.2f tokens a word and %.0f around a prompt", scale.per_word,
                         scale.fixed);
  return scale;
}

}  // namespace reticle::loadtest
