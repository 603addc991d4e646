// Where a request stands in a distributed trace (W3C Trace Context, level 1).
#ifndef RETICLE_SERVER_CORE_TRACE_CONTEXT_H_
#define RETICLE_SERVER_CORE_TRACE_CONTEXT_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace reticle::server {

struct TraceContext {
  std::array<uint8_t, 16> trace_id{};
  std::array<uint8_t, 8> span_id{};    // this server's span of the request
  std::array<uint8_t, 8> parent_id{};  // of whoever asked; zeros: the trace begins here
  bool sampled = false;

  bool has_parent() const { return parent_id != std::array<uint8_t, 8>{}; }
  // "00-TRACE-SPAN-FLAGS": what those whom this server asks, or answers, are told.
  std::string Traceparent() const;
  std::string TraceIdHex() const;
};

// Reads a traceparent header: fills trace, parent and whether the caller samples. False, changing
// nothing, for anything that the standard does not allow.
bool ParseTraceparent(std::string_view header, TraceContext& context);

// The context of a request that came with `traceparent`; empty or malformed: a new trace, of which
// `ratio` (0 to 1) are sampled. The span's id is new. Thread-safe.
TraceContext BeginTrace(std::string_view traceparent, double ratio);

// A random id that is not zero. Thread-safe.
std::array<uint8_t, 8> NewSpanId();
// Lower-case hexadecimal digits.
void AppendHex(const uint8_t* bytes, size_t size, std::string& out);
// Whether `id` may stand for a request in logs and replies: 1 to 128 letters, digits and "-_.:".
bool IsPlainRequestId(std::string_view id);
// `offered` if it is plain, else a new one: 32 hexadecimal digits. Thread-safe.
std::string TakeRequestId(std::string_view offered);

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_TRACE_CONTEXT_H_
