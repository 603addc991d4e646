// Server-sent events from a body that arrives in pieces of any size.
#ifndef RETICLE_LOADTEST_SSE_READER_H_
#define RETICLE_LOADTEST_SSE_READER_H_

#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>

namespace reticle::loadtest {

// Follows the event-stream format of the HTML standard, but for lines that end in a lone CR, which
// no server sends. Fields other than `data` are passed over. An event that lies whole in one piece
// is given without a copy. Not thread-safe; one per stream, Reset() between two.
class SseReader {
 public:
  // Longest event; beyond it the stream is malformed.
  static constexpr size_t kMaxEventBytes = size_t{16} << 20;

  void Reset() {
    line_.clear();
    data_.clear();
    has_data_ = false;
    failed_ = false;
  }

  // Calls on_event(payload) for every event that `piece` completes; `payload` lives until it
  // returns. on_event returns false to stop: the rest of `piece` is then dropped.
  template <typename OnEvent>
  void Feed(std::string_view piece, OnEvent&& on_event);

  // An event had begun when the body ended.
  bool incomplete() const { return has_data_ || !line_.empty(); }
  // An event was too long.
  bool failed() const { return failed_; }

 private:
  // Takes a line without its end into the event. Returns true when the event is complete.
  bool TakeLine(std::string_view line);

  std::string line_;  // the start of a line whose end has not come
  std::string data_;  // data lines of the event so far
  bool has_data_ = false;
  bool failed_ = false;
};

template <typename OnEvent>
void SseReader::Feed(std::string_view piece, OnEvent&& on_event) {
  constexpr std::string_view kData = "data: ";
  while (!piece.empty() && !failed_) {
    const char* const newline =
        static_cast<const char*>(std::memchr(piece.data(), '\n', piece.size()));
    if (newline == nullptr) {
      line_.append(piece);
      failed_ = line_.size() > kMaxEventBytes;
      return;
    }
    const size_t length = static_cast<size_t>(newline - piece.data());
    if (line_.empty() && !has_data_ && length + 1 < piece.size() && piece[length + 1] == '\n' &&
        piece.starts_with(kData) && piece[length - 1] != '\r') {
      const std::string_view payload = piece.substr(kData.size(), length - kData.size());
      piece.remove_prefix(length + 2);
      if (!on_event(payload)) return;
      continue;
    }
    bool complete = false;
    if (line_.empty()) {
      complete = TakeLine(piece.substr(0, length));
    } else {
      line_.append(piece.substr(0, length));
      complete = TakeLine(line_);
      line_.clear();
    }
    piece.remove_prefix(length + 1);
    if (!complete) continue;
    has_data_ = false;
    if (!on_event(std::string_view(data_))) return;
    data_.clear();
  }
}

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_SSE_READER_H_
