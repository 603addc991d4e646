// One client connection: bytes to requests, replies to bytes. Internal to server/http: includes
// Asio.
#ifndef RETICLE_SERVER_HTTP_CONNECTION_H_
#define RETICLE_SERVER_HTTP_CONNECTION_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/core/trace_context.h"
#include "server/http/client_address.h"
#include "server/http/handler.h"
#include "server/http/http_server.h"
#include "server/http/response_writer.h"
#include "server/http/transport.h"
#include "server/http/wake_queue.h"

namespace reticle::server::http {

class Connection;

// What connections of all threads share.
struct ServerShared {
  HttpOptions options;
  ServerContext* context = nullptr;
  Handler* handler = nullptr;
  ProxyTrust proxies;
  std::atomic<uint32_t> max_connections{0};
  std::atomic<int64_t> request_memory{0};  // bytes of request bodies, read or announced
  std::atomic<bool> draining{false};       // each reply is the last of its connection
  std::atomic<bool> closing{false};        // and nobody need wait for another request
  std::atomic<int64_t> open{0};
  // Of those that were accepted, the ones that have not said a word, also on their way to a thread.
  std::atomic<int64_t> silent{0};
  std::atomic<int64_t> busy{0};
};

// A connection's thread, as the connection sees it.
class ConnectionHost {
 public:
  virtual ~ConnectionHost() = default;
  // The connection is closed; drops the host's reference. On the thread.
  virtual void Forget(Connection& connection) = 0;
  // The connection waits for a request, since now, or does something else. On the thread.
  virtual void Place(Connection& connection, bool idle) = 0;
  // Where whoever has something for a connection tells so.
  virtual WakeQueue& wakes() = 0;
};

// Connections of one thread, in the order of addition. Owns none.
class ConnectionList {
 public:
  ConnectionList();
  ConnectionList(const ConnectionList&) = delete;
  ConnectionList& operator=(const ConnectionList&) = delete;

  void Add(Connection& connection);
  // Out of the list that it is in, if any.
  static void Remove(Connection& connection);
  Connection* first() const;
  // The next in its list, or null.
  static Connection* After(const Connection& connection);

  struct Link {
    Link* previous = nullptr;
    Link* next = nullptr;
    Connection* connection = nullptr;  // null: the list's own
  };

 private:
  Link ends_;
};

// Lives on one thread: every member but the waker's is called there.
//
// Requests are answered one at a time in the order in which they came; what a client sends
// meanwhile waits in a bounded buffer. Reading goes on while a request is answered, which is how a
// client that goes away is seen at once. What is ready is written at once, in one piece, by the
// thread that made it; only what the socket does not take waits for it.
class Connection : public TransportEvents, public std::enable_shared_from_this<Connection> {
 public:
  // `peer`: the client's network address.
  Connection(std::unique_ptr<Transport> transport, ServerShared& shared, ConnectionHost& host,
             std::string peer);
  ~Connection() override;

  void Start();
  // The running task has something to write.
  void OnWake();
  // Applies time-outs.
  void Tick(int64_t now_ns);
  // The server drains: closes the connection if it waits for another request, or has waited for its
  // first one for a while.
  void OnDrain();
  void Close();

  void OnHandshake(boost::system::error_code error) override;
  void OnRead(boost::system::error_code error, size_t bytes) override;
  void OnWritten(boost::system::error_code error, size_t bytes) override;

 private:
  friend class ConnectionList;
  enum class Phase : uint8_t {
    kHandshake,
    kIdle,  // between requests: nothing of the next one is there
    kHeader,
    kBody,
    kHandling,
    kLinger,  // all is written; what the client still sends is dropped until it closes
  };
  struct Parser;

  void Run();
  void Read();
  // Writes what is ready. False when something is left that waits for the socket.
  bool Flush();
  void OnAllWritten();
  void OnWriteFailed();
  // Parses what is buffered. True: a request (or a reply to a bad one) came out of it.
  bool ParseRequest();
  // The head is there: whether its body is wanted. If not, it was answered.
  bool AcceptHead();
  void Dispatch();
  // Lines about this request's caller and origin, for the reply's head.
  std::function<void(std::string&)> HeadersOf(std::string_view origin) const;
  void AnswerPreflight(std::string_view origin);
  // Whoever keeps sending requests without a good key is heard a few times a second only.
  bool Throttled() const;
  void Refuse(absl::Status error);
  void FinishExchange(int status);
  void BeginLinger();
  void Enter(Phase phase);
  void SetBusy(bool busy);
  // It has spoken, or will not.
  void EndSilence();
  int64_t Now() const;
  // Whether its client has connected and said nothing for longer than one that is about to.
  bool IsStale(int64_t now_ns) const;
  // Takes the request's body, as large as it is said to be or has become, from the memory that all
  // requests have. False: there is not so much left.
  bool TakeMemory(uint64_t bytes);
  void GiveMemoryBack();
  // To whoever writes logs and traces.
  void Tell(int status);

  ServerShared& shared_;
  ConnectionHost& host_;
  const std::string peer_;
  const std::unique_ptr<Transport> transport_;
  const std::shared_ptr<WakeTarget> wake_target_;
  ConnectionList::Link link_;
  bool listed_idle_ = false;

  std::vector<char> input_;
  size_t input_begin_ = 0;
  size_t input_end_ = 0;
  std::unique_ptr<Parser> parser_;  // of the request that is being read
  absl::StatusOr<std::string> path_ = absl::UnknownError("not read");
  std::shared_ptr<const Caller> caller_;
  uint64_t skip_ = 0;      // bytes of a refused request's body that are still to come
  uint32_t refusals_ = 0;  // in a row
  int64_t throttled_until_ns_ = 0;
  std::unique_ptr<Task> task_;
  std::unique_ptr<Task> finished_task_;  // until its reply is written
  ResponseWriter writer_;
  std::string output_;  // what the socket has not taken yet
  size_t written_ = 0;

  Phase phase_ = Phase::kHandshake;
  int64_t phase_since_ns_ = 0;
  int64_t write_progress_ns_ = 0;
  int64_t arrival_ns_ = 0;
  int64_t memory_ = 0;  // of ServerShared::request_memory
  TraceContext trace_;
  std::string_view route_ = "unmatched";
  std::string method_;
  bool reading_ = false;
  bool writing_ = false;
  bool input_closed_ = false;  // the client will send nothing more
  bool close_after_ = false;   // close when all is written
  bool closed_ = false;
  bool busy_ = false;
  bool silent_ = true;
};

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_CONNECTION_H_
