#include "server/cli/plan_simulation.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <queue>
#include <unordered_map>

#include "backends/abi/device.h"
#include "backends/hardwired/driver/hardwired_device.h"
#include "backends/hardwired/timing/virtual_clock.h"
#include "base/status.h"
#include "scheduler/dispatcher.h"
#include "scheduler/engine.h"
#include "scheduler/token_stream.h"

namespace reticle::server::cli {
namespace {

using backends::hardwired::VirtualClock;

constexpr TokenId kAnyToken = 1;
constexpr int64_t kNever = INT64_MAX;
constexpr size_t kPopped = 64;

// A card with its engine. Cards do not touch each other, so each has a clock of its own, which
// follows the simulation's when something happens to the card.
struct PlanCard {
  std::shared_ptr<VirtualClock> clock;
  std::unique_ptr<scheduler::Engine> engine;
  int64_t next_ns = kNever;
};

class Fleet {
 public:
  explicit Fleet(const FleetOptions& options) : options_(options) {}

  absl::Status Open() {
    static std::atomic<uint64_t> fleets{0};
    const uint64_t fleet = fleets.fetch_add(1);
    ASSIGN_OR_RETURN(const backends::Driver driver,
                     backends::Driver::FromApi(backends::hardwired::HardwiredDeviceApi()));
    std::vector<scheduler::Engine*> engines;
    for (uint32_t i = 0; i < options_.cards; ++i) {
      const std::string name = absl::StrFormat("reticle-plan-%u-%u", fleet, i);
      PlanCard card;
      card.clock = VirtualClock::Create(name);
      if (card.clock == nullptr) return InternalError("the clock %s exists", name);
      backends::DeviceConfig config;
      config.device_index = i;
      config.options = {{"profile", options_.profile},
                        {"content", "replay"},
                        {"clock", "virtual"},
                        {"virtual_clock", name},
                        {"params", "ignore"},
                        {"name", name},
                        {"replay_kv_bytes", std::to_string(options_.kv_bytes_per_token)}};
      config.options.insert(config.options.end(), options_.settings.begin(),
                            options_.settings.end());
      ASSIGN_OR_RETURN(std::unique_ptr<backends::Device> device,
                       backends::Device::Open(driver, config));
      scheduler::EngineOptions engine;
      engine.max_waiting = options_.max_waiting;
      engine.run_ahead = options_.run_ahead;
      engine.watchdog_ns = 0;
      ASSIGN_OR_RETURN(card.engine,
                       scheduler::Engine::Create(std::move(device), engine, *card.clock, nullptr));
      engines.push_back(card.engine.get());
      cards_.push_back(std::move(card));
    }
    ASSIGN_OR_RETURN(dispatcher_, scheduler::Dispatcher::Create(std::move(engines)));
    return absl::OkStatus();
  }

  const reticle_capabilities& capabilities() const { return dispatcher_->capabilities(); }
  scheduler::EngineGauges Gauges() const { return dispatcher_->Gauges(); }
  int64_t now_ns() const { return now_ns_; }

  // The earliest event of a card.
  int64_t NextEvent() {
    while (!events_.empty() && cards_[events_.top().second].next_ns != events_.top().first) {
      events_.pop();
    }
    return events_.empty() ? kNever : events_.top().first;
  }

  // Moves to the earliest event and lets its card act.
  void RunNextEvent() {
    const auto [time_ns, index] = events_.top();
    events_.pop();
    now_ns_ = std::max(now_ns_, time_ns);
    Settle(static_cast<uint32_t>(index));
  }

  // Moves to `time_ns`, which is not behind the next event, on all cards.
  void MoveTo(int64_t time_ns) {
    now_ns_ = std::max(now_ns_, time_ns);
    for (uint32_t i = 0; i < cards_.size(); ++i) Settle(i);
  }

  absl::Status Submit(scheduler::Request request) {
    RETURN_IF_ERROR(dispatcher_->Submit(std::move(request)));
    for (uint32_t i = 0; i < cards_.size(); ++i) {
      if (!cards_[i].engine->Idle()) Settle(i);
    }
    return absl::OkStatus();
  }

  struct Meter {
    uint64_t energy_uj = 0;
    uint64_t busy_ns = 0;
    uint64_t tokens = 0;
  };
  absl::StatusOr<Meter> Read() const {
    Meter meter;
    for (const PlanCard& card : cards_) {
      ASSIGN_OR_RETURN(const reticle_stats stats, card.engine->DeviceStats());
      meter.energy_uj += stats.energy_uj;
      meter.busy_ns += stats.busy_ns;
      meter.tokens += stats.decode_tokens;
    }
    return meter;
  }

