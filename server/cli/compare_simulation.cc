#include "server/cli/compare_simulation.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "backends/abi/device.h"
#include "backends/hardwired/driver/hardwired_device.h"
#include "backends/hardwired/timing/virtual_clock.h"
#include "base/status.h"
#include "scheduler/engine.h"
#include "scheduler/token_stream.h"

namespace reticle::server::cli {
namespace {

using backends::hardwired::VirtualClock;

constexpr char kClockName[] = "reticle-compare";
constexpr TokenId kAnyToken = 1;

constexpr Scenario kScenarios[] = {
    {"chat", "chat: 200 tokens in, 250 out", 200, 250, 1, 0, 32, 4},
    {"coding", "coding assistant: 2,000 tokens in, 800 out", 2000, 800, 1, 0, 16, 2},
    {"agent", "agent chain: 10 dependent calls, 600 tokens in and 150 out each, 100 more each time",
     600, 150, 10, 100, 8, 1},
    {"batch", "batch extraction: 1,500 tokens in, 100 out, all at once", 1500, 100, 1, 0, 256, 1},
};

struct User {
  uint32_t sessions_left = 0;
  uint32_t call = 0;
  uint32_t prompt_tokens = 0;
  int64_t session_ns = 0;
  int64_t call_ns = 0;
  int64_t first_ns = -1;
  int64_t last_ns = -1;
  uint32_t tokens = 0;
  std::shared_ptr<scheduler::TokenStream> stream;
};

class Simulation {
 public:
  Simulation(const Scenario& scenario, uint32_t users) : scenario_(scenario), users_(users) {}

  absl::StatusOr<Measured> Run(const std::string& profile, const Settings& settings) {
    RETURN_IF_ERROR(Open(profile, settings));
    ASSIGN_OR_RETURN(const reticle_stats before, engine_->DeviceStats());
    for (User& user : users_) {
      user.sessions_left = scenario_.sessions;
      RETURN_IF_ERROR(BeginSession(user));
    }
    while (active_ > 0) {
      bool any = false;
      while (engine_->Step()) any = true;
      for (User& user : users_) {
        ASSIGN_OR_RETURN(const bool went_on, Read(user));
        any = any || went_on;
      }
      if (!any && !clock_->AdvanceToNextEvent()) {
        return InternalError("the simulation stands still with %d users waiting", active_);
      }
    }
    ASSIGN_OR_RETURN(const reticle_stats after, engine_->DeviceStats());
    Finish(static_cast<double>(after.energy_uj - before.energy_uj) * 1e-6);
    return measured_;
  }

 private:
  absl::Status Open(const std::string& profile, const Settings& settings) {
    clock_ = VirtualClock::Create(kClockName);
    if (clock_ == nullptr) return FailedPreconditionError("another simulation runs");
    ASSIGN_OR_RETURN(const backends::Driver driver,
                     backends::Driver::FromApi(backends::hardwired::HardwiredDeviceApi()));
    backends::DeviceConfig config;
    config.options = {{"profile", profile},
                      {"content", "replay"},
                      {"clock", "virtual"},
                      {"virtual_clock", kClockName}};
    config.options.insert(config.options.end(), settings.begin(), settings.end());
    ASSIGN_OR_RETURN(std::unique_ptr<backends::Device> device,
                     backends::Device::Open(driver, config));
    scheduler::EngineOptions options;
    options.max_waiting = static_cast<uint32_t>(users_.size()) + 1;
    options.watchdog_ns = 0;
    options.run_ahead = 256;
    ASSIGN_OR_RETURN(engine_,
                     scheduler::Engine::Create(std::move(device), options, *clock_, nullptr));
    return absl::OkStatus();
  }

  absl::Status BeginSession(User& user) {
    --user.sessions_left;
    ++active_;
    user.call = 0;
    user.prompt_tokens = scenario_.prompt_tokens;
    user.session_ns = clock_->NowNanos();
    return BeginCall(user);
  }

  absl::Status BeginCall(User& user) {
    user.call_ns = clock_->NowNanos();
    user.first_ns = -1;
    user.tokens = 0;
    user.stream = std::make_shared<scheduler::TokenStream>(scenario_.output_tokens + 1, nullptr);
    scheduler::Request request;
    request.prompt = std::make_shared<const std::vector<TokenId>>(user.prompt_tokens, kAnyToken);
    request.sampling.temperature = 0;
    request.max_tokens = scenario_.output_tokens;
    request.arrival_ns = user.call_ns;
    request.use_prefix_cache = false;
    request.outputs = {user.stream};
    measured_.prompt_tokens += user.prompt_tokens;
    return engine_->Submit(std::move(request));
  }

  // Takes what is there; true when the user began something new.
  absl::StatusOr<bool> Read(User& user) {
    if (user.stream == nullptr) return false;
    scheduler::TokenEvent event;
    while (user.stream->Pop({&event, 1}) > 0) {
      if (user.first_ns < 0) user.first_ns = event.ready_ns;
      user.last_ns = event.ready_ns;
      ++user.tokens;
    }
    const scheduler::SequenceEnd* const end = user.stream->end();
    if (end == nullptr) return false;
    RETURN_IF_ERROR(end->status);
    TakeCall(user);
    user.prompt_tokens += scenario_.output_tokens + scenario_.growth;
    if (++user.call < scenario_.calls) {
      RETURN_IF_ERROR(BeginCall(user));
      return true;
    }
    --active_;
    ++sessions_;
    measured_.session_seconds += static_cast<double>(user.last_ns - user.session_ns) * 1e-9;
    user.stream.reset();
    if (user.sessions_left == 0) return false;
    RETURN_IF_ERROR(BeginSession(user));
    return true;
  }

  void TakeCall(const User& user) {
    ++measured_.calls;
    measured_.output_tokens += user.tokens;
    measured_.ttft_ms += static_cast<double>(user.first_ns - user.call_ns) * 1e-6;
    const double seconds = static_cast<double>(user.last_ns - user.first_ns) * 1e-9;
    if (user.tokens > 1 && seconds > 0) {
      measured_.per_user += (user.tokens - 1) / seconds;
      ++rated_;
    }
    measured_.seconds = std::max(measured_.seconds, static_cast<double>(user.last_ns) * 1e-9);
  }

  void Finish(double joules) {
    measured_.ttft_ms /= static_cast<double>(std::max<uint64_t>(measured_.calls, 1));
    if (rated_ > 0) measured_.per_user /= static_cast<double>(rated_);
    if (sessions_ > 0) measured_.session_seconds /= static_cast<double>(sessions_);
    if (measured_.seconds > 0) {
      measured_.aggregate = static_cast<double>(measured_.output_tokens) / measured_.seconds;
    }
    if (measured_.output_tokens > 0) {
      measured_.joules_per_token = joules / static_cast<double>(measured_.output_tokens);
    }
  }

  const Scenario& scenario_;
  std::shared_ptr<VirtualClock> clock_;
  std::unique_ptr<scheduler::Engine> engine_;
  std::vector<User> users_;
  uint32_t active_ = 0;
  uint64_t sessions_ = 0;
  uint64_t rated_ = 0;
  Measured measured_;
};

}  // namespace

std::span<const Scenario> Scenarios() { return kScenarios; }

const Scenario* FindScenario(std::string_view name) {
  for (const Scenario& scenario : kScenarios) {
    if (scenario.name == name) return &scenario;
  }
  return nullptr;
}

absl::StatusOr<Measured> Simulate(const std::string& profile, const Settings& settings,
                                  const Scenario& scenario, uint32_t users) {
  return Simulation(scenario, users).Run(profile, settings);
}

}  // namespace reticle::server::cli
