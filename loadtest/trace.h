// Recorded traffic: JSON lines {"timestamp": ms, "input_length": tokens, "output_length": tokens,
// "hash_ids": [ids of 512-token blocks of the prompt]}.
#ifndef RETICLE_LOADTEST_TRACE_H_
#define RETICLE_LOADTEST_TRACE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace reticle::loadtest {

// Tokens of a block that a hash id stands for.
inline constexpr int64_t kTraceBlockTokens = 512;

struct TraceEntry {
  double timestamp_ms = 0;  // since the first entry
  int64_t input_length = 0;
  int64_t output_length = 0;
  std::vector<uint64_t> hash_ids;  // equal ones: equal text; may be empty
};

struct Trace {
  std::vector<TraceEntry> entries;  // by time
};

// Empty lines are passed over, unknown fields too. INVALID_ARGUMENT names `origin`, the line and
// the field. Lines that are not in the order of their times are sorted.
absl::StatusOr<Trace> ParseTrace(std::string_view text, const std::string& origin);
absl::StatusOr<Trace> LoadTrace(const std::string& path);

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_TRACE_H_
