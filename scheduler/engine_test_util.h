// What the engine's tests share: an engine over the fake device that is stepped by hand, and
// clients that read its streams. For tests only.
#ifndef RETICLE_SCHEDULER_ENGINE_TEST_UTIL_H_
#define RETICLE_SCHEDULER_ENGINE_TEST_UTIL_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backends/abi/device.h"
#include "backends/fake/fake_content.h"
#include "backends/fake/fake_device.h"
#include "base/check.h"
#include "base/clock.h"
#include "scheduler/engine.h"

namespace reticle::scheduler {

using FakeOptionList = std::vector<std::pair<std::string, std::string>>;

inline std::unique_ptr<backends::Device> OpenFake(FakeOptionList options) {
  absl::StatusOr<backends::Driver> driver =
      backends::Driver::FromApi(backends::fake::FakeDeviceApi());
  RETICLE_CHECK(driver.ok());
  backends::DeviceConfig config;
  config.options = std::move(options);
  absl::StatusOr<std::unique_ptr<backends::Device>> device =
      backends::Device::Open(*driver, config);
  if (!device.ok()) fprintf(stderr, "%s\n", device.status().ToString().c_str());
  RETICLE_CHECK(device.ok());
  return *std::move(device);
}

// One choice as its client sees it.
struct Choice {
  std::shared_ptr<TokenStream> stream;
  std::vector<TokenId> tokens;
  std::vector<TokenEvent> prompt;  // kPromptToken
  std::vector<TokenEvent> events;  // kToken
  std::optional<SequenceEnd> end;

  // Takes up to `limit` events, and the end.
  size_t Read(size_t limit = SIZE_MAX) {
    size_t read = 0;
    TokenEvent event;
    while (read < limit && stream->Pop({&event, 1}) == 1) {
      ++read;
      if (event.kind == TokenEvent::Kind::kPromptToken) {
        prompt.push_back(std::move(event));
        continue;
      }
      tokens.push_back(event.token);
      events.push_back(std::move(event));
    }
    if (!end.has_value() && stream->end() != nullptr) end = *stream->end();
    return read;
  }
};

// A request and what became of it.
struct Client {
  Request request;
  std::vector<Choice> choices;

  void Read() {
    for (Choice& choice : choices) choice.Read();
  }
  bool ended() const {
    for (const Choice& choice : choices) {
      if (!choice.end.has_value()) return false;
    }
    return true;
  }
};

inline Request MakeRequest(std::vector<TokenId> prompt, uint32_t max_tokens, uint64_t seed = 1) {
  Request request;
  request.prompt = std::make_shared<const std::vector<TokenId>>(std::move(prompt));
  request.max_tokens = max_tokens;
  request.sampling.seed = seed;
  return request;
}

inline std::vector<TokenId> MakePrompt(size_t length, uint32_t salt = 0) {
  std::vector<TokenId> prompt(length);
  for (size_t i = 0; i < length; ++i) {
    prompt[i] = static_cast<TokenId>(backends::fake::Mix(salt, i) % 200);
  }
  return prompt;
}

// Gives it `choices` streams.
inline std::unique_ptr<Client> MakeClient(Request request, uint32_t choices = 1,
                                          size_t capacity = 64) {
  auto client = std::make_unique<Client>();
  for (uint32_t i = 0; i < choices; ++i) {
    Choice choice;
    choice.stream = std::make_shared<TokenStream>(capacity, nullptr);
    request.outputs.push_back(choice.stream);
    client->choices.push_back(std::move(choice));
  }
  client->request = std::move(request);
  return client;
}

// What the fake device is bound to say to choice `choice`, run alone on a device with its default
// content.
inline std::vector<TokenId> Expected(const Request& request, uint32_t choice = 0,
                                     uint64_t adapter_key = 0, uint32_t max_tokens = 0) {
  const SamplingParams& params = request.sampling;
  std::vector<reticle_logit_bias> bias;
  for (const auto& [token, value] : params.logit_bias) bias.push_back({token, value});
  reticle_sampling sampling{};
  sampling.struct_size = sizeof(sampling);
  sampling.temperature = params.temperature;
  sampling.top_k = params.top_k;
  sampling.top_p = params.top_p;
  sampling.min_p = params.min_p;
  sampling.repetition_penalty = params.repetition_penalty;
  sampling.frequency_penalty = params.frequency_penalty;
  sampling.presence_penalty = params.presence_penalty;
  sampling.seed = ChoiceSeed(params.seed, choice);
  sampling.prompt_tokens = static_cast<uint32_t>(request.prompt->size());
  sampling.min_tokens = params.min_tokens;
  sampling.stop_ids = params.stop_ids.data();
  sampling.stop_id_count = static_cast<uint32_t>(params.stop_ids.size());
  sampling.logit_bias = bias.data();
  sampling.logit_bias_count = static_cast<uint32_t>(bias.size());
  return backends::fake::ExpectedTokens(backends::fake::FakeContent(), *request.prompt, sampling,
                                        max_tokens != 0 ? max_tokens : request.max_tokens,
                                        adapter_key);
}

// An engine over a fake device, on a clock that moves only when told.
class TestEngine {
 public:
  explicit TestEngine(FakeOptionList fake_options = {}, EngineOptions options = {},
                      EngineProbe* probe = nullptr) {
    static int serial = 0;
    const std::string name = "engine_test_" + std::to_string(++serial);
    fake_options.emplace_back("name", name);
    absl::StatusOr<std::unique_ptr<Engine>> made =
        Engine::Create(OpenFake(std::move(fake_options)), options, clock_, probe);
    RETICLE_CHECK(made.ok());
    engine_ = *std::move(made);
    control_ = backends::fake::FindFakeDevice(name);
    RETICLE_CHECK(control_ != nullptr);
  }

  Engine& operator*() { return *engine_; }
  Engine* operator->() { return engine_.get(); }
  ManualClock& clock() { return clock_; }
  backends::fake::FakeControl& control() { return *control_; }

  absl::Status Submit(Client& client) {
    client.request.arrival_ns = clock_.NowNanos();
    return engine_->Submit(client.request);
  }
  // One step, a microsecond later, with all invariants checked.
  bool Step() {
    clock_.AdvanceNanos(1000);
    const bool any = engine_->Step();
    engine_->CheckInvariants();
    return any;
  }
  // Steps and reads until all have ended; false if `limit` steps do not suffice.
  bool RunUntilEnded(const std::vector<Client*>& clients, int limit = 100'000) {
    for (int i = 0; i < limit; ++i) {
      bool ended = true;
      for (Client* client : clients) {
        client->Read();
        ended = ended && client->ended();
      }
      if (ended) return true;
      Step();
    }
    return false;
  }
  // Steps until nothing is left in the engine.
  bool RunUntilIdle(int limit = 10'000) {
    for (int i = 0; i < limit && !engine_->Idle(); ++i) Step();
    return engine_->Idle();
  }
  void Destroy() { engine_.reset(); }

 private:
  ManualClock clock_;
  std::unique_ptr<Engine> engine_;
  std::shared_ptr<backends::fake::FakeControl> control_;
};

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_ENGINE_TEST_UTIL_H_
