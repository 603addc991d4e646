#include "server/cli/device_group.h"

#include <algorithm>
#include <future>
#include <utility>

#include "base/status.h"

namespace reticle::server::cli {
namespace {

constexpr int64_t kCheapWatchdogNs = 1'000'000'000;

// Runs `order` on the engine's thread and waits for its result.
absl::Status Await(const std::function<void(std::function<void(absl::Status)>)>& order) {
  auto promise = std::make_shared<std::promise<absl::Status>>();
  std::future<absl::Status> result = promise->get_future();
  order([promise](absl::Status status) { promise->set_value(std::move(status)); });
  return result.get();
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceGroup>> DeviceGroup::Open(
    const Options& options, Clock& clock,
    const std::function<scheduler::EngineProbe*()>& add_engine) {
  std::unique_ptr<DeviceGroup> group(new DeviceGroup(options.choice, clock));
  ASSIGN_OR_RETURN(const backends::Driver driver, backends::Driver::FromApi(options.choice.api));
  std::vector<scheduler::Engine*> engines;
  for (uint32_t i = 0; i < options.cards; ++i) {
    Card card;
    card.index = options.config.device_index + i;
    card.name = absl::StrFormat("%s/%d", options.choice.name, card.index);
    backends::DeviceConfig config = options.config;
    config.device_index = card.index;
    if (options.choice.inject) config.options.emplace_back("name", card.name);
    absl::StatusOr<std::unique_ptr<backends::Device>> device =
        backends::Device::Open(driver, config);
    if (!device.ok()) {
      return absl::Status(device.status().code(),
                          absl::StrFormat("device %s: %s", card.name, device.status().message()));
    }
    scheduler::EngineOptions engine_options = options.engine;
    // What computes may be silent for long; what only waits for a device may not.
    if (engine_options.watchdog_ns < 0) {
      engine_options.watchdog_ns = (*device)->Has(RETICLE_FEATURE_CHEAP_POLL)
                                       ? kCheapWatchdogNs
                                       : scheduler::EngineOptions().watchdog_ns;
    }
    card.probe = add_engine ? add_engine() : nullptr;
    ASSIGN_OR_RETURN(card.engine, scheduler::Engine::Create(*std::move(device), engine_options,
                                                            clock, card.probe));
    engines.push_back(card.engine.get());
    group->cards_.push_back(std::move(card));
  }
  ASSIGN_OR_RETURN(group->dispatcher_, scheduler::Dispatcher::Create(std::move(engines)));
  return group;
}

DeviceGroup::~DeviceGroup() {
  for (const auto& thread : threads_) thread->Stop();
}

void DeviceGroup::Stop() {
  for (const auto& thread : threads_) thread->Stop();
  for (const auto& task : tasks_) loops_->Detach(*task);
}

absl::Status DeviceGroup::Start(LoopHost* loops) {
  loops_ = loops;
  for (const Card& card : cards_) {
    if (loops != nullptr && EngineTask::Suits(*card.engine)) {
      tasks_.push_back(std::make_unique<EngineTask>(*card.engine));
      loops->Attach(*tasks_.back());
      continue;
    }
    scheduler::EngineThread::Options options;
    options.name = absl::StrFormat("engine-%d", card.index);
    ASSIGN_OR_RETURN(std::unique_ptr<scheduler::EngineThread> thread,
                     scheduler::EngineThread::Start(*card.engine, options, clock_));
    threads_.push_back(std::move(thread));
  }
  return absl::OkStatus();
}

absl::Status DeviceGroup::LoadAdapter(uint64_t adapter, const std::string& path, float scale) {
  for (size_t i = 0; i < cards_.size(); ++i) {
    if (cards_[i].engine->AdapterLoaded(adapter)) continue;
    const absl::Status status = Await(
        [&](auto done) { cards_[i].engine->LoadAdapter(adapter, path, scale, std::move(done)); });
    if (status.ok()) continue;
    for (size_t undo = 0; undo < i; ++undo) {
      Await([&](auto done) {
        cards_[undo].engine->UnloadAdapter(adapter, std::move(done));
      }).IgnoreError();
    }
    return absl::Status(status.code(),
                        absl::StrFormat("device %s: %s", cards_[i].name, status.message()));
  }
  return absl::OkStatus();
}

absl::Status DeviceGroup::UnloadAdapter(uint64_t adapter) {
  for (const Card& card : cards_) {
    if (!card.engine->AdapterLoaded(adapter)) continue;
    const absl::Status status =
        Await([&](auto done) { card.engine->UnloadAdapter(adapter, std::move(done)); });
    if (!status.ok()) {
      return absl::Status(status.code(),
                          absl::StrFormat("device %s: %s", card.name, status.message()));
    }
  }
  return absl::OkStatus();
}

absl::Status DeviceGroup::Inject(const Card& card, std::string_view fault) const {
  if (choice_.inject) return choice_.inject(card.name, fault);
  return UnimplementedError("device %s has no faults to inject", card.name);
}

ModelLimits LimitsOf(const reticle_capabilities& device, uint32_t tokenizer_vocab) {
  const auto has = [&](uint64_t feature) { return (device.features & feature) != 0; };
  ModelLimits limits;
  // Rows of padding behind the vocabulary have no text.
  limits.vocab_size = std::min(device.vocab_size, tokenizer_vocab);
  limits.max_model_len = device.context_limit;
  limits.max_logprobs = device.max_logprobs > 0 ? std::min(device.max_logprobs - 1, 20u) : 0;
  limits.max_top_k = device.max_top_k;
  limits.default_top_k = device.default_top_k;
  limits.max_stop_ids = device.max_stop_ids;
  limits.max_choices = std::min(device.max_sequences, 128u);
  limits.logprobs = has(RETICLE_FEATURE_LOGPROBS) && device.max_logprobs > 0;
  limits.prompt_logprobs = has(RETICLE_FEATURE_PROMPT_LOGPROBS) && device.max_logprobs > 0;
  limits.logit_bias = has(RETICLE_FEATURE_LOGIT_BIAS);
  limits.penalties = has(RETICLE_FEATURE_PENALTIES);
  limits.min_p = has(RETICLE_FEATURE_MIN_P);
  limits.top_p = has(RETICLE_FEATURE_TOP_P);
  limits.temperature = has(RETICLE_FEATURE_TEMPERATURE);
  limits.min_tokens = has(RETICLE_FEATURE_MIN_TOKENS);
  return limits;
}

}  // namespace reticle::server::cli
