// What one event of an OpenAI stream says, and what a whole reply says.
#ifndef RETICLE_LOADTEST_CHUNK_READER_H_
#define RETICLE_LOADTEST_CHUNK_READER_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace reticle::loadtest {

enum class FinishReason : uint8_t { kNone, kStop, kLength, kOther };

// The numbers of OpenAI's `usage`.
struct TokenUsage {
  bool present = false;
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;
};

// Views point into the text that was read.
struct Chunk {
  enum class Kind : uint8_t {
    kOther,      // no new text: the role, the end, the usage
    kText,       // at least one choice with new text, or a part of a tool call
    kDone,       // [DONE]
    kError,      // an object with "error"
    kMalformed,  // not JSON, or not of this shape
  };
  Kind kind = Kind::kOther;
  std::string_view text;  // of the first choice with text, with JSON's escapes
  std::string_view error_message;
  FinishReason finish = FinishReason::kNone;
  TokenUsage usage;
};

// Reads the events of one connection. Events of a stream are alike but for their text, so the last
// event's bytes around its text are kept, and one that has the same needs no parsing: some 20 ns an
// event. One per connection; not thread-safe; allocates only while it learns.
class ChunkReader {
 public:
  // `payload`: what follows "data: ". It must live as long as the result is used.
  Chunk Read(std::string_view payload);

 private:
  std::string head_;  // from the start of the payload to the opening quote of the text
  std::string tail_;  // from its closing quote on
};

// A whole reply to a request without stream, or the body of a failed one.
Chunk ReadWholeReply(std::string_view body);

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_CHUNK_READER_H_
