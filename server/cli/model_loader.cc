#include "server/cli/model_loader.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "server/cli/model_source.h"

namespace reticle::server::cli {
namespace {

constexpr char kDefaultCard[] = "taalas-hc1";

constexpr char kReplayText[] =
    " This text is played, not computed. Its pace is that of the device, token by token; its words "
    "say nothing about the question.";

class DispatcherSink : public RequestSink {
 public:
  explicit DispatcherSink(scheduler::Dispatcher& dispatcher) : dispatcher_(dispatcher) {}
  absl::Status Submit(scheduler::Request request) override {
    return dispatcher_.Submit(std::move(request));
  }

 private:
  scheduler::Dispatcher& dispatcher_;
};

absl::StatusOr<DeviceChoice> FindChoice(const std::string& name,
                                        const std::vector<DeviceChoice>& choices) {
  std::string names;
  for (const DeviceChoice& choice : choices) {
    if (choice.name == name) return choice;
    names += choice.name + ", ";
  }
  if (name.find('/') != std::string::npos || name.ends_with(".so")) {
    ASSIGN_OR_RETURN(const backends::Driver driver, backends::Driver::Load(name));
    DeviceChoice loaded;
    loaded.name = std::string(driver.name());
    loaded.api = &driver.api();
    return loaded;
  }
  return NotFoundError("--device is \"%s\"; it must be %sor the path of a driver library", name,
                       names);
}

// What the model is served on when nobody names a device.
std::string DefaultDevice(const ServeOptions& options, const ModelSource& source) {
  if (source.is_house()) {
    LogInfo(
        "the house model runs on an emulated %s, etched in 3 and 6 bits; --device cpu computes "
        "its original",
        kDefaultCard);
    return kDefaultCard;
  }
  if (source.is_image() || !options.content.empty() || !options.clock.empty()) {
    LogInfo("%s runs on an emulated %s; --device chooses", source.path(), kDefaultCard);
    return kDefaultCard;
  }
  LogInfo("%s runs on the CPU; --device %s emulates a card that has it etched in 8 bits",
          source.path(), kDefaultCard);
  return "cpu";
}

// The operator's options for the group: "name=value" for all, "device:name=value" for one.
absl::Status AddDeviceOptions(const ServeOptions& options, const DeviceChoice& choice,
                              backends::DeviceConfig* config) {
  config->options = choice.options;
  const auto set = [config](const std::string& name, const std::string& value) {
    for (auto& [present, old] : config->options) {
      if (present != name) continue;
      old = value;
      return;
    }
    config->options.emplace_back(name, value);
  };
  if (choice.emulated) {
    if (!options.content.empty()) set("content", options.content);
    if (!options.clock.empty()) set("clock", options.clock);
  } else if (!options.content.empty() || !options.clock.empty()) {
    if (options.devices.size() == 1) {
      return InvalidArgumentError(
          "--content and --clock are for emulated devices; --device is \"%s\"", choice.name);
    }
  }
  for (const std::string& option : options.device_options) {
    std::string_view text = option;
    const size_t colon = text.find(':');
    const size_t sign = text.find('=');
    if (colon < sign) {
      if (text.substr(0, colon) != choice.name) continue;
      text.remove_prefix(colon + 1);
    }
    const size_t equals = text.find('=');
    set(std::string(text.substr(0, equals)), std::string(text.substr(equals + 1)));
  }
  return absl::OkStatus();
}

// What a device that plays says, over and over.
std::string ReplayIds(const tokenizer::Tokenizer& tokenizer) {
  tokenizer::EncodeOptions options;
  options.add_special = false;
  std::string ids;
  for (const TokenId token : tokenizer.Encode(kReplayText, options)) {
    if (!ids.empty()) ids += ',';
    ids += std::to_string(token);
  }
  return ids;
}

absl::StatusOr<backends::DeviceConfig> MakeDeviceConfig(const ServeOptions& options,
                                                        const DeviceChoice& choice,
                                                        ModelSource& source,
                                                        const tokenizer::Tokenizer& tokenizer) {
  backends::DeviceConfig config;
  config.device_index = options.device_index;
  config.threads = options.threads;
  config.kv_type = options.kv_type == "f16"    ? RETICLE_KV_TYPE_F16
                   : options.kv_type == "q8_0" ? RETICLE_KV_TYPE_Q8_0
                                               : RETICLE_KV_TYPE_DEFAULT;
  config.kv_block_tokens = options.kv_block_tokens;
  ASSIGN_OR_RETURN(config.kv_bytes, ParseByteSize(options.kv_size));
  config.context_limit = options.context;
  config.max_sequences = options.max_sequences;
  RETURN_IF_ERROR(AddDeviceOptions(options, choice, &config));
  const auto has = [&config](std::string_view name, std::string_view value = {}) {
    return std::any_of(config.options.begin(), config.options.end(), [&](const auto& option) {
      return option.first == name && (value.empty() || option.second == value);
    });
  };
  const bool plays = has("content", "replay");
  if (choice.name == "fake" || plays) {
    // It has no model of its own: it takes the shape of the one whose text it speaks.
    if (!has("vocab")) config.options.emplace_back("vocab", std::to_string(tokenizer.vocab_size()));
    if (plays && !has("params")) config.options.emplace_back("params", "ignore");
    if (plays && !has("replay_ids") && !has("replay_file")) {
      config.options.emplace_back("replay_ids", ReplayIds(tokenizer));
    }
    if (config.context_limit == 0 && !plays) {
      config.context_limit =
          static_cast<uint32_t>(source.metadata().GetUint("llama.context_length").value_or(4096));
    }
  } else if (choice.emulated) {
    ASSIGN_OR_RETURN(config.model_path, source.ImagePath());
  } else {
    if (source.is_image() && choice.name == "cpu") {
      return InvalidArgumentError("%s is a device image; --device cpu computes GGUF files",
                                  source.path());
    }
    config.model_path = source.path();
  }
  return config;
}

scheduler::EngineOptions MakeEngineOptions(const ServeOptions& options) {
  scheduler::EngineOptions engine;
  engine.step_token_budget = options.step_tokens;
  engine.max_waiting = options.max_waiting;
  // Flex and free traffic of servers with accounts (server/tenants/tier.h).
  if (options.tenants) engine.shed_priority = 20;
  engine.prefix_cache = options.prefix_cache;
  engine.run_ahead = options.run_ahead;
  engine.watchdog_ns = options.watchdog_ms < 0 ? -1 : options.watchdog_ms * 1'000'000;
  engine.failover_ns = options.failover_timeout_ms * 1'000'000;
  engine.fence_after = options.fence_after;
  engine.health_ns = 20'000'000;
  engine.idle_health_ns = 1'000'000'000;
  engine.reset_in_background = true;
  return engine;
}

std::string ModelIdOf(const ServeOptions& options) {
  if (!options.model_id.empty()) return options.model_id;
  if (options.model.empty()) return "house";
  std::string_view name = options.model;
  name = name.substr(name.rfind('/') + 1);
  if (name.ends_with(".gguf")) name.remove_suffix(5);
  if (name.ends_with(".rom")) name.remove_suffix(4);
  return std::string(name);
}

absl::Status CheckAdapterName(const std::string& name) {
  const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
  if (plain && !name.empty() && name.size() <= 64) return absl::OkStatus();
  return InvalidArgumentError(
      "the adapter's name is \"%s\"; it must be 1 to 64 letters, digits, '-', '_' or '.'",
      name.substr(0, 100));
}

}  // namespace

LoadedModel::~LoadedModel() = default;

std::string LoadedModel::NameOn(const std::string& name, size_t group) const {
  return group == 0 ? name : name + "@" + groups_[group]->name();
}

absl::StatusOr<std::unique_ptr<LoadedModel>> LoadedModel::Load(
    const ServeOptions& options, const std::vector<DeviceChoice>& choices, Clock& clock,
    const std::function<scheduler::EngineProbe*()>& add_engine, ModelRegistry& registry,
    LoopHost* loops) {
  std::unique_ptr<LoadedModel> model(new LoadedModel(ModelIdOf(options), registry));
  ModelEntry& common = model->common_;
  common.aliases = options.aliases;
  common.created_unix_s = UnixSeconds();

  ASSIGN_OR_RETURN(model->source_, ModelSource::Open(options.model));
  std::vector<std::string> devices = options.devices;
  if (devices.empty()) devices.push_back(DefaultDevice(options, *model->source_));
  std::vector<DeviceChoice> chosen;
  for (const std::string& device : devices) {
    ASSIGN_OR_RETURN(DeviceChoice choice, FindChoice(device, choices));
    for (const DeviceChoice& other : chosen) {
      if (other.name == choice.name) {
        return InvalidArgumentError("--device names \"%s\" twice; --cards says how many", device);
      }
    }
    chosen.push_back(std::move(choice));
  }
  const models::GgufFile& file = model->source_->metadata();
  ASSIGN_OR_RETURN(common.tokenizer, tokenizer::Tokenizer::Create(file));
  if (file.Has("tokenizer.chat_template")) {
    ASSIGN_OR_RETURN(const std::string_view text, file.GetString("tokenizer.chat_template"));
    auto chat_template = tokenizer::ChatTemplate::Create(text);
    if (chat_template.ok()) {
      common.chat_template = *std::move(chat_template);
    } else {
      LogWarning("the model's chat template cannot be used, so chat is refused: %s",
                 chat_template.status().message());
    }
  }
  for (DeviceChoice& choice : chosen) {
    DeviceGroup::Options group;
    ASSIGN_OR_RETURN(group.config,
                     MakeDeviceConfig(options, choice, *model->source_, *common.tokenizer));
    group.cards = options.cards != 0 ? options.cards : choice.cards;
    group.engine = MakeEngineOptions(options);
    group.choice = std::move(choice);
    ASSIGN_OR_RETURN(std::unique_ptr<DeviceGroup> opened,
                     DeviceGroup::Open(group, clock, add_engine));
    const uint32_t vocab = opened->dispatcher().capabilities().vocab_size;
    if (vocab < common.tokenizer->vocab_size()) {
      LogWarning(
          "device %s takes %d tokens and the tokenizer has %d: prompts with others are refused",
          opened->name(), vocab, common.tokenizer->vocab_size());
    }
    model->groups_.push_back(std::move(opened));
  }
  if (absl::Status status = model->Begin(options, loops); !status.ok()) {
    for (const auto& group : model->groups_) group->Stop();
    return status;
  }
  return model;
}

absl::Status LoadedModel::Begin(const ServeOptions& options, LoopHost* loops) {
  for (const auto& group : groups_) {
    RETURN_IF_ERROR(group->Start(options.engine_thread == "auto" ? loops : nullptr));
  }
  RETURN_IF_ERROR(AddEntries(nullptr));
  for (const AdapterOption& adapter : options.parsed_adapters) {
    RETURN_IF_ERROR(LoadAdapter(adapter.name, adapter.path, adapter.scale));
  }
  return absl::OkStatus();
}

std::shared_ptr<ModelEntry> LoadedModel::NewEntry(size_t group) const {
  auto entry = std::make_shared<ModelEntry>();
  scheduler::Dispatcher& dispatcher = groups_[group]->dispatcher();
  const reticle_capabilities& device = dispatcher.capabilities();
  const DeviceChoice& choice = groups_[group]->choice();
  entry->created_unix_s = common_.created_unix_s;
  entry->tokenizer = common_.tokenizer;
  entry->chat_template = common_.chat_template;
  entry->limits = LimitsOf(device, common_.tokenizer->vocab_size());
  const std::string_view hash = device.model_hash;
  entry->fingerprint = "fp_" + std::string(hash.empty() ? "unknown" : hash.substr(0, 12));
  entry->device = choice.name;
  entry->usd_per_million_tokens = choice.usd_per_million_tokens;
  entry->sink = std::make_unique<DispatcherSink>(dispatcher);
  return entry;
}

absl::Status LoadedModel::AddEntries(const Adapter* adapter) {
  const std::string& name = adapter != nullptr ? adapter->name : id_;
  for (size_t group = 0; group < groups_.size(); ++group) {
    std::shared_ptr<ModelEntry> entry = NewEntry(group);
    entry->id = NameOn(name, group);
    if (group == 0) {
      if (adapter == nullptr) entry->aliases = common_.aliases;
      entry->unlisted_alias = name + "@" + groups_[0]->name();
    }
    if (adapter != nullptr) {
      entry->adapter = adapter->id;
      entry->parent = NameOn(id_, group);
      entry->fingerprint += "_" + adapter->name;
    }
    if (absl::Status status = registry_.Add(std::move(entry)); !status.ok()) {
      RemoveEntries(name);
      return status;
    }
  }
  return absl::OkStatus();
}

void LoadedModel::RemoveEntries(const std::string& name) {
  for (size_t group = 0; group < groups_.size(); ++group) registry_.Remove(NameOn(name, group));
}

absl::Status LoadedModel::LoadAdapter(const std::string& name, const std::string& path,
                                      float scale) {
  RETURN_IF_ERROR(CheckAdapterName(name));
  MutexLock lock(mutex_);
  if (registry_.Find(name).ok()) {
    return AlreadyExistsError("model id \"%s\" is already served", name);
  }
  const Adapter adapter{name, path, scale, next_adapter_++};
  absl::Status status;
  size_t loaded = 0;
  for (; loaded < groups_.size() && status.ok(); ++loaded) {
    status = groups_[loaded]->LoadAdapter(adapter.id, path, scale);
  }
  if (status.ok()) status = AddEntries(&adapter);
  if (!status.ok()) {
    for (size_t group = 0; group < loaded; ++group) {
      groups_[group]->UnloadAdapter(adapter.id).IgnoreError();
    }
    return absl::Status(status.code(), absl::StrFormat("adapter %s: %s", name, status.message()));
  }
  adapters_.push_back(adapter);
  LogInfo("adapter %s is loaded from %s", name, path);
  return absl::OkStatus();
}

absl::Status LoadedModel::UnloadAdapter(const std::string& name) {
  MutexLock lock(mutex_);
  const auto found = std::find_if(adapters_.begin(), adapters_.end(),
                                  [&](const Adapter& adapter) { return adapter.name == name; });
  if (found == adapters_.end()) return NotFoundError("there is no adapter \"%s\"", name);
  // No new request finds it from here on.
  RemoveEntries(name);
  for (const auto& group : groups_) {
    const absl::Status status = group->UnloadAdapter(found->id);
    if (status.ok()) continue;
    // Cards that have let go of it take it again.
    for (const auto& again : groups_) {
      again->LoadAdapter(found->id, found->path, found->scale).IgnoreError();
    }
    AddEntries(&*found).IgnoreError();
    return absl::Status(status.code(), absl::StrFormat("adapter %s: %s", name, status.message()));
  }
  adapters_.erase(found);
  LogInfo("adapter %s is unloaded", name);
  return absl::OkStatus();
}

std::vector<LoadedModel::Adapter> LoadedModel::adapters() const {
  MutexLock lock(mutex_);
  return adapters_;
}

std::string LoadedModel::AdaptersOn(const scheduler::Engine& engine) const {
  std::string names;
  for (const Adapter& adapter : adapters()) {
    if (engine.SwapsAdapters() ? engine.current_adapter() != adapter.id
                               : !engine.AdapterLoaded(adapter.id)) {
      continue;
    }
    if (!names.empty()) names += ',';
    names += adapter.name;
  }
  return names;
}

bool LoadedModel::Works() const {
  return std::any_of(groups_.begin(), groups_.end(),
                     [](const auto& group) { return group->dispatcher().Healthy(); });
}

std::string LoadedModel::Describe() const {
  std::string text;
  for (size_t i = 0; i < groups_.size(); ++i) {
    const DeviceGroup& group = *groups_[i];
    const reticle_capabilities& device = group.dispatcher().capabilities();
    if (i > 0) text += "\n      ";
    text += absl::StrFormat(
        "%s on %d x %s: context %d, vocabulary %d, %d sequences, KV cache for %d tokens",
        NameOn(id_, i), group.cards().size(), group.name(), device.context_limit,
        std::min(device.vocab_size, common_.tokenizer->vocab_size()), device.max_sequences,
        device.kv_token_capacity);
    if (group.choice().usd_per_million_tokens.has_value()) {
      text +=
          absl::StrFormat(", %.3g USD per million tokens (%c)",
                          *group.choice().usd_per_million_tokens, group.choice().cost_provenance);
    }
  }
  return text;
}

}  // namespace reticle::server::cli
