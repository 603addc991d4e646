#include "backends/hardwired/card/card_config.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "backends/hardwired/card/functional_content.h"
#include "backends/hardwired/card/image_content.h"
#include "backends/hardwired/card/replay_content.h"
#include "backends/hardwired/card/synthetic_compute.h"
#include "base/status.h"

namespace reticle::backends::hardwired {
namespace {

constexpr uint32_t kMaxCredits = 256;
constexpr uint32_t kMaxPrefillChunk = 1024;
constexpr uint32_t kMaxReplayTokens = 1u << 24;
constexpr uint64_t kMaxVocab = 1u << 24;
constexpr double kMebibyte = 1 << 20;

absl::Status SetChoice(std::string_view name, std::string_view value, std::string_view when_true,
                       std::string_view when_false, bool* flag) {
  if (value != when_true && value != when_false) {
    return InvalidArgumentError("option %s is '%s'; it must be %s or %s", name, value, when_true,
                                when_false);
  }
  *flag = value == when_true;
  return absl::OkStatus();
}

absl::Status SetNumber(std::string_view name, std::string_view value, uint64_t min, uint64_t max,
                       uint32_t* number) {
  ASSIGN_OR_RETURN(const uint64_t parsed, ParseOption(name, value, min, max));
  *number = static_cast<uint32_t>(parsed);
  return absl::OkStatus();
}

absl::Status ParseTokens(std::string_view name, const std::string& text,
                         std::vector<uint32_t>* tokens) {
  tokens->clear();
  for (const auto& part : absl::StrSplit(text, absl::ByAnyChar(", \t\r\n"), absl::SkipEmpty())) {
    uint32_t token = 0;
    if (!absl::SimpleAtoi(part, &token)) {
      return InvalidArgumentError("option %s holds '%s'; it must be token ids", name,
                                  std::string(part));
    }
    if (tokens->size() == kMaxReplayTokens) {
      return InvalidArgumentError("option %s holds more than %u token ids", name, kMaxReplayTokens);
    }
    tokens->push_back(token);
  }
  if (tokens->empty()) return InvalidArgumentError("option %s holds no token ids", name);
  return absl::OkStatus();
}

absl::Status ReadTokenFile(const std::string& path, std::vector<uint32_t>* tokens) {
  std::ifstream file(path);
  if (!file) return NotFoundError("option replay_file: %s: %s", path, std::strerror(errno));
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return ParseTokens("replay_file", text, tokens);
}

bool IsProfileNumber(std::string_view name) {
  for (const KeyInfo& info : KeyInfos()) {
    if (name == info.name) return true;
  }
  return false;
}

absl::StatusOr<std::unique_ptr<Content>> OpenContent(const CardConfig& config, uint32_t context,
                                                     uint32_t sequences) {
  if (config.replay) {
    ReplayOptions options;
    options.vocab_size = config.vocab_size;
    options.text = config.replay_text;
    options.answer_tokens = config.replay_tokens;
    options.ignores_parameters = config.ignores_parameters;
    const std::string& path = config.image_path;
    options.model_name = path.empty() ? "replay" : path.substr(path.rfind('/') + 1);
    return ReplayContent::Create(std::move(options));
  }
  if (config.synthetic) {
    SyntheticOptions options;
    options.vocab_size = config.vocab_size;
    options.context_limit = context;
    options.slots = sequences;
    return std::make_unique<FunctionalContent>(std::make_unique<SyntheticCompute>(options),
                                               nullptr);
  }
  if (config.image_path.empty()) {
    return InvalidArgumentError(
        "functional content needs a device image (model_path); reticle tapeout makes one");
  }
  return OpenImageContent({config.image_path, sequences, config.context_limit, config.threads});
}

void CopyText(std::string_view text, std::span<char> to) {
  const size_t length = std::min(text.size(), to.size() - 1);
  std::copy_n(text.data(), length, to.data());
  to[length] = '\0';
}

uint32_t SimulatedOr(const Profile& profile, Key key, uint32_t other) {
  return static_cast<uint32_t>(profile[key].simulated_or(other));
}

void LimitSampling(const CardConfig& config, CardParts* parts) {
  reticle_capabilities& caps = parts->capabilities;
  parts->device_top_k = SimulatedOr(parts->profile, Key::kMaxTopK, 0);
  if (parts->device_top_k == 0) return;
  caps.default_top_k = std::min(parts->device_top_k, caps.vocab_size);
  if (!config.strict_sampling && parts->profile.host_sampling) return;
  caps.features &= RETICLE_FEATURE_TEMPERATURE;
  caps.max_logprobs = 0;
  caps.max_top_k = caps.default_top_k;
}

}  // namespace

absl::StatusOr<uint64_t> ParseOption(std::string_view name, std::string_view value, uint64_t min,
                                     uint64_t max) {
  uint64_t number = 0;
  if (!absl::SimpleAtoi(std::string(value), &number) || number < min || number > max) {
    return InvalidArgumentError("option %s is '%s'; it must be a number in %u .. %u", name, value,
                                min, max);
  }
  return number;
}

absl::StatusOr<bool> CardConfig::Set(const std::string& name, const std::string& value) {
  absl::Status status;
  if (name == "profile") {
    profile_name = value;
  } else if (name == "content") {
    status = SetChoice(name, value, "replay", "functional", &replay);
  } else if (name == "compute") {
    status = SetChoice(name, value, "synthetic", "image", &synthetic);
  } else if (name == "clock") {
    status = SetChoice(name, value, "virtual", "wall", &virtual_clock);
  } else if (name == "sampling") {
    status = SetChoice(name, value, "strict", "profile", &strict_sampling);
  } else if (name == "params") {
    status = SetChoice(name, value, "ignore", "strict", &ignores_parameters);
  } else if (name == "image") {
    image_path = value;
  } else if (name == "vocab") {
    status = SetNumber(name, value, 2, kMaxVocab, &vocab_size);
  } else if (name == "replay_ids") {
    status = ParseTokens(name, value, &replay_text);
  } else if (name == "replay_file") {
    status = ReadTokenFile(value, &replay_text);
  } else if (name == "replay_tokens") {
    status = SetNumber(name, value, 0, UINT32_MAX, &replay_tokens);
  } else if (name == "replay_kv_bytes") {
    status = SetNumber(name, value, 0, UINT32_MAX, &replay_kv_bytes);
  } else if (name == "scrub_ms") {
    status = SetNumber(name, value, 0, 86'400'000, &scrub_ms);
  } else if (name == "context_limit") {
    status = SetNumber(name, value, 0, UINT32_MAX, &context_limit);
  } else if (name == "max_sequences") {
    status = SetNumber(name, value, 0, UINT32_MAX, &max_sequences);
  } else if (name == "threads") {
    status = SetNumber(name, value, 0, 1024, &threads);
  } else if (name == "kv_bytes") {
    const auto number = ParseOption(name, value, 0, UINT64_MAX);
    status = number.status();
    if (number.ok()) kv_bytes = *number;
  } else if (IsProfileNumber(name)) {
    overrides.emplace_back(name, value);
  } else {
    return false;
  }
  RETURN_IF_ERROR(status);
  return true;
}

std::vector<std::pair<std::string, std::string>> CardConfig::ToOptions() const {
  std::vector<std::pair<std::string, std::string>> options = overrides;
  const auto add = [&](const char* name, std::string value) {
    options.emplace_back(name, std::move(value));
  };
  add("profile", profile_name);
  add("content", replay ? "replay" : "functional");
  add("compute", synthetic ? "synthetic" : "image");
  add("clock", virtual_clock ? "virtual" : "wall");
  add("sampling", strict_sampling ? "strict" : "profile");
  add("params", ignores_parameters ? "ignore" : "strict");
  if (!image_path.empty()) add("image", image_path);
  add("vocab", std::to_string(vocab_size));
  if (!replay_text.empty()) {
    std::string ids;
    for (const uint32_t token : replay_text) ids += std::to_string(token) + ",";
    add("replay_ids", std::move(ids));
  }
  add("replay_tokens", std::to_string(replay_tokens));
  add("replay_kv_bytes", std::to_string(replay_kv_bytes));
  add("scrub_ms", std::to_string(scrub_ms));
  add("context_limit", std::to_string(context_limit));
  add("max_sequences", std::to_string(max_sequences));
  add("threads", std::to_string(threads));
  add("kv_bytes", std::to_string(kv_bytes));
  return options;
}

absl::StatusOr<CardParts> BuildCard(const CardConfig& config) {
  ASSIGN_OR_RETURN(Profile profile, LoadProfile(config.profile_name));
  for (const auto& [name, value] : config.overrides) {
    RETURN_IF_ERROR(OverrideQuantity(name, value, &profile));
  }
  ASSIGN_OR_RETURN(const TimingModel timing, TimingModel::Create(profile));
  CardParts parts{std::move(profile), timing, nullptr, {}, 0};
  const uint32_t context = SimulatedOr(parts.profile, Key::kContext, 4096);
  uint32_t sequences = SimulatedOr(parts.profile, Key::kMaxSequences, 32);
  if (config.max_sequences != 0) sequences = std::min(sequences, config.max_sequences);
  if (config.context_limit > context) {
    return InvalidArgumentError("context_limit is %u; the profile %s allows at most %u",
                                config.context_limit, parts.profile.name, context);
  }
  ASSIGN_OR_RETURN(parts.content, OpenContent(config, context, sequences));

  reticle_capabilities& caps = parts.capabilities;
  caps.struct_size = sizeof(caps);
  parts.content->Describe(&caps);
  if (config.replay) caps.kv_bytes_per_token = config.replay_kv_bytes;
  CopyText(parts.profile.name, caps.device_name);
  CopyText(parts.profile.vendor, caps.device_vendor);
  caps.context_limit = std::min(caps.context_limit, context);
  if (config.context_limit > caps.context_limit) {
    return InvalidArgumentError("context_limit is %u; the image allows at most %u",
                                config.context_limit, caps.context_limit);
  }
  if (config.context_limit != 0) caps.context_limit = config.context_limit;
  if (caps.context_limit < 2) {
    return InvalidArgumentError("context_limit is %u; it must be at least 2", caps.context_limit);
  }
  caps.max_sequences = std::min(caps.max_sequences, sequences);
  caps.kv_mode = RETICLE_KV_DEVICE_SLOTS;
  caps.kv_token_capacity = uint64_t{caps.max_sequences} * caps.context_limit;
  if (caps.kv_bytes_per_token > 0) {
    double bytes = parts.profile[Key::kKvMemory].simulated_or(0) * kMebibyte;
    if (config.kv_bytes > 0) bytes = static_cast<double>(config.kv_bytes);
    if (bytes > 0) {
      const double tokens = bytes / static_cast<double>(caps.kv_bytes_per_token);
      const auto fit = static_cast<uint64_t>(std::min(tokens, 1e15));
      caps.kv_token_capacity = std::clamp<uint64_t>(fit, 1, caps.kv_token_capacity);
    }
  }
  caps.max_prefill_chunk = std::min(kMaxPrefillChunk, caps.context_limit);
  caps.max_step_tokens = std::max(4 * caps.max_prefill_chunk, caps.max_sequences);
  caps.pipeline_depth = timing.batching() == Batching::kPipelined ? timing.pipeline_depth() : 0;
  caps.max_decode_credits =
      std::min(SimulatedOr(parts.profile, Key::kRunAhead, kMaxCredits), kMaxCredits);
  caps.max_adapters = SimulatedOr(parts.profile, Key::kAdapters, 0);
  caps.adapter_swap_ns = static_cast<uint64_t>(timing.adapter_swap().nanos());
  caps.event_fd = -1;
  LimitSampling(config, &parts);
  caps.features |= RETICLE_FEATURE_RESET;
  if (caps.max_adapters > 0) caps.features |= RETICLE_FEATURE_ADAPTERS;
  return parts;
}

}  // namespace reticle::backends::hardwired
