#include "backends/abi/host.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <string_view>

#include "base/clock.h"
#include "base/log.h"

namespace reticle::backends {
namespace {

void HostLog(void* /*context*/, int32_t level, const char* message, size_t length) {
  const auto bounded =
      static_cast<LogLevel>(std::clamp<int32_t>(level, RETICLE_LOG_DEBUG, RETICLE_LOG_ERROR));
  if (message != nullptr && LogEnabled(bounded)) {
    LogLine(bounded, std::string_view(message, length));
  }
}

uint64_t HostNow(void* /*context*/) { return static_cast<uint64_t>(Clock::Monotonic().NowNanos()); }

void* HostAllocate(void* /*context*/, size_t size, size_t alignment) {
  if (!std::has_single_bit(alignment)) return nullptr;
  void* memory = nullptr;
  const size_t at_least = std::max(alignment, sizeof(void*));
  return posix_memalign(&memory, at_least, std::max<size_t>(size, 1)) == 0 ? memory : nullptr;
}

void HostRelease(void* /*context*/, void* memory) { std::free(memory); }

}  // namespace

const reticle_host& HostCallbacks() {
  static const reticle_host host = {
      .struct_size = sizeof(reticle_host),
      .context = nullptr,
      .log = HostLog,
      .now_ns = HostNow,
      .allocate = HostAllocate,
      .release = HostRelease,
  };
  return host;
}

}  // namespace reticle::backends
