// HTTP/1.x responses from a byte stream that arrives in pieces of any size.
#ifndef RETICLE_LOADTEST_HTTP_READER_H_
#define RETICLE_LOADTEST_HTTP_READER_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace reticle::loadtest {

// What the head of a response said.
struct HttpHead {
  int status = 0;
  bool keep_alive = false;
  bool event_stream = false;  // Content-Type: text/event-stream
  double retry_after_s = -1;  // -1: none, or a date
};

// Reads one response after the other. The body is given as it lies in the pieces, without a copy.
// Not thread-safe; allocates only for a head that comes in several pieces.
class HttpReader {
 public:
  enum class State : uint8_t { kHead, kBody, kDone, kFailed };

  // Gets ready for the next response.
  void Reset();

  // Reads up to the end of the response. Calls on_head(const HttpHead&) once and on_body(piece) as
  // the body comes; on_body returns false to stop for good (the state stays kBody). Returns how
  // many bytes were taken: fewer than given only behind the end of the response or on a stop.
  template <typename OnHead, typename OnBody>
  size_t Feed(std::string_view data, OnHead&& on_head, OnBody&& on_body);

  // The peer closed: a body without a length ends there (kDone); else the response is cut short,
  // and the state stays what it was.
  void FeedEnd();

  State state() const { return state_; }
  // Something of this response has come.
  bool begun() const { return begun_; }
  const HttpHead& head() const { return head_; }
  // What was wrong, for kFailed.
  const char* error() const { return error_; }

 private:
  enum class Framing : uint8_t {
    kLength,
    kChunkSize,
    kChunkData,
    kChunkEnd,
    kTrailer,
    kUntilClose
  };
  static constexpr size_t kMaxHeadBytes = 256 * 1024;

  void Fail(const char* why) {
    state_ = State::kFailed;
    error_ = why;
  }
  // `head`: up to and with the empty line. Sets state_ and framing_; an interim (1xx) response
  // leaves the state at kHead.
  void ParseHead(std::string_view head);
  // Takes bytes of a chunk-size line, a chunk's end or the trailer. Returns how many.
  size_t TakeFraming(std::string_view data);

  State state_ = State::kHead;
  Framing framing_ = Framing::kLength;
  bool begun_ = false;
  bool extension_ = false;   // inside a chunk extension
  bool size_begun_ = false;  // a digit of the chunk size was read
  size_t line_bytes_ = 0;    // of the current trailer line
  uint64_t left_ = 0;        // bytes of the body or chunk that are still to come
  HttpHead head_;
  std::string partial_;
  const char* error_ = "";
};

template <typename OnHead, typename OnBody>
size_t HttpReader::Feed(std::string_view data, OnHead&& on_head, OnBody&& on_body) {
  const size_t given = data.size();
  if (!data.empty()) begun_ = true;
  while (state_ == State::kHead && !data.empty()) {
    const size_t before = partial_.size();
    size_t taken = data.size();
    if (before == 0) {
      const size_t end = data.find("\r\n\r\n");
      if (end == std::string_view::npos) {
        partial_.assign(data);
      } else {
        taken = end + 4;
        ParseHead(data.substr(0, taken));
      }
    } else {
      partial_.append(data);
      const size_t end = partial_.find("\r\n\r\n", before < 3 ? 0 : before - 3);
      if (end != std::string::npos) {
        taken = end + 4 - before;
        partial_.resize(end + 4);
        const std::string head = std::move(partial_);
        partial_.clear();
        ParseHead(head);
      }
    }
    if (partial_.size() > kMaxHeadBytes) Fail("the head is longer than 256 KiB");
    data.remove_prefix(taken);
    if (state_ == State::kBody || state_ == State::kDone) on_head(head_);
  }
  while (state_ == State::kBody && !data.empty()) {
    if (framing_ == Framing::kUntilClose) {
      const bool go_on = on_body(data);
      data = {};
      if (!go_on) break;
    } else if (framing_ == Framing::kLength || framing_ == Framing::kChunkData) {
      const size_t size = static_cast<size_t>(std::min<uint64_t>(left_, data.size()));
      const std::string_view piece = data.substr(0, size);
      data.remove_prefix(size);
      left_ -= size;
      if (left_ == 0) {
        if (framing_ == Framing::kLength) {
          state_ = State::kDone;
        } else {
          framing_ = Framing::kChunkEnd;
        }
      }
      if (!on_body(piece)) break;
    } else {
      data.remove_prefix(TakeFraming(data));
    }
  }
  return given - data.size();
}

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_HTTP_READER_H_
