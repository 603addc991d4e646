#include "loadtest/driver.h"

#include <algorithm>

#include "base/clock.h"
#include "loadtest/process_usage.h"

namespace reticle::loadtest {
namespace {

constexpr int64_t kMaxWaitNs = 20'000'000;
constexpr int64_t kPublishNs = 250'000'000;
// A closed-loop user whose request failed at once does not try again in a tight loop.
constexpr int64_t kBackOffNs = 100'000'000;
// Where a rejection names no time.
constexpr double kDefaultRetryAfterS = 1;

int64_t Now() { return Clock::Monotonic().NowNanos(); }

}  // namespace

// One conversation, and in a closed loop the user who holds it.
struct Driver::Session {
  PlannedConversation plan;
  size_t turn = 0;
  std::vector<Message> messages;
  int64_t begun_ns = 0;  // intended send of the first turn
  bool user = false;     // closed loop
  bool between = false;  // the timer is for the user's next conversation
  bool retrying = false;
  Request request;
};

Driver::Driver(const Options& options, Recorder& recorder)
    : options_(options),
      scenario_(*options.scenario),
      recorder_(recorder),
      send_until_ns_(options.start_ns + options.scenario->duration_ns) {}

Driver::~Driver() = default;

absl::StatusOr<std::unique_ptr<Driver>> Driver::Create(const Options& options, Recorder& recorder,
                                                       const MakeTransport& make_transport) {
  std::unique_ptr<Driver> driver(new Driver(options, recorder));
  Driver* const self = driver.get();
  auto transport = make_transport(recorder, [self](Request& request) { self->OnDone(request); });
  if (!transport.ok()) return transport.status();
  driver->transport_ = *std::move(transport);
  if (options.scenario->mode != ArrivalMode::kClosed) {
    driver->arrivals_.emplace(*options.scenario, options.workload->trace());
  }
  return driver;
}

bool Driver::MaySend(int64_t intended_ns) const {
  return !exhausted_ && intended_ns < send_until_ns_;
}

bool Driver::TakeRequest() {
  if (scenario_.requests == 0) return true;
  if (options_.control->requests_left.fetch_sub(1, std::memory_order_relaxed) > 0) return true;
  exhausted_ = true;
  return false;
}

void Driver::StartUsers() {
  for (int64_t user = options_.thread; user < scenario_.users; user += scenario_.threads) {
    auto session = std::make_unique<Session>();
    session->user = true;
    session->between = true;
    const int64_t offset_ns =
        static_cast<int64_t>(static_cast<double>(scenario_.ramp_up_ns) * static_cast<double>(user) /
                             static_cast<double>(scenario_.users));
    timers_.push({options_.start_ns + offset_ns, session.get()});
    Session* const key = session.get();
    sessions_.emplace(key, std::move(session));
  }
}

void Driver::PrepareArrival() {
  while (prepared_ == nullptr && arrivals_.has_value()) {
    const std::optional<int64_t> at = arrivals_->Next();
    if (!at.has_value()) {
      arrivals_.reset();
      return;
    }
    const uint64_t index = arrival_index_++;
    if (static_cast<int64_t>(index % static_cast<uint64_t>(scenario_.threads)) != options_.thread) {
      continue;
    }
    prepared_ = std::make_unique<Session>();
    prepared_->plan = options_.workload->Make(index);
    prepared_at_ns_ = options_.start_ns + *at;
  }
}

void Driver::StartArrivals(int64_t now_ns) {
  while (prepared_ != nullptr && prepared_at_ns_ <= now_ns) {
    Session* const session = prepared_.get();
    sessions_.emplace(session, std::move(prepared_));
    Send(*session, prepared_at_ns_);
    PrepareArrival();
  }
}

void Driver::Send(Session& session, int64_t intended_ns) {
  if (!MaySend(intended_ns) || (!session.retrying && !TakeRequest())) {
    EndSession(session);
    return;
  }
  Request& request = session.request;
  const PlannedTurn& turn = session.plan.turns[session.turn];
  const int retries = session.retrying ? request.retries + 1 : 0;
  const int64_t first_intended_ns = session.retrying ? request.intended_ns : intended_ns;
  if (!session.retrying) {
    if (session.turn == 0) {
      session.begun_ns = intended_ns;
      session.messages.clear();
      if (!session.plan.system.empty()) session.messages.push_back({"system", session.plan.system});
    }
    session.messages.push_back({"user", turn.text});
  }
  session.retrying = false;
  request = Request();
  request.retries = retries;
  request.intended_ns = first_intended_ns;
  request.stream = scenario_.stream;
  request.max_tokens = turn.max_tokens;
  request.keep_text = session.turn + 1 < session.plan.turns.size();
  request.disconnect_after_events = turn.disconnect_after_events;
  request.read_bytes_per_s = turn.read_bytes_per_s;
  request.owner = reinterpret_cast<uintptr_t>(&session);
  if (options_.body != nullptr) {
    request.body = options_.body->Body(session.messages, turn.max_tokens);
  } else if (scenario_.api == Api::kChat) {
    request.messages = &session.messages;
  } else {
    request.prompt = JoinedPrompt(session.messages);
  }
  request.outcome.started_ns = Now();
  recorder_.Sent(request);
  transport_->Start(request);
}

void Driver::OnDone(Request& request) {
  finished_.push_back(reinterpret_cast<Session*>(static_cast<uintptr_t>(request.owner)));
}

void Driver::EndSession(Session& session) { sessions_.erase(&session); }

void Driver::Schedule(Session& session, int64_t at_ns) {
  if (MaySend(at_ns)) {
    timers_.push({at_ns, &session});
  } else {
    EndSession(session);
  }
}

void Driver::Continue(Session& session) {
  Request& request = session.request;
  const Outcome& outcome = request.outcome;
  const int64_t end_ns = outcome.end_ns;
  const bool failed = outcome.error != ErrorKind::kNone;
  if (failed && IsRejection(outcome) && request.retries < scenario_.retries) {
    const double wait_s = outcome.retry_after_s >= 0 ? outcome.retry_after_s : kDefaultRetryAfterS;
    const int64_t at_ns = end_ns + static_cast<int64_t>(wait_s * 1e9);
    if (MaySend(at_ns)) {
      recorder_.Retried();
      session.retrying = true;
      timers_.push({at_ns, &session});
      return;
    }
  }
  if (outcome.error == ErrorKind::kUnfinished &&
      options_.control->stop.load(std::memory_order_relaxed)) {
    recorder_.Interrupted(request);
    EndSession(session);
    return;
  }
  recorder_.Finished(request);
  if (outcome.error == ErrorKind::kUnfinished) {
    EndSession(session);
    return;
  }
  const bool goes_on = !failed && !outcome.disconnected;
  if (goes_on && session.turn + 1 < session.plan.turns.size()) {
    session.messages.push_back({"assistant", outcome.text});
    ++session.turn;
    Schedule(session, end_ns + session.plan.turns[session.turn].think_ns);
    return;
  }
  if (goes_on) {
    recorder_.ConversationDone(session.begun_ns, end_ns,
                               static_cast<int64_t>(session.plan.turns.size()));
  }
  if (!session.user) {
    EndSession(session);
    return;
  }
  session.between = true;
  const bool at_once = failed && end_ns - request.intended_ns < kBackOffNs;
  const uint64_t next = options_.control->next_conversation.load(std::memory_order_relaxed);
  const int64_t pause_ns = std::max(options_.workload->ThinkNs(next), at_once ? kBackOffNs : 0);
  Schedule(session, end_ns + pause_ns);
}

void Driver::AddUsage(double sign, int64_t now_ns) {
  const CpuTimes times = ThreadCpuTimes();
  usage_.cpu_s += sign * times.cpu_s;
  usage_.wait_s += sign * times.wait_s;
  usage_.runs += sign * times.runs;
  usage_.wall_s += sign * static_cast<double>(now_ns - options_.start_ns) / 1e9;
}

void Driver::Run() {
  if (arrivals_.has_value()) {
    PrepareArrival();
  } else {
    StartUsers();
  }
  const int64_t drain_until_ns = send_until_ns_ + scenario_.drain_ns;
  int64_t publish_ns = 0;
  int64_t turn_begun_ns = Now();
  bool measuring = false;
  while (true) {
    for (Session* const session : std::exchange(finished_, {})) Continue(*session);
    int64_t now_ns = Now();
    while (!timers_.empty() && timers_.top().at_ns <= now_ns) {
      const Timer timer = timers_.top();
      timers_.pop();
      Session& session = *timer.session;
      if (std::exchange(session.between, false)) {
        session.turn = 0;
        session.plan = options_.workload->Make(
            options_.control->next_conversation.fetch_add(1, std::memory_order_relaxed));
      }
      Send(session, timer.at_ns);
    }
    StartArrivals(now_ns);

    now_ns = Now();
    if (now_ns >= publish_ns) {
      recorder_.Publish();
      publish_ns = now_ns + kPublishNs;
    }
    if (options_.control->stop.load(std::memory_order_relaxed) || now_ns >= drain_until_ns) break;
    const bool may_send =
        !exhausted_ && now_ns < send_until_ns_ && (prepared_ != nullptr || !timers_.empty());
    if (transport_->in_flight() == 0 && finished_.empty() && !may_send) break;

    int64_t until_ns = now_ns + kMaxWaitNs;
    if (prepared_ != nullptr) until_ns = std::min(until_ns, prepared_at_ns_);
    if (!timers_.empty()) until_ns = std::min(until_ns, timers_.top().at_ns);
    if (!finished_.empty()) until_ns = now_ns;
    const bool in_window = recorder_.InWindow(now_ns);
    if (in_window) usage_.busy_s += static_cast<double>(now_ns - turn_begun_ns) / 1e9;
    if (in_window != measuring) {
      AddUsage(in_window ? -1 : 1, now_ns);
      measuring = in_window;
    }
    const int64_t begun_ns = transport_->Poll(until_ns, scenario_.spin);
    const int64_t after_ns = Now();
    turn_begun_ns = begun_ns == 0 ? after_ns : begun_ns;
    if (begun_ns != 0) recorder_.LoopLag(after_ns - begun_ns, after_ns);
  }
  end_ns_ = Now();
  if (measuring) AddUsage(1, end_ns_);
  transport_->AbandonAll();
  for (Session* const session : std::exchange(finished_, {})) Continue(*session);
  recorder_.Publish();
}

}  // namespace reticle::loadtest
