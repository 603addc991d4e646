// Turns the bytes that a connection receives into the outcome of a request.
#ifndef RETICLE_LOADTEST_REPLY_READER_H_
#define RETICLE_LOADTEST_REPLY_READER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "loadtest/chunk_reader.h"
#include "loadtest/http_reader.h"
#include "loadtest/recorder.h"
#include "loadtest/request.h"
#include "loadtest/sse_reader.h"

namespace reticle::loadtest {

// One per connection, Begin()-ed for each request. Knows HTTP, SSE and OpenAI's JSON, not sockets.
// Not thread-safe. In the steady state of a stream it does not allocate.
class ReplyReader {
 public:
  enum class Result : uint8_t {
    kMore,       // the reply goes on
    kDone,       // complete; the connection may serve another request
    kDoneClose,  // over, with success or not; the connection must be closed
  };

  // `request` must live until the reply is over.
  void Begin(Request& request);
  // Takes what came at `now_ns` and tells `recorder` of new text.
  Result Feed(std::string_view data, int64_t now_ns, Recorder& recorder);
  // The server closed, or the connection broke. Completes the outcome; the connection is to be
  // closed.
  void FeedEnd(int64_t now_ns, Recorder& recorder);

  // A part of this reply has come.
  bool begun() const { return http_.begun(); }

 private:
  static constexpr size_t kMaxBodyBytes = size_t{256} << 20;

  void TakeHead(const HttpHead& head);
  bool TakeBody(std::string_view piece);
  bool TakeEvent(std::string_view payload);
  void Fail(ErrorKind kind, std::string_view message);
  // The HTTP response is complete.
  void Complete(int64_t now_ns, Recorder& recorder);

  Request* request_ = nullptr;
  HttpReader http_;
  SseReader sse_;
  ChunkReader chunks_;
  std::string body_;  // of a reply that is no stream
  bool streaming_ = false;
  bool done_ = false;       // [DONE] came
  bool stop_ = false;       // nothing more is to be read
  int64_t new_events_ = 0;  // since the last report to the recorder
};

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_REPLY_READER_H_
