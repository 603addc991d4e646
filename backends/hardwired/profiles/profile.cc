#include "backends/hardwired/profiles/profile.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/numbers.h"
#include "base/status.h"

namespace reticle::backends::hardwired {
namespace {

constexpr double kMaxRate = 1e12;
constexpr double kMaxTime = 1e9;
constexpr double kMaxTokens = 1 << 24;
constexpr double kMaxMoney = 1e9;

constexpr KeyInfo kInfos[] = {
    {Key::kDecodeRate, "timing.decode_rate", "tok/s", 1e-3, kMaxRate, false,
     "tokens of one stream alone"},
    {Key::kAggregateRate, "timing.aggregate_rate", "tok/s", 1e-3, kMaxRate, false,
     "tokens of all streams, saturated"},
    {Key::kPipelineDepth, "timing.pipeline_depth", "streams", 1, 65536, true,
     "streams in flight at full speed"},
    {Key::kContextTerm, "timing.context_term", "ns/position", 0, kMaxTime, false,
     "more for each position before a token"},
    {Key::kPrefillFixed, "timing.prefill_fixed", "us", 0, kMaxTime, false,
     "prefill, whatever its length"},
    {Key::kPrefillPerToken, "timing.prefill_per_token", "us", 0, kMaxTime, false,
     "prefill, each prompt token"},
    {Key::kPrefillChunk, "timing.prefill_chunk", "tokens", 1, kMaxTokens, true,
     "prompt tokens between two decode steps"},
    {Key::kAdapterSwap, "timing.adapter_swap", "us", 0, kMaxTime, false,
     "making another adapter current"},
    {Key::kLinkLatency, "timing.link_latency", "us", 0, kMaxTime, false, "host to device, one way"},
    {Key::kHostSampling, "timing.host_sampling", "us", 0, kMaxTime, false,
     "more for a token that the host samples"},
    {Key::kContext, "limits.context", "tokens", 2, kMaxTokens, true, "longest sequence"},
    {Key::kMaxSequences, "limits.max_sequences", "sequences", 1, 65536, true, "alive at once"},
    {Key::kRunAhead, "limits.run_ahead", "tokens", 1, 65536, true, "decoded without the host"},
    {Key::kMaxTopK, "limits.max_top_k", "tokens", 0, kMaxTokens, true,
     "top-k of the device's sampler; 0: any"},
    {Key::kAdapters, "limits.adapters", "adapters", 0, 65536, true, "loaded at once"},
    {Key::kKvMemory, "limits.kv_memory", "MiB", 0, 1e9, false, "KV memory of the device"},
    {Key::kParameters, "chip.parameters", "1e9 weights", 1e-3, 1e6, false,
     "weights that one chip holds"},
    {Key::kChips, "chip.chips", "chips", 1, 65536, true, "chips in the device"},
    {Key::kWeightBits, "chip.weight_bits", "bits", 1, 32, false, "of a weight, on average"},
    {Key::kMemory, "chip.memory", "GB", 0, 1e6, false, "memory of one chip"},
    {Key::kBandwidth, "chip.bandwidth", "TB/s", 0, 1e9, false, "memory bandwidth of one chip"},
    {Key::kProcess, "chip.process", "nm", 0.1, 1000, false, "process"},
    {Key::kDieArea, "chip.die_area", "mm2", 1, 1e6, false, "die"},
    {Key::kTransistors, "chip.transistors", "1e9", 1e-3, 1e6, false, "transistors"},
    {Key::kIdlePower, "power.idle", "W", 0, 1e7, false, "without work"},
    {Key::kActivePower, "power.active", "W", 0, 1e7, false, "at work"},
    {Key::kEnergyPerToken, "power.energy_per_token", "J", 0, 1e6, false, "as published"},
    {Key::kPrice, "price.device", "USD", 0, kMaxMoney, false, "of the device"},
    {Key::kListInput, "price.list_input", "USD/Mtok", 0, kMaxMoney, false, "list price, input"},
    {Key::kListOutput, "price.list_output", "USD/Mtok", 0, kMaxMoney, false, "list price, output"},
    {Key::kClaimedCost, "price.claimed_cost", "USD/Mtok", 0, kMaxMoney, false, "cost, as claimed"},
    {Key::kServerCards, "server.cards", "cards", 1, 1024, true, "devices in a server"},
    {Key::kServerPower, "server.power", "W", 0, 1e7, false, "of the whole server"},
    {Key::kServerPrice, "server.price", "USD", 0, kMaxMoney, false, "without its devices"},
    {Key::kMeasuredRate, "published.decode_rate", "tok/s", 0, kMaxRate, false,
     "another figure for one stream"},
    {Key::kTtft, "published.ttft", "ms", 0, kMaxTime, false, "first token, on the device"},
    {Key::kAggregate1k1k, "published.aggregate_1k_1k", "tok/s", 0, kMaxRate, false,
     "out, at 1,000 in and 1,000 out"},
    {Key::kAggregate128In, "published.aggregate_128_2048", "tok/s", 0, kMaxRate, false,
     "out, at 128 in and 2,048 out"},
    {Key::kAggregate2kIn, "published.aggregate_2048_128", "tok/s", 0, kMaxRate, false,
     "out, at 2,048 in and 128 out"},
};
static_assert(std::size(kInfos) == kKeyCount);

constexpr bool InOrder() {
  for (size_t i = 0; i < kKeyCount; ++i) {
    if (static_cast<size_t>(kInfos[i].key) != i) return false;
  }
  return true;
}
static_assert(InOrder());

}  // namespace

std::string_view ProvenanceName(Provenance provenance) {
  switch (provenance) {
    case Provenance::kVendor:
      return "vendor";
    case Provenance::kIndependent:
      return "independent";
    case Provenance::kPress:
      return "press";
    case Provenance::kInferred:
      return "inferred";
    case Provenance::kUnknown:
      break;
  }
  return "unknown";
}

std::string_view BatchingName(Batching batching) {
  switch (batching) {
    case Batching::kPipelined:
      return "pipelined";
    case Batching::kBatched:
      return "batched";
    case Batching::kUnlimited:
      break;
  }
  return "unlimited";
}

std::span<const KeyInfo> KeyInfos() { return kInfos; }

const KeyInfo& InfoOf(Key key) { return kInfos[static_cast<size_t>(key)]; }

absl::Status OverrideQuantity(std::string_view name, std::string_view value, Profile* profile) {
  const auto* info = std::find_if(std::begin(kInfos), std::end(kInfos),
                                  [&](const KeyInfo& candidate) { return name == candidate.name; });
  if (info == std::end(kInfos)) {
    return InvalidArgumentError("'%s' is no number of a profile", name);
  }
  double number = 0;
  if (!absl::SimpleAtod(std::string(value), &number) || !(number >= info->min) ||
      !(number <= info->max) || (info->is_integer && number != std::floor(number))) {
    return InvalidArgumentError("%s is '%s'; it must be %s in %g .. %g %s", name, value,
                                info->is_integer ? "a whole number" : "a number", info->min,
                                info->max, info->unit);
  }
  Quantity& quantity = (*profile)[info->key];
  quantity = Quantity();
  quantity.value = number;
  quantity.unit = info->unit;
  quantity.provenance = Provenance::kInferred;
  quantity.source = "set by the operator";
  return absl::OkStatus();
}

}  // namespace reticle::backends::hardwired