 private:
  void Settle(uint32_t index) {
    PlanCard& card = cards_[index];
    while (card.clock->NowNanos() < now_ns_) card.clock->AdvanceToNextEvent(now_ns_);
    while (card.engine->Step()) {
    }
    const int64_t next_ns = card.clock->NextEventNanos();
    if (next_ns == card.next_ns && next_ns > now_ns_) return;
    card.next_ns = next_ns;
    if (next_ns != kNever) events_.emplace(next_ns, index);
  }

  const FleetOptions& options_;
  std::vector<PlanCard> cards_;
  std::unique_ptr<scheduler::Dispatcher> dispatcher_;
  using Event = std::pair<int64_t, uint32_t>;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  int64_t now_ns_ = 0;
};

class Run;

// A request on its way, and who is told of its tokens.
class Flight : public scheduler::StreamListener {
 public:
  Flight(Run& run, uint32_t number) : run_(run), number_(number) {}
  void OnStreamReady() override;

  std::shared_ptr<scheduler::TokenStream> stream;
  int64_t arrival_ns = 0;
  int64_t first_ns = -1;
  int64_t last_ns = -1;
  uint32_t tokens = 0;
  uint32_t number() const { return number_; }

 private:
  Run& run_;
  const uint32_t number_;
};

class Run {
 public:
  Run(const FleetOptions& options, const PlanTraffic& traffic, const RunLength& length,
      bool open_loop)
      : options_(options),
        length_(length),
        open_loop_(open_loop),
        fleet_(options),
        source_(traffic, length.seed) {}

  absl::StatusOr<FleetRun> Go() {
    RETURN_IF_ERROR(fleet_.Open());
    next_ = source_.Next();
    while (!Complete()) {
      const int64_t arrival_ns = NextArrival();
      const int64_t event_ns = fleet_.NextEvent();
      if (arrival_ns == kNever && event_ns == kNever) {
        return InternalError("the simulation stands still with %d requests under way",
                             flights_.size() - landed_);
      }
      if (arrival_ns <= event_ns) {
        fleet_.MoveTo(arrival_ns);
        RETURN_IF_ERROR(Begin(*next_));
        next_ = source_.Next();
      } else {
        fleet_.RunNextEvent();
      }
      RETURN_IF_ERROR(ReadReady());
    }
    return Finish();
  }

  void OnReady(Flight* flight) { ready_.push_back(flight); }

 private:
  uint64_t wanted() const { return uint64_t{length_.warm_up} + length_.measured; }
  bool Measured(uint32_t number) const { return number >= length_.warm_up && number < wanted(); }

  // Every measured request has its outcome. A fleet that falls behind without end is given as many
  // requests behind the measured ones as these are, and then serves what it has.
  bool Complete() const {
    const uint64_t begun = std::min<uint64_t>(flights_.size(), wanted());
    const uint64_t measured = begun - std::min<uint64_t>(begun, length_.warm_up);
    return (begun == wanted() || !next_.has_value()) && done_ == measured;
  }

  int64_t NextArrival() const {
    if (!next_.has_value()) return kNever;
    if (!open_loop_) return landed_ == flights_.size() ? fleet_.now_ns() + 1 : kNever;
    if (flights_.size() >= wanted() + length_.measured) return kNever;
    return next_->arrival_ns;
  }

  absl::Status Begin(const PlannedRequest& planned) {
    const auto number = static_cast<uint32_t>(flights_.size());
    flights_.push_back(std::make_unique<Flight>(*this, number));
    Flight& flight = *flights_.back();
    flight.arrival_ns = fleet_.now_ns();
    if (Measured(number)) RETURN_IF_ERROR(Watch());
    const uint64_t all = uint64_t{planned.prompt_tokens} + planned.output_tokens;
    if (all > fleet_.capabilities().context_limit) {
      Land(flight, {.kind = PlannedOutcome::Kind::kTooLong});
      return absl::OkStatus();
    }
    flight.stream = std::make_shared<scheduler::TokenStream>(planned.output_tokens + 1, &flight);
    flight.stream->Arm();
    scheduler::Request request;
    request.prompt = Prompt(planned.prompt_tokens);
    request.sampling.temperature = 0;
    request.max_tokens = planned.output_tokens;
    request.arrival_ns = flight.arrival_ns;
    request.use_prefix_cache = false;
    request.outputs = {flight.stream};
    const absl::Status status = fleet_.Submit(std::move(request));
    if (!absl::IsResourceExhausted(status)) return status;
    Land(flight, {.kind = PlannedOutcome::Kind::kRefused});
    return absl::OkStatus();
  }

  // All tokens are alike, so prompts of one length are one prompt.
  std::shared_ptr<const std::vector<TokenId>> Prompt(uint32_t tokens) {
    auto& prompt = prompts_[tokens];
    if (auto present = prompt.lock()) return present;
    auto made = std::make_shared<const std::vector<TokenId>>(tokens, kAnyToken);
    prompt = made;
    return made;
  }

