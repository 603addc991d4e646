#include "tests/determinism/rig.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdio>

#include "backends/abi/device.h"
#include "backends/cpu/cpu_device.h"
#include "base/check.h"

namespace reticle::determinism {

using scheduler::TokenEvent;

namespace {

TracedToken Traced(const TokenEvent& event) {
  TracedToken traced;
  traced.of_prompt = event.kind == TokenEvent::Kind::kPromptToken;
  traced.is_stop_id = event.is_stop_id;
  traced.token = event.token;
  if (event.logprobs == nullptr) return traced;
  traced.has_logprob = true;
  traced.logprob = std::bit_cast<uint32_t>(event.logprobs->logprob);
  traced.rank = event.logprobs->rank;
  for (const auto& [token, logprob] : event.logprobs->top) {
    traced.top.emplace_back(token, std::bit_cast<uint32_t>(logprob));
  }
  return traced;
}

std::unique_ptr<scheduler::Engine> MakeEngine(const RigOptions& rig_options) {
  backends::DeviceConfig config;
  config.model_path = rig_options.model_path;
  config.threads = rig_options.threads;
  config.kv_type = rig_options.kv_type;
  config.kv_bytes = rig_options.kv_bytes;
  config.kv_block_tokens = rig_options.kv_block_tokens;
  config.max_sequences = 80;
  absl::StatusOr<backends::Driver> driver =
      backends::Driver::FromApi(backends::cpu::CpuDeviceApi());
  RETICLE_CHECK(driver.ok());
  auto device = backends::Device::Open(*driver, config);
  if (!device.ok()) std::fprintf(stderr, "%s\n", device.status().ToString().c_str());
  RETICLE_CHECK(device.ok());
  scheduler::EngineOptions options;
  options.prefix_cache = rig_options.prefix_cache;
  options.step_token_budget = rig_options.step_tokens;
  options.max_running = rig_options.max_running;
  options.run_ahead = rig_options.run_ahead;
  auto engine = scheduler::Engine::Create(*std::move(device), options, Clock::Monotonic(), nullptr);
  RETICLE_CHECK(engine.ok());
  return *std::move(engine);
}

}  // namespace

size_t Trace::OutputTokens() const { return Output().size(); }

std::vector<TokenId> Trace::Output() const {
  std::vector<TokenId> output;
  for (const TracedToken& token : tokens) {
    if (!token.of_prompt) output.push_back(token.token);
  }
  return output;
}

testing::AssertionResult Same(const Trace& expected, const Trace& got) {
  const size_t common = std::min(expected.tokens.size(), got.tokens.size());
  for (size_t i = 0; i < common; ++i) {
    const TracedToken& a = expected.tokens[i];
    const TracedToken& b = got.tokens[i];
    if (a == b) continue;
    return testing::AssertionFailure()
           << "event " << i << " of " << expected.tokens.size() << ": token " << a.token << " and "
           << b.token << ", log-probability " << std::bit_cast<float>(a.logprob) << " and "
           << std::bit_cast<float>(b.logprob) << " (bits " << a.logprob << " and " << b.logprob
           << "), rank " << a.rank << " and " << b.rank << ", alternatives "
           << (a.top == b.top ? "equal" : "different");
  }
  if (expected.tokens.size() != got.tokens.size()) {
    return testing::AssertionFailure()
           << expected.tokens.size() << " events and " << got.tokens.size();
  }
  if (expected.reason != got.reason) {
    return testing::AssertionFailure() << "ends for reason " << static_cast<int>(expected.reason)
                                       << " and " << static_cast<int>(got.reason);
  }
  return testing::AssertionSuccess();
}

void Rig::Bell::OnStreamReady() {
  const std::lock_guard lock(mutex_);
  rung_ = true;
  condition_.notify_one();
}

void Rig::Bell::Wait() {
  std::unique_lock lock(mutex_);
  condition_.wait(lock, [this] { return rung_; });
  rung_ = false;
}

Rig::Rig(const RigOptions& rig_options)
    : own_thread_(rig_options.own_thread), engine_(MakeEngine(rig_options)) {
  if (!own_thread_) return;
  auto thread = scheduler::EngineThread::Start(*engine_, {});
  RETICLE_CHECK(thread.ok());
  thread_ = *std::move(thread);
}

Rig::~Rig() {
  thread_.reset();
  for (std::vector<Choice>& choices : clients_) {
    for (Choice& choice : choices) choice.stream->Detach();
  }
}

size_t Rig::Submit(scheduler::Request request, uint32_t choices, size_t capacity) {
  std::vector<Choice>& made = clients_.emplace_back(choices);
  for (Choice& choice : made) {
    choice.stream =
        std::make_shared<scheduler::TokenStream>(capacity, own_thread_ ? &bell_ : nullptr);
    request.outputs.push_back(choice.stream);
  }
  request.arrival_ns = Clock::Monotonic().NowNanos();
  const absl::Status status = engine_->Submit(std::move(request));
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  RETICLE_CHECK(status.ok());
  live_.push_back(clients_.size() - 1);
  return clients_.size() - 1;
}

void Rig::Cancel(size_t client, uint32_t choice) { clients_[client][choice].stream->Cancel(); }

void Rig::Step() {
  if (own_thread_) {
    if (!ReadAll() && ArmAll()) bell_.Wait();
    return;
  }
  const bool moved = engine_->Step();
  engine_->CheckInvariants();
  if (!ReadAll() && !moved && engine_->PrepareSleep()) Sleep();
}

void Rig::Sleep() {
  pollfd event{engine_->event_fd(), POLLIN, 0};
  const int64_t left_ns = engine_->next_timer_ns() - Clock::Monotonic().NowNanos();
  const int64_t timeout_ms = std::clamp<int64_t>(left_ns / 1'000'000 + 1, 0, 1000);
  if (poll(&event, 1, static_cast<int>(timeout_ms)) != 1) return;
  uint64_t value = 0;
  RETICLE_CHECK(read(event.fd, &value, sizeof(value)) == sizeof(value));
}

bool Rig::ReadAll() {
  bool any = false;
  for (const size_t client : live_) {
    for (Choice& choice : clients_[client]) {
      TokenEvent event;
      while (choice.stream->Pop({&event, 1}) == 1) {
        any = true;
        choice.answer.trace.tokens.push_back(Traced(event));
      }
      const scheduler::SequenceEnd* end = choice.stream->end();
      if (choice.answer.ended || end == nullptr) continue;
      any = true;
      choice.answer.ended = true;
      choice.answer.end = *end;
      choice.answer.trace.reason = end->reason;
    }
  }
  std::erase_if(live_, [this](size_t client) { return Ended(client); });
  return any;
}

bool Rig::ArmAll() {
  if (live_.empty()) return false;
  for (const size_t client : live_) {
    for (Choice& choice : clients_[client]) {
      if (!choice.answer.ended && !choice.stream->Arm()) return false;
    }
  }
  return true;
}

bool Rig::Ended(size_t client) const {
  return std::all_of(clients_[client].begin(), clients_[client].end(),
                     [](const Choice& choice) { return choice.answer.ended; });
}

void Rig::RunUntilAllEnded() {
  while (!live_.empty()) Step();
}

const Answer& Rig::answer(size_t client, uint32_t choice) const {
  return clients_[client][choice].answer;
}

const Answer& Rig::Run(scheduler::Request request) {
  const size_t client = Submit(std::move(request));
  RunUntilAllEnded();
  return answer(client);
}

}  // namespace reticle::determinism
