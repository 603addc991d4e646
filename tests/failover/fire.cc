#include "tests/failover/fire.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <random>
#include <thread>

#include "base/clock.h"
#include "base/status.h"
#include "scheduler/dispatcher.h"
#include "scheduler/engine_probe.h"
#include "scheduler/engine_thread.h"
#include "server/cli/device_group.h"

namespace reticle::failover {
namespace {

using scheduler::FinishReason;
using scheduler::Request;
using scheduler::SequenceEnd;
using scheduler::TokenEvent;
using scheduler::TokenStream;

constexpr size_t kSubjects = 48;
constexpr int64_t kGiveUpNs = 120'000'000'000;

// When a card was seen to be lost; written by its engine's thread.
class LossProbe : public scheduler::EngineProbe {
 public:
  void OnDeviceLost(bool) override {
    lost_ns_.store(Clock::Monotonic().NowNanos());
    losses_.fetch_add(1);
  }
  int64_t lost_ns() const { return lost_ns_.load(); }  // the last time
  uint32_t losses() const { return losses_.load(); }

 private:
  std::atomic<int64_t> lost_ns_{0};
  std::atomic<uint32_t> losses_{0};
};

struct Subject {
  Request request;
  std::vector<TokenId> expected;
};

std::vector<Subject> MakeSubjects(const FireOptions& options, const reticle_capabilities& device) {
  std::mt19937_64 random(options.seed);
  const auto draw = [&random](uint64_t n) { return static_cast<uint32_t>(random() % n); };
  const auto has = [&device](uint64_t feature) { return (device.features & feature) != 0; };
  std::vector<Subject> subjects(kSubjects);
  for (Subject& subject : subjects) {
    std::vector<TokenId> prompt(1 + draw(60));
    for (TokenId& token : prompt) token = draw(device.vocab_size);
    Request& request = subject.request;
    request.prompt = std::make_shared<const std::vector<TokenId>>(std::move(prompt));
    request.max_tokens = 1 + draw(options.max_tokens);
    scheduler::SamplingParams& sampling = request.sampling;
    sampling.seed = random();
    sampling.temperature = has(RETICLE_FEATURE_TEMPERATURE) && draw(4) != 0 ? 0.9f : 0.0f;
    if (device.max_top_k > 0) sampling.top_k = 1 + draw(device.max_top_k);
    if (has(RETICLE_FEATURE_PENALTIES) && draw(2) == 0) {
      sampling.repetition_penalty = 1.1f;
      sampling.frequency_penalty = 0.2f;
    }
    if (draw(3) == 0) sampling.stop_ids = {draw(device.vocab_size)};
    if (has(RETICLE_FEATURE_MIN_TOKENS) && draw(3) == 0) {
      sampling.min_tokens = draw(request.max_tokens);
    }
  }
  return subjects;
}

// A stream and what has come from it.
struct Live {
  size_t subject = 0;
  std::shared_ptr<TokenStream> stream;
  std::vector<TokenId> tokens;

  // True when it has ended; `any` is set when something came.
  bool Read(bool* any) {
    TokenEvent events[32];
    for (size_t count; (count = stream->Pop(events)) > 0;) {
      *any = true;
      for (size_t i = 0; i < count; ++i) tokens.push_back(events[i].token);
    }
    return stream->end() != nullptr;
  }
};

Live Begin(const Subject& subject, size_t index, Request* request) {
  Live live;
  live.subject = index;
  live.stream = std::make_shared<TokenStream>(64, nullptr);
  *request = subject.request;
  request->arrival_ns = Clock::Monotonic().NowNanos();
  request->outputs = {live.stream};
  return live;
}

void Nap() { std::this_thread::sleep_for(std::chrono::microseconds(100)); }

// A fault under way.
struct Fault {
  size_t card = 0;
  bool hang = false;
  uint32_t losses_before = 0;
  int64_t struck_ns = 0;
};

class Fire {
 public:
  explicit Fire(const FireOptions& options) : options_(options), random_(options.seed + 1) {}

