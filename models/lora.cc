#include "models/lora.h"

#include <cmath>
#include <map>
#include <string>
#include <string_view>

#include "base/status.h"

namespace reticle::models {
namespace {

std::string QuotedName(const GgufTensor& tensor) {
  constexpr size_t kLimit = 80;
  return "'" + std::string(tensor.name.substr(0, kLimit)) + "'";
}

absl::Status CheckKey(const GgufFile& file, std::string_view key, std::string_view wanted,
                      std::string_view what) {
  ASSIGN_OR_RETURN(const std::string_view value, file.GetString(key));
  if (value == wanted) return absl::OkStatus();
  return UnimplementedError("metadata '%s' is '%s'; only '%s' %s", key, value.substr(0, 80), wanted,
                            what);
}

// Where a matrix of the model has its pair, and its shape.
struct Place {
  LoraPair* pair;
  uint64_t in;
  uint64_t out;
};

std::map<std::string, Place, std::less<>> Places(const LlamaConfig& config, LoraWeights& weights) {
  std::map<std::string, Place, std::less<>> places;
  weights.layers.resize(config.layers);
  for (uint32_t i = 0; i < config.layers; ++i) {
    LoraLayer& layer = weights.layers[i];
    const std::string block = absl::StrFormat("blk.%d.", i);
    places[block + "attn_q.weight"] = {&layer.attn_q, config.dim, config.q_dim()};
    places[block + "attn_k.weight"] = {&layer.attn_k, config.dim, config.kv_dim()};
    places[block + "attn_v.weight"] = {&layer.attn_v, config.dim, config.kv_dim()};
    places[block + "attn_output.weight"] = {&layer.attn_output, config.q_dim(), config.dim};
    places[block + "ffn_gate.weight"] = {&layer.ffn_gate, config.dim, config.ffn_dim};
    places[block + "ffn_up.weight"] = {&layer.ffn_up, config.dim, config.ffn_dim};
    places[block + "ffn_down.weight"] = {&layer.ffn_down, config.ffn_dim, config.dim};
  }
  places["output.weight"] = {&weights.output, config.dim, config.vocab_size};
  return places;
}

absl::Status CheckPair(std::string_view name, const Place& place) {
  const LoraPair& pair = *place.pair;
  if (pair.a == nullptr && pair.b == nullptr) return absl::OkStatus();
  if (pair.a == nullptr || pair.b == nullptr) {
    return InvalidArgumentError("tensor '%s.lora_%s' is there, '%s.lora_%s' is missing", name,
                                pair.a == nullptr ? "b" : "a", name, pair.a == nullptr ? "a" : "b");
  }
  for (const GgufTensor* tensor : {pair.a, pair.b}) {
    if (tensor->shape.size() != 2) {
      return InvalidArgumentError("tensor %s has %d dimensions; it must have 2",
                                  QuotedName(*tensor), tensor->shape.size());
    }
  }
  const uint64_t rank = pair.a->shape[1];
  if (rank > kMaxLoraRank) {
    return InvalidArgumentError("tensor %s has rank %d; the limit is %d", QuotedName(*pair.a), rank,
                                kMaxLoraRank);
  }
  if (pair.a->shape[0] != place.in) {
    return InvalidArgumentError("tensor %s has rows of %d; the model's '%s' has %d",
                                QuotedName(*pair.a), pair.a->shape[0], name, place.in);
  }
  if (pair.b->shape[0] != rank || pair.b->shape[1] != place.out) {
    return InvalidArgumentError("tensor %s is %d x %d; rank and model ask for %d x %d",
                                QuotedName(*pair.b), pair.b->shape[0], pair.b->shape[1], rank,
                                place.out);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LoraWeights> ReadLora(const GgufFile& file, const LlamaConfig& config) {
  if (!file.Has("general.type")) {
    return InvalidArgumentError("metadata 'general.type' is missing: this is no adapter");
  }
  RETURN_IF_ERROR(CheckKey(file, "general.type", "adapter", "files are read as adapters"));
  RETURN_IF_ERROR(CheckKey(file, "general.architecture", "llama", "models are adapted"));
  RETURN_IF_ERROR(CheckKey(file, "adapter.type", "lora", "adapters are computed"));
  LoraWeights weights;
  ASSIGN_OR_RETURN(const double alpha, file.GetFloat("adapter.lora.alpha"));
  weights.alpha = static_cast<float>(alpha);
  if (!std::isfinite(weights.alpha)) {
    return InvalidArgumentError("metadata 'adapter.lora.alpha' is %g; it must be finite", alpha);
  }
  const auto places = Places(config, weights);
  bool any = false;
  for (const GgufTensor& tensor : file.tensors()) {
    constexpr size_t kSuffix = std::string_view(".lora_a").size();
    const bool is_a = tensor.name.ends_with(".lora_a");
    if (!is_a && !tensor.name.ends_with(".lora_b")) {
      return UnimplementedError("tensor %s is no part of a low-rank pair", QuotedName(tensor));
    }
    const auto place = places.find(tensor.name.substr(0, tensor.name.size() - kSuffix));
    if (place == places.end()) {
      return UnimplementedError(
          "tensor %s adapts what is no matrix of the model or cannot be adapted",
          QuotedName(tensor));
    }
    (is_a ? place->second.pair->a : place->second.pair->b) = &tensor;
    any = true;
  }
  if (!any) return InvalidArgumentError("the adapter holds no tensors");
  for (const auto& [name, place] : places) RETURN_IF_ERROR(CheckPair(name, place));
  return weights;
}

}  // namespace reticle::models
