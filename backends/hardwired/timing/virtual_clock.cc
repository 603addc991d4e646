#include "backends/hardwired/timing/virtual_clock.h"

#include <algorithm>
#include <map>

#include "base/mutex.h"

namespace reticle::backends::hardwired {
namespace {

struct Registry {
  Mutex mutex;
  std::map<std::string, std::weak_ptr<VirtualClock>, std::less<>> clocks RETICLE_GUARDED_BY(mutex);
};

Registry& TheRegistry() {
  static Registry* const registry = new Registry;
  return *registry;
}

}  // namespace

std::shared_ptr<VirtualClock> VirtualClock::Create(std::string_view name) {
  std::shared_ptr<VirtualClock> clock(new VirtualClock(name));
  Registry& registry = TheRegistry();
  MutexLock lock(registry.mutex);
  std::weak_ptr<VirtualClock>& entry = registry.clocks[std::string(name)];
  if (!entry.expired()) return nullptr;
  entry = clock;
  return clock;
}

std::shared_ptr<VirtualClock> VirtualClock::Find(std::string_view name) {
  Registry& registry = TheRegistry();
  MutexLock lock(registry.mutex);
  const auto found = registry.clocks.find(name);
  return found == registry.clocks.end() ? nullptr : found->second.lock();
}

VirtualClock::~VirtualClock() {
  Registry& registry = TheRegistry();
  MutexLock lock(registry.mutex);
  const auto found = registry.clocks.find(name_);
  if (found != registry.clocks.end() && found->second.expired()) registry.clocks.erase(found);
}

int64_t VirtualClock::NextEventNanos() const {
  int64_t next = INT64_MAX;
  for (const Source* source : sources_) next = std::min(next, source->NextEventNanos());
  return next;
}

bool VirtualClock::AdvanceToNextEvent(int64_t limit_ns) {
  const int64_t next = std::min(NextEventNanos(), limit_ns);
  if (next == INT64_MAX) return false;
  now_ns_.store(std::max(next, NowNanos()), std::memory_order_release);
  return true;
}

void VirtualClock::AddSource(const Source* source) { sources_.push_back(source); }

void VirtualClock::RemoveSource(const Source* source) { std::erase(sources_, source); }

}  // namespace reticle::backends::hardwired
