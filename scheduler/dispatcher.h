// Several engines of one model behind one Submit, and the way of sequences between them.
//
// A request goes to an engine whose device works and has its adapter; which of them is
// dispatch_policy.h's choice. When the chosen engine refuses for now (queue full, lost, draining),
// the next best is asked. With one engine everything passes through.
//
// When an engine's device is lost, the engine offers its sequences here (refuge.h): each request
// goes to another engine that can serve it to the same end, or stays and waits. When an engine
// comes back, the others that are lost offer theirs again.
#ifndef RETICLE_SCHEDULER_DISPATCHER_H_
#define RETICLE_SCHEDULER_DISPATCHER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/engine.h"
#include "scheduler/refuge.h"

namespace reticle::scheduler {

// Thread-safe.
class Dispatcher : public Refuge {
 public:
  // The engines (at least one, none null) must outlive it, and nothing may step them while it is
  // made or destroyed. INVALID_ARGUMENT unless they serve the same model: equal vocabulary and,
  // where known, equal model hash.
  static absl::StatusOr<std::unique_ptr<Dispatcher>> Create(std::vector<Engine*> engines);
  ~Dispatcher() override;

  // As Engine::Submit. NOT_FOUND when no engine has the adapter. Of several refusals the one that
  // a retry can cure best is returned: RESOURCE_EXHAUSTED before UNAVAILABLE.
  absl::Status Submit(Request request);
  // As Submit would, without queueing: OK if any engine would take it.
  absl::Status Validate(const Request& request) const;
  void BeginDrain();
  bool Idle() const;
  void AbortAll(absl::Status status);
  // Sums over the engines.
  EngineGauges Gauges() const;
  // Of the first engine, with what all of them offer: the smallest limits, the common features, and
  // the capacities in sum.
  const reticle_capabilities& capabilities() const { return capabilities_; }
  // Whether any device works.
  bool Healthy() const;
  const std::vector<Engine*>& engines() const { return engines_; }

  // ---- engine threads
  bool Take(const Engine& from, Displaced& displaced) override;
  void OnRecovered(const Engine& engine) override;

 private:
  explicit Dispatcher(std::vector<Engine*> engines);
  // Engines that work and have the request's adapter, best first. `from` (may be null) is left out,
  // and with it those that could end the request elsewhere than it.
  std::vector<Engine*> Candidates(const Request& request, const Engine* from) const;

  const std::vector<Engine*> engines_;
  reticle_capabilities capabilities_;
  std::atomic<uint64_t> moves_begun_{0};
  std::atomic<uint64_t> moves_ended_{0};
};

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_DISPATCHER_H_
