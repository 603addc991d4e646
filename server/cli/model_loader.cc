#include "server/cli/model_loader.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "models/gguf.h"
#include "server/cli/embedded_model.h"

namespace reticle::server::cli {
namespace {

class EngineSink : public RequestSink {
 public:
  explicit EngineSink(scheduler::Engine& engine) : engine_(engine) {}
  absl::Status Submit(scheduler::Request request) override {
    return engine_.Submit(std::move(request));
  }

 private:
  scheduler::Engine& engine_;
};

absl::StatusOr<backends::Driver> FindDriver(const std::string& name,
                                            const std::vector<BuiltInDriver>& drivers) {
  std::string names;
  for (const BuiltInDriver& driver : drivers) {
    if (driver.name == name) return backends::Driver::FromApi(driver.api);
    names += driver.name + ", ";
  }
  if (name.find('/') != std::string::npos || name.ends_with(".so")) {
    return backends::Driver::Load(name);
  }
  return NotFoundError("--device is \"%s\"; it must be %sor the path of a driver library", name,
                       names);
}

absl::StatusOr<backends::DeviceConfig> MakeDeviceConfig(const ServeOptions& options,
                                                        const std::string& model_path,
                                                        const tokenizer::Tokenizer& tokenizer,
                                                        uint32_t model_context) {
  backends::DeviceConfig config;
  config.model_path = model_path;
  config.device_index = options.device_index;
  config.threads = options.threads;
  config.kv_type = options.kv_type == "f16"    ? RETICLE_KV_TYPE_F16
                   : options.kv_type == "q8_0" ? RETICLE_KV_TYPE_Q8_0
                                               : RETICLE_KV_TYPE_DEFAULT;
  config.kv_block_tokens = options.kv_block_tokens;
  ASSIGN_OR_RETURN(config.kv_bytes, ParseByteSize(options.kv_size));
  config.context_limit = options.context;
  config.max_sequences = options.max_sequences;
  for (const std::string& option : options.device_options) {
    const size_t sign = option.find('=');
    config.options.emplace_back(option.substr(0, sign), option.substr(sign + 1));
  }
  if (options.device == "fake") {
    // It has no model of its own: it takes the shape of the one whose text it speaks.
    config.model_path.clear();
    if (config.context_limit == 0) config.context_limit = model_context;
    const bool has_vocab = std::any_of(config.options.begin(), config.options.end(),
                                       [](const auto& option) { return option.first == "vocab"; });
    if (!has_vocab) config.options.emplace_back("vocab", std::to_string(tokenizer.vocab_size()));
  }
  return config;
}

ModelLimits LimitsOf(const reticle_capabilities& device, const tokenizer::Tokenizer& tokenizer) {
  const auto has = [&](uint64_t feature) { return (device.features & feature) != 0; };
  ModelLimits limits;
  // Rows of padding behind the vocabulary have no text.
  limits.vocab_size = std::min(device.vocab_size, tokenizer.vocab_size());
  limits.max_model_len = device.context_limit;
  limits.max_logprobs = device.max_logprobs > 0 ? std::min(device.max_logprobs - 1, 20u) : 0;
  limits.max_top_k = device.max_top_k;
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

std::string ModelIdOf(const ServeOptions& options) {
  if (!options.model_id.empty()) return options.model_id;
  if (options.model.empty()) return "house";
  std::string_view name = options.model;
  name = name.substr(name.rfind('/') + 1);
  if (name.ends_with(".gguf")) name.remove_suffix(5);
  return std::string(name);
}

}  // namespace

LoadedModel::LoadedModel() = default;
LoadedModel::~LoadedModel() = default;

absl::StatusOr<std::unique_ptr<LoadedModel>> LoadedModel::Load(
    const ServeOptions& options, const std::vector<BuiltInDriver>& drivers, Clock& clock,
    scheduler::EngineProbe* probe) {
  auto entry = std::make_shared<ModelEntry>();
  entry->id = ModelIdOf(options);
  entry->aliases = options.aliases;
  entry->created_unix_s = UnixSeconds();

  std::string path = options.model;
  if (path.empty()) {
    ASSIGN_OR_RETURN(path, EmbeddedModelPath());
  }
  ASSIGN_OR_RETURN(backends::Driver driver, FindDriver(options.device, drivers));
  ASSIGN_OR_RETURN(const std::unique_ptr<models::GgufFile> file, models::GgufFile::Open(path));
  ASSIGN_OR_RETURN(entry->tokenizer, tokenizer::Tokenizer::Create(*file));
  if (file->Has("tokenizer.chat_template")) {
    ASSIGN_OR_RETURN(const std::string_view source, file->GetString("tokenizer.chat_template"));
    auto chat_template = tokenizer::ChatTemplate::Create(source);
    if (chat_template.ok()) {
      entry->chat_template = *std::move(chat_template);
    } else {
      LogWarning("the model's chat template cannot be used, so chat is refused: %s",
                 chat_template.status().message());
    }
  }
  const uint64_t context = file->GetUint("llama.context_length").value_or(4096);

  ASSIGN_OR_RETURN(
      const backends::DeviceConfig config,
      MakeDeviceConfig(options, path, *entry->tokenizer, static_cast<uint32_t>(context)));
  ASSIGN_OR_RETURN(std::unique_ptr<backends::Device> device,
                   backends::Device::Open(driver, config));
  scheduler::EngineOptions engine_options;
  engine_options.step_token_budget = options.step_tokens;
  engine_options.max_waiting = options.max_waiting;
  // Flex and free traffic of servers with accounts (server/tenants/tier.h).
  if (options.tenants) engine_options.shed_priority = 20;
  engine_options.prefix_cache = options.prefix_cache;
  engine_options.run_ahead = options.run_ahead;
  std::unique_ptr<LoadedModel> model(new LoadedModel);
  ASSIGN_OR_RETURN(model->engine_,
                   scheduler::Engine::Create(std::move(device), engine_options, clock, probe));
  const reticle_capabilities& capabilities = model->engine_->capabilities();
  entry->limits = LimitsOf(capabilities, *entry->tokenizer);
  if (capabilities.vocab_size < entry->tokenizer->vocab_size()) {
    LogWarning(
        "the device takes %d tokens and the tokenizer has %d: prompts with others are refused",
        capabilities.vocab_size, entry->tokenizer->vocab_size());
  }
  const std::string_view hash = capabilities.model_hash;
  entry->fingerprint = "fp_" + std::string(hash.empty() ? "unknown" : hash.substr(0, 12));
  entry->sink = std::make_unique<EngineSink>(*model->engine_);
  ASSIGN_OR_RETURN(model->thread_, scheduler::EngineThread::Start(*model->engine_, {}, clock));
  model->entry_ = std::move(entry);
  return model;
}

std::string LoadedModel::Describe() const {
  const reticle_capabilities& device = engine_->capabilities();
  return absl::StrFormat(
      "%s on %s: context %d, vocabulary %d, %d sequences, KV cache for %d tokens", entry_->id,
      device.device_name, device.context_limit, entry_->limits.vocab_size, device.max_sequences,
      device.kv_token_capacity);
}

}  // namespace reticle::server::cli
