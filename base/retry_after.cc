#include "base/retry_after.h"

#include <charconv>
#include <string>

#include "absl/strings/cord.h"

namespace reticle {
namespace {

constexpr char kUrl[] = "reticle/retry_after_ns";

}  // namespace

absl::Status WithRetryAfter(absl::Status status, int64_t wait_ns) {
  if (!status.ok()) status.SetPayload(kUrl, absl::Cord(std::to_string(wait_ns)));
  return status;
}

std::optional<int64_t> RetryAfterNs(const absl::Status& status) {
  const auto payload = status.GetPayload(kUrl);
  if (!payload.has_value()) return std::nullopt;
  const std::string text(*payload);
  int64_t wait_ns = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), wait_ns);
  if (parsed.ec != std::errc()) return std::nullopt;
  return wait_ns;
}

}  // namespace reticle
