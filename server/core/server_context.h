// What both fronts share: models, clock, probe, limits, and where the server stands in its life.
#ifndef RETICLE_SERVER_CORE_SERVER_CONTEXT_H_
#define RETICLE_SERVER_CORE_SERVER_CONTEXT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "base/clock.h"
#include "server/core/gate.h"
#include "server/core/model.h"
#include "server/core/server_probe.h"
#include "server/core/valid_request.h"

namespace reticle::server {

class RequestListener;
struct TraceContext;

enum class Lifecycle : uint8_t {
  kLoading,  // listeners are open, no model yet
  kReady,
  // The process is about to end: load balancers are told to go elsewhere. What comes nevertheless
  // is served until BeginDrain; from then on what runs goes on, and nothing new begins.
  kDraining,
};

// Thread-safe. Must outlive the fronts and every Generation.
class ServerContext {
 public:
  struct Options {
    RequestLimits limits;
    // Text of GET /metrics (Prometheus exposition format). Empty function: no metrics.
    std::function<std::string()> render_metrics;
    // Whether the public API serves them.
    bool public_metrics = true;
    // Requests that wait for a device; empty function: not known.
    std::function<int64_t()> queue_size;
    // Names of the adapters on the first device, separated by commas; empty function: none.
    std::function<std::string()> current_adapter;
    // Who may use the server; null: everybody. Must outlive the context.
    Gate* gate = nullptr;
    // Who is told what became of requests; null: nobody. Must outlive the context.
    RequestListener* listener = nullptr;
  };

  // `clock` must be the engines' clock; it and `probe` (null: nobody listens) must outlive this.
  ServerContext(Options options, Clock& clock, ServerProbe* probe);

  ModelRegistry& models() { return models_; }
  const ModelRegistry& models() const { return models_; }
  Clock& clock() const { return clock_; }
  ServerProbe& probe() const { return probe_; }
  const Options& options() const { return options_; }
  // Tells the probe that a generation was refused; `caller` may be null.
  void NoteRefusal(const Caller* caller, const absl::Status& status) const;
  // The context of a request that came with this traceparent header (may be empty).
  TraceContext Trace(std::string_view traceparent) const;

  Lifecycle lifecycle() const { return lifecycle_.load(std::memory_order_acquire); }
  // Loading to ready. No effect when draining has begun. `works` (may be empty: always) says
  // whether any device can serve; it is called until this is gone, from any thread.
  void SetReady(std::function<bool()> works = nullptr);
  // Whether a load balancer should send requests: ready, and a device works.
  bool Serving() const { return lifecycle() == Lifecycle::kReady && (!works_ || works_()); }
  // Readiness goes false.
  void AnnounceDrain();
  // Nothing new is admitted any more.
  void BeginDrain();
  // OK when generations may start; UNAVAILABLE while loading and since BeginDrain.
  absl::Status CheckAdmission() const;
  // "loading", "ready" or "draining".
  static const char* LifecycleName(Lifecycle lifecycle);

  // Generations that run now.
  int64_t active_generations() const { return active_.load(std::memory_order_acquire); }

 private:
  friend class Generation;

  const Options options_;
  Clock& clock_;
  ServerProbe& probe_;
  ModelRegistry models_;
  std::function<bool()> works_;  // written once, before kReady
  std::atomic<Lifecycle> lifecycle_{Lifecycle::kLoading};
  std::atomic<bool> ready_{false};  // it has been
  std::atomic<bool> admitting_{true};
  std::atomic<int64_t> active_{0};
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_SERVER_CONTEXT_H_
