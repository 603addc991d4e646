#include "scheduler/adapter_policy.h"

#include <algorithm>

namespace reticle::scheduler {
namespace {

// The adapter that wants and follows `current` in cyclic order; null when no other one wants.
const AdapterDemand* NextBehind(uint64_t current, std::span<const AdapterDemand> demands) {
  const AdapterDemand* next = nullptr;
  const auto distance = [current](const AdapterDemand& demand) {
    return demand.adapter - current;  // wraps around
  };
  for (const AdapterDemand& demand : demands) {
    if (!demand.wants || demand.adapter == current) continue;
    if (next == nullptr || distance(demand) < distance(*next)) next = &demand;
  }
  return next;
}

}  // namespace

AdapterPlan PlanAdapter(const AdapterTurn& turn, std::span<const AdapterDemand> demands,
                        int64_t now_ns, int64_t turn_ns) {
  AdapterPlan plan;
  plan.turn = turn;
  const auto own = std::find_if(demands.begin(), demands.end(), [&](const AdapterDemand& demand) {
    return demand.adapter == turn.adapter;
  });
  const bool wants = own != demands.end() && own->wants;
  const AdapterDemand* const next = NextBehind(turn.adapter, demands);
  const bool over = turn.since_ns == INT64_MIN || now_ns - turn.since_ns >= turn_ns;
  if (next != nullptr && (!wants || over)) plan.turn = {next->adapter, now_ns};
  plan.finishing = std::any_of(demands.begin(), demands.end(), [&](const AdapterDemand& demand) {
    return demand.busy && demand.adapter != plan.turn.adapter;
  });
  // A turn begins when the device is free for it.
  if (plan.finishing) plan.turn.since_ns = now_ns;
  if (NextBehind(plan.turn.adapter, demands) != nullptr && !plan.finishing) {
    plan.ends_ns = plan.turn.since_ns + turn_ns;
  }
  return plan;
}

}  // namespace reticle::scheduler
