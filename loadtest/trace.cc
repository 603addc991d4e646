#include "loadtest/trace.h"

#include <simdjson.h>

#include <algorithm>
#include <utility>

#include "base/file.h"
#include "base/status.h"
#include "loadtest/text.h"

namespace reticle::loadtest {
namespace {

constexpr int64_t kMaxLength = 10'000'000;

absl::Status ReadLength(const simdjson::dom::object& object, const char* field, int64_t low,
                        int64_t& out) {
  const auto value = object[field];
  if (value.error() == simdjson::NO_SUCH_FIELD) return InvalidArgumentError("%s is missing", field);
  if (value.get(out) != simdjson::SUCCESS) {
    return InvalidArgumentError("%s is no whole number", field);
  }
  if (out < low || out > kMaxLength) {
    return InvalidArgumentError("%s is %d; it must be between %d and %d", field, out, low,
                                kMaxLength);
  }
  return absl::OkStatus();
}

absl::StatusOr<TraceEntry> ReadEntry(simdjson::dom::parser& parser, std::string_view line) {
  TraceEntry entry;
  simdjson::dom::object object;
  if (const auto error = parser.parse(line.data(), line.size()).get(object);
      error != simdjson::SUCCESS) {
    return InvalidArgumentError("no JSON object (%s)", simdjson::error_message(error));
  }
  const auto timestamp = object["timestamp"];
  if (timestamp.error() == simdjson::NO_SUCH_FIELD) {
    return InvalidArgumentError("timestamp is missing");
  }
  if (timestamp.get(entry.timestamp_ms) != simdjson::SUCCESS || entry.timestamp_ms < 0) {
    return InvalidArgumentError("timestamp is no number of ms from 0 on");
  }
  RETURN_IF_ERROR(ReadLength(object, "input_length", 1, entry.input_length));
  RETURN_IF_ERROR(ReadLength(object, "output_length", 1, entry.output_length));
  const auto hashes = object["hash_ids"];
  if (hashes.error() == simdjson::NO_SUCH_FIELD || hashes.is_null()) return entry;
  simdjson::dom::array ids;
  if (hashes.get(ids) != simdjson::SUCCESS) return InvalidArgumentError("hash_ids is no list");
  for (const simdjson::dom::element id : ids) {
    uint64_t value = 0;
    if (id.get(value) != simdjson::SUCCESS) {
      return InvalidArgumentError("hash_ids[%d] is no whole number from 0 on",
                                  entry.hash_ids.size());
    }
    entry.hash_ids.push_back(value);
  }
  return entry;
}

}  // namespace

absl::StatusOr<Trace> ParseTrace(std::string_view text, const std::string& origin) {
  Trace trace;
  simdjson::dom::parser parser;
  int64_t number = 0;
  for (const std::string_view line : Split(text, '\n')) {
    ++number;
    if (Trim(line).empty()) continue;
    absl::StatusOr<TraceEntry> entry = ReadEntry(parser, line);
    if (!entry.ok()) {
      return InvalidArgumentError("%s, line %d: %s", origin, number, entry.status().message());
    }
    trace.entries.push_back(*std::move(entry));
  }
  if (trace.entries.empty()) return InvalidArgumentError("%s holds no requests", origin);
  std::stable_sort(
      trace.entries.begin(), trace.entries.end(),
      [](const TraceEntry& a, const TraceEntry& b) { return a.timestamp_ms < b.timestamp_ms; });
  const double first_ms = trace.entries.front().timestamp_ms;
  for (TraceEntry& entry : trace.entries) entry.timestamp_ms -= first_ms;
  return trace;
}

absl::StatusOr<Trace> LoadTrace(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile("trace file", path));
  return ParseTrace(text, path);
}

}  // namespace reticle::loadtest
