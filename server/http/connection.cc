#include "server/http/connection.h"

#include <algorithm>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "server/core/error.h"
#include "server/core/request_summary.h"
#include "server/http/request_target.h"

namespace reticle::server::http {

ConnectionList::ConnectionList() { ends_.previous = ends_.next = &ends_; }

void ConnectionList::Add(Connection& connection) {
  Link& link = connection.link_;
  link.previous = ends_.previous;
  link.next = &ends_;
  link.previous->next = &link;
  ends_.previous = &link;
}

void ConnectionList::Remove(Connection& connection) {
  Link& link = connection.link_;
  if (link.next == nullptr) return;
  link.previous->next = link.next;
  link.next->previous = link.previous;
  link.previous = link.next = nullptr;
}

Connection* ConnectionList::first() const { return ends_.next->connection; }

Connection* ConnectionList::After(const Connection& connection) {
  return connection.link_.next->connection;
}

namespace {

namespace asio = boost::asio;
namespace beast_http = boost::beast::http;
using boost::system::error_code;

constexpr size_t kFirstInputBytes = 4096;
// What a task may add to a buffer that is not yet full.
constexpr size_t kBeyondBudgetBytes = size_t{48} << 10;
// Of the buffers of a connection that waits for a request.
constexpr size_t kKeptIdleBytes = 4096;
// The status of a request whose client left before its reply was complete.
constexpr int kClientGone = 499;
// For the first request on a connection that was accepted by a server which now ends.
constexpr int64_t kFirstWordsNs = 500'000'000;
constexpr int64_t kLingerNs = 2'000'000'000;
// Requests without a good key that a connection may send one after the other, and how long it waits
// between further ones.
constexpr uint32_t kFreeRefusals = 8;
constexpr int64_t kRefusalPauseNs = 250'000'000;
// A body that is dropped unread, so that the connection can go on.
constexpr uint64_t kMaxSkippedBytes = uint64_t{64} << 10;

std::string_view View(boost::beast::string_view text) { return {text.data(), text.size()}; }

// Two of them say nothing.
std::string_view TraceparentOf(const beast_http::fields& head) {
  return head.count("traceparent") == 1 ? View(head["traceparent"]) : "";
}

absl::Status ParserError(error_code error, const HttpOptions& options) {
  if (error == beast_http::error::header_limit || error == beast_http::error::buffer_overflow) {
    return WithHttpStatus(InvalidArgumentError("The request header is longer than %d bytes",
                                               options.max_header_bytes),
                          431);
  }
  if (error == beast_http::error::body_limit) {
    return WithHttpStatus(WithCode(InvalidArgumentError("The request body is longer than %d bytes",
                                                        options.max_body_bytes),
                                   "request_too_large"),
                          413);
  }
  if (error == beast_http::error::bad_version) {
    return WithHttpStatus(InvalidArgumentError("The HTTP version is not 1.0 or 1.1"), 505);
  }
  return InvalidArgumentError("The request is not valid HTTP: %s", error.message());
}

}  // namespace

struct Connection::Parser {
  beast_http::request_parser<beast_http::string_body> http;
  bool continue_sent = false;
};

Connection::Connection(std::unique_ptr<Transport> transport, ServerShared& shared,
                       ConnectionHost& host, std::string peer)
    : shared_(shared),
      host_(host),
      peer_(std::move(peer)),
      transport_(std::move(transport)),
      wake_target_(std::make_shared<WakeTarget>(host.wakes(), this)),
      input_(kFirstInputBytes) {
  link_.connection = this;
  const int64_t open = shared_.open.fetch_add(1) + 1;
  shared_.context->probe().OnConnectionsChanged(shared_.options.front, open);
}

Connection::~Connection() {
  const int64_t open = shared_.open.fetch_sub(1) - 1;
  shared_.context->probe().OnConnectionsChanged(shared_.options.front, open);
}

int64_t Connection::Now() const { return shared_.context->clock().NowNanos(); }

void Connection::Enter(Phase phase) {
  phase_ = phase;
  phase_since_ns_ = Now();
  const bool idle = phase == Phase::kIdle;
  // Again when it was idle before, so that the list stays in the order of time.
  if (idle || listed_idle_) host_.Place(*this, idle);
  listed_idle_ = idle;
}

void Connection::EndSilence() {
  if (silent_) shared_.silent.fetch_sub(1);
  silent_ = false;
}

void Connection::SetBusy(bool busy) {
  if (busy_ == busy) return;
  busy_ = busy;
  shared_.busy.fetch_add(busy ? 1 : -1);
}

void Connection::Start() {
  Enter(Phase::kHandshake);
  transport_->Handshake(shared_from_this());
}

void Connection::OnHandshake(error_code error) {
  if (closed_) return;
  if (error) return Close();
  // A client that connects and sends nothing has the header's time, not the idle time.
  Enter(Phase::kHeader);
  Read();
}

void Connection::Read() {
  if (reading_ || input_closed_ || closed_) return;
  if (input_begin_ == input_end_) {
    input_begin_ = input_end_ = 0;
  } else if (input_end_ == input_.size()) {
    std::copy(input_.begin() + static_cast<ptrdiff_t>(input_begin_),
              input_.begin() + static_cast<ptrdiff_t>(input_end_), input_.begin());
    input_end_ -= input_begin_;
    input_begin_ = 0;
    const size_t limit = shared_.options.max_header_bytes + (size_t{16} << 10);
    if (input_end_ == input_.size()) {
      if (input_.size() >= limit) return;
      input_.resize(std::min(input_.size() * 2, limit));
    }
  }
  reading_ = true;
  transport_->ReadSome(asio::buffer(input_.data() + input_end_, input_.size() - input_end_),
                       shared_from_this());
}

void Connection::OnRead(error_code error, size_t bytes) {
  reading_ = false;
  if (closed_) return;
  if (phase_ == Phase::kLinger) {
    if (error) return Close();
    input_begin_ = input_end_ = 0;
    return Read();
  }
  if (error) {
    input_closed_ = true;
    if (task_ != nullptr && task_->abandon_on_disconnect()) return Close();
    // A reset leaves nobody to answer to; after a mere end of input there may be.
    if (error != asio::error::eof) return Close();
  } else {
    input_end_ += bytes;
  }
  Run();
}

void Connection::OnWake() {
  if (!closed_) Run();
}

void Connection::Run() {
  const size_t budget = shared_.options.max_unsent_bytes;
  while (!closed_ && writer_.buffer().size() < budget) {
    if (task_ != nullptr) {
      const Task::Progress progress = task_->Produce(writer_, budget);
      if (progress == Task::Progress::kWaiting) break;
      if (progress == Task::Progress::kDone) FinishExchange(writer_.status());
    } else if (close_after_ || phase_ == Phase::kLinger || Throttled() || !ParseRequest()) {
      break;
    }
  }
  if (closed_) return;
  if (input_closed_ && task_ == nullptr) close_after_ = true;
  const bool more = writer_.buffer().size() >= budget;
  if (Flush() && more && !closed_) {
    // The others first.
    host_.wakes().Push(wake_target_);
  }
  if (closed_) return;
  if (close_after_ && task_ == nullptr && !writing_) return BeginLinger();
  Read();
}

bool Connection::Throttled() const {
  return refusals_ > kFreeRefusals && parser_ == nullptr && Now() < throttled_until_ns_;
}

bool Connection::ParseRequest() {
  if (skip_ > 0) {
    const uint64_t skipped = std::min<uint64_t>(skip_, input_end_ - input_begin_);
    input_begin_ += skipped;
    skip_ -= skipped;
    if (skip_ > 0) return false;
  }
  if (parser_ == nullptr) {
    // An empty line in front of a request is allowed (RFC 9112, section 2.2).
    while (input_begin_ < input_end_ &&
           (input_[input_begin_] == '\r' || input_[input_begin_] == '\n')) {
      ++input_begin_;
    }
    if (input_begin_ == input_end_) return false;
    parser_ = std::make_unique<Parser>();
    parser_->http.header_limit(static_cast<uint32_t>(shared_.options.max_header_bytes));
    parser_->http.body_limit(shared_.options.max_body_bytes);
    arrival_ns_ = Now();
    SetBusy(true);
    EndSilence();
    Enter(Phase::kHeader);
  }
  if (input_begin_ == input_end_) return false;
  auto& http = parser_->http;
  while (!http.is_done()) {
    error_code error;
    const size_t used = http.put(
        asio::const_buffer(input_.data() + input_begin_, input_end_ - input_begin_), error);
    input_begin_ += used;
    if (error && error != beast_http::error::need_more) {
      Refuse(ParserError(error, shared_.options));
      return true;
    }
    if (http.is_header_done() && phase_ == Phase::kHeader) {
      Enter(Phase::kBody);
      if (!AcceptHead()) return true;
      http.eager(true);
    }
    if (http.is_header_done() && !TakeMemory(std::max<uint64_t>(http.content_length().value_or(0),
                                                                http.get().body().size()))) {
      Refuse(
          UnavailableError("the bodies of the requests that are read now fill the memory for "
                           "them (%d bytes)",
                           shared_.options.max_request_memory));
      return true;
    }
    if (used == 0 || input_begin_ == input_end_) break;
  }
  if (http.is_done()) {
    Dispatch();
    return true;
  }
  if (input_end_ - input_begin_ >= shared_.options.max_header_bytes + (size_t{16} << 10)) {
    Refuse(ParserError(beast_http::error::header_limit, shared_.options));
    return true;
  }
  if (http.is_header_done() && !parser_->continue_sent &&
      boost::beast::iequals(http.get()[beast_http::field::expect], "100-continue")) {
    parser_->continue_sent = true;
    writer_.buffer().append("HTTP/1.1 100 Continue\r\n\r\n");
  }
  return false;
}

bool Connection::AcceptHead() {
  const auto& message = parser_->http.get();
  path_ = PathOfTarget(View(message.target()));
  caller_.reset();
  if (!path_.ok()) return true;
  const std::string_view method = View(message.method_string());
  const std::optional<Refusal> refusal = shared_.handler->AuthorizeHead(
      method, *path_, View(message[beast_http::field::authorization]), caller_);
  if (!refusal.has_value()) {
    refusals_ = 0;
    return true;
  }
  // Refused as cheaply as can be: the body is neither read nor stored.
  const auto length = parser_->http.content_length();
  const bool bare = !message.chunked() && message.count(beast_http::field::expect) == 0 &&
                    message.count(beast_http::field::transfer_encoding) == 0;
  skip_ = length.has_value() ? *length : 0;
  ReplyTerms terms;
  terms.http_1_0 = message.version() < 11;
  terms.head = message.method() == beast_http::verb::head;
  terms.keep_alive = message.keep_alive() && !shared_.draining.load() && !input_closed_ && bare &&
                     skip_ <= kMaxSkippedBytes;
  terms.request_id = TakeRequestId(View(message["x-request-id"]));
  trace_ = shared_.context->Trace(TraceparentOf(message));
  terms.traceparent = trace_.Traceparent();
  terms.headers = HeadersOf(View(message[beast_http::field::origin]));
  method_ = std::string(method);
  route_ = shared_.handler->Route(*path_);
  parser_.reset();
  writer_.Begin(std::move(terms));
  writer_.Send(refusal->status, "application/json", refusal->body,
               refusal->status == 401 ? "WWW-Authenticate: Bearer\r\n" : "");
  throttled_until_ns_ = Now() + kRefusalPauseNs;
  ++refusals_;
  FinishExchange(writer_.status());
  return false;
}

std::function<void(std::string&)> Connection::HeadersOf(std::string_view origin) const {
  const std::vector<std::string>& origins = shared_.options.cors_origins;
  std::string allowed;
  for (const std::string& known : origins) {
    if (known == "*" || known == origin) allowed = known;
  }
  Gate* const gate = shared_.context->options().gate;
  const std::shared_ptr<const Caller> caller = gate != nullptr ? caller_ : nullptr;
  if (origin.empty()) allowed.clear();
  if (allowed.empty() && caller == nullptr) return nullptr;
  return [allowed, caller, gate](std::string& out) {
    if (caller != nullptr) gate->AppendHeaders(*caller, out);
    if (allowed.empty()) return;
    out.append("Access-Control-Allow-Origin: ").append(allowed).append("\r\nVary: Origin\r\n");
    out.append("Access-Control-Expose-Headers: *\r\n");
  };
}

void Connection::AnswerPreflight(std::string_view origin) {
  writer_.Send(200, "", "",
               "Access-Control-Allow-Methods: GET, HEAD, POST\r\n"
               "Access-Control-Allow-Headers: authorization, content-type, x-request-id, "
               "x-request-timeout-ms\r\nAccess-Control-Max-Age: 600\r\n");
  route_ = "preflight";
  FinishExchange(writer_.status());
}

bool Connection::TakeMemory(uint64_t bytes) {
  const int64_t more = static_cast<int64_t>(bytes) - memory_;
  if (more <= 0) return true;
  const auto limit = static_cast<int64_t>(shared_.options.max_request_memory);
  if (shared_.request_memory.fetch_add(more) + more > limit) {
    shared_.request_memory.fetch_sub(more);
    return false;
  }
  memory_ += more;
  return true;
}

void Connection::GiveMemoryBack() {
  shared_.request_memory.fetch_sub(memory_);
  memory_ = 0;
}

void Connection::Tell(int status) {
  RequestListener* const listener = shared_.context->options().listener;
  if (listener == nullptr) return;
  RequestSummary summary;
  summary.front = shared_.options.front;
  summary.method = method_;
  summary.route = route_;
  summary.request_id = writer_.request_id();
  summary.trace = trace_;
  summary.caller = caller_;
  summary.status = status;
  summary.failed = status >= 500 && status != 503;
  summary.arrival_ns = arrival_ns_;
  summary.end_ns = Now();
  if (task_ != nullptr) task_->Describe(listener->wants_prompts(), summary);
  listener->OnRequestOver(summary);
}

void Connection::Dispatch() {
  beast_http::request<beast_http::string_body> message = parser_->http.release();
  parser_.reset();
  // The end of a body in another coding is not known, nor is where the next request begins.
  const bool unknown_coding =
      message.count(beast_http::field::transfer_encoding) > 0 && !message.chunked();
  ReplyTerms terms;
  terms.http_1_0 = message.version() < 11;
  terms.head = message.method() == beast_http::verb::head;
  terms.keep_alive =
      message.keep_alive() && !shared_.draining.load() && !input_closed_ && !unknown_coding;
  terms.request_id = TakeRequestId(View(message["x-request-id"]));
  trace_ = shared_.context->Trace(TraceparentOf(message));
  terms.traceparent = trace_.Traceparent();
  const std::string_view origin = View(message[beast_http::field::origin]);
  terms.headers = HeadersOf(origin);
  const bool preflight = message.method() == beast_http::verb::options && terms.headers &&
                         message.count(beast_http::field::access_control_request_method) > 0;
  method_ = std::string(View(message.method_string()));
  Enter(Phase::kHandling);

  HttpRequest request;
  request.method = method_;
  request.request_id = terms.request_id;
  request.timeout_ms = std::string(View(message["x-request-timeout-ms"]));
  request.authorization = std::string(View(message[beast_http::field::authorization]));
  request.origin = std::string(View(message[beast_http::field::origin]));
  request.if_none_match = std::string(View(message[beast_http::field::if_none_match]));
  request.accept_encoding = std::string(View(message[beast_http::field::accept_encoding]));
  request.arrival_ns = arrival_ns_;
  request.body = std::move(message.body());
  request.content_type = std::string(View(message[beast_http::field::content_type]));
  request.peer = peer_;
  if (const ProxyTrust& proxies = shared_.proxies; !proxies.empty()) {
    std::string values;
    const auto [begin, end] = message.equal_range(proxies.header());
    for (auto line = begin; line != end; ++line) {
      values.append(values.empty() ? "" : ",").append(View(line->value()));
    }
    request.peer = proxies.ClientOf(peer_, values);
  }
  request.caller = caller_;
  writer_.Begin(std::move(terms));
  absl::StatusOr<std::string> path = std::move(path_);
  if (path.ok() && message.version() >= 11 && message.count(beast_http::field::host) != 1) {
    path = InvalidArgumentError("An HTTP/1.1 request needs exactly one Host header");
  }
  if (unknown_coding) {
    path = InvalidArgumentError("Only the transfer coding \"chunked\" is understood");
  }
  if (!path.ok()) {
    route_ = "unmatched";
    writer_.SendError(path.status());
    return FinishExchange(writer_.status());
  }
  if (preflight) return AnswerPreflight(origin);
  route_ = shared_.handler->Route(*path);
  request.path = *std::move(path);
  task_ = shared_.handler->Start(std::move(request),
                                 [target = wake_target_] { target->queue.Push(target); });
}

// Answers a request that could not be read to its end; nothing after it can be understood.
void Connection::Refuse(absl::Status error) {
  ReplyTerms terms;
  terms.keep_alive = false;
  std::string_view offered_id, traceparent;
  if (parser_ != nullptr && parser_->http.is_header_done()) {
    offered_id = View(parser_->http.get()["x-request-id"]);
    traceparent = TraceparentOf(parser_->http.get());
  }
  terms.request_id = TakeRequestId(offered_id);
  trace_ = shared_.context->Trace(traceparent);
  terms.traceparent = trace_.Traceparent();
  parser_.reset();
  route_ = "unmatched";
  method_ = "-";
  arrival_ns_ = arrival_ns_ == 0 ? Now() : arrival_ns_;
  writer_.Begin(std::move(terms));
  writer_.SendError(error);
  FinishExchange(writer_.status());
}

void Connection::FinishExchange(int status) {
  shared_.context->probe().OnHttpRequest(route_, method_, status, Now() - arrival_ns_);
  Tell(status);
  GiveMemoryBack();
  finished_task_ = std::move(task_);
  caller_.reset();
  if (!writer_.keep_alive() || shared_.draining.load()) close_after_ = true;
  Enter(Phase::kIdle);
}

bool Connection::Flush() {
  if (writing_ || closed_) return false;
  std::string& ready = writer_.buffer();
  if (!ready.empty()) {
    error_code error;
    const size_t taken = transport_->TryWrite(asio::buffer(ready), error);
    if (error) {
      OnWriteFailed();
      return false;
    }
    if (taken < ready.size()) {
      output_.swap(ready);
      // A client that is behind once is so again: room for all that may wait for it.
      const size_t room = shared_.options.max_unsent_bytes + kBeyondBudgetBytes;
      for (std::string* buffer : {&output_, &ready}) buffer->reserve(room);
      written_ = taken;
      writing_ = true;
      write_progress_ns_ = Now();
      if (listed_idle_) host_.Place(*this, listed_idle_ = false);
      transport_->WriteSome(asio::buffer(output_.data() + taken, output_.size() - taken),
                            shared_from_this());
      return false;
    }
    ready.clear();
    OnAllWritten();
  }
  if (task_ == nullptr && parser_ == nullptr) SetBusy(false);
  return true;
}

void Connection::OnAllWritten() {
  for (std::unique_ptr<Task>* task : {&finished_task_, &task_}) {
    if (*task != nullptr) (*task)->OnHandedOver(Now());
  }
  finished_task_.reset();
  if (task_ != nullptr) return;
  // A connection that waits for a request keeps little.
  for (std::string* buffer : {&output_, &writer_.buffer()}) {
    if (buffer->empty() && buffer->capacity() > kKeptIdleBytes) buffer->shrink_to_fit();
  }
}

void Connection::OnWriteFailed() { Close(); }

void Connection::OnWritten(error_code error, size_t bytes) {
  writing_ = false;
  if (closed_) return;
  if (error) return OnWriteFailed();
  write_progress_ns_ = Now();
  written_ += bytes;
  if (written_ < output_.size()) {
    writing_ = true;
    transport_->WriteSome(asio::buffer(output_.data() + written_, output_.size() - written_),
                          shared_from_this());
    return;
  }
  output_.clear();
  if (phase_ == Phase::kIdle && !listed_idle_) host_.Place(*this, listed_idle_ = true);
  if (writer_.buffer().empty()) OnAllWritten();
  Run();
}

void Connection::BeginLinger() {
  // Closing with unread input would reset the connection and could take the reply with it.
  SetBusy(false);
  Enter(Phase::kLinger);
  if (input_closed_) return Close();
  transport_->ShutdownSend(shared_from_this());
  input_begin_ = input_end_ = 0;
  Read();
}

void Connection::Tick(int64_t now_ns) {
  const HttpOptions& options = shared_.options;
  const auto passed = [&](int64_t since_ns, int64_t limit_ms) {
    return now_ns - since_ns > limit_ms * 1'000'000;
  };
  if (closed_) return;
  if (writing_ && passed(write_progress_ns_, options.write_timeout_ms)) {
    LogInfo("request %s: the client reads nothing; closed", writer_.request_id());
    return Close();
  }
  switch (phase_) {
    case Phase::kHandshake:
      if (passed(phase_since_ns_, options.header_timeout_ms)) Close();
      break;
    case Phase::kIdle:
      if (refusals_ > kFreeRefusals && now_ns >= throttled_until_ns_ && input_begin_ < input_end_) {
        return Run();
      }
      if (!writing_ && passed(phase_since_ns_, options.idle_timeout_ms)) Close();
      break;
    case Phase::kHeader:
    case Phase::kBody: {
      if (shared_.closing.load() && IsStale(now_ns)) return Close();
      const bool header = phase_ == Phase::kHeader;
      if (!passed(phase_since_ns_, header ? options.header_timeout_ms : options.body_timeout_ms)) {
        break;
      }
      if (parser_ == nullptr) return Close();
      Refuse(WithHttpStatus(DeadlineExceededError("The request's %s took too long to arrive",
                                                  header ? "header" : "body"),
                            408));
      Run();
      break;
    }
    case Phase::kHandling:
      break;
    case Phase::kLinger:
      if (now_ns - phase_since_ns_ > kLingerNs) Close();
      break;
  }
}

bool Connection::IsStale(int64_t now_ns) const {
  return phase_ == Phase::kHeader && parser_ == nullptr && now_ns - phase_since_ns_ > kFirstWordsNs;
}

void Connection::OnDrain() {
  const bool waits = phase_ == Phase::kIdle || IsStale(Now());
  if (waits && !writing_) Close();
}

void Connection::Close() {
  if (closed_) return;
  closed_ = true;
  if (task_ != nullptr) {
    shared_.context->probe().OnHttpRequest(route_, method_, kClientGone, Now() - arrival_ns_);
    Tell(kClientGone);
    task_.reset();
  }
  GiveMemoryBack();
  finished_task_.reset();
  SetBusy(false);
  EndSilence();
  wake_target_->connection = nullptr;
  transport_->Close();
  host_.Forget(*this);
}

}  // namespace reticle::server::http