  // At the arrival of a measured request.
  absl::Status Watch() {
    ASSIGN_OR_RETURN(const Fleet::Meter meter, fleet_.Read());
    if (watched_ == 0) {
      begin_ns_ = fleet_.now_ns();
      begin_ = meter;
    }
    end_ns_ = fleet_.now_ns();
    end_ = meter;
    const scheduler::EngineGauges gauges = fleet_.Gauges();
    if (gauges.kv_blocks_total > 0) {
      kv_sum_ += static_cast<double>(gauges.kv_blocks_used) / gauges.kv_blocks_total;
    }
    waiting_sum_ += gauges.waiting;
    ++watched_;
    return absl::OkStatus();
  }

  absl::Status ReadReady() {
    while (!ready_.empty()) {
      reading_.swap(ready_);
      for (Flight* const flight : reading_) RETURN_IF_ERROR(ReadFlight(*flight));
      reading_.clear();
    }
    return absl::OkStatus();
  }

  absl::Status ReadFlight(Flight& flight) {
    do {
      while (const size_t count = flight.stream->Pop(events_)) {
        if (flight.first_ns < 0) flight.first_ns = events_[0].ready_ns;
        flight.last_ns = events_[count - 1].ready_ns;
        flight.tokens += static_cast<uint32_t>(count);
      }
      const scheduler::SequenceEnd* const end = flight.stream->end();
      if (end == nullptr) continue;
      RETURN_IF_ERROR(end->status);
      PlannedOutcome outcome;
      outcome.output_tokens = flight.tokens;
      outcome.ttft_ns = flight.first_ns - flight.arrival_ns + options_.host_ns;
      outcome.e2e_ns = flight.last_ns - flight.arrival_ns + options_.host_ns;
      if (flight.tokens > 1) {
        outcome.tpot_ns =
            static_cast<double>(outcome.e2e_ns - outcome.ttft_ns) / (flight.tokens - 1);
      }
      Land(flight, outcome);
      flight.stream.reset();
      return absl::OkStatus();
    } while (!flight.stream->Arm());
    return absl::OkStatus();
  }

  void Land(const Flight& flight, const PlannedOutcome& outcome) {
    ++landed_;
    if (!Measured(flight.number())) return;
    ++done_;
    const size_t index = flight.number() - length_.warm_up;
    if (run_.outcomes.size() <= index) run_.outcomes.resize(index + 1);
    run_.outcomes[index] = outcome;
  }

  FleetRun Finish() {
    run_.seconds = static_cast<double>(end_ns_ - begin_ns_) * 1e-9;
    if (run_.seconds > 0) {
      const double card_ns = run_.seconds * 1e9 * options_.cards;
      run_.tokens_per_second = static_cast<double>(end_.tokens - begin_.tokens) / run_.seconds;
      run_.busy_share = std::min(1.0, static_cast<double>(end_.busy_ns - begin_.busy_ns) / card_ns);
      run_.watts = static_cast<double>(end_.energy_uj - begin_.energy_uj) * 1e-6 / run_.seconds;
    }
    if (watched_ > 0) {
      run_.kv_share = kv_sum_ / watched_;
      run_.waiting = waiting_sum_ / watched_;
    }
    return std::move(run_);
  }

  const FleetOptions& options_;
  const RunLength length_;
  const bool open_loop_;
  std::unordered_map<uint32_t, std::weak_ptr<const std::vector<TokenId>>> prompts_;
  std::vector<std::unique_ptr<Flight>> flights_;
  std::vector<Flight*> ready_;
  std::vector<Flight*> reading_;
  scheduler::TokenEvent events_[kPopped];
  // Goes before what its engines tell.
  Fleet fleet_;
  TrafficSource source_;
  std::optional<PlannedRequest> next_;
  uint64_t landed_ = 0;
  uint64_t done_ = 0;  // of the measured ones
  uint32_t watched_ = 0;
  int64_t begin_ns_ = 0;
  int64_t end_ns_ = 0;
  Fleet::Meter begin_;
  Fleet::Meter end_;
  double kv_sum_ = 0;
  double waiting_sum_ = 0;
  FleetRun run_;
};

void Flight::OnStreamReady() { run_.OnReady(this); }

}  // namespace

absl::StatusOr<FleetRun> SimulateFleet(const FleetOptions& options, const PlanTraffic& traffic,
                                       const RunLength& length) {
  return Run(options, traffic, length, true).Go();
}

absl::StatusOr<FleetRun> SimulateAlone(const FleetOptions& options, const PlanTraffic& traffic,
                                       const RunLength& length) {
  FleetOptions one = options;
  one.cards = 1;
  return Run(one, traffic, length, false).Go();
}

absl::StatusOr<uint32_t> ContextLimitOf(const FleetOptions& options) {
  FleetOptions one = options;
  one.cards = 1;
  Fleet fleet(one);
  RETURN_IF_ERROR(fleet.Open());
  return fleet.capabilities().context_limit;
}

}  // namespace reticle::server::cli
