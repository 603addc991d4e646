// One request of a load test: what is sent, how the client behaves, and what came of it.
#ifndef RETICLE_LOADTEST_REQUEST_H_
#define RETICLE_LOADTEST_REQUEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "loadtest/chunk_reader.h"

namespace reticle::loadtest {

struct Message {
  std::string role;  // "system", "user", "assistant"
  std::string text;
};

// Why a request is no success.
enum class ErrorKind : uint8_t {
  kNone,
  kConnect,     // no connection
  kTls,         // no TLS session
  kTimeout,     // not complete within the request's time
  kClosed,      // the server closed before the reply was complete
  kHttpStatus,  // a status other than 200: Outcome::code
  kGrpcStatus,  // a status other than OK: Outcome::code
  kErrorEvent,  // an event with an error object inside the stream
  kMalformed,   // bytes that are not HTTP, SSE or OpenAI's JSON
  kUnfinished,  // still running when the run ended
};

// Times are ns of Clock::Monotonic().
struct Outcome {
  ErrorKind error = ErrorKind::kNone;
  int code = 0;               // HTTP or gRPC status of kHttpStatus and kGrpcStatus
  std::string message;        // the server's or the system's words
  bool disconnected = false;  // the client left on purpose
  double retry_after_s = -1;  // of the reply; -1: none

  int64_t started_ns = 0;  // the client turned to it; later than intended when the client is late
  int64_t sent_ns = 0;     // the first byte was handed to the system; 0: none was
  int64_t first_ns = 0;    // first new text; 0: none came
  int64_t last_ns = 0;     // last new text
  int64_t end_ns = 0;
  int64_t events = 0;            // with new text (gRPC: messages); 1 for a whole reply
  int64_t events_in_window = 0;  // of those, inside the measured window
  int64_t tokens_seen = 0;       // counted while streaming; gRPC only
  int64_t bytes = 0;
  FinishReason finish = FinishReason::kNone;
  TokenUsage usage;
  std::string text;  // the reply's text, when keep_text asked for it
};

struct Request {
  // ---- what is sent
  std::string body;                                // HTTP: the JSON
  const std::vector<Message>* messages = nullptr;  // gRPC: the conversation; null: `prompt`
  std::string prompt;                              // gRPC: a plain prompt
  int64_t max_tokens = 0;                          // 0: the server's default
  bool stream = true;
  bool keep_text = false;

  // ---- how the client behaves
  int64_t disconnect_after_events = 0;  // 0: stays
  int64_t read_bytes_per_s = 0;         // 0: as fast as it can

  // ---- when
  int64_t intended_ns = 0;  // when it should be sent; latencies count from here
  int retries = 0;

  // ---- whose it is, for the driver
  uint64_t owner = 0;

  Outcome outcome;
};

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_REQUEST_H_
