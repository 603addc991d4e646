// Several engines of one model behind one Submit.
//
// A request goes to an engine whose device works and has its adapter; among those to the one with
// the longest cached prefix, unless that one is much busier than another; else to the least busy.
// When the chosen engine refuses for now (queue full, lost, draining), the next best is asked. With
// one engine everything passes through.
#ifndef RETICLE_SCHEDULER_DISPATCHER_H_
#define RETICLE_SCHEDULER_DISPATCHER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/engine.h"

namespace reticle::scheduler {

// Thread-safe.
class Dispatcher {
 public:
  // The engines (at least one, none null) must outlive it. INVALID_ARGUMENT unless they serve the
  // same model: equal vocabulary and, where known, equal model hash.
  static absl::StatusOr<std::unique_ptr<Dispatcher>> Create(std::vector<Engine*> engines);

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

 private:
  explicit Dispatcher(std::vector<Engine*> engines);

  const std::vector<Engine*> engines_;
  reticle_capabilities capabilities_;
};

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_DISPATCHER_H_
