#include "backends/fake/fake_options.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <variant>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/status.h"

namespace reticle::backends::fake {
namespace {

constexpr uint64_t kNoLimit = ~0ull;
constexpr uint32_t kMaxContext = 1u << 24;

struct NumberOption {
  const char* name;
  std::variant<uint32_t*, uint64_t*, bool*> value;
  uint64_t min;
  uint64_t max;
};

absl::Status SetNumber(const NumberOption& option, const std::string& text) {
  uint64_t number = 0;
  if (!absl::SimpleAtoi(text, &number) || number < option.min || number > option.max) {
    return InvalidArgumentError("option %s is '%s'; it must be a number in %u .. %u", option.name,
                                text, option.min, option.max);
  }
  std::visit([&](auto* value) { *value = static_cast<std::decay_t<decltype(*value)>>(number); },
             option.value);
  return absl::OkStatus();
}

absl::Status SetChoice(const char* name, const std::string& text, const char* when_true,
                       const char* when_false, bool* value) {
  if (text != when_true && text != when_false) {
    return InvalidArgumentError("option %s is '%s'; it must be %s or %s", name, text, when_true,
                                when_false);
  }
  *value = text == when_true;
  return absl::OkStatus();
}

absl::Status SetScript(const std::string& text, std::vector<uint32_t>* script) {
  script->clear();
  for (const auto& part : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    uint32_t token = 0;
    if (!absl::SimpleAtoi(part, &token)) {
      return InvalidArgumentError("option script holds '%s'; it must be token ids",
                                  std::string(part));
    }
    script->push_back(token);
  }
  return absl::OkStatus();
}

void OverrideIfSet(uint32_t from, uint32_t* to) {
  if (from != 0) *to = from;
}

void CopyText(std::string_view text, std::span<char> to) {
  const size_t length = std::min(text.size(), to.size() - 1);
  std::memcpy(to.data(), text.data(), length);
  to[length] = '\0';
}

// No image to hash: 64 hex digits that differ whenever the tokens would.
std::string ContentHash(const FakeContent& content) {
  uint64_t state = Mix(content.vocab_size, content.fast);
  for (const uint32_t token : content.script) state = Mix(state, token);
  std::string hash;
  for (int i = 0; i < 4; ++i) hash += absl::StrFormat("%016x", Mix(state, i));
  return hash;
}

}  // namespace

absl::StatusOr<FakeOptions> FakeOptions::FromConfig(const reticle_device_config& config) {
  FakeOptions options;
  constexpr uint64_t kMax32 = 1u << 30;
  const NumberOption numbers[] = {
      {"vocab", &options.content.vocab_size, 2, 1u << 24},
      {"context", &options.context_limit, 2, kMaxContext},
      {"block_tokens", &options.block_tokens, 1, 1u << 16},
      {"blocks", &options.blocks, 1, 1u << 22},
      {"max_sequences", &options.max_sequences, 1, 1u << 20},
      {"prefill_chunk", &options.prefill_chunk, 1, 1u << 24},
      {"credits", &options.credits, 1, kMax32},
      {"max_top_k", &options.max_top_k, 0, 1u << 24},
      {"step_ns", &options.step_ns, 0, 60'000'000'000},
      {"prefill_token_ns", &options.prefill_token_ns, 0, 60'000'000'000},
      {"adapter_swap_ns", &options.adapter_swap_ns, 0, 60'000'000'000},
      {"cheap_poll", &options.cheap_poll, 0, 1},
      {"event_fd", &options.event_fd, 0, 1},
      {"fail_open", &options.fail_open, 0, 1},
      {"fail_submit", &options.fail_submit, 0, kNoLimit},
      {"refuse_every", &options.refuse_every, 0, kNoLimit},
      {"error_token", &options.error_token, 0, kNoLimit},
      {"hang_step", &options.hang_step, 0, kNoLimit},
      {"lost_step", &options.lost_step, 0, kNoLimit},
  };
  if (config.option_count > 0 && config.options == nullptr) {
    return InvalidArgumentError("options is NULL with an option_count of %u", config.option_count);
  }
  for (size_t i = 0; i < config.option_count; ++i) {
    if (config.options[i].name == nullptr || config.options[i].value == nullptr) {
      return InvalidArgumentError("options[%u] has a NULL name or value", i);
    }
    const std::string name = config.options[i].name;
    const std::string value = config.options[i].value;
    const auto* number = std::find_if(std::begin(numbers), std::end(numbers),
                                      [&](const NumberOption& o) { return name == o.name; });
    if (number != std::end(numbers)) {
      RETURN_IF_ERROR(SetNumber(*number, value));
    } else if (name == "mode") {
      RETURN_IF_ERROR(SetChoice("mode", value, "paged", "slots", &options.paged));
    } else if (name == "content") {
      RETURN_IF_ERROR(SetChoice("content", value, "fast", "logits", &options.content.fast));
    } else if (name == "script") {
      RETURN_IF_ERROR(SetScript(value, &options.content.script));
    } else if (name == "name") {
      options.name = value;
    } else {
      return InvalidArgumentError("option '%s' is not known to the fake device", name);
    }
  }
  OverrideIfSet(config.context_limit, &options.context_limit);
  OverrideIfSet(config.kv_block_tokens, &options.block_tokens);
  OverrideIfSet(config.max_sequences, &options.max_sequences);
  if (options.context_limit < 2 || options.context_limit > kMaxContext) {
    return InvalidArgumentError("context_limit is %u; it must be in 2 .. %u", options.context_limit,
                                kMaxContext);
  }
  for (const uint32_t token : options.content.script) {
    if (token >= options.content.vocab_size) {
      return InvalidArgumentError("option script holds %u; it must be below the vocabulary's %u",
                                  token, options.content.vocab_size);
    }
  }
  if (options.max_top_k > options.content.vocab_size) {
    return InvalidArgumentError("option max_top_k is %u; it must be at most the vocabulary's %u",
                                options.max_top_k, options.content.vocab_size);
  }
  const std::string_view path = config.model_path != nullptr ? config.model_path : "fake";
  options.model_name = path.substr(path.rfind('/') + 1);
  return options;
}

reticle_capabilities FakeOptions::Capabilities() const {
  reticle_capabilities caps{};
  caps.struct_size = sizeof(caps);
  CopyText("fake", caps.device_name);
  CopyText("Reticle", caps.device_vendor);
  CopyText(model_name, caps.model_name);
  CopyText(ContentHash(content), caps.model_hash);
  caps.vocab_size = content.vocab_size;
  caps.context_limit = context_limit;
  caps.max_sequences = max_sequences;
  caps.kv_mode = paged ? RETICLE_KV_HOST_PAGED : RETICLE_KV_DEVICE_SLOTS;
  caps.kv_block_tokens = paged ? block_tokens : 0;
  caps.kv_block_count = paged ? blocks : 0;
  caps.kv_token_capacity = uint64_t{block_tokens} * blocks;
  caps.kv_bytes_per_token = sizeof(uint64_t);
  caps.max_prefill_chunk = prefill_chunk;
  caps.max_step_tokens = std::max(prefill_chunk, max_sequences);
  caps.pipeline_depth = max_sequences;
  caps.max_decode_credits = credits;
  caps.features = RETICLE_FEATURE_TEMPERATURE | RETICLE_FEATURE_ADAPTERS | RETICLE_FEATURE_RESET;
  if (!content.fast) {
    caps.features |= RETICLE_FEATURE_TOKEN_MASK | RETICLE_FEATURE_LOGPROBS |
                     RETICLE_FEATURE_PROMPT_LOGPROBS | RETICLE_FEATURE_LOGIT_BIAS |
                     RETICLE_FEATURE_PENALTIES | RETICLE_FEATURE_MIN_P | RETICLE_FEATURE_TOP_P |
                     RETICLE_FEATURE_MIN_TOKENS;
  }
  if (cheap_poll) caps.features |= RETICLE_FEATURE_CHEAP_POLL;
  caps.max_top_k = max_top_k;
  caps.max_logprobs = content.fast ? 0 : std::min(content.vocab_size, 20u) + 1;
  caps.max_stop_ids = 16;
  caps.max_adapters = 4;
  caps.adapter_swap_ns = adapter_swap_ns;
  caps.event_fd = -1;
  return caps;
}

}  // namespace reticle::backends::fake
