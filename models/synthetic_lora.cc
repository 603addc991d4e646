#include "models/synthetic_lora.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "base/status.h"
#include "models/gguf_writer.h"
#include "models/quantization.h"

namespace reticle::models {
namespace {

// https://prng.di.unimi.it/splitmix64.c
uint64_t NextRandom(uint64_t& state) {
  state += 0x9e3779b97f4a7c15u;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

absl::Status AddTensor(const SyntheticLoraOptions& options, const std::string& name, uint64_t in,
                       uint64_t out, float deviation, uint64_t& random, GgufWriter& writer) {
  std::vector<float> values(in * out);
  const float width = deviation * std::sqrt(3.0f);  // of a uniform distribution, to either side
  for (float& value : values) {
    const auto uniform = static_cast<float>(NextRandom(random) >> 40) * 0x1p-24f;
    value = width * (2.0f * uniform - 1.0f);
  }
  ASSIGN_OR_RETURN(std::vector<std::byte> bytes, Quantize(options.type, values));
  const uint64_t shape[] = {in, out};
  writer.AddTensor(
      name, options.type, shape,
      [bytes = std::move(bytes)](const GgufWriter::Sink& sink) { return sink(bytes); });
  return absl::OkStatus();
}

absl::StatusOr<GgufWriter> SyntheticLora(const SyntheticLoraOptions& options) {
  GgufWriter writer;
  writer.AddString("general.type", "adapter");
  writer.AddString("general.architecture", "llama");
  writer.AddString("adapter.type", "lora");
  writer.AddFloat32("adapter.lora.alpha", options.alpha);
  uint64_t random = options.seed;
  const LlamaConfig& c = options.config;
  const auto add = [&](const std::string& name, uint64_t in, uint64_t out) -> absl::Status {
    const bool wanted = std::ranges::any_of(
        options.targets, [&](const std::string& target) { return name.ends_with(target); });
    if (!options.targets.empty() && !wanted) return absl::OkStatus();
    const float scale =
        options.alpha == 0.0f ? 1.0f : options.alpha / static_cast<float>(options.rank);
    const float a = 1.0f / std::sqrt(static_cast<float>(in));
    const float b = 0.5f / (scale * std::sqrt(static_cast<float>(options.rank)));
    RETURN_IF_ERROR(AddTensor(options, name + ".lora_a", in, options.rank, a, random, writer));
    return AddTensor(options, name + ".lora_b", options.rank, out, b, random, writer);
  };
  for (uint32_t i = 0; i < c.layers; ++i) {
    const std::string block = absl::StrFormat("blk.%d.", i);
    RETURN_IF_ERROR(add(block + "attn_q.weight", c.dim, c.q_dim()));
    RETURN_IF_ERROR(add(block + "attn_k.weight", c.dim, c.kv_dim()));
    RETURN_IF_ERROR(add(block + "attn_v.weight", c.dim, c.kv_dim()));
    RETURN_IF_ERROR(add(block + "attn_output.weight", c.q_dim(), c.dim));
    RETURN_IF_ERROR(add(block + "ffn_gate.weight", c.dim, c.ffn_dim));
    RETURN_IF_ERROR(add(block + "ffn_up.weight", c.dim, c.ffn_dim));
    RETURN_IF_ERROR(add(block + "ffn_down.weight", c.ffn_dim, c.dim));
  }
  RETURN_IF_ERROR(add("output.weight", c.dim, c.vocab_size));
  return writer;
}

}  // namespace

absl::StatusOr<std::vector<std::byte>> MakeSyntheticLora(const SyntheticLoraOptions& options) {
  ASSIGN_OR_RETURN(const GgufWriter writer, SyntheticLora(options));
  return writer.WriteBytes();
}

absl::Status WriteSyntheticLora(const SyntheticLoraOptions& options, const std::string& path) {
  ASSIGN_OR_RETURN(const GgufWriter writer, SyntheticLora(options));
  return writer.WriteFile(path);
}

}  // namespace reticle::models
