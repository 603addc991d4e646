#include "scheduler/dispatch_policy.h"

#include <algorithm>

namespace reticle::scheduler {
namespace {

constexpr double kLoadForAdvantage = 0.5;

}  // namespace

void RankCandidates(std::vector<DispatchCandidate>* candidates) {
  if (candidates->empty()) return;
  double least = candidates->front().load;
  for (const DispatchCandidate& candidate : *candidates) least = std::min(least, candidate.load);
  for (DispatchCandidate& candidate : *candidates) {
    if (candidate.load <= least + kLoadForAdvantage) continue;
    candidate.cached_tokens = 0;
    candidate.swaps_adapter = true;
  }
  std::stable_sort(candidates->begin(), candidates->end(),
                   [](const DispatchCandidate& a, const DispatchCandidate& b) {
                     if (a.swaps_adapter != b.swaps_adapter) return b.swaps_adapter;
                     if (a.cached_tokens != b.cached_tokens) {
                       return a.cached_tokens > b.cached_tokens;
                     }
                     return a.load < b.load;
                   });
}

}  // namespace reticle::scheduler
