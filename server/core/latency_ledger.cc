#include "server/core/latency_ledger.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "server/core/server_probe.h"

namespace reticle::server {
namespace {

// How much is kept before it is told, so that the counters that all threads share are touched
// seldom.
constexpr uint64_t kTokensKept = 1024;
constexpr int64_t kKeptNs = 250'000'000;
// Tokens that wait for the socket and are told apart.
constexpr size_t kMostWaiting = 4096;

}  // namespace

std::string_view LatencyStageName(LatencyStage stage) {
  switch (stage) {
    case LatencyStage::kPoll:
      return "poll";
    case LatencyStage::kWake:
      return "wake";
    case LatencyStage::kHandOver:
      return "hand_over";
    case LatencyStage::kFrame:
      return "frame";
    case LatencyStage::kWrite:
      return "write";
  }
  return "write";
}

void LatencyLedger::OnTaken(int64_t device_ns, int64_t ready_ns, int64_t woken_ns,
                            int64_t taken_ns) {
  // A token that came while the thread was at work on others needed no wake-up.
  const int64_t told_ns = std::clamp(woken_ns, ready_ns, std::max(ready_ns, taken_ns));
  waiting_ns_[static_cast<size_t>(LatencyStage::kPoll)] += ready_ns - device_ns;
  waiting_ns_[static_cast<size_t>(LatencyStage::kWake)] += told_ns - ready_ns;
  waiting_ns_[static_cast<size_t>(LatencyStage::kHandOver)] += taken_ns - told_ns;
  if (waiting_.size() < kMostWaiting) {
    waiting_.push_back(device_ns);
  } else {
    ++crowd_;
    crowd_sum_ns_ += device_ns;
  }
  taken_sum_ns_ += taken_ns;
  ++unframed_;
}

void LatencyLedger::OnFramed(int64_t framed_ns) {
  waiting_ns_[static_cast<size_t>(LatencyStage::kFrame)] += unframed_ * framed_ns - taken_sum_ns_;
  unframed_ = 0;
  taken_sum_ns_ = 0;
}

void LatencyLedger::OnHandedOver(int64_t now_ns, ServerProbe& probe) {
  if (waiting_.empty()) return;
  OnFramed(now_ns);
  int64_t added_sum_ns = 0;
  for (const int64_t device_ns : waiting_) {
    const int64_t added_ns = now_ns - device_ns;
    added_sum_ns += added_ns;
    ++done_.buckets[AddedLatency::Bucket(added_ns)];
  }
  if (crowd_ > 0) {
    const int64_t crowd_ns = static_cast<int64_t>(crowd_) * now_ns - crowd_sum_ns_;
    added_sum_ns += crowd_ns;
    done_.buckets[AddedLatency::Bucket(crowd_ns / static_cast<int64_t>(crowd_))] +=
        static_cast<uint32_t>(crowd_);
  }
  waiting_ns_[static_cast<size_t>(LatencyStage::kWrite)] =
      added_sum_ns - std::accumulate(waiting_ns_.begin(), waiting_ns_.end(), int64_t{0});
  for (size_t stage = 0; stage < kLatencyStages; ++stage) {
    done_.stage_ns[stage] += std::exchange(waiting_ns_[stage], 0);
  }
  done_.total_ns += added_sum_ns;
  done_.tokens += waiting_.size() + std::exchange(crowd_, 0);
  crowd_sum_ns_ = 0;
  waiting_.clear();
  if (done_.tokens >= kTokensKept || now_ns - told_ns_ >= kKeptNs) {
    told_ns_ = now_ns;
    Flush(probe);
  }
}

void LatencyLedger::Flush(ServerProbe& probe) {
  if (done_.tokens == 0) return;
  done_.device = device_;
  probe.OnTokensHandedOver(done_);
  done_ = {};
}

}  // namespace reticle::server