  absl::StatusOr<FireReport> Run() {
    // Cards are found by their names: the calm one is gone before the others come.
    RETURN_IF_ERROR(FindExpected());
    ASSIGN_OR_RETURN(group_, OpenGroup(options_.cards, true));
    RETURN_IF_ERROR(group_->Start(nullptr));
    const int64_t start_ns = Clock::Monotonic().NowNanos();
    int64_t progress_ns = start_ns;
    while (!Done()) {
      bool any = false;
      KeepBusy();
      ReadAll(&any);
      if (report_.wrong + report_.failed == 0) Strike();
      const int64_t now_ns = Clock::Monotonic().NowNanos();
      if (any) progress_ns = now_ns;
      if (now_ns - progress_ns > kGiveUpNs) {
        return DeadlineExceededError("no token came for %d s", kGiveUpNs / 1'000'000'000);
      }
      if (!any) Nap();
    }
    report_.seconds = static_cast<double>(Clock::Monotonic().NowNanos() - start_ns) * 1e-9;
    Mean(detections_ms_, &report_.crash_detection_ms_mean, &report_.crash_detection_ms_max);
    Mean(recoveries_ms_, &report_.recovery_ms_mean, &report_.recovery_ms_max);
    return report_;
  }

 private:
  absl::StatusOr<std::unique_ptr<server::cli::DeviceGroup>> OpenGroup(uint32_t cards, bool watch) {
    server::cli::DeviceGroup::Options options;
    options.choice = options_.device;
    options.cards = cards;
    options.config.model_path = options_.model_path;
    options.config.options = options_.device.options;
    options.config.options.insert(options.config.options.end(), options_.device_options.begin(),
                                  options_.device_options.end());
    options.engine.watchdog_ns = options_.watchdog_ns;
    options.engine.max_recoveries = 1'000'000;
    options.engine.fence_after = 0;
    options.engine.health_ns = 20'000'000;
    options.engine.idle_health_ns = 20'000'000;
    options.engine.reset_in_background = true;
    return server::cli::DeviceGroup::Open(options, Clock::Monotonic(), [this, watch] {
      if (!watch) return static_cast<scheduler::EngineProbe*>(nullptr);
      probes_.push_back(std::make_unique<LossProbe>());
      return static_cast<scheduler::EngineProbe*>(probes_.back().get());
    });
  }

  // Each request alone, on a card that nothing happens to.
  absl::Status FindExpected() {
    ASSIGN_OR_RETURN(const std::unique_ptr<server::cli::DeviceGroup> calm, OpenGroup(1, false));
    subjects_ = MakeSubjects(options_, calm->dispatcher().capabilities());
    RETURN_IF_ERROR(calm->Start(nullptr));
    for (size_t i = 0; i < subjects_.size(); ++i) {
      Request request;
      Live live = Begin(subjects_[i], i, &request);
      RETURN_IF_ERROR(calm->dispatcher().Submit(std::move(request)));
      bool any = false;
      while (!live.Read(&any)) Nap();
      if (!live.stream->end()->status.ok()) return live.stream->end()->status;
      subjects_[i].expected = std::move(live.tokens);
    }
    return absl::OkStatus();
  }

  bool Done() const {
    const bool struck = report_.losses == options_.losses && report_.hangs == options_.hangs;
    return live_.empty() && ((struck && faults_.empty()) || report_.wrong + report_.failed > 0);
  }

  void KeepBusy() {
    const bool goes_on =
        report_.losses < options_.losses || report_.hangs < options_.hangs || !faults_.empty();
    if (!goes_on || report_.wrong + report_.failed > 0) return;
    while (live_.size() < options_.streams) {
      const size_t index = random_() % subjects_.size();
      Request request;
      Live live = Begin(subjects_[index], index, &request);
      if (!group_->dispatcher().Submit(std::move(request)).ok()) return;  // all are lost just now
      live_.push_back(std::move(live));
    }
  }

  void ReadAll(bool* any) {
    for (size_t i = live_.size(); i > 0; --i) {
      Live& live = live_[i - 1];
      if (!live.Read(any)) continue;
      Judge(live);
      live = std::move(live_.back());
      live_.pop_back();
    }
  }

  void Judge(const Live& live) {
    const SequenceEnd& end = *live.stream->end();
    const Subject& subject = subjects_[live.subject];
    ++report_.requests;
    report_.tokens += live.tokens.size();
    report_.recoveries += end.recoveries;
    if (end.reason == FinishReason::kError) {
      ++report_.failed;
      if (report_.first_failure.empty()) report_.first_failure = end.status.ToString();
    } else if (live.tokens != subject.expected) {
      ++report_.wrong;
      const auto [here, there] = std::mismatch(live.tokens.begin(), live.tokens.end(),
                                               subject.expected.begin(), subject.expected.end());
      if (report_.first_failure.empty()) {
        report_.first_failure = absl::StrFormat(
            "subject %d: %d tokens, expected %d; the first difference is at %d", live.subject,
            live.tokens.size(), subject.expected.size(), here - live.tokens.begin());
      }
    }
  }

  // Kills or hangs a card that works, at a random moment; one card at most is spared.
  void Strike() {
    Watch();
    const int64_t now_ns = Clock::Monotonic().NowNanos();
    if (now_ns < next_strike_ns_ || faults_.size() + 1 >= group_->cards().size()) return;
    const uint32_t losses_left = options_.losses - report_.losses;
    const uint32_t hangs_left = options_.hangs - report_.hangs;
    if (losses_left + hangs_left == 0) return;
    const size_t card = random_() % group_->cards().size();
    const bool busy = std::any_of(faults_.begin(), faults_.end(),
                                  [card](const Fault& fault) { return fault.card == card; });
    if (busy || group_->cards()[card].engine->Lost()) return;
    Fault fault;
    fault.card = card;
    fault.hang = random_() % (losses_left + hangs_left) < hangs_left;
    fault.losses_before = probes_[card]->losses();
    fault.struck_ns = Clock::Monotonic().NowNanos();
    if (!group_->Inject(group_->cards()[card], fault.hang ? "hang" : "crash").ok()) return;
    ++(fault.hang ? report_.hangs : report_.losses);
    faults_.push_back(fault);
    next_strike_ns_ = now_ns + static_cast<int64_t>(random_() % 10'000'000);
  }

  // Takes the times of faults that were noticed and repaired.
  void Watch() {
    for (size_t i = faults_.size(); i > 0; --i) {
      const Fault& fault = faults_[i - 1];
      const LossProbe& probe = *probes_[fault.card];
      if (probe.losses() == fault.losses_before) continue;
      if (group_->cards()[fault.card].engine->Lost()) continue;
      const int64_t lost_ns = probe.lost_ns();
      const int64_t now_ns = Clock::Monotonic().NowNanos();
      if (!fault.hang && lost_ns >= fault.struck_ns) {
        detections_ms_.push_back(static_cast<double>(lost_ns - fault.struck_ns) * 1e-6);
      }
      recoveries_ms_.push_back(static_cast<double>(now_ns - fault.struck_ns) * 1e-6);
      faults_.erase(faults_.begin() + static_cast<ptrdiff_t>(i - 1));
    }
  }

  static void Mean(const std::vector<double>& values, double* mean, double* max) {
    if (values.empty()) return;
    for (const double value : values) *mean += value / static_cast<double>(values.size());
    *max = *std::max_element(values.begin(), values.end());
  }

  const FireOptions& options_;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<LossProbe>> probes_;
  std::unique_ptr<server::cli::DeviceGroup> group_;
  std::vector<Subject> subjects_;
  std::vector<Live> live_;
  std::vector<Fault> faults_;
  std::vector<double> detections_ms_;
  std::vector<double> recoveries_ms_;
  int64_t next_strike_ns_ = 0;
  FireReport report_;
};

}  // namespace

absl::StatusOr<FireReport> RunUnderFire(const FireOptions& options) { return Fire(options).Run(); }

}  // namespace reticle::failover
