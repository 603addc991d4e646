#include "loadtest/http_reader.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "absl/strings/ascii.h"
#include "loadtest/text.h"

namespace reticle::loadtest {
namespace {

bool EqualsIgnoreCase(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    return absl::ascii_tolower(static_cast<unsigned char>(x)) ==
           absl::ascii_tolower(static_cast<unsigned char>(y));
  });
}

// Whether the comma-separated `list` holds `token`.
bool Lists(std::string_view list, std::string_view token) {
  for (const std::string_view item : Split(list, ',')) {
    if (EqualsIgnoreCase(Trim(item), token)) return true;
  }
  return false;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

void HttpReader::Reset() {
  state_ = State::kHead;
  framing_ = Framing::kLength;
  begun_ = false;
  left_ = 0;
  head_ = HttpHead();
  partial_.clear();
}

void HttpReader::FeedEnd() {
  if (state_ == State::kBody && framing_ == Framing::kUntilClose) state_ = State::kDone;
}

void HttpReader::ParseHead(std::string_view head) {
  // "HTTP/1.1 200 OK"
  if (!head.starts_with("HTTP/1.") || head.size() < 14 || head[8] != ' ') {
    return Fail("not an HTTP/1 response");
  }
  const bool http_1_0 = head[7] == '0';
  const auto status = std::from_chars(head.data() + 9, head.data() + 12, head_.status);
  if (status.ec != std::errc() || status.ptr != head.data() + 12 || head_.status < 100) {
    return Fail("no status code");
  }
  bool chunked = false;
  bool has_length = false;
  bool close = http_1_0;
  uint64_t length = 0;
  head.remove_prefix(head.find("\r\n") + 2);
  while (!head.starts_with("\r\n")) {
    const std::string_view line = head.substr(0, head.find("\r\n"));
    head.remove_prefix(line.size() + 2);
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || colon == 0) return Fail("a header line without a name");
    const std::string_view name = line.substr(0, colon);
    const std::string_view value = Trim(line.substr(colon + 1));
    if (EqualsIgnoreCase(name, "content-length")) {
      const auto parsed = std::from_chars(value.data(), value.data() + value.size(), length);
      if (parsed.ec != std::errc() || parsed.ptr != value.data() + value.size()) {
        return Fail("a Content-Length that is no number");
      }
      has_length = true;
    } else if (EqualsIgnoreCase(name, "transfer-encoding")) {
      chunked = Lists(value, "chunked");
      if (!chunked) return Fail("a transfer coding other than chunked");
    } else if (EqualsIgnoreCase(name, "connection")) {
      if (Lists(value, "close")) close = true;
      if (http_1_0 && Lists(value, "keep-alive")) close = false;
    } else if (EqualsIgnoreCase(name, "content-type")) {
      head_.event_stream = EqualsIgnoreCase(Trim(Split(value, ';')[0]), "text/event-stream");
    } else if (EqualsIgnoreCase(name, "retry-after")) {
      double seconds = 0;
      if (ParseDouble(value, seconds) && seconds >= 0) head_.retry_after_s = seconds;
    }
  }
  if (head_.status < 200) {
    if (head_.status == 101) return Fail("a switch of protocols");
    head_ = HttpHead();
    return;
  }
  head_.keep_alive = !close;
  state_ = State::kBody;
  if (head_.status == 204 || head_.status == 304) {
    state_ = State::kDone;
  } else if (chunked) {
    framing_ = Framing::kChunkSize;
    left_ = 0;
    size_begun_ = false;
    extension_ = false;
  } else if (has_length) {
    framing_ = Framing::kLength;
    left_ = length;
    if (length == 0) state_ = State::kDone;
  } else {
    framing_ = Framing::kUntilClose;
    head_.keep_alive = false;
  }
}

size_t HttpReader::TakeFraming(std::string_view data) {
  size_t i = 0;
  for (; i < data.size(); ++i) {
    const char c = data[i];
    switch (framing_) {
      case Framing::kChunkSize:
        if (c == '\n') {
          if (!size_begun_) {
            Fail("a chunk without a size");
            return i + 1;
          }
          size_begun_ = false;
          extension_ = false;
          line_bytes_ = 0;
          framing_ = left_ == 0 ? Framing::kTrailer : Framing::kChunkData;
          if (left_ > 0) return i + 1;
          continue;
        }
        if (c == ';' || c == '\r' || c == ' ') extension_ = true;
        if (extension_) continue;
        if (const int digit = HexDigit(c); digit < 0 || left_ >> 59 != 0) {
          Fail("a chunk size that is no hexadecimal number");
          return i + 1;
        } else {
          left_ = left_ << 4 | static_cast<uint64_t>(digit);
          size_begun_ = true;
        }
        continue;
      case Framing::kChunkEnd:
        if (c == '\r') continue;
        if (c != '\n') {
          Fail("a chunk that is longer than its size");
          return i + 1;
        }
        framing_ = Framing::kChunkSize;
        continue;
      case Framing::kTrailer:
        if (c == '\r') continue;
        if (c != '\n') {
          ++line_bytes_;
          continue;
        }
        if (line_bytes_ == 0) {
          state_ = State::kDone;
          return i + 1;
        }
        line_bytes_ = 0;
        continue;
      default:
        return i;
    }
  }
  return i;
}

}  // namespace reticle::loadtest
