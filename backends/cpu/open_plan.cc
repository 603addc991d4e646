#include "backends/cpu/open_plan.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "backends/kernels/cgroup.h"
#include "backends/kernels/cpu_count.h"
#include "base/status.h"

namespace reticle::backends::cpu {
namespace {

constexpr uint32_t kMaxThreads = 1024;
constexpr uint32_t kDefaultBlockTokens = 16;
constexpr uint32_t kMaxBlockTokens = 4096;
constexpr uint32_t kDefaultSequences = 64;
constexpr uint32_t kMaxSequences = 4096;
constexpr uint32_t kDefaultStepTokens = 512;
constexpr uint32_t kMaxStepTokens = 8192;
// Rows of logits beside one for each sequence: prompt log-probabilities of a step.
constexpr uint32_t kSpareLogitRows = 64;

absl::Status ReadOptions(const reticle_device_config& config, OpenPlan* plan) {
  if (config.option_count > 0 && config.options == nullptr) {
    return InvalidArgumentError("options is NULL with an option_count of %d", config.option_count);
  }
  for (size_t i = 0; i < config.option_count; ++i) {
    const reticle_option& option = config.options[i];
    if (option.name == nullptr || option.value == nullptr) {
      return InvalidArgumentError("options[%d] has a NULL name or value", i);
    }
    const std::string_view name = option.name;
    const std::string_view value = option.value;
    if (name == "step_tokens") {
      const char* end = value.data() + value.size();
      const auto [at, error] = std::from_chars(value.data(), end, plan->step_tokens);
      if (error != std::errc() || at != end || plan->step_tokens < 1 ||
          plan->step_tokens > kMaxStepTokens) {
        return InvalidArgumentError("option step_tokens is '%s'; it must be 1 to %d", value,
                                    kMaxStepTokens);
      }
    } else if (name == "populate") {
      if (value != "kv" && value != "none") {
        return InvalidArgumentError("option populate is '%s'; it must be kv or none", value);
      }
      plan->populate_kv = value == "kv";
    } else if (name == "packed") {
      if (value.empty()) return InvalidArgumentError("option packed is ''; it must name a folder");
      plan->packed_folder = value;
    } else if (name == "kv") {
      if (value != "f32") return InvalidArgumentError("option kv is '%s'; it must be f32", value);
      plan->kv.type = kernels::KvType::kF32;
    } else {
      return InvalidArgumentError(
          "option '%s' is not known; there are kv, packed, populate and step_tokens", name);
    }
  }
  return absl::OkStatus();
}

absl::Status ReadKvGeometry(const reticle_device_config& config, const models::LlamaConfig& model,
                            kernels::KvGeometry* kv) {
  kv->layers = model.layers;
  kv->kv_heads = model.kv_heads;
  kv->head_dim = model.head_dim;
  kv->block_tokens = config.kv_block_tokens == 0 ? kDefaultBlockTokens : config.kv_block_tokens;
  if (kv->block_tokens % kernels::kTilePositions != 0 || kv->block_tokens > kMaxBlockTokens) {
    return InvalidArgumentError("kv_block_tokens is %d; it must be a multiple of %d up to %d",
                                config.kv_block_tokens, kernels::kTilePositions, kMaxBlockTokens);
  }
  switch (config.kv_type) {
    case RETICLE_KV_TYPE_DEFAULT:
    case RETICLE_KV_TYPE_F16:
      kv->type = kernels::KvType::kF16;
      return absl::OkStatus();
    case RETICLE_KV_TYPE_Q8_0:
      kv->type = kernels::KvType::kQ8_0;
      if (model.head_dim % 32 == 0) return absl::OkStatus();
      return InvalidArgumentError(
          "kv_type Q8_0 needs heads whose size is a multiple of 32; this model's have %d",
          model.head_dim);
    default:
      return InvalidArgumentError("kv_type is %d; it must be %d to %d", config.kv_type,
                                  RETICLE_KV_TYPE_DEFAULT, RETICLE_KV_TYPE_Q8_0);
  }
}

// MemAvailable of /proc/meminfo, bytes.
std::optional<uint64_t> SystemMemory(const std::string& root) {
  std::ifstream file(root + "/proc/meminfo");
  for (std::string word; file >> word;) {
    uint64_t kib = 0;
    if (word == "MemAvailable:" && file >> kib) return kib * 1024;
  }
  return std::nullopt;
}

absl::Status PlanKvMemory(const reticle_device_config& config, const models::LlamaConfig& model,
                          uint64_t weight_bytes, uint64_t available, OpenPlan* plan) {
  const uint64_t activation_bytes = kernels::Forward::MemoryBytes(model, plan->forward);
  const uint64_t other_bytes = weight_bytes + activation_bytes;
  if (config.context_limit > model.context_length) {
    return InvalidArgumentError("context_limit is %d; the model was trained for %d",
                                config.context_limit, model.context_length);
  }
  const uint32_t context = config.context_limit == 0 ? model.context_length : config.context_limit;
  const uint64_t block = plan->kv.block_bytes();
  const uint64_t context_blocks = (context + plan->kv.block_tokens - 1) / plan->kv.block_tokens;
  uint64_t bytes = config.kv_bytes;
  if (bytes == 0) {
    // Room for every sequence at full length, but at most half of what is left, and 64 GiB.
    const uint64_t left = available > other_bytes ? available - other_bytes : 0;
    bytes = std::min({context_blocks * plan->max_sequences * block, left / 2, uint64_t{64} << 30});
    bytes = std::max(bytes, block);
  }
  if (bytes < block) {
    return InvalidArgumentError("kv_bytes is %d; one block of %d tokens takes %d", bytes,
                                plan->kv.block_tokens, block);
  }
  plan->kv_blocks = std::min<uint64_t>(bytes / block, std::numeric_limits<uint32_t>::max());
  plan->kv.run_end = plan->kv_blocks / kernels::kRunBlocks * kernels::kRunBlocks;
  const uint64_t capacity = plan->kv_blocks * plan->kv.block_tokens;
  if (config.context_limit > capacity) {
    return InvalidArgumentError(
        "context_limit is %d, but kv_bytes %d hold %d tokens; that context takes %d bytes",
        config.context_limit, bytes, capacity, context_blocks * block);
  }
  plan->context_limit = static_cast<uint32_t>(std::min<uint64_t>(context, capacity));
  const uint64_t needed = other_bytes + plan->kv_bytes();
  if (needed > available) {
    return ResourceExhaustedError(
        "the model needs %d bytes: weights %d, activations %d, KV %d; %d are available", needed,
        weight_bytes, activation_bytes, plan->kv_bytes(), available);
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t AvailableMemory(const std::string& root) {
  constexpr uint64_t kUnknown = std::numeric_limits<uint64_t>::max();
  return std::min(SystemMemory(root).value_or(kUnknown),
                  kernels::ReadCgroupLimits(root).memory_left);
}

absl::StatusOr<OpenPlan> MakeOpenPlan(const reticle_device_config& config,
                                      const models::LlamaConfig& model, uint64_t weight_bytes,
                                      uint64_t available_bytes) {
  OpenPlan plan;
  plan.step_tokens = kDefaultStepTokens;
  if (config.device_index != 0) {
    return InvalidArgumentError("device_index is %d; there is one CPU device, 0",
                                config.device_index);
  }
  if (config.threads > kMaxThreads) {
    return InvalidArgumentError("threads is %d; it must be at most %d", config.threads,
                                kMaxThreads);
  }
  plan.threads = config.threads == 0 ? kernels::DefaultThreads() : static_cast<int>(config.threads);
  plan.max_sequences = config.max_sequences == 0 ? kDefaultSequences : config.max_sequences;
  if (plan.max_sequences > kMaxSequences) {
    return InvalidArgumentError("max_sequences is %d; it must be at most %d", plan.max_sequences,
                                kMaxSequences);
  }
  RETURN_IF_ERROR(ReadKvGeometry(config, model, &plan.kv));
  RETURN_IF_ERROR(ReadOptions(config, &plan));
  plan.forward.max_tokens = plan.step_tokens + plan.max_sequences;
  plan.forward.max_logit_rows =
      std::min<size_t>(plan.max_sequences + kSpareLogitRows, plan.forward.max_tokens);
  RETURN_IF_ERROR(PlanKvMemory(config, model, weight_bytes, available_bytes, &plan));
  return plan;
}

}  // namespace reticle::backends::cpu
